//! Bulkheads: how much of this process the Servers of one MachineClass may occupy.
//!
//! A provider that answers slowly, or never, fills the bulkhead of its own class and no other. Callers never block here:
//! a caller that finds the bulkhead full is requeued, and notified as soon as a slot is free.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use berth_core::api::Server;
use berth_runtime::Backoff;
use futures::channel::mpsc::UnboundedSender;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two attempts to create a machine at a provider whose quota is exhausted: other clients of the provider may
/// destroy machines, of which Berth learns nothing.
const QUOTA_EXHAUSTED: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_mins(5));
/// For a Server that waits for a notification: it is only needed when the notified Server did not use its turn.
const NOT_NOTIFIED: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(30));

/// Whether a provider can create another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderCapacity {
    /// A machine was just created or destroyed.
    Available,
    /// The provider said that its quota is exhausted.
    Exhausted,
}

/// The slots of one class.
pub(crate) struct Bulkhead {
    slots: usize,
    state: Mutex<BulkheadState>,
    notifications: UnboundedSender<ObjectRef<Server>>,
}

#[derive(Default)]
struct BulkheadState {
    slots_in_use: usize,
    /// In the order in which they are notified.
    waiting: VecDeque<ObjectRef<Server>>,
    /// The same Servers as in `waiting`.
    waiting_keys: HashSet<ObjectRef<Server>>,
    exhausted_quota: Option<ExhaustedQuota>,
}

struct ExhaustedQuota {
    failures: u32,
    next_attempt: Instant,
    attempt_under_way: bool,
}

/// The permission to work on one Server. Dropping it gives the slot back.
pub struct Slot {
    bulkhead: Arc<Bulkhead>,
    /// Its holder makes the one attempt at a provider whose quota was exhausted.
    attempts_exhausted_quota: bool,
}

impl Bulkhead {
    /// A bulkhead with this many slots. Servers that found none are sent to `notifications` when it is their turn.
    pub(crate) fn new(slots: usize, notifications: UnboundedSender<ObjectRef<Server>>) -> Arc<Self> {
        Arc::new(Self { slots, state: Mutex::default(), notifications })
    }

    /// A slot, or after how long to requeue the Server if it is not notified before.
    pub(crate) fn try_acquire(
        self: &Arc<Self>,
        server: &ObjectRef<Server>,
        creates_machine: bool,
    ) -> Result<Slot, Duration> {
        let mut state = self.state.lock();
        if state.slots_in_use >= self.slots {
            state.enqueue(server);
            return Err(NOT_NOTIFIED.delay(1));
        }
        let mut attempts_exhausted_quota = false;
        if let Some(quota) = state.exhausted_quota.as_mut().filter(|_| creates_machine) {
            if let Some(requeue_after) = quota.requeue_after() {
                state.enqueue(server);
                return Err(requeue_after);
            }
            quota.attempt_under_way = true;
            attempts_exhausted_quota = true;
        }
        state.slots_in_use += 1;
        state.dequeue(server);
        Ok(Slot { bulkhead: self.clone(), attempts_exhausted_quota })
    }

    /// Notifies the Server when the class can be used.
    pub(crate) fn enqueue(&self, server: &ObjectRef<Server>) {
        self.state.lock().enqueue(server);
    }

    /// Notifies every Server that waits.
    pub(crate) fn notify_all(&self) {
        let servers = self.state.lock().take(usize::MAX);
        self.notify(servers);
    }

    fn notify(&self, servers: Vec<ObjectRef<Server>>) {
        for server in servers {
            // Sending only fails when the receiver is gone because the process ends.
            let _ = self.notifications.unbounded_send(server);
        }
    }
}

impl ExhaustedQuota {
    /// After how long to requeue a Server that needs a machine; none if it may attempt to create one now.
    fn requeue_after(&self) -> Option<Duration> {
        if self.attempt_under_way {
            return Some(NOT_NOTIFIED.delay(1));
        }
        let wait = self.next_attempt.saturating_duration_since(Instant::now());
        (!wait.is_zero()).then_some(wait)
    }
}

impl BulkheadState {
    fn enqueue(&mut self, server: &ObjectRef<Server>) {
        if self.waiting_keys.insert(server.clone()) {
            self.waiting.push_back(server.clone());
        }
    }

    fn dequeue(&mut self, server: &ObjectRef<Server>) {
        if self.waiting_keys.remove(server) {
            self.waiting.retain(|waiting| waiting != server);
        }
    }

    fn take(&mut self, most: usize) -> Vec<ObjectRef<Server>> {
        let count = most.min(self.waiting.len());
        let taken: Vec<_> = self.waiting.drain(..count).collect();
        for server in &taken {
            self.waiting_keys.remove(server);
        }
        taken
    }
}

