//! A limit on how often something is done about an object that changes all the time.

use std::{collections::HashMap, time::Duration};

use kube::Resource;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Lets an action on an object happen at most once per interval: many changes of what belongs to the object become one
/// reconcile, or one write. The first action is let through at once.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    last: Mutex<HashMap<String, Instant>>,
}

impl Throttle {
    /// At most one action per interval.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, last: Mutex::default() }
    }

    /// How long the action has to wait; none when it may happen now, and then the interval begins anew. Ask before
    /// anything is gathered for the action.
    #[must_use]
    pub fn requeue_after<K: Resource>(&self, object: &K) -> Option<Duration> {
        let (mut last, now) = (self.last.lock(), Instant::now());
        let uid = object.meta().uid.as_deref().unwrap_or_default();
        let wait = last.get(uid).and_then(|at| (*at + self.interval).checked_duration_since(now));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            return Some(wait);
        }
        last.retain(|_, at| *at + self.interval > now);
        last.insert(uid.to_owned(), now);
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
    async fn the_first_action_is_immediate_and_later_ones_wait_for_the_interval() {
        let throttle = Throttle::new(Duration::from_millis(200));
        assert_eq!(throttle.requeue_after(&object("a")), None);
        assert_eq!(throttle.requeue_after(&object("b")), None);
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(throttle.requeue_after(&object("a")), Some(Duration::from_millis(150)));
        tokio::time::advance(Duration::from_millis(150)).await;
        assert_eq!(throttle.requeue_after(&object("a")), None);
        assert!(throttle.requeue_after(&object("a")).is_some());
        assert_eq!(throttle.last.lock().len(), 1, "objects whose interval is over are forgotten");
    }
}
