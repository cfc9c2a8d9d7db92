//! When each probe is due: a queue of all probes by time.

use std::{collections::HashMap, time::Duration};

use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::time::{DelayQueue, delay_queue};

use crate::{grid::Grid, probe_id::ProbeId};

/// A probe whose time has come.
#[derive(Debug)]
pub(crate) struct DueProbe {
    pub(crate) id: ProbeId,
    /// When it was due.
    pub(crate) due_at: Instant,
}

/// A periodic probe.
struct ScheduledProbe {
    grid: Grid,
    /// Its place in the queue; none while it is under way.
    queued: Option<delay_queue::Key>,
}

/// The times of all probes.
pub(crate) struct Schedule {
    /// What the times of the grids are counted from.
    origin: Instant,
    queue: DelayQueue<DueProbe>,
    probes: HashMap<ProbeId, ScheduledProbe>,
}

impl Schedule {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now(), queue: DelayQueue::new(), probes: HashMap::new() }
    }

    /// The number of probes that are scheduled or under way.
    pub(crate) fn len(&self) -> usize {
        self.probes.len()
    }

    /// Schedules the probe once a period, instead of its schedule so far: first at once, or at its place in the period.
    pub(crate) fn start(&mut self, id: ProbeId, period: Duration, at_once: bool) {
        self.stop(&id);
        let (now, grid) = (self.origin.elapsed(), Grid::new(period, id.stable_hash()));
        let due = if at_once { now } else { grid.after(now) };
        let queued = enqueue(&mut self.queue, id.clone(), self.origin + due);
        self.probes.insert(id, ScheduledProbe { grid, queued: Some(queued) });
    }

    /// Ends the schedule of the probe.
    pub(crate) fn stop(&mut self, id: &ProbeId) {
        if let Some(key) = self.probes.remove(id).and_then(|probe| probe.queued) {
            self.queue.remove(&key);
        }
    }

    /// Waits for the next probe that is due; none when no probe is queued. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<DueProbe> {
        let probe = self.queue.next().await?.into_inner();
        if let Some(scheduled) = self.probes.get_mut(&probe.id) {
            scheduled.queued = None;
        }
        Some(probe)
    }

    /// Schedules the next time of a probe that has finished: the next one of its grid, or `within` that long if that is
    /// sooner. Returns how many times have passed while it was under way; they are skipped.
    pub(crate) fn finished(&mut self, probe: &DueProbe, within: Option<Duration>) -> u64 {
        let Self { origin, queue, probes } = self;
        let Some(scheduled) = probes.get_mut(&probe.id) else { return 0 };
        if let Some(key) = scheduled.queued {
            queue.remove(&key);
        }
        let (grid, now) = (scheduled.grid, origin.elapsed());
        let next = within.map_or(grid.after(now), |within| grid.after(now).min(now + within));
        scheduled.queued = Some(enqueue(queue, probe.id.clone(), *origin + next));
        grid.between(probe.due_at.saturating_duration_since(*origin), now)
    }
}

fn enqueue(queue: &mut DelayQueue<DueProbe>, id: ProbeId, due_at: Instant) -> delay_queue::Key {
    // The API's schema limits periods to an hour; the queue takes deadlines within the next two years.
    queue.insert_at(DueProbe { id, due_at }, due_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe_id::ProbeKind;

    const TEN: Duration = Duration::from_secs(10);

    fn id(uid: &str) -> ProbeId {
        ProbeId { uid: uid.into(), kind: ProbeKind::Health }
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarted_probe_is_due_once_and_a_stopped_one_never() {
        let mut schedule = Schedule::new();
        schedule.start(id("a"), TEN, false);
        schedule.start(id("b"), TEN, false);
        schedule.start(id("a"), TEN, true);
        schedule.stop(&id("b"));
        assert_eq!((schedule.len(), schedule.queue.len()), (1, 1));
        let begun = Instant::now();
        let probe = schedule.next().await.unwrap();
        assert_eq!(probe.id, id("a"));
        assert!(begun.elapsed() < Duration::from_millis(10), "at once: {:?}", begun.elapsed());
        assert!(schedule.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_finished_probe_comes_at_its_next_time_and_times_that_passed_are_counted() {
        let mut schedule = Schedule::new();
        schedule.start(id("a"), TEN, false);
        let first = schedule.next().await.unwrap();
        let due = first.due_at;
        tokio::time::advance(Duration::from_secs(25)).await;
        assert_eq!(schedule.finished(&first, None), 2);
        let second = schedule.next().await.unwrap();
        assert_eq!(second.due_at - due, 3 * TEN);
        assert_eq!(schedule.finished(&second, Some(Duration::from_secs(1))), 0);
        assert!(schedule.next().await.unwrap().due_at - due < 3 * TEN + Duration::from_secs(2), "early");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_was_stopped_while_under_way_is_not_scheduled_again() {
        let mut schedule = Schedule::new();
        schedule.start(id("a"), TEN, true);
        let probe = schedule.next().await.unwrap();
        schedule.stop(&id("a"));
        assert_eq!(schedule.finished(&probe, None), 0);
        assert_eq!((schedule.len(), schedule.queue.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn replaced_times_do_not_pile_up() {
        let mut schedule = Schedule::new();
        for _ in 0..1_000 {
            schedule.start(id("a"), TEN, false);
        }
        assert_eq!(schedule.queue.len(), 1);
    }
}
