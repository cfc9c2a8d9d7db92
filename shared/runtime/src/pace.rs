//! How often something is done about an object that is made of many others: a look at it, a write of its status.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kube::{Resource, runtime::controller::Action};
use tokio::time::Instant;

/// Many changes of what belongs to an object are one look at it, or one write. The first comes at once.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    looked: Mutex<HashMap<String, Instant>>,
}

impl Pace {
    /// At most once in this time.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, looked: Mutex::default() }
    }

    /// When the object's turn comes again, if it was its turn just now; otherwise it is now. To be asked before anything is
    /// gathered for it.
    #[must_use]
    pub fn too_soon<K: Resource>(&self, object: &K) -> Option<Action> {
        let (mut looked, now) = (self.looked.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let uid = object.meta().uid.as_deref().unwrap_or_default();
        let wait = looked.get(uid).and_then(|at| (*at + self.interval).checked_duration_since(now));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            return Some(Action::requeue(wait));
        }
        looked.retain(|_, at| *at + self.interval > now);
        looked.insert(uid.to_owned(), now);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn object(uid: &str) -> ConfigMap {
        serde_json::from_value(serde_json::json!({"metadata": {"uid": uid}})).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn each_object_is_looked_at_at_once_and_then_at_its_pace() {
        let pace = Pace::new(Duration::from_millis(200));
        assert_eq!(pace.too_soon(&object("a")), None);
        assert_eq!(pace.too_soon(&object("b")), None);
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(pace.too_soon(&object("a")), Some(Action::requeue(Duration::from_millis(150))));
        tokio::time::advance(Duration::from_millis(150)).await;
        assert_eq!(pace.too_soon(&object("a")), None);
        assert!(pace.too_soon(&object("a")).is_some());
        assert_eq!(pace.looked.lock().unwrap().len(), 1, "what may be looked at is forgotten");
    }
}
