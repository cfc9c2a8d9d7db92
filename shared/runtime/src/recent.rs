//! Which version of each Server this process has written itself.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use berth_core::api::Server;

use crate::cache::resource_version;

/// Own writes that the cache may not have brought back yet: until then a Server from the cache is out of date, and
/// acting on it would only repeat what is done.
#[derive(Debug, Default)]
pub struct Recent(Mutex<HashMap<String, u64>>);

impl Recent {
    /// Remembers an own write by its answer.
    pub fn wrote(&self, server: &Server) {
        if let Some(uid) = &server.metadata.uid {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone(), resource_version(server));
        }
    }

    /// Whether this process has written a newer version of the Server. The cache is going to bring it.
    #[must_use]
    pub fn is_behind(&self, server: &Server) -> bool {
        let Some(uid) = &server.metadata.uid else { return false };
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = recent.get(uid).is_some_and(|written| resource_version(server) < *written);
        if !behind {
            recent.remove(uid);
        }
        behind
    }

    /// Forgets a Server that is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(version: &str) -> Server {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Server",
            "metadata": {"name": "web-0", "uid": "u", "resourceVersion": version}, "spec": {"machine": {"className": "c"}}
        }))
        .unwrap()
    }

    #[test]
    fn the_cache_is_behind_until_it_brings_the_own_write() {
        let recent = Recent::default();
        assert!(!recent.is_behind(&server("5")));
        recent.wrote(&server("10"));
        assert!(recent.is_behind(&server("9")));
        assert!(!recent.is_behind(&server("10")));
        assert!(!recent.is_behind(&server("9")), "forgotten: the version was seen");
    }
}
