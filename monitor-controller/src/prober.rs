//! Probes every Server at its times, with a limit on concurrent probes.
//!
//! One task, the [`ProbeLoop`], keeps the schedule and starts the probes that are due. Their results are recorded with the
//! Server's probes. Only when a result changes a verdict (or the message of a failure) is the Server reconciled, so a fleet
//! at rest costs nothing but its probes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use berth_core::api::Server;
use berth_runtime::Clock;
use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::ProbeMetrics,
    observation::Observation,
    probe::{ProbeClient, ProbeResult},
    probe_id::{ProbeId, ProbeKind},
    probe_state::ScheduleChange,
    schedule::{DueProbe, Schedule},
    server_probes::ServerProbes,
    sight::Trust,
    survey::{Survey, Target},
};

/// Tells the [`ProbeLoop`] which Servers to probe, and says what it has found. Clones share their state.
#[derive(Clone)]
pub struct Prober {
    /// The probes of each Server, by its UID.
    servers: Arc<Mutex<HashMap<Arc<str>, ServerProbes>>>,
    schedule_changes: mpsc::UnboundedSender<(ProbeId, ScheduleChange)>,
    /// Whether failures are believed that may come from blindness.
    trust: Arc<Mutex<Trust>>,
    client: Arc<dyn ProbeClient>,
    clock: Arc<dyn Clock>,
}

/// The task that probes; see [`Prober::new`].
pub struct ProbeLoop {
    prober: Prober,
    schedule: Schedule,
    schedule_changes: mpsc::UnboundedReceiver<(ProbeId, ScheduleChange)>,
    changed_servers: UnboundedSender<ObjectRef<Server>>,
    /// Limits concurrent probes.
    slots: Arc<Semaphore>,
    metrics: Arc<ProbeMetrics>,
}

/// A probe that has ended.
struct FinishedProbe {
    probe: DueProbe,
    /// Of the target that was probed: see [`crate::probe_state::ProbeState::is_current`].
    generation: u64,
    result: ProbeResult,
}

impl Prober {
    /// A prober with at most `concurrency` probes at the same time, and its loop, which has to be run. Servers whose verdicts
    /// change are sent to `changed_servers`.
    #[must_use]
    pub fn new(
        client: Arc<dyn ProbeClient>,
        concurrency: usize,
        changed_servers: UnboundedSender<ObjectRef<Server>>,
        metrics: Arc<ProbeMetrics>,
        clock: Arc<dyn Clock>,
    ) -> (Self, ProbeLoop) {
        let (sender, schedule_changes) = mpsc::unbounded_channel();
        let trust = Arc::new(Mutex::new(Trust::UNSURVEYED));
        let prober = Self { servers: Arc::default(), schedule_changes: sender, trust, client, clock };
        let probe_loop = ProbeLoop {
            prober: prober.clone(),
            schedule: Schedule::new(),
            schedule_changes,
            changed_servers,
            slots: Arc::new(Semaphore::new(concurrency.max(1))),
            metrics,
        };
        (prober, probe_loop)
    }

    /// Probes the Server as it is declared now. Earlier results count as long as the same target is probed.
    pub fn update(&self, server: &Server) {
        let mut servers = self.servers.lock();
        let known = servers.get_key_value(server.uid()).map(|(uid, _)| Arc::clone(uid));
        let uid = known.unwrap_or_else(|| Arc::from(server.uid()));
        let probes = servers.entry(Arc::clone(&uid)).or_insert_with(|| ServerProbes::new(server));
        for (kind, change) in probes.update(server) {
            self.change_schedule(ProbeId { uid: Arc::clone(&uid), kind }, change);
        }
        if probes.is_idle() {
            servers.remove(&uid);
        }
    }

    /// No longer probes the Server with this UID.
    pub fn forget(&self, uid: &str) {
        if let Some((uid, _)) = self.servers.lock().remove_entry(uid) {
            for kind in ProbeKind::ALL {
                self.change_schedule(ProbeId { uid: Arc::clone(&uid), kind }, ScheduleChange::Stop);
            }
        }
    }

    /// What the probes of the Server with this UID have found.
    #[must_use]
    pub(crate) fn observation(&self, uid: &str) -> Observation {
        let trust = *self.trust.lock();
        self.servers.lock().get_mut(uid).map(|probes| probes.observation(trust)).unwrap_or_default()
    }

    /// How many of the machines are reached that ought to be reachable.
    pub(crate) fn survey(&self) -> Survey {
        Survey::of(self.servers.lock().values().filter_map(ServerProbes::look))
    }

