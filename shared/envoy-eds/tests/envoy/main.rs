//! The crate against a real Envoy, in front of small HTTP servers on loopback.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod lab;
mod server;
mod size;
mod traffic;
