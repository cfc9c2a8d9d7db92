//! One write to a Server's status.

use json_patch::Patch;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Fact, GuardedPatch, guarded_patch::to_value};
use crate::api::{
    AppFact, Claim, EnvironmentFact, HealthFact, Lock, MachineFact, MonitoringFact, ReachabilityFact, Report, Server,
    ServerStatus, TrafficFact,
};

/// One write to `servers/status`: facts, at most one report and at most one claim. It applies only to this object (its UID is
/// tested), even if the object has changed since it was read.
#[derive(Clone, Debug)]
pub struct StatusWrite {
    tests: GuardedPatch,
    fields: Map<String, Value>,
    removed: Vec<&'static str>,
    generation: Option<i64>,
    /// Names of the facts that exist and could be removed; none when there is no status.
    present: Option<Vec<&'static str>>,
    resource_version: Option<String>,
}

impl StatusWrite {
    /// A write to this Server that changes nothing yet.
    #[must_use]
    pub fn new(server: &Server) -> Self {
        Self {
            tests: GuardedPatch::of(&server.metadata),
            fields: Map::new(),
            removed: Vec::new(),
            generation: server.metadata.generation,
            present: server.status.as_ref().map(revocable),
            resource_version: server.metadata.resource_version.clone(),
        }
    }

    /// Asks the webhook for a decision on the newest declaration.
    #[must_use]
    pub fn acknowledge(mut self) -> Self {
        self.fields.insert("observedGeneration".into(), to_value(&self.generation));
        self
    }

    /// Sets the fact about the machine.
    #[must_use]
    pub fn machine(self, fact: Option<MachineFact>) -> Self {
        self.set("machine", fact)
    }

    /// Sets the fact about the installed packages.
    #[must_use]
    pub fn environment(self, fact: EnvironmentFact) -> Self {
        self.set("environment", Some(fact))
    }

    /// Sets the fact about the deployed application.
    #[must_use]
    pub fn app(self, fact: Option<AppFact>) -> Self {
        self.set("app", fact)
    }

    /// Sets the fact about traffic.
    #[must_use]
    pub fn traffic(self, fact: Option<TrafficFact>) -> Self {
        self.set("traffic", fact)
    }

    /// Sets the fact about reachability.
    #[must_use]
    pub fn reachability(self, fact: ReachabilityFact) -> Self {
        self.set("reachability", Some(fact))
    }

    /// Sets the fact about health, if the Server is still in the epoch that the fact names.
    #[must_use]
    pub fn health(mut self, fact: HealthFact) -> Self {
        self.tests = self.tests.test(&["status", "epoch"], &fact.epoch);
        self.set("health", Some(fact))
    }

    /// Sets the fact about monitoring.
    #[must_use]
    pub fn monitoring(self, fact: Option<MonitoringFact>) -> Self {
        self.set("monitoring", fact)
    }

    /// Reports on a task.
    #[must_use]
    pub fn report(self, report: Report) -> Self {
        self.set("report", Some(report))
    }

    /// Writes only if the Server has not changed at all since it was read: for facts read without the lock from a machine that
    /// another holder may have begun to change in the meantime.
    #[must_use]
    pub fn if_unchanged(mut self) -> Self {
        self.tests = self.tests.test(&["metadata", "resourceVersion"], &self.resource_version);
        self
    }

    /// Sets a fact.
    #[must_use]
    pub fn fact(self, fact: Fact) -> Self {
        match fact {
            Fact::Machine(machine) => self.machine(Some(machine)),
            Fact::Environment(environment) => self.environment(environment),
            Fact::App(app) => self.app(app),
            Fact::Traffic(traffic) => self.traffic(traffic),
            Fact::Reachability(reachability) => self.reachability(reachability),
            Fact::Health(health) => self.health(health),
            Fact::Monitoring(monitoring) => self.monitoring(monitoring),
        }
    }

    /// Sets these facts.
    #[must_use]
    pub fn facts(self, facts: &[Fact]) -> Self {
        facts.iter().cloned().fold(self, Self::fact)
    }

    /// Claims a task, or renews or releases its lock.
    #[must_use]
    pub fn claim(self, claim: Claim) -> Self {
        self.set("claim", Some(claim))
    }

    /// Whether the write would do nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.removed.is_empty()
    }

    fn set<T: Serialize>(mut self, name: &'static str, value: Option<T>) -> Self {
        match value {
            Some(value) => {
                self.fields.insert(name.to_owned(), to_value(&value));
                self.removed.retain(|n| *n != name);
            }
            None => {
                self.fields.remove(name);
                let present = self.present.as_ref().is_some_and(|facts| facts.contains(&name));
                if present && !self.removed.contains(&name) {
                    self.removed.push(name);
                }
            }
        }
        self
    }

    /// Also tests that this process still holds the lock, and that it is this very lock, if it is known: a write may arrive when its sender
    /// has given up, released the lock and begun another attempt.
    #[must_use]
    pub fn as_holder(mut self, holder: &str, lock: Option<&Lock>) -> Self {
        self.tests = self.tests.test(&["status", "lock", "holder"], holder);
        if let Some(lock) = lock.filter(|lock| lock.holder == holder) {
            self.tests = self.tests.test(&["status", "lock", "taskID"], &lock.task_id);
            self.tests = self.tests.test(&["status", "lock", "acquiredAt"], &lock.acquired_at);
        }
        self
    }

    /// The patch. On a Server without a status it also tests the `resourceVersion`, so that it cannot overwrite a status that
    /// another controller has written.
    #[must_use]
    pub fn into_patch(self) -> Patch {
        if self.present.is_none() {
            let tests = self.tests.test(&["metadata", "resourceVersion"], &self.resource_version);
            return tests.add(&["status"], &self.fields).build();
        }
        let set = self.fields.iter().fold(self.tests, |patch, (name, value)| patch.add(&["status", name], value));
        self.removed.iter().fold(set, |patch, name| patch.remove(&["status", name])).build()
    }
}

/// Names of the facts in the status that a controller may remove.
fn revocable(status: &ServerStatus) -> Vec<&'static str> {
    let facts = [
        ("machine", status.machine.is_some()),
        ("app", status.app.is_some()),
        ("traffic", status.traffic.is_some()),
        ("monitoring", status.monitoring.is_some()),
    ];
    facts.into_iter().filter_map(|(name, exists)| exists.then_some(name)).collect()
}
