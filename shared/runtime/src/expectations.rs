//! Own writes that the cache has not shown yet.

use std::{collections::HashMap, time::Duration};

use berth_core::api::Server;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cache::resource_version;

/// How long the cache is waited for. It shows a write within milliseconds, and a watch that stands still within some minutes; but after
/// etcd was restored it never shows it. Who acts too early has its write refused.
const LONGEST: Duration = Duration::from_mins(1);

/// The versions of Servers that this process has written and that the cache may not have shown yet: until then a Server from
/// the cache is out of date, and acting on it would only repeat what is done.
#[derive(Debug, Default)]
pub struct Expectations(Mutex<HashMap<String, Expected>>);

#[derive(Debug)]
struct Expected {
    version: u64,
    until: Instant,
}

impl Expectations {
    /// Expects the cache to show this version, which is the answer to an own write.
    pub fn expect(&self, written: &Server) {
        let expected = Expected { version: resource_version(written), until: Instant::now() + LONGEST };
        self.0.lock().insert(written.uid().to_owned(), expected);
    }

    /// How long to leave the Server alone, because this process has written a newer version of it. A change is coming that shows it,
    /// unless a restored etcd has forgotten it.
    #[must_use]
    pub fn wait(&self, cached: &Server) -> Option<Duration> {
        let (mut expected, now) = (self.0.lock(), Instant::now());
        let newer = expected.get(cached.uid()).filter(|written| resource_version(cached) < written.version);
        let wait = newer.filter(|written| written.until > now).map(|written| written.until - now);
        if wait.is_none() {
            expected.remove(cached.uid());
        }
        wait
    }

    /// Forgets a Server that is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(version: &str) -> Server {
        berth_testing::server(serde_json::json!({"metadata": {"resourceVersion": version}}))
    }

    #[tokio::test(start_paused = true)]
    async fn a_cached_server_is_left_alone_until_the_cache_shows_the_own_write() {
        let expectations = Expectations::default();
        assert_eq!(expectations.wait(&server("5")), None);
        expectations.expect(&server("10"));
        assert_eq!(expectations.wait(&server("9")), Some(LONGEST));
        assert_eq!(expectations.wait(&server("10")), None);
        assert_eq!(expectations.wait(&server("9")), None, "forgotten, because the version was shown");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_a_restored_etcd_has_forgotten_is_not_waited_for_for_ever() {
        let expectations = Expectations::default();
        expectations.expect(&server("10"));
        tokio::time::sleep(LONGEST / 2).await;
        assert_eq!(expectations.wait(&server("4")), Some(LONGEST / 2));
        tokio::time::sleep(LONGEST / 2).await;
        assert_eq!(expectations.wait(&server("4")), None);
    }
}
