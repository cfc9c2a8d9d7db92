//! The time of tests.

use k8s_openapi::jiff::Timestamp;

/// Duration of locks, in seconds.
pub const LOCK: i32 = 30;

/// The time at which every test begins.
pub fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}
