//! Which sets are creating Servers just now.
//!
//! A Server's first claim waits until the Servers that are created together with it are there: the number that was
//! declared is reached as fast as the API server can, and the first of them do not take the room of the last. It costs the
//! first of a thousand Servers a second or two, and the last ones nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use berth_core::api::{Server, VMReplicaSet};
use kube::{Resource as _, ResourceExt as _};

/// The sets that this process creates Servers of, by UID. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Births(Arc<Mutex<HashMap<String, usize>>>);

impl Births {
    /// The set creates Servers for as long as the guard lives.
    #[must_use]
    pub fn of(&self, set: &VMReplicaSet) -> UnderWay {
        let uid = set.uid().unwrap_or_default();
        *self.lock().entry(uid.clone()).or_default() += 1;
        UnderWay { births: self.clone(), uid }
    }

    /// Whether the Server is a new one, of a set that still creates others.
    #[must_use]
    pub fn hold(&self, server: &Server) -> bool {
        server.status.is_none() && {
            let owner = server.meta().owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
            owner.is_some_and(|owner| self.lock().contains_key(&owner.uid))
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A set creates Servers for as long as this lives.
#[derive(Debug)]
pub struct UnderWay {
    births: Births,
    uid: String,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut births = self.births.lock();
        if let Some(count) = births.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                births.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(uid: &str) -> VMReplicaSet {
        serde_json::from_value(json!({"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet",
            "metadata": {"name": "s", "uid": uid}, "spec": {"replicas": 1, "selector": {}, "template": {"spec": {"machine": {"className": "c"}}}}}))
        .unwrap()
    }

    fn server(of: &str, status: bool) -> Server {
        let mut server = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": {"name": "s-0", "ownerReferences": [
            {"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "name": "s", "uid": of, "controller": true}]},
            "spec": {"machine": {"className": "c"}}});
        if status {
            server["status"] = json!({});
        }
        serde_json::from_value(server).unwrap()
    }

    #[test]
    fn new_servers_of_the_set_wait_until_its_last_creation_has_ended() {
        let births = Births::default();
        assert!(!births.hold(&server("a", false)));
        let (one, two) = (births.of(&set("a")), births.clone().of(&set("a")));
        assert!(births.hold(&server("a", false)));
        assert!(!births.hold(&server("a", true)), "whoever has begun goes on");
        assert!(!births.hold(&server("b", false)), "another set's does not wait");
        drop(one);
        assert!(births.hold(&server("a", false)));
        drop(two);
        assert!(!births.hold(&server("a", false)));
        assert!(births.lock().is_empty());
    }
}
