//! What controllers write: JSON Patches whose tests guard what they rely on.

use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, TestOperation, jsonptr::PointerBuf};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::api::{
    AppFact, Claim, EnvironmentFact, HealthFact, MachineFact, MonitoringFact, ReachabilityFact, Report, Server,
    ServerStatus, TrafficFact,
};

/// One write to `servers/status`: facts, at most one report and at most one claim. It applies to this very object only
/// (its UID is tested), whatever else about it has changed in the meantime.
#[derive(Clone, Debug)]
pub struct StatusWrite {
    tests: Vec<PatchOperation>,
    set: Map<String, Value>,
    removed: Vec<&'static str>,
    generation: Option<i64>,
    /// The facts that are there and could be taken back; nothing when there is no status.
    present: Option<Vec<&'static str>>,
    resource_version: Option<String>,
}

impl StatusWrite {
    /// A write to this Server that changes nothing yet.
    #[must_use]
    pub fn new(server: &Server) -> Self {
        Self {
            tests: vec![test(&["metadata", "uid"], to_value(&server.metadata.uid))],
            set: Map::new(),
            removed: Vec::new(),
            generation: server.metadata.generation,
            present: server.status.as_ref().map(revocable),
            resource_version: server.metadata.resource_version.clone(),
        }
    }

    /// Asks for a decision on the newest declaration.
    #[must_use]
    pub fn acknowledge(mut self) -> Self {
        self.set.insert("observedGeneration".into(), to_value(&self.generation));
        self
    }

    /// Fact: the machine.
    #[must_use]
    pub fn machine(self, fact: Option<MachineFact>) -> Self {
        self.fact("machine", fact)
    }

    /// Fact: what is installed.
    #[must_use]
    pub fn environment(self, fact: EnvironmentFact) -> Self {
        self.fact("environment", Some(fact))
    }

    /// Fact: what is deployed.
    #[must_use]
    pub fn app(self, fact: Option<AppFact>) -> Self {
        self.fact("app", fact)
    }

    /// Fact: which traffic it gets.
    #[must_use]
    pub fn traffic(self, fact: Option<TrafficFact>) -> Self {
        self.fact("traffic", fact)
    }

    /// Fact: whether it can be reached.
    #[must_use]
    pub fn reachability(self, fact: ReachabilityFact) -> Self {
        self.fact("reachability", Some(fact))
    }

    /// Fact: whether the application is well, judged in the epoch that the fact names.
    #[must_use]
    pub fn health(mut self, fact: HealthFact) -> Self {
        self.tests.push(test(&["status", "epoch"], to_value(&fact.epoch)));
        self.fact("health", Some(fact))
    }

    /// Fact: whether it is watched.
    #[must_use]
    pub fn monitoring(self, fact: Option<MonitoringFact>) -> Self {
        self.fact("monitoring", fact)
    }

    /// What became of a task.
    #[must_use]
    pub fn report(self, report: Report) -> Self {
        self.fact("report", Some(report))
    }

    /// Only if nothing at all about the Server has changed since it was read: for facts that were read from a machine
    /// which somebody may have begun to change in the meantime.
    #[must_use]
    pub fn if_unchanged(mut self) -> Self {
        self.tests.push(test(&["metadata", "resourceVersion"], to_value(&self.resource_version)));
        self
    }

    /// A claim, its renewal or its release.
    #[must_use]
    pub fn claim(self, claim: Claim) -> Self {
        self.fact("claim", Some(claim))
    }

    /// Whether the write would do nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }

    fn fact<T: Serialize>(mut self, name: &'static str, value: Option<T>) -> Self {
        match value {
            Some(value) => {
                self.set.insert(name.to_owned(), to_value(&value));
                self.removed.retain(|n| *n != name);
            }
            None => {
                self.set.remove(name);
                let present = self.present.as_ref().is_some_and(|there| there.contains(&name));
                if present && !self.removed.contains(&name) {
                    self.removed.push(name);
                }
            }
        }
        self
    }

    /// The patch. On a Server without a status it also tests the `resourceVersion`, so that it cannot overwrite the
    /// status that somebody else has begun.
    #[must_use]
    pub fn into_patch(self) -> Patch {
        let mut operations = self.tests;
        if self.present.is_none() {
            operations.push(test(&["metadata", "resourceVersion"], to_value(&self.resource_version)));
            operations.push(add(&["status"], Value::Object(self.set)));
            return Patch(operations);
        }
        operations.extend(self.set.into_iter().map(|(name, value)| add(&["status", &name], value)));
        operations.extend(
            self.removed.into_iter().map(|name| {
                PatchOperation::Remove(RemoveOperation { path: PointerBuf::from_tokens(["status", name]) })
            }),
        );
        Patch(operations)
    }
}

/// The names of the facts in the status that a controller may take back.
fn revocable(status: &ServerStatus) -> Vec<&'static str> {
    let facts = [
        ("machine", status.machine.is_some()),
        ("app", status.app.is_some()),
        ("traffic", status.traffic.is_some()),
        ("monitoring", status.monitoring.is_some()),
    ];
    facts.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

fn test(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Test(TestOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}

fn to_value<T: Serialize + ?Sized>(value: &T) -> Value {
    // The types of this crate always serialise: their maps have string keys and they fail nowhere.
    serde_json::to_value(value).unwrap_or_default()
}
