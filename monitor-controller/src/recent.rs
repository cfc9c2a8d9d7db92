//! Which version of each Server this process has written itself.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use berth_core::api::Server;

/// Own writes that the cache may not have brought back yet: until then a Server from the cache is out of date, and
/// acting on it would only repeat what is done.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<HashMap<String, u64>>);

impl Recent {
    /// Remembers an own write by its answer.
    pub(crate) fn wrote(&self, server: &Server) {
        if let Some(uid) = &server.metadata.uid {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone(), version(server));
        }
    }

    /// Whether this process has written a newer version of the Server. The cache is going to bring it.
    pub(crate) fn is_behind(&self, server: &Server) -> bool {
        let Some(uid) = &server.metadata.uid else { return false };
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = recent.get(uid).is_some_and(|written| version(server) < *written);
        if !behind {
            recent.remove(uid);
        }
        behind
    }

    /// Forgets a Server that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// The Server's `resourceVersion`. Versions of one kind of object are numbers that rise (promised since Kubernetes
/// 1.35, and true of etcd always).
pub(crate) fn version(server: &Server) -> u64 {
    server.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
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
