//! Two copies of the webhook whose clocks differ, and two holders: nobody loses a lock that it still relies on.
//!
//! Here time is real, unlike in the model of a whole Berth: the shipped rules compare the time in the lock, which one copy has
//! written, with the clock of another.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use berth_core::{
    CLOCK_MARGIN_SECONDS,
    api::{Claim, Executor, Server, TaskKind},
    protocol::StatusWrite,
};
use berth_testing::{Fixture, LOCK, controller, holder, start};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use stateright::{Checker, Model, Property};

use crate::world::Version;

/// Seconds of one step of time: a fraction of a lock.
const STEP: i64 = 15;
/// How long time goes on: enough for a lock to be renewed and to expire by the slower clock.
const END: i64 = 135;
/// The holders.
const NAMES: [&str; 2] = ["a", "b"];

const NEVER_TWO: &str = "never two holders rely on the lock";
const TAKEN_OVER: &str = "a lock that is not renewed is taken over";

/// The model.
struct Clocks {
    /// By how many seconds the clock of the second copy is ahead.
    skew: i64,
    /// Whether the webhook leaves the margin for clocks that differ out of its judgement.
    ignore_margin: bool,
    memo: Mutex<Memo>,
}

/// The Server after a claim, if it was accepted: by the stored object, the webhook's clock, and the holder.
type Memo = HashMap<(u64, i64, usize), Option<Arc<Version>>>;

#[derive(Clone, Debug)]
struct Moment {
    second: i64,
    server: Arc<Version>,
    holders: [Holder; 2],
}

/// What a holder knows.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq)]
struct Holder {
    /// When it sent a claim that was not answered yet.
    sent: Option<i64>,
    /// When it sent the last claim that was accepted; it relies on the lock for its duration from then on.
    since: Option<i64>,
}

impl Holder {
    fn relies(&self, second: i64) -> bool {
        self.since.is_some_and(|since| second < since + i64::from(LOCK))
    }
}

impl std::hash::Hash for Moment {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.second, self.server.key, &self.holders).hash(state);
    }
}

impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        (self.second, self.server.key, &self.holders) == (other.second, other.server.key, &other.holders)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    TimePasses,
    /// A holder sends a claim or a renewal.
    Send(usize),
    /// The copy on time, or the one that is ahead, answers it.
    Answer(usize, bool),
    /// One of the two hands the free lock over to a holder, which does not know it yet.
    HandOver(usize, bool),
    /// The holder sees that it has got the lock. Its clock is on time or ahead.
    Accept(usize, bool),
}

impl Model for Clocks {
    type State = Moment;
    type Action = Event;

    fn init_states(&self) -> Vec<Moment> {
        let server = Version::new(Fixture::new().decided().server);
        vec![Moment { second: 0, server, holders: Default::default() }]
    }

    fn actions(&self, at: &Moment, events: &mut Vec<Event>) {
        events.extend((at.second < END).then_some(Event::TimePasses));
        for (index, holder) in at.holders.iter().enumerate() {
            if holder.sent.is_some() {
                events.extend([Event::Answer(index, false), Event::Answer(index, true)]);
            } else {
                events.extend([Event::Send(index), Event::Accept(index, false), Event::Accept(index, true)]);
            }
            if at.server.server.lock().is_none() {
                events.extend([Event::HandOver(index, false), Event::HandOver(index, true)]);
            }
        }
    }

