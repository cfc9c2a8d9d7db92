//! Which copy of a controller acts first, where several see the same thing to do.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use berth_core::api::{Executor, Server};
use kube::Resource;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cache::resource_version;

/// How long the other copies leave something to the copy whose turn it is: much longer than a write takes, so that two copies
/// rarely write the same, and short enough not to be noticed when that copy has just died.
const HEAD_START: Duration = Duration::from_secs(2);

/// The longest time between two questions about the same thing: whoever has to wait asks again when the head start is over.
const PAUSE: Duration = Duration::from_secs(1);

/// The controllers that carry out tasks under a Server's lock.
const LOCKING: [Executor; 2] = [Executor::ReplicasetController, Executor::DeploymentController];

/// Whose turn it is to act on an object, by its UID.
pub trait TurnOrder: Send + Sync {
    /// Whether it is the turn of this copy, among those of its controller.
    fn is_mine(&self, uid: &str) -> bool;

    /// The holder of the locks of the copy of this controller whose turn it is; none if no copy is known.
    fn holder(&self, executor: Executor, uid: &str) -> Option<String>;
}

/// The turns of the copies of one controller. Each object is the turn of one of them; the others act on it only when that copy
/// does not. It saves writes that would be refused, and nothing relies on it: while two copies disagree about the turn, both act,
/// or one acts a little later. Clones share what they know.
#[derive(Clone, Default)]
pub struct Turns(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Unset as long as this process does not know the other copies: then every turn is its own.
    order: OnceLock<Box<dyn TurnOrder>>,
    /// What this copy leaves to another one, by the UID of the object.
    left: Mutex<HashMap<String, LeftToAnother>>,
}

/// Something to do about a version of an object.
struct LeftToAnother {
    version: u64,
    since: Instant,
    asked: Instant,
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("left", &self.0.left.lock().len()).finish_non_exhaustive()
    }
}

impl Turns {
    /// From now on this decides whose turn it is. Only the first call counts.
    pub fn decided_by(&self, order: impl TurnOrder + 'static) {
        let _ = self.0.order.set(Box::new(order));
    }

    /// The holders, one of each controller that needs locks, whose turn it is to go on with the Server.
    #[must_use]
    pub fn successors(&self, server: &Server) -> Vec<String> {
        let Some(order) = self.0.order.get() else { return Vec::new() };
        LOCKING.into_iter().filter_map(|executor| order.holder(executor, server.uid())).collect()
    }

    /// Whether it is this copy's turn to act on the object.
    #[must_use]
    pub fn is_mine<K: Resource>(&self, object: &K) -> bool {
        let uid = object.meta().uid.as_deref().unwrap_or_default();
        self.0.order.get().is_none_or(|order| order.is_mine(uid))
    }

    /// How long this copy leaves what there is to do about this version of the object to the copy whose turn it is. None when it
    /// acts now: it is its turn, or the other one has not acted. Ask only when there is something to do, and again when the time
    /// is over.
    #[must_use]
    pub fn wait<K: Resource>(&self, object: &K) -> Option<Duration> {
        if self.is_mine(object) {
            return None;
        }
        let uid = object.meta().uid.as_deref().unwrap_or_default();
        let (mut left, now, version) = (self.0.left.lock(), Instant::now(), resource_version(object));
        left.retain(|_, what| now.duration_since(what.asked) <= HEAD_START + PAUSE);
        let new = || LeftToAnother { version, since: now, asked: now };
        let what = left.entry(uid.to_owned()).or_insert_with(new);
        if what.version != version {
            *what = new();
        }
        what.asked = now;
        let wait = HEAD_START.saturating_sub(now.duration_since(what.since));
        (!wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use tokio::time::advance;

    use super::*;

    fn object(uid: &str, version: u64) -> ConfigMap {
        let metadata = serde_json::json!({"uid": uid, "resourceVersion": version.to_string()});
        serde_json::from_value(serde_json::json!({"metadata": metadata})).unwrap()
    }

    struct ByName;

    impl TurnOrder for ByName {
        fn is_mine(&self, uid: &str) -> bool {
            uid == "mine"
        }

        fn holder(&self, executor: Executor, uid: &str) -> Option<String> {
            (executor == Executor::DeploymentController).then(|| format!("{executor}/{uid}"))
        }
    }

    fn turns() -> Turns {
        let turns = Turns::default();
        turns.decided_by(ByName);
        turns
    }

    #[test]
    fn a_success_names_the_known_copies_that_go_on() {
        let server = berth_testing::server(serde_json::json!({"metadata": {"uid": "u"}}));
        assert_eq!(turns().successors(&server), ["deployment-controller/u"]);
        assert_eq!(Turns::default().successors(&server), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_that_knows_no_other_one_never_waits() {
        assert_eq!(Turns::default().wait(&object("a", 1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_the_turn_of_another_copy_is_left_to_it_for_a_while() {
        let turns = turns();
        assert_eq!(turns.wait(&object("mine", 1)), None);
        assert_eq!(turns.wait(&object("other", 1)), Some(HEAD_START));
        advance(HEAD_START / 2).await;
        assert_eq!(turns.wait(&object("other", 1)), Some(HEAD_START / 2));
        advance(HEAD_START / 2).await;
        assert_eq!(turns.wait(&object("other", 1)), None, "the other copy has done nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_object_and_something_new_to_do_are_left_to_it_again() {
        let turns = turns();
        assert_eq!(turns.wait(&object("other", 1)), Some(HEAD_START));
        advance(HEAD_START).await;
        assert_eq!(turns.wait(&object("other", 2)), Some(HEAD_START), "it has acted");
        // Nothing was to do for a while.
        advance(HEAD_START * 5).await;
        assert_eq!(turns.wait(&object("other", 2)), Some(HEAD_START));
        assert_eq!(turns.0.left.lock().len(), 1);
    }
}
