//! Sets with their Servers, for tests of the plan.

use std::collections::BTreeSet;

use berth_core::{
    api::{Axis, LedgerEntry, Server, VMReplicaSet},
    conditions::{self, STALLED},
    ledger::Ledger,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::set::{
    drift_repair::DriftView,
    finding::MachineAnswers,
    machines::NoMachines,
    plan::{Plan, PlanInput, SetLimits, plan},
    status::status,
    template::new_server,
    zone::FailureDomains,
};

const NOW: i64 = 1_000_000;

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

/// A set whose template has packages of this version, on machines of this class.
pub(super) fn set(version: &str, class: &str, spec: impl Into<Value>) -> VMReplicaSet {
    let spec = spec.into();
    let labels = json!({"app": "web"});
    let package =
        json!({"name": "p", "version": version, "archive": {"url": "http://127.0.0.1/a", "sha256": "a".repeat(64)}});
    let template =
        json!({"metadata": {"labels": labels}, "spec": {"machine": {"className": class}, "packages": [package]}});
    let mut declared = json!({"replicas": 4, "selector": {"matchLabels": labels}, "template": template});
    declared.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let metadata = json!({"name": "web", "namespace": "n", "uid": "u", "generation": 3});
    berth_testing::replica_set(json!({"metadata": metadata, "spec": declared,
        "status": {},
    }))
}

pub(super) fn server(set: &VMReplicaSet, ordinal: i64, state: &str) -> Server {
    let mut value = serde_json::to_value(new_server(set, &format!("web-{ordinal}"))).unwrap();
    value["metadata"]["generation"] = 1.into();
    value["metadata"]["uid"] = format!("uid-{ordinal}").into();
    value["metadata"]["creationTimestamp"] = at(ordinal - 1000).to_string().into();
    value["status"] = json!({"state": state, "stateSince": at(-500).to_string(), "observedGeneration": 1});
    serde_json::from_value(value).unwrap()
}

pub(super) fn fleet(set: &VMReplicaSet, states: &[&str]) -> Vec<Server> {
    states.iter().zip(0..).map(|(state, ordinal)| server(set, ordinal, state)).collect()
}

pub(super) fn stall(server: &mut Server, why: &str) {
    let conditions = &mut server.status.as_mut().unwrap().conditions;
    conditions::set(conditions, STALLED, true, "TaskFailed", why, None, at(0));
}

pub(super) struct World<'a> {
    pub(super) servers: &'a [Server],
    pub(super) seconds: i64,
    pub(super) limits: SetLimits,
    pub(super) no_machines: Option<NoMachines>,
    pub(super) drift: DriftView,
}

pub(super) fn world(servers: &[Server]) -> World<'_> {
    let limits = SetLimits { creating: 50, replicas: 1000, zone_brake: 40 };
    World { servers, seconds: 0, limits, no_machines: None, drift: DriftView::default() }
}

impl<'a> World<'a> {
    pub(super) fn plan(&self, set: &VMReplicaSet) -> Plan<'a> {
        let servers: Vec<&Server> = self.servers.iter().collect();
        plan(PlanInput {
            set,
            servers: &servers,
            now: at(self.seconds),
            limits: self.limits,
            foreign_names: &BTreeSet::new(),
            no_machines: self.no_machines.as_ref(),
            drift: &self.drift,
            answers: &MachineAnswers::new(),
            domains: &FailureDomains::new(),
        })
    }

    /// Enters what the plan asks for, and says what the status is then.
    pub(super) fn enter(&self, set: &mut VMReplicaSet) -> Plan<'a> {
        let plan = self.plan(set);
        let servers: Vec<&Server> = self.servers.iter().collect();
        set.status = Some(status(set, &servers, &plan, at(self.seconds)));
        plan
    }
}

/// Entries of the ledger from their short form, `<server>/<axis>`.
pub(super) fn ledger(lines: &[&str]) -> Vec<LedgerEntry> {
    let entry = |line: &&str| {
        let (server, axis) = line.split_once('/').unwrap();
        LedgerEntry::new(server, serde_json::from_value::<Axis>(axis.into()).unwrap())
    };
    lines.iter().map(entry).collect()
}

/// The short form of entries of the ledger.
pub(super) fn lines(ledger: &[LedgerEntry]) -> Vec<String> {
    ledger.iter().map(|entry| format!("{}/{:?}", entry.server, entry.axis)).collect()
}

/// The short form of a set's ledger.
pub(super) fn disturbed(set: &VMReplicaSet) -> Vec<String> {
    lines(&Ledger::of(set).to_status())
}

pub(super) fn names(servers: &[&Server]) -> Vec<String> {
    servers.iter().map(|s| s.name().to_owned()).collect()
}

pub(super) fn condition(set: &VMReplicaSet, kind: &str) -> (String, String) {
    let condition = conditions::get(&set.status.as_ref().unwrap().conditions, kind).unwrap();
    (condition.status.clone(), condition.reason.clone())
}