    fn next_state(&self, before: &Moment, event: Event) -> Option<Moment> {
        let mut at = before.clone();
        match event {
            Event::TimePasses => {
                at.second += STEP;
                for holder in &mut at.holders {
                    // It does not wait longer for an answer than it would rely on it.
                    holder.sent = holder.sent.filter(|sent| at.second < sent + i64::from(LOCK));
                    holder.since = holder.since.filter(|_| holder.relies(at.second));
                }
            }
            Event::Send(index) => at.holders[index].sent = Some(at.second),
            Event::Answer(index, ahead) => {
                let clock = self.clock(at.second, ahead);
                let sent = at.holders[index].sent.take();
                match self.claim(&before.server, clock, index) {
                    Some(server) => (at.server, at.holders[index].since) = (server, sent),
                    None => at.holders[index].since = None,
                }
            }
            Event::HandOver(index, ahead) => {
                at.server = self.claim(&before.server, self.clock(at.second, ahead), index)?;
            }
            Event::Accept(index, ahead) => {
                let now = start() + SignedDuration::from_secs(self.clock(at.second, ahead));
                let own = holder(Executor::ReplicasetController, NAMES[index]);
                let lock = at.server.server.lock().filter(|lock| lock.holder == own)?;
                let age = i64::try_from(lock.age_when_new(now)?.as_secs()).unwrap();
                at.holders[index].since.get_or_insert(at.second - age);
            }
        }
        (at != *before).then_some(at)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NEVER_TWO, |_, at: &Moment| !at.holders.iter().all(|holder| holder.relies(at.second))),
            Property::sometimes(TAKEN_OVER, |_, at: &Moment| {
                let lock = at.server.server.lock();
                let first = holder(Executor::ReplicasetController, NAMES[0]);
                lock.is_some_and(|lock| lock.holder != first && lock.acquired_at.0 > start())
            }),
        ]
    }
}

impl Clocks {
    fn new(skew: i64) -> Self {
        Self { skew, ignore_margin: false, memo: Mutex::default() }
    }

    /// What a clock shows.
    fn clock(&self, second: i64, ahead: bool) -> i64 {
        second + if ahead { self.skew } else { 0 }
    }

    /// The Server after the holder's claim, if the copy of the webhook with this clock accepts it.
    fn claim(&self, version: &Version, clock: i64, index: usize) -> Option<Arc<Version>> {
        let key = (version.key, clock, index);
        if let Some(known) = self.memo.lock().unwrap().get(&key) {
            return known.clone();
        }
        let claimed = self.admit(&version.server, clock, index);
        self.memo.lock().unwrap().insert(key, claimed.clone());
        claimed
    }

    fn admit(&self, server: &Server, clock: i64, index: usize) -> Option<Arc<Version>> {
        let task = server.tasks().iter().find(|task| task.kind == TaskKind::CreateMachine)?;
        let holder = holder(Executor::ReplicasetController, NAMES[index]);
        let claim = Claim { task_id: task.id, holder, duration_seconds: LOCK, again: false };
        let mut seen = server.clone();
        if self.ignore_margin
            && let Some(lock) = seen.status.as_mut().and_then(|status| status.lock.as_mut())
        {
            lock.duration_seconds -= CLOCK_MARGIN_SECONDS;
        }
        let now = start() + SignedDuration::from_secs(clock);
        let write = StatusWrite::new(&seen).claim(claim);
        let mut new =
            berth_testing::write_status(&seen, write, &controller(Executor::ReplicasetController), now).ok()?;
        // What no rule about locks reads would only multiply the states.
        for task in new.status.iter_mut().flat_map(|status| &mut status.tasks) {
            task.attempts = task.attempts.min(1);
            task.started_at = task.started_at.as_ref().map(|_| Time(start()));
        }
        Some(Version::new(new))
    }

    /// Looks at all states; returns how many there are, and which properties have an example or a counterexample.
    fn check(self) -> (usize, Vec<&'static str>) {
        let checker = self.checker().threads(2).timeout(Duration::from_mins(2)).spawn_bfs().join();
        let found: Vec<_> = checker.discoveries().into_keys().collect();
        println!("two clocks: {} states, {found:?}", checker.unique_state_count());
        (checker.unique_state_count(), found)
    }
}

#[test]
fn no_lock_is_lost_while_the_clocks_of_the_webhook_differ_by_no_more_than_the_margin() {
    for skew in [0, i64::from(CLOCK_MARGIN_SECONDS)] {
        let (states, found) = Clocks::new(skew).check();
        assert_eq!(found, [TAKEN_OVER], "{skew}");
        assert!(states > 1000);
    }
}

#[test]
fn a_lost_lock_is_detected_when_the_webhook_ignores_the_margin() {
    let model = Clocks { ignore_margin: true, ..Clocks::new(i64::from(CLOCK_MARGIN_SECONDS)) };
    assert!(model.check().1.contains(&NEVER_TWO));
}

#[test]
fn a_lost_lock_is_detected_when_the_clocks_differ_by_more_than_the_margin() {
    assert!(Clocks::new(i64::from(CLOCK_MARGIN_SECONDS) + 2 * STEP).check().1.contains(&NEVER_TWO));
}
