//! What measurements say about a new version of an application: pure statistics, no I/O, no clock.
//!
//! Every check has one of three verdicts. `Fail` and `Pass` are said only where the measurements show it with
//! the certainty that was asked for; otherwise it is `Inconclusive`, and one has to look again.
//! [`increase`] compares two proportions by their counts, [`shift`] the numbers of single Servers by their ranks, [`Condition`] judges one
//! number.

mod condition;
mod limits;
mod proportion;
mod shift;

pub use condition::Condition;
pub use proportion::{Counts, Increase, increase};
pub use shift::shift;

/// The probability of an error at each of so many looks, so that over all of them together it is at most `alpha`.
///
/// Every look gets the same share, because how many there can be is known before the first one. Shares that fall from look to look
/// would suit looks without an end, but they give least to the late looks, which have most data.
#[must_use]
pub fn alpha_of_one_look(alpha: f64, looks: u32) -> f64 {
    alpha / f64::from(looks.max(1))
}
