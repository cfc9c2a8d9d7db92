//! An API server with one set, its Servers and their machines, and time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use berth_core::{
    api::{Server, State, VMReplicaSet, VMReplicaSetStatus},
    budget::Budget,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde_json::{Value, json};

use crate::set::plan::SetLedgers;

const EPOCH: i64 = 1_000_000;

/// What a set declares.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) replicas: usize,
    pub(crate) class: u8,
    pub(crate) environment: u8,
    pub(crate) replaces: bool,
    pub(crate) max_unavailable: usize,
    pub(crate) max_surge: usize,
    pub(crate) partition: usize,
    pub(crate) interval: i64,
}

/// One Server.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) uid: u64,
    pub(crate) class: u8,
    pub(crate) environment: u8,
    pub(crate) code: u8,
    pub(crate) ready: bool,
    pub(crate) deleting: bool,
    pub(crate) drifted: bool,
    /// How often it stopped being Ready.
    pub(crate) outages: u32,
}

impl Machine {
    pub(crate) fn stop(&mut self) {
        if std::mem::take(&mut self.ready) {
            self.outages += 1;
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) spec: Spec,
    /// The code that deployment-controller is to bring to every Server.
    pub(crate) code: u8,
    pub(crate) version: u64,
    pub(crate) status: VMReplicaSetStatus,
    pub(crate) servers: BTreeMap<String, Machine>,
    pub(crate) now: i64,
    uids: u64,
    /// When the environment roll-out began to change a Ready Server.
    pub(crate) begun: Vec<i64>,
    /// Servers that became unready through nobody's doing.
    pub(crate) failures: usize,
}

impl World {
    pub(crate) fn new(spec: Spec) -> Self {
        Self {
            spec,
            code: 0,
            version: 1,
            status: VMReplicaSetStatus::default(),
            servers: BTreeMap::new(),
            now: EPOCH,
            uids: 0,
            begun: Vec::new(),
            failures: 0,
        }
    }

    pub(crate) fn time(&self) -> Timestamp {
        Timestamp::from_second(self.now).unwrap()
    }

    pub(crate) fn set(&self) -> VMReplicaSet {
        let spec = &self.spec;
        let strategy = json!({
            "type": if spec.replaces { "Replace" } else { "InPlace" }, "maxUnavailable": spec.max_unavailable,
            "maxSurge": spec.max_surge, "partition": spec.partition, "intervalSeconds": spec.interval,
        });
        let mut set = berth_testing::replica_set(json!({
            "metadata": {"uid": "u", "resourceVersion": self.version.to_string()},
            "spec": {
                "replicas": spec.replicas, "updateStrategy": strategy,
                "template": {"spec": declaration(spec.class, spec.environment)},
            },
        }));
        set.status = Some(self.status.clone());
        set
    }

    pub(crate) fn list(&self) -> Vec<Server> {
        self.servers.iter().map(|(name, machine)| server(name, machine)).collect()
    }

    pub(crate) fn is_current(&self, read: &VMReplicaSet) -> bool {
        read.metadata.resource_version == Some(self.version.to_string())
    }

    /// The status is written by somebody who has read this version.
    pub(crate) fn swap(&mut self, read: &VMReplicaSet, ledgers: SetLedgers) -> bool {
        if !self.is_current(read) {
            return false;
        }
        self.version += 1;
        self.status.creating = ledgers.creating;
        self.status.disturbed = ledgers.disturbed.to_status();
        self.status.last_disturbed_at = ledgers.last_disturbed_at;
        true
    }

    /// Another declaration.
    pub(crate) fn declare(&mut self, spec: Spec) {
        self.spec = spec;
        self.version += 1;
        (self.begun, self.failures) = (Vec::new(), 0);
    }

    pub(crate) fn create(&mut self, name: &str, class: u8, environment: u8) {
        self.uids += 1;
        let (uid, code) = (self.uids, self.code);
        let new = Machine { uid, class, environment, code, ready: false, deleting: false, drifted: false, outages: 0 };
        self.servers.entry(name.to_owned()).or_insert(new);
    }