impl Slot {
    /// Tells the bulkhead what the work has shown about the provider's capacity.
    pub fn report(&self, capacity: ProviderCapacity) {
        match capacity {
            ProviderCapacity::Available => self.report_available(),
            ProviderCapacity::Exhausted => self.report_exhausted(),
        }
    }

    fn report_exhausted(&self) {
        let mut state = self.bulkhead.state.lock();
        let failures = state.exhausted_quota.as_ref().map_or(0, |quota| quota.failures);
        // Creations that were under way together fail together: they count as one failure.
        let failures = if self.attempts_exhausted_quota || failures == 0 { failures + 1 } else { failures };
        let next_attempt = Instant::now() + QUOTA_EXHAUSTED.delay(failures);
        state.exhausted_quota = Some(ExhaustedQuota { failures, next_attempt, attempt_under_way: false });
    }

    fn report_available(&self) {
        let mut state = self.bulkhead.state.lock();
        if state.exhausted_quota.take().is_some() {
            let servers = state.take(usize::MAX);
            drop(state);
            self.bulkhead.notify(servers);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.bulkhead.state.lock();
        state.slots_in_use = state.slots_in_use.saturating_sub(1);
        if self.attempts_exhausted_quota
            && let Some(quota) = &mut state.exhausted_quota
        {
            quota.attempt_under_way = false;
        }
        // As many as there are free slots, not one: a Server that was notified before may not have used its turn.
        let count =
            if state.exhausted_quota.is_some() { 1 } else { self.bulkhead.slots.saturating_sub(state.slots_in_use) };
        let servers = state.take(count);
        drop(state);
        self.bulkhead.notify(servers);
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc::{UnboundedReceiver, unbounded};

    use super::*;

    fn key(n: u32) -> ObjectRef<Server> {
        ObjectRef::new(&format!("web-{n}")).within("default")
    }

    fn names(notifications: &mut UnboundedReceiver<ObjectRef<Server>>) -> Vec<String> {
        std::iter::from_fn(|| notifications.try_recv().ok()).map(|server| server.name).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn servers_that_found_no_slot_are_notified_in_order_when_one_is_free() {
        let (sender, mut notifications) = unbounded();
        let bulkhead = Bulkhead::new(2, sender);
        let first = bulkhead.try_acquire(&key(1), true).ok();
        let second = bulkhead.try_acquire(&key(2), false).ok();
        assert!(first.is_some() && second.is_some());
        for n in [3, 4, 3] {
            assert!(bulkhead.try_acquire(&key(n), true).is_err());
        }
        assert_eq!(names(&mut notifications), [""; 0]);
        drop(first);
        assert_eq!(names(&mut notifications), ["web-3"]);
        // It does not use its turn; the next slot that is given back notifies another Server for its slot, too.
        drop(second);
        assert_eq!(names(&mut notifications), ["web-4"]);
        assert!(bulkhead.try_acquire(&key(5), true).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_server_at_a_time_attempts_an_exhausted_quota_with_growing_delays() {
        let (sender, mut notifications) = unbounded();
        let bulkhead = Bulkhead::new(8, sender);
        let slots: Vec<_> = (0..4).map(|n| bulkhead.try_acquire(&key(n), true).ok().unwrap()).collect();
        for slot in &slots {
            slot.report(ProviderCapacity::Exhausted);
        }
        let wait = bulkhead.try_acquire(&key(9), true).err().unwrap();
        assert!(wait <= Duration::from_secs(5), "four at once are one failure: {wait:?}");
        assert!(bulkhead.try_acquire(&key(10), false).is_ok(), "work that creates no machine needs no quota");
        drop(slots);
        tokio::time::advance(wait + Duration::from_millis(1)).await;
        names(&mut notifications);
        let attempt = bulkhead.try_acquire(&key(1), true).ok().unwrap();
        assert!(bulkhead.try_acquire(&key(2), true).is_err(), "one attempt at a time");
        attempt.report(ProviderCapacity::Exhausted);
        drop(attempt);
        let second = bulkhead.try_acquire(&key(3), true).err().unwrap();
        assert!(second > Duration::from_millis(4_900) && second <= Duration::from_secs(10), "{second:?}");
        // A machine is destroyed: all may attempt at once.
        let destruction = bulkhead.try_acquire(&key(4), false).ok().unwrap();
        destruction.report(ProviderCapacity::Available);
        let mut notified = names(&mut notifications);
        notified.sort();
        notified.dedup();
        assert!(notified.contains(&"web-3".to_owned()), "{notified:?}");
        assert!(bulkhead.try_acquire(&key(3), true).is_ok() && bulkhead.try_acquire(&key(2), true).is_ok());
    }
}
