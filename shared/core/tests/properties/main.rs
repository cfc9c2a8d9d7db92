//! What holds of every Server, whatever is declared and whatever happens to it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::format_push_string,
    reason = "a test that cannot go on says where"
)]

mod any;
mod documents;
mod lives;
#[path = "../support/mod.rs"]
mod support;
