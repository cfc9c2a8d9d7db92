//! Numbers of single Servers compared, such as their latencies: by how much those with the new version are higher.
//!
//! By ranks, after Mann and Whitney (1947) and Hodges and Lehmann (1963): one Server that is far off counts no more than one that is a
//! little off, and no distribution is assumed.

use crate::Increase;

/// Servers of one side that are compared at most: enough to find any shift that matters, few enough to be computed exactly.
const MOST: usize = 64;

/// Between which limits the numbers of `canary` are shifted against those of `baseline`; none if there are too few of them for so
/// small an `alpha`, whatever the numbers are.
///
/// Each limit is wrong with a probability of at most `alpha`, if the numbers of the Servers are independent of each other and those of
/// both sides are distributed alike but for the shift.
#[must_use]
pub fn shift(canary: &[f64], baseline: &[f64], alpha: f64) -> Option<Increase> {
    let (canary, baseline) = (thinned(canary), thinned(baseline));
    let rank = rank(canary.len(), baseline.len(), alpha)?;
    let mut differences: Vec<f64> = canary.iter().flat_map(|new| baseline.iter().map(move |old| new - old)).collect();
    differences.sort_by(f64::total_cmp);
    Some(Increase { low: *differences.get(rank)?, high: *differences.get(differences.len().checked_sub(rank + 1)?)? })
}

/// The numbers, or evenly chosen ones if there are many. They are chosen by their places, never by what they are.
fn thinned(numbers: &[f64]) -> Vec<f64> {
    let taken = numbers.len().min(MOST);
    (0..taken).filter_map(|i| numbers.get(i * numbers.len() / taken).copied()).collect()
}

/// The highest rank (from 0) of a difference that is above the true shift with a probability of at most `alpha`.
fn rank(m: usize, n: usize, alpha: f64) -> Option<usize> {
    let mut below = 0.0;
    let ranks = distribution(m, n).into_iter().take_while(|p| {
        below += p;
        below <= alpha
    });
    ranks.count().checked_sub(1)
}

/// The probabilities of each number of pairs in which the first of `m` and `n` alike numbers is lower. Empty without any number.
///
/// The highest of all numbers is of the first side with the probability m / (m + n), and then it is lower than none of the `n`.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
fn distribution(m: usize, n: usize) -> Vec<f64> {
    if m == 0 || n == 0 {
        return Vec::new();
    }
    // rows[j] is the distribution for i and j numbers; i rises.
    let mut rows: Vec<Vec<f64>> = vec![vec![1.0]; n + 1];
    for i in 1..=m {
        rows[0] = vec![1.0];
        for j in 1..=n {
            let (first, second) = (i as f64 / (i + j) as f64, j as f64 / (i + j) as f64);
            let mut next = vec![0.0; i * j + 1];
            for (u, p) in rows[j].iter().enumerate() {
                next[u] += first * p;
            }
            for (u, p) in rows[j - 1].iter().enumerate() {
                next[u + i] += second * p;
            }
            rows[j] = next;
        }
    }
    rows.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use berth_core::api::CheckVerdict;

    use super::*;

    /// Probabilities that SciPy has computed. The file says how.
    const GOLDEN: &str = include_str!("../tests/ranks.tsv");

    #[test]
    fn the_distribution_is_the_one_that_scipy_computes() {
        let mut compared = 0;
        for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
            let mut fields = line.split('\t');
            let mut whole = || fields.next().unwrap().parse::<usize>().unwrap();
            let (m, n, u) = (whole(), whole(), whole());
            let expected: f64 = fields.next().unwrap().parse().unwrap();
            let found: f64 = distribution(m, n)[..=u].iter().sum();
            assert!((found - expected).abs() <= 1e-12 + 1e-9 * expected, "{line}: {found}");
            compared += 1;
        }
        assert_eq!(compared, 40);
    }

    #[test]
    fn one_server_alone_and_a_few_against_a_few_say_nothing() {
        let old: Vec<f64> = (0..95).map(f64::from).collect();
        assert_eq!(shift(&[1e9], &old, 0.001), None);
        assert_eq!(shift(&[1e9, 1e9], &old[..10], 0.001), None);
        assert_eq!(shift(&[], &old, 0.1), None);
        assert_eq!(shift(&old, &[], 0.1), None);
    }

    #[test]
    fn a_shift_is_found_and_one_server_far_off_is_none() {
        let old: Vec<f64> = (0..95).map(|i| 100.0 + f64::from(i) / 10.0).collect();
        let new = |by: f64| [101.0, 102.0, 104.0, 106.0, 108.0].map(|x| x + by);
        let judge = |new: &[f64]| shift(new, &old, 0.001).unwrap().judge(5.0);
        assert_eq!(judge(&new(0.0)), CheckVerdict::Pass);
        assert_eq!(judge(&new(5.0)), CheckVerdict::Inconclusive);
        assert_eq!(judge(&new(20.0)), CheckVerdict::Fail);
        let mut far_off = new(0.0);
        far_off[4] = 1e9;
        assert_ne!(judge(&far_off), CheckVerdict::Fail);
        let many: Vec<f64> = old.iter().map(|x| x + 0.5).collect();
        assert_eq!(judge(&many), CheckVerdict::Pass);
    }
}
