//! The rules of the life cycle, one by one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where")]

mod approvals;
mod claims;
mod decisions;
mod facts;
mod force_and_retry;
mod gates;
mod guards;
mod hand_over;
mod hold_causes;
mod plans;
mod refusals;
mod reports;
mod retirement;
mod summaries;
mod task_list;
mod trust;
mod unreachable;
mod upgrades;
mod writes;
