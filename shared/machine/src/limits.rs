//! Time limits that several operations share.

use std::time::Duration;

/// How long an operation waits until no other script changes the machine, in seconds. A script whose client is gone is killed
/// after 4 s, and a package manager may take longer to end.
pub(crate) const LOCK_SECONDS: u64 = 30;

/// What an operation needs besides its download (unpacking, switching links), in seconds.
const AFTER_DOWNLOAD_SECONDS: u64 = 5;

/// The limit for a download, in whole seconds: the operation's own limit less the time for the rest of it.
pub(crate) fn download_seconds(timeout: Duration) -> String {
    timeout.as_secs().saturating_sub(AFTER_DOWNLOAD_SECONDS).max(1).to_string()
}
