//! What measurements say about a new version of an application: pure statistics, no I/O, no clock.
//!
//! Every check has one of three verdicts. [`Verdict::Fail`] and [`Verdict::Pass`] are said only where the measurements show it with
//! the certainty that was asked for; otherwise it is [`Verdict::Inconclusive`], and one has to look again.
//! [`increase`] compares two proportions by their counts, [`Condition`] judges one number.

mod condition;
mod limits;
mod proportion;

pub use condition::Condition;
pub use proportion::{Counts, Increase, increase};

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What was measured is within what is tolerated.
    Pass,
    /// What was measured is beyond what is tolerated.
    Fail,
    /// Too little was measured to say either.
    Inconclusive,
}

/// The probability of an error at each of so many looks, so that over all of them together it is at most `alpha`.
///
/// Every look gets the same share, because how many there can be is known before the first one. Shares that fall from look to look
/// would suit looks without an end, but they give least to the late looks, which have most data.
#[must_use]
pub fn alpha_of_one_look(alpha: f64, looks: u32) -> f64 {
    alpha / f64::from(looks.max(1))
}