    /// What one of the controllers does to this very Server.
    pub(crate) fn change(&mut self, name: &str, uid: u64, change: impl FnOnce(&mut Machine)) {
        if let Some(machine) = self.servers.get_mut(name).filter(|m| m.uid == uid) {
            change(machine);
        }
    }

    pub(crate) fn nth(&mut self, n: usize, holds: impl Fn(&Machine) -> bool) -> Option<&mut Machine> {
        let mut all: Vec<&mut Machine> = self.servers.values_mut().filter(|m| holds(m)).collect();
        (!all.is_empty()).then(|| all.remove(n % all.len()))
    }

    pub(crate) fn remove_gone(&mut self) {
        let gone = self.servers.iter().find(|(_, m)| m.deleting).map(|(name, _)| name.clone());
        gone.map(|name| self.servers.remove(&name));
    }

    pub(crate) fn active(&self) -> usize {
        self.servers.values().filter(|m| !m.deleting).count()
    }

    pub(crate) fn available(&self) -> usize {
        self.servers.values().filter(|m| !m.deleting && m.ready).count()
    }

    pub(crate) fn old_machines(&self) -> usize {
        self.servers.values().filter(|m| !m.deleting && m.class != self.spec.class).count()
    }

    pub(crate) fn budget(&self) -> Budget {
        Budget::of_set(&self.set())
    }

    /// How many have an older template.
    pub(crate) fn old(&self) -> usize {
        let spec = &self.spec;
        let is_old = |m: &&Machine| m.environment != spec.environment || spec.replaces && m.class != spec.class;
        self.servers.values().filter(|m| !m.deleting).filter(is_old).count()
    }

    pub(crate) fn drifted(&self) -> BTreeSet<String> {
        self.servers.iter().filter(|(_, m)| m.drifted && m.ready).map(|(name, _)| name.clone()).collect()
    }
}

fn declaration(class: u8, environment: u8) -> Value {
    json!({
        "machine": {"className": format!("c{class}")},
        "packages": [{"name": "p", "version": format!("{environment}"), "archive": {"url": "http://h/a", "sha256": "a".repeat(64)}}],
    })
}

/// Decoding each Server anew would be most of the test's time.
pub(crate) fn server(name: &str, machine: &Machine) -> Server {
    static LIKE: LazyLock<Server> = LazyLock::new(|| {
        decoded(
            "like",
            &Machine {
                uid: 1,
                class: 0,
                environment: 0,
                code: 0,
                ready: true,
                deleting: false,
                drifted: false,
                outages: 0,
            },
        )
    });
    static DELETED: LazyLock<Time> = LazyLock::new(|| Time(Timestamp::from_second(EPOCH).unwrap()));
    let mut server = LIKE.clone();
    server.metadata.name = Some(name.to_owned());
    server.metadata.uid = Some(machine.uid.to_string());
    let created = Timestamp::from_second(EPOCH + i64::try_from(machine.uid).unwrap()).unwrap();
    server.metadata.creation_timestamp = Some(Time(created));
    server.metadata.deletion_timestamp = machine.deleting.then(|| DELETED.clone());
    server.spec.machine.class_name = format!("c{}", machine.class);
    server.spec.packages[0].version = machine.environment.to_string();
    server.spec.app.as_mut().unwrap().revision = Some(machine.code.to_string());
    server.status.as_mut().unwrap().state = Some(if machine.ready { State::Ready } else { State::Initializing });
    server
}

fn decoded(name: &str, machine: &Machine) -> Server {
    let mut spec = declaration(machine.class, machine.environment);
    spec["app"] = json!({
        "name": "web", "revision": machine.code.to_string(), "command": "run",
        "artifact": {"url": "http://h/w", "sha256": "b".repeat(64)},
    });
    let metadata = json!({"name": name, "generation": 1, "labels": {"app": "web"}});
    berth_testing::server(json!({"metadata": metadata, "spec": spec,
        "status": {"state": "Ready", "observedGeneration": 1, "stateSince": "1970-01-02T00:00:00Z"},
    }))
}

pub(crate) fn uid(server: &Server) -> u64 {
    server.metadata.uid.as_deref().unwrap().parse().unwrap()
}
