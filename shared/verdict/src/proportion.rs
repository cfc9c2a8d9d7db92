//! Two proportions compared: by how much more often something bad happens with the new version than with the old one.

use berth_core::api::CheckVerdict;

use crate::limits;

/// How often something happened, and how often it was bad.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// How often it was bad.
    pub bad: f64,
    /// How often it happened.
    pub total: f64,
}

impl Counts {
    /// The proportion that was measured; none if nothing happened.
    #[must_use]
    pub fn rate(self) -> Option<f64> {
        (self.total > 0.0).then(|| self.bad / self.total)
    }

    /// Counts may be fractions, because Prometheus extrapolates. They are rounded to the side on which less is claimed.
    fn at_least(self, alpha: f64) -> f64 {
        limits::lower(self.bad.floor(), self.total.ceil(), alpha)
    }

    fn at_most(self, alpha: f64) -> f64 {
        let bad = self.bad.ceil();
        limits::upper(bad, self.total.floor().max(bad), alpha)
    }
}

/// Between which limits the new value minus the old one lies, of a proportion or a shift.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Increase {
    /// It is lower than this with a probability of at most `alpha`.
    pub low: f64,
    /// It is higher than this with a probability of at most `alpha`.
    pub high: f64,
}

impl Increase {
    /// Fail if even the lower limit is more than what is tolerated, Pass only if even the higher one is not.
    #[must_use]
    pub fn judge(self, tolerated: f64) -> CheckVerdict {
        if self.low > tolerated {
            CheckVerdict::Fail
        } else if self.high <= tolerated {
            CheckVerdict::Pass
        } else {
            CheckVerdict::Inconclusive
        }
    }
}

/// By how much the proportion of `canary`, which has the new version, exceeds that of `baseline`.
///
/// The promise of `alpha` holds whatever the proportions are and however few counts there are, as long as what is counted happens
/// independently: a limit of the difference is wrong only if the limit of one of the two proportions is, and each of these is
/// with a probability of at most `alpha / 2`.
#[must_use]
pub fn increase(canary: Counts, baseline: Counts, alpha: f64) -> Increase {
    let each = alpha / 2.0;
    Increase {
        low: canary.at_least(each) - baseline.at_most(each),
        high: canary.at_most(each) - baseline.at_least(each),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(bad: f64, total: f64) -> Counts {
        Counts { bad, total }
    }

    #[test]
    fn a_verdict_is_said_only_where_the_counts_show_it() {
        let baseline = counts(1000.0, 100_000.0);
        for (canary, expected) in [
            (counts(0.0, 0.0), CheckVerdict::Inconclusive),
            (counts(0.0, 100.0), CheckVerdict::Inconclusive),
            (counts(3.0, 100.0), CheckVerdict::Inconclusive),
            (counts(100.0, 10_000.0), CheckVerdict::Pass),
            (counts(200.0, 10_000.0), CheckVerdict::Fail),
            (counts(20.0, 20.0), CheckVerdict::Fail),
        ] {
            let found = increase(canary, baseline, 0.01);
            assert_eq!(found.judge(0.005), expected, "{canary:?}: {found:?}");
        }
        assert_eq!(increase(counts(9.0, 9.0), counts(0.0, 0.0), 0.01).judge(0.005), CheckVerdict::Inconclusive);
    }

    #[test]
    fn fractions_are_rounded_to_the_side_on_which_less_is_claimed() {
        let baseline = counts(10.0, 1000.0);
        let (whole, fraction) =
            (increase(counts(5.0, 100.0), baseline, 0.01), increase(counts(5.4, 100.3), baseline, 0.01));
        assert!(fraction.low <= whole.low && fraction.high >= whole.high, "{fraction:?} {whole:?}");
        let (low, high) =
            (increase(counts(5.0, 101.0), baseline, 0.01).low, increase(counts(6.0, 100.0), baseline, 0.01).high);
        assert_eq!((fraction.low, fraction.high), (low, high));
    }
}