    /// The machines that ought to be reachable, and how they look.
    pub(crate) fn targets(&self) -> Vec<Target> {
        self.servers.lock().iter().filter_map(|(uid, probes)| probes.as_target(uid)).collect()
    }

    /// Whether the machine of the Server with this UID can be reached: it is probed anew. None while it is not known where it
    /// is.
    pub(crate) async fn reaches_machine(&self, uid: &str) -> Option<bool> {
        let target = self.servers.lock().get(uid)?.machine_probe()?;
        Some(self.client.probe(&target).await == ProbeResult::Success)
    }

    /// From now on, failures that may come from blindness are believed to this extent.
    pub(crate) fn set_trust(&self, trust: Trust) {
        *self.trust.lock() = trust;
    }

    /// Forgets the failures of all machines that are out of sight.
    pub(crate) fn forget_failures(&self) {
        self.servers.lock().values_mut().for_each(ServerProbes::forget_failures);
    }

    /// Remembers when failing health checks of the Server were last reported.
    pub(crate) fn failure_reported(&self, uid: &str, now: Timestamp) {
        if let Some(probes) = self.servers.lock().get_mut(uid) {
            probes.failure_reported(now);
        }
    }

    fn change_schedule(&self, id: ProbeId, change: ScheduleChange) {
        // Fails at shutdown only, when the loop has ended and nothing is probed any more.
        let _ = self.schedule_changes.send((id, change));
    }
}

impl ProbeLoop {
    /// Probes until the token is cancelled.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (sender, mut finished) = mpsc::unbounded_channel();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(probe) = self.schedule.next() => self.start(probe, sender.clone()),
                Some((id, change)) = self.schedule_changes.recv() => self.change_schedule(id, change),
                Some(probe) = finished.recv() => self.finish(probe),
            }
        }
    }

    fn change_schedule(&mut self, id: ProbeId, change: ScheduleChange) {
        match change {
            ScheduleChange::Start { period, at_once } => self.schedule.start(id, period, at_once),
            ScheduleChange::Stop => self.schedule.stop(&id),
        }
        self.metrics.set_scheduled(self.schedule.len());
    }

    fn start(&self, probe: DueProbe, finished: mpsc::UnboundedSender<FinishedProbe>) {
        let servers = self.prober.servers.lock();
        let probes = servers.get(&probe.id.uid);
        let Some((target, generation)) = probes.and_then(|probes| probes.state(probe.id.kind).target()) else {
            return;
        };
        drop(servers);
        let (slots, metrics) = (Arc::clone(&self.slots), Arc::clone(&self.metrics));
        let client = Arc::clone(&self.prober.client);
        tokio::spawn(async move {
            // The semaphore is never closed.
            let Ok(_slot) = slots.acquire_owned().await else { return };
            let (kind, begun) = (probe.id.kind, Instant::now());
            metrics.probe_started(kind, begun.saturating_duration_since(probe.due_at));
            let result = client.probe(&target).await;
            metrics.probe_finished(kind, &result, begun.elapsed());
            // Fails at shutdown only, when the loop has ended.
            let _ = finished.send(FinishedProbe { probe, generation, result });
        });
    }

    /// Records the result and schedules the next probe. The result of an earlier target is dropped: the probe of the new
    /// target has been scheduled when the target changed.
    fn finish(&mut self, FinishedProbe { probe, generation, result }: FinishedProbe) {
        let (kind, now) = (probe.id.kind, self.prober.clock.now());
        let mut servers = self.prober.servers.lock();
        let Some(probes) = servers.get_mut(&probe.id.uid).filter(|probes| probes.state(kind).is_current(generation))
        else {
            return;
        };
        let in_doubt = *self.prober.trust.lock() == Trust::Nothing;
        let changed = probes.record(kind, &result, now, in_doubt).then(|| probes.server().clone());
        let within: Option<Duration> = probes.next_probe_within(kind, now);
        let look = (kind == ProbeKind::Health && probes.must_look_at_machine()).then(|| probes.machine_period());
        drop(servers);
        if let Some(period) = look {
            let machine = ProbeId { uid: Arc::clone(&probe.id.uid), kind: ProbeKind::Reachability };
            self.schedule.start(machine, period, true);
        }
        self.metrics.probes_skipped(kind, self.schedule.finished(&probe, within));
        if let Some(server) = changed {
            // Fails at shutdown only, when the controller has ended.
            let _ = self.changed_servers.unbounded_send(server);
        }
    }
}

#[cfg(test)]
#[path = "prober_tests.rs"]
mod tests;
