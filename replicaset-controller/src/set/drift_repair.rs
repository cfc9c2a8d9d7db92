//! What a set's reconcile knows about drifted Servers, and remembers while they are repaired.

use std::collections::{HashMap, HashSet};

use berth_core::{
    api::{Axis, Server, VMReplicaSet},
    ledger::Ledger,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Finds and reports drift.
pub trait DriftReports: Send + Sync {
    /// Whether a check has found that the machine of this Ready Server differs from the facts that were last read from it.
    fn is_drifted(&self, server: &Server) -> bool;
    /// Reads the machine again, in the background, and reports what still differs: then the Server is repaired.
    fn report(&self, server: &Server);
}

/// No drift is ever found: for tests.
#[derive(Clone, Copy, Debug)]
pub struct NoDriftReports;

impl DriftReports for NoDriftReports {
    fn is_drifted(&self, _: &Server) -> bool {
        false
    }

    fn report(&self, _: &Server) {}
}

/// Which Servers of a set are drifted, as far as this process knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriftView {
    /// Names of the Ready Servers that are known to be drifted.
    pub drifted: HashSet<String>,
    /// Names of Ready Servers that stand in the ledger although this process knows of no drift: another copy knows of it, or
    /// one that died. They stay there until they were repaired or have had the time for it.
    pub unsure: HashSet<String>,
    /// Names of the Servers whose report was requested lately: it is not requested again yet.
    pub requested: HashSet<String>,
}

/// How long a Server stays in the ledger when this process learns nothing more about it: the copy that entered it may be
/// reading its machine at the moment, which can take a minute.
const UNSURE_LIMIT: SignedDuration = SignedDuration::from_secs(120);
/// How long a report may take before it is requested again: a read of a machine takes seconds.
const REPORT_LIMIT: SignedDuration = SignedDuration::from_secs(30);

/// What this process has seen of the Servers that stand in the ledger for drift. A restart loses it, which costs only time.
#[derive(Debug, Default)]
pub struct DriftMemory(HashMap<String, Sighting>);

#[derive(Debug)]
struct Sighting {
    first: Timestamp,
    /// Whether the Server was not Ready at some time since then: it was repaired.
    was_unready: bool,
    requested: Option<Timestamp>,
}

impl Sighting {
    fn new(now: Timestamp) -> Self {
        Self { first: now, was_unready: false, requested: None }
    }
}

impl DriftMemory {
    /// What is known now. Call it before the set and its Servers are read: a drift is forgotten only after the Server was made
    /// not Ready, so that it is then seen in one place or the other.
    pub fn observe(
        &mut self,
        set: &VMReplicaSet,
        servers: &[&Server],
        now: Timestamp,
        is_drifted: impl Fn(&Server) -> bool,
    ) -> DriftView {
        let ready = servers.iter().filter(|server| server.is_ready());
        let drifted = ready.filter(|server| is_drifted(server)).map(|server| server.name().to_owned()).collect();
        let mut view = DriftView { drifted, ..DriftView::default() };
        let ledger = Ledger::of(set);
        let entered: HashSet<&str> = ledger.on(Axis::Drift).collect();
        self.0.retain(|name, _| entered.contains(name.as_str()));
        for server in servers.iter().filter(|server| entered.contains(server.name())) {
            self.observe_entered(server, now, &mut view);
        }
        view
    }

    fn observe_entered(&mut self, server: &Server, now: Timestamp, view: &mut DriftView) {
        let name = server.name();
        let sighting = self.0.entry(name.to_owned()).or_insert_with(|| Sighting::new(now));
        if !server.is_ready() {
            sighting.was_unready = true;
        } else if view.drifted.contains(name) {
            let requested = sighting.requested.filter(|at| now.duration_since(*at) < REPORT_LIMIT);
            *sighting = Sighting { requested, ..Sighting::new(now) };
        } else if !sighting.was_unready && now.duration_since(sighting.first) < UNSURE_LIMIT {
            view.unsure.insert(name.to_owned());
        }
        if sighting.requested.is_some() {
            view.requested.insert(name.to_owned());
        }
    }

    /// Notes that the report of this Server's drift was requested.
    pub fn note_request(&mut self, server: &str, now: Timestamp) {
        self.0.entry(server.to_owned()).or_insert_with(|| Sighting::new(now)).requested = Some(now);
    }

    /// When the view changes even if nothing happens before.
    #[must_use]
    pub fn requeue_at(&self, view: &DriftView) -> Option<Timestamp> {
        let unsure = view.unsure.iter().filter_map(|name| self.0.get(name)?.first.checked_add(UNSURE_LIMIT).ok());
        let requested =
            view.drifted.iter().filter_map(|name| self.0.get(name)?.requested?.checked_add(REPORT_LIMIT).ok());
        unsure.chain(requested).min()
    }
}
