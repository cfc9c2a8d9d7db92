//! Own writes that the cache has not shown yet.

use std::collections::HashMap;

use berth_core::api::Server;
use parking_lot::Mutex;

use crate::cache::resource_version;

/// The versions of Servers that this process has written and that the cache may not have shown yet: until then a Server from
/// the cache is out of date, and acting on it would only repeat what is done.
#[derive(Debug, Default)]
pub struct Expectations(Mutex<HashMap<String, u64>>);

impl Expectations {
    /// Expects the cache to show this version, which is the answer to an own write.
    pub fn expect(&self, written: &Server) {
        self.0.lock().insert(written.uid().to_owned(), resource_version(written));
    }

    /// Whether this process has written a newer version of the Server. A change is coming that shows it.
    #[must_use]
    pub fn is_outdated(&self, cached: &Server) -> bool {
        let mut expected = self.0.lock();
        let is_outdated = expected.get(cached.uid()).is_some_and(|written| resource_version(cached) < *written);
        if !is_outdated {
            expected.remove(cached.uid());
        }
        is_outdated
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

    #[test]
    fn a_cached_server_is_outdated_until_the_cache_shows_the_own_write() {
        let expectations = Expectations::default();
        assert!(!expectations.is_outdated(&server("5")));
        expectations.expect(&server("10"));
        assert!(expectations.is_outdated(&server("9")));
        assert!(!expectations.is_outdated(&server("10")));
        assert!(!expectations.is_outdated(&server("9")), "forgotten, because the version was shown");
    }
}
