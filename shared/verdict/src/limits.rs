//! Confidence limits of a proportion, from counts.
//!
//! These are the limits of Clopper and Pearson (1934): the true proportion is beyond the limit with a probability of at most `alpha`,
//! whatever it is and however few counts there are. Approximate ones (normal, Wilson) break that promise where errors are
//! rare, which is where it matters.

use special::Beta as _;

/// More counts than this are scaled down to it: the limits become a little wider, and their computation stays quick.
const MOST: f64 = 1e9;

/// Newton's method needs about six rounds; this many are enough even if each of them only halves the interval.
const ROUNDS: usize = 100;

/// The solution is found to this part of itself, and as much is added towards the careful side.
const PRECISION: f64 = 1e-10;

/// The lower limit: a proportion this low or lower shows `bad` or more of `total` with a probability of at most `alpha`.
pub(crate) fn lower(bad: f64, total: f64, alpha: f64) -> f64 {
    let scale = (MOST / total).min(1.0);
    let (bad, total) = (bad * scale, total * scale);
    if bad <= 0.0 {
        return 0.0;
    }
    quantile(bad, total - bad + 1.0, alpha) * (1.0 - PRECISION)
}

/// The upper limit: a proportion this high or higher shows `bad` or fewer of `total` with a probability of at most `alpha`.
pub(crate) fn upper(bad: f64, total: f64, alpha: f64) -> f64 {
    1.0 - lower(total - bad, total, alpha)
}

/// Where the beta distribution with these parameters has the probability `alpha` below it.
///
/// The logarithm of the distribution is concave, so Newton's method on it comes closer in every round; should rounding lead it out of
/// the interval that holds the solution, that is halved.
fn quantile(p: f64, q: f64, alpha: f64) -> f64 {
    let ln_beta = p.ln_beta(q);
    let (mut low, mut high, mut x) = (0.0, 1.0, p / (p + q));
    for _ in 0..ROUNDS {
        let below = x.inc_beta(p, q, ln_beta);
        if below < alpha {
            low = x;
        } else {
            high = x;
        }
        let density = ((p - 1.0) * x.ln() + (q - 1.0) * (1.0 - x).ln() - ln_beta).exp();
        let next = x - (below.ln() - alpha.ln()) * below / density;
        let next = if next > low && next < high { next } else { f64::midpoint(low, high) };
        if (next - x).abs() <= PRECISION * x {
            return next;
        }
        x = next;
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limits that SciPy has computed. The file says how.
    const GOLDEN: &str = include_str!("../tests/limits.tsv");

    #[test]
    fn the_limits_are_those_that_scipy_computes() {
        let mut compared = 0;
        for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
            let numbers: Vec<f64> = line.split('\t').map(|number| number.parse().unwrap()).collect();
            let [bad, total, alpha, low, high] = numbers[..] else { panic!("{line}") };
            for (limit, expected) in [(lower(bad, total, alpha), low), (upper(bad, total, alpha), high)] {
                assert!((limit - expected).abs() <= 1e-9 + 1e-8 * expected, "{line}: {limit}");
            }
            compared += 1;
        }
        assert!(compared > 50);
    }

    #[test]
    fn many_counts_are_scaled_down_and_stay_on_the_careful_side() {
        let (low, high) = (lower(2e10, 1e12, 0.01), upper(2e10, 1e12, 0.01));
        assert!(low > 0.0199 && low < 0.02 && high > 0.02 && high < 0.0201, "{low} {high}");
    }
}
