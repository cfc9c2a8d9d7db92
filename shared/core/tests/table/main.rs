//! The rules of the life cycle, one by one.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::format_push_string,
    reason = "a test that cannot go on says where"
)]

mod claims;
mod decisions;
mod facts;
mod gates;
mod guards;
mod lost;
mod plans;
mod reports;
mod retirement;
mod settling;
mod summaries;
#[path = "../support/mod.rs"]
mod support;
mod trust;
mod wishes;
mod writes;
