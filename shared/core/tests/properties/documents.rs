//! Documents: what is written is read back, what is malformed is refused with a reason, and admission never panics.

use berth_core::{
    api::Server,
    identity::Identities,
    lifecycle::{admit_approval, admit_create, admit_status, admit_update, decide},
    protocol::StatusWrite,
};
use berth_testing::{Fixture, controller, deployment, full_spec, machine_class, person, replica_set, start};
use proptest::{collection::vec, option, prelude::*};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::any::{self, Fact};

pub(crate) fn read_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    document: &T,
) -> Result<(), TestCaseError> {
    let json = serde_json::to_string(document).unwrap();
    let read: T = serde_json::from_str(&json).unwrap();
    prop_assert_eq!(&read, document);
    prop_assert_eq!(serde_json::to_string(&read).unwrap(), json);
    Ok(())
}

/// Arbitrary JSON.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::num::f64::NORMAL.prop_map(Value::from),
        "[a-zA-Z0-9/:. -]{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "9999-12-31T23:59:59Z",
            "-009999-01-02T00:00:00Z",
            "Ready",
            "Running",
            "CreateMachine"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{1,10}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The pointer of every value in a document.
fn places(value: &Value, path: &str, out: &mut Vec<String>) {
    out.push(path.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                places(value, &format!("{path}/{}", key.replace('/', "~1")), out);
            }
        }
        Value::Array(list) => {
            for (n, value) in list.iter().enumerate() {
                places(value, &format!("{path}/{n}"), out);
            }
        }
        _ => {}
    }
}

/// A Server in the middle of its life.
fn life(n: usize) -> Fixture {
    let mut fixture = Fixture::new().gate(berth_core::api::GatePoint::ReleaseTraffic).decided();
    for _ in 0..n {
        let open = fixture.status().tasks.iter().find(|t| fixture.server.is_open(t)).map(|t| t.kind);
        if let Some(kind) = open {
            fixture.perform(kind);
        }
    }
    fixture
}

/// Lets every function of admission see the Server.
pub(crate) fn admit_all(old: &Server, new: &Server) {
    let ids = Identities::default();
    for author in [person("ann"), controller(berth_core::api::Executor::ReplicasetController)] {
        let _ = admit_create(new.clone(), &author, start());
        let _ = admit_update(old, new.clone(), &author, &ids, start());
        let _ = admit_status(old, new.clone(), &author, &ids, start());
        let _ = admit_status(new, new.clone(), &author, &ids, start());
    }
    let _ = (decide(new), new.blocking_failures().len(), new.is_retired(), new.monitoring_digest());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn admission_does_not_panic_on_a_server_with_arbitrary_values(n in 0..9usize, edits in vec((0..500usize, value()), 1..4), stored in any::<bool>()) {
        let old = life(n).server;
        let mut json = serde_json::to_value(&old).unwrap();
        if edits.len() > 2 {
            json["status"]["report"] = json!({"taskID": 1, "holder": "replicaset-controller/a", "outcome": "Retry", "retryAfterSeconds": i32::MAX});
            json["status"]["claim"] = json!({"taskID": 2, "holder": "replicaset-controller/a", "durationSeconds": i32::MAX});
        }
        for (place, value) in edits {
            let mut all = Vec::new();
            places(&json, "", &mut all);
            if let Some(target) = json.pointer_mut(&all[place % all.len()]) {
                *target = value;
            }
        }
        if let Ok(new) = serde_json::from_value::<Server>(json) {
            admit_all(if stored { &new } else { &old }, &new);
        }
    }

    #[test]
    fn objects_of_every_kind_survive_a_round_trip(
        n in 0..9usize, changes in vec(any::change(), 0..8), approval in any::approval(), replicas in 0..9, paused in any::<bool>(), kind in any::kind(),
    ) {
        let mut server = life(n).server;
        let mut spec = full_spec();
        for change in &changes {
            change.apply(&mut server.spec);
            change.apply(&mut spec);
        }
        let admitted = admit_create(server, &person("ann"), start()).unwrap();
        read_back(&admitted)?;
        read_back(&admit_approval(approval, &person("ann"), start()))?;
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {
            "machine": spec.machine, "packages": spec.packages, "healthCheck": spec.health_check, "traffic": spec.traffic,
            "monitoring": spec.monitoring, "gates": spec.gates}});
        let set = replica_set(json!({"spec": {"replicas": replicas, "template": template}}));
        read_back(&set)?;
        let rollout = json!({"paused": paused});
        let deployment = deployment(json!({"spec": {"replicas": replicas, "template": template, "rollout": rollout}}));
        read_back(&deployment)?;
        read_back(&machine_class(json!({"spec": {"parameters": {"n": replicas}}})))?;
        read_back(&kind)?;
    }

    #[test]
    fn a_patch_changes_exactly_the_written_facts(n in 0..9usize, facts in vec(any::fact(), 0..6), acknowledge in any::<bool>(), begun in any::<bool>(), epoch in option::of(0..3i64)) {
        let mut server = life(n).server;
        if !begun {
            server.status = None;
        }
        if let (Some(status), Some(epoch)) = (&mut server.status, epoch) {
            status.epoch = Some(epoch);
        }
        let mut write = StatusWrite::new(&server);
        let mut expected = server.clone();
        let mut judged = None;
        let meant = expected.status.get_or_insert_default();
        for fact in facts.clone() {
            match fact.clone() {
                Fact::Machine(fact) => meant.machine = fact,
                Fact::Environment(fact) => meant.environment = Some(fact),
                Fact::App(fact) => meant.app = fact,
                Fact::Traffic(fact) => meant.traffic = fact,
                Fact::Reachability(fact) => meant.reachability = Some(fact),
                Fact::Monitoring(fact) => meant.monitoring = fact,
                Fact::Health(fact) => {
                    judged.get_or_insert(vec![]).push(fact.epoch);
                    meant.health = Some(fact);
                }
            }
            write = match fact {
                Fact::Machine(fact) => write.machine(fact),
                Fact::Environment(fact) => write.environment(fact),
                Fact::App(fact) => write.app(fact),
                Fact::Traffic(fact) => write.traffic(fact),
                Fact::Reachability(fact) => write.reachability(fact),
                Fact::Monitoring(fact) => write.monitoring(fact),
                Fact::Health(fact) => write.health(fact),
            };
        }
        if acknowledge {
            write = write.acknowledge();
            meant.observed_generation = server.metadata.generation;
        }
        let mut json = serde_json::to_value(&server).unwrap();
        let applied = json_patch::patch(&mut json, &write.into_patch());
        let current = server.status.as_ref().and_then(|status| status.epoch);
        let in_time = judged.iter().flatten().all(|epoch| Some(*epoch) == current);
        prop_assert_eq!(applied.is_ok(), in_time, "health counts in its epoch only");
        if in_time {
            prop_assert_eq!(serde_json::from_value::<Server>(json).unwrap(), expected);
        }
    }
}
