//! The webhook from outside: requests in, answers out.
#![cfg(test)]

#[allow(
    unreachable_pub,
    clippy::pedantic,
    reason = "borrowed from the tests of the life cycle, of which this uses a part"
)]
#[path = "../../../shared/core/tests/support/mod.rs"]
mod life;
mod requests;
mod router;
mod secret;
mod tls;
mod walk;
