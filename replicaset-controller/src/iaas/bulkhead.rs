//! Bulkheads: how much of this process the Servers of one class may take up.
//!
//! A provider that answers slowly or never fills its own bulkhead and leaves everything else afloat. Nobody waits inside:
//! who finds no room goes away, and is named on the stream of the woken when there is room.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use berth_core::api::Server;
use berth_runtime::Backoff;
use futures::channel::mpsc::UnboundedSender;
use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

/// Between two tries at a provider that is full, as long as nothing becomes free.
const FULL: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_mins(5));
/// When to look again if nobody was woken: only after a wake-up that came to nothing.
const FALLBACK: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(30));

/// The room that one class has.
pub(super) struct Bulkhead {
    limit: usize,
    state: Mutex<State>,
    woken: UnboundedSender<ObjectRef<Server>>,
}

#[derive(Default)]
struct State {
    used: usize,
    waiting: VecDeque<ObjectRef<Server>>,
    /// Those in `waiting`.
    known: HashSet<ObjectRef<Server>>,
    full: Option<Full>,
}

/// The provider said that it has no room for more machines.
struct Full {
    failures: u32,
    until: Instant,
    /// Somebody is trying whether it has by now.
    tried: bool,
}

/// Room for one Server's work, until it is dropped.
pub struct Slot {
    bulkhead: Arc<Bulkhead>,
    /// It is the one that tries whether a full provider has room by now.
    tries: bool,
}

impl Bulkhead {
    /// Room for `limit` Servers. Those that were sent away are named on `woken` when it is their turn.
    pub(super) fn new(limit: usize, woken: UnboundedSender<ObjectRef<Server>>) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default(), woken })
    }

    /// Room, or when to look again at the latest. `creates`: a machine is going to be made.
    pub(super) fn try_enter(self: &Arc<Self>, key: &ObjectRef<Server>, creates: bool) -> Result<Slot, Duration> {
        let mut state = self.lock();
        if state.used >= self.limit {
            state.wait(key);
            return Err(FALLBACK.delay(1));
        }
        let mut tries = false;
        if let Some(full) = state.full.as_mut().filter(|_| creates) {
            let now = Instant::now();
            if full.tried || full.until > now {
                let again = if full.tried { FALLBACK.delay(1) } else { full.until - now };
                state.wait(key);
                return Err(again);
            }
            (full.tried, tries) = (true, true);
        }
        state.used += 1;
        state.forget(key);
        Ok(Slot { bulkhead: self.clone(), tries })
    }

    /// Takes note of who has to be told when the class can be used again.
    pub(super) fn wait(&self, key: &ObjectRef<Server>) {
        self.lock().wait(key);
    }

    /// Tells all that wait to look again.
    pub(super) fn wake_all(&self) {
        let woken = self.lock().take(usize::MAX);
        self.tell(woken);
    }

    fn tell(&self, woken: Vec<ObjectRef<Server>>) {
        for key in woken {
            // Nobody listens any more when the process ends.
            let _ = self.woken.unbounded_send(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, key: &ObjectRef<Server>) {
        if self.known.insert(key.clone()) {
            self.waiting.push_back(key.clone());
        }
    }

    fn forget(&mut self, key: &ObjectRef<Server>) {
        if self.known.remove(key) {
            self.waiting.retain(|k| k != key);
        }
    }

    fn take(&mut self, most: usize) -> Vec<ObjectRef<Server>> {
        let count = most.min(self.waiting.len());
        let taken: Vec<_> = self.waiting.drain(..count).collect();
        for key in &taken {
            self.known.remove(key);
        }
        taken
    }
}

impl Slot {
    /// The provider said that it has no room for another machine.
    pub fn found_full(&self) {
        let mut state = self.bulkhead.lock();
        let failures = state.full.as_ref().map_or(0, |full| full.failures);
        // Many that were under way are told at once: that is one failure.
        let failures = if self.tries || failures == 0 { failures + 1 } else { failures };
        state.full = Some(Full { failures, until: Instant::now() + FULL.delay(failures), tried: false });
    }

    /// A machine was made or destroyed: there is room, or may be.
    pub fn found_room(&self) {
        let mut state = self.bulkhead.lock();
        if state.full.take().is_some() {
            let woken = state.take(usize::MAX);
            drop(state);
            self.bulkhead.tell(woken);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.bulkhead.lock();
        state.used = state.used.saturating_sub(1);
        if self.tries
            && let Some(full) = &mut state.full
        {
            full.tried = false;
        }
        // As many as have room, not one: somebody who was woken before may not have come.
        let free = if state.full.is_some() { 1 } else { self.bulkhead.limit.saturating_sub(state.used) };
        let woken = state.take(free);
        drop(state);
        self.bulkhead.tell(woken);
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc::{UnboundedReceiver, unbounded};

    use super::*;

    fn key(n: u32) -> ObjectRef<Server> {
        ObjectRef::new(&format!("web-{n}")).within("default")
    }

    fn names(woken: &mut UnboundedReceiver<ObjectRef<Server>>) -> Vec<String> {
        std::iter::from_fn(|| woken.try_recv().ok()).map(|key| key.name).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_found_no_room_is_woken_in_order_when_there_is_some() {
        let (sender, mut woken) = unbounded();
        let bulkhead = Bulkhead::new(2, sender);
        let first = bulkhead.try_enter(&key(1), true).ok();
        let second = bulkhead.try_enter(&key(2), false).ok();
        assert!(first.is_some() && second.is_some());
        for n in [3, 4, 3] {
            assert!(bulkhead.try_enter(&key(n), true).is_err());
        }
        assert_eq!(names(&mut woken), [""; 0]);
        drop(first);
        assert_eq!(names(&mut woken), ["web-3"]);
        // It does not come; the next one that leaves wakes for its place, too.
        drop(second);
        assert_eq!(names(&mut woken), ["web-4"]);
        assert!(bulkhead.try_enter(&key(5), true).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_provider_is_tried_by_one_at_a_time_later_each_time() {
        let (sender, mut woken) = unbounded();
        let bulkhead = Bulkhead::new(8, sender);
        let slots: Vec<_> = (0..4).map(|n| bulkhead.try_enter(&key(n), true).ok().unwrap()).collect();
        for slot in &slots {
            slot.found_full();
        }
        let wait = bulkhead.try_enter(&key(9), true).err().unwrap();
        assert!(wait <= Duration::from_secs(5), "four at once are one failure: {wait:?}");
        assert!(bulkhead.try_enter(&key(10), false).is_ok(), "who makes no machine needs no room");
        drop(slots);
        tokio::time::advance(wait + Duration::from_millis(1)).await;
        names(&mut woken);
        let tries = bulkhead.try_enter(&key(1), true).ok().unwrap();
        assert!(bulkhead.try_enter(&key(2), true).is_err(), "one tries");
        tries.found_full();
        drop(tries);
        let second = bulkhead.try_enter(&key(3), true).err().unwrap();
        assert!(second > Duration::from_millis(4_900) && second <= Duration::from_secs(10), "{second:?}");
        // A machine is destroyed: all may come at once.
        let destroys = bulkhead.try_enter(&key(4), false).ok().unwrap();
        destroys.found_room();
        let mut told = names(&mut woken);
        told.sort();
        told.dedup();
        assert!(told.contains(&"web-3".to_owned()), "{told:?}");
        assert!(bulkhead.try_enter(&key(3), true).is_ok() && bulkhead.try_enter(&key(2), true).is_ok());
    }
}
