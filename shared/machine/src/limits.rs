//! Time limits that several operations share.

use std::time::Duration;

/// How long an operation waits for another run of itself on the same machine, in seconds. Short: such a run is a rare
/// remnant of a broken connection, and the task is retried anyway.
pub(crate) const LOCK_SECONDS: &str = "10";

/// What an operation needs besides its download (unpacking, switching links), in seconds.
const AFTER_DOWNLOAD_SECONDS: u64 = 5;

/// The limit for a download, in whole seconds: the operation's own limit less the time for the rest of it.
pub(crate) fn download_seconds(timeout: Duration) -> String {
    timeout.as_secs().saturating_sub(AFTER_DOWNLOAD_SECONDS).max(1).to_string()
}
