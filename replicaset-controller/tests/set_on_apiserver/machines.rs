//! Machines that have to be replaced, and machines that cannot be created.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use berth_core::{api::Server, conditions};
use k8s_openapi::api::core::v1::Event;
use kube::{Api, api::ListParams};
use replicaset_controller::set::machines::NoMachines;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::lab::{LIMIT, Lab, Source};

pub(crate) async fn changed_machines_are_replaced_with_a_surge(lab: &Lab) {
    let (one, other) = (lab.controller("a").await, lab.controller("b").await);
    let strategy = json!({"type": "Replace", "maxSurge": 1, "maxUnavailable": 0});
    lab.create("moved", json!({"replicas": 3, "updateStrategy": strategy})).await;
    lab.until(&one, "moved", |_, servers| servers.len() == 3).await;
    for server in lab.read("moved").await.1 {
        lab.make_ready(&server).await;
    }
    lab.change("moved", json!({"template": {"spec": {"machine": {"className": "other"}}}})).await;
    let is_new = |server: &Server| server.spec.machine.class_name == "other";
    let deadline = Instant::now() + LIMIT;
    let mut seen = BTreeSet::new();
    loop {
        let (set, servers) = lab.read("moved").await;
        let counts = (servers.iter().filter(|s| !is_new(s)).count(), servers.iter().filter(|s| is_new(s)).count());
        seen.insert(counts);
        assert!(servers.len() <= 4, "one may be there beyond the three: {counts:?}");
        let serving = servers.iter().filter(|s| s.status.is_some()).count();
        assert!(serving >= 3, "none may be missing: {counts:?}");
        let status = set.status.clone().unwrap();
        if counts == (0, 3) && status.updated_replicas == 3 && status.disturbed.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{set:?}");
        let refs: Vec<&Server> = servers.iter().collect();
        let (first, second) = tokio::join!(one.reconcile(&set, &refs), other.reconcile(&set, &refs));
        first.unwrap();
        second.unwrap();
        for server in servers.iter().filter(|s| is_new(s) && s.status.is_none()) {
            lab.make_ready(server).await;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(seen.is_superset(&BTreeSet::from([(3, 0), (3, 1), (2, 1), (2, 2), (1, 3), (0, 3)])), "{seen:?}");
}

pub(crate) async fn a_strategy_without_headroom_is_refused(lab: &Lab) {
    for (strategy, is_allowed) in [
        (json!({"type": "Replace", "maxSurge": 0, "maxUnavailable": 0}), false),
        (json!({"type": "Replace", "maxSurge": "0%", "maxUnavailable": "0%"}), false),
        (json!({"type": "Replace", "maxUnavailable": 0}), false),
        (json!({"type": "Replace", "maxSurge": "10%", "maxUnavailable": "0%"}), true),
        (json!({"type": "Replace", "maxSurge": 0}), true),
        (json!({"maxSurge": 0, "maxUnavailable": 0}), true),
    ] {
        let result = lab.try_create("narrow", json!({"replicas": 0, "updateStrategy": strategy})).await;
        match result {
            Ok(()) => {
                assert!(is_allowed, "{strategy}");
                lab.sets.delete("narrow", &kube::api::DeleteParams::default()).await.unwrap();
            }
            Err(error) => {
                assert!(
                    !is_allowed && error.to_string().contains("maxSurge must be at least 1"),
                    "{strategy}: {error}"
                );
            }
        }
    }
}

pub(crate) async fn a_set_without_machines_reports_it_once(lab: &Lab) {
    let source = Arc::new(Source::default());
    let problem = NoMachines {
        reason: "ClassNotFound",
        message: "no MachineClass \"local\"".into(),
        is_temporary: false,
        room: 0,
    };
    *source.problem.lock() = Some(problem);
    let controller = lab.controller_with("a", source.clone()).await;
    lab.create("barren", json!({"replicas": 2})).await;
    let stalled = |set: &berth_core::api::VMReplicaSet| {
        let status = set.status.clone().unwrap_or_default();
        conditions::get(&status.conditions, "Stalled").map(|c| (c.status.clone(), c.reason.clone()))
    };
    lab.until(&controller, "barren", |set, _| stalled(set) == Some(("True".into(), "ClassNotFound".into()))).await;
    for _ in 0..3 {
        let (set, servers) = lab.read("barren").await;
        assert!(servers.is_empty());
        lab.controller_with("b", source.clone()).await.reconcile(&set, &[]).await.unwrap();
    }
    assert!(lab.read("barren").await.1.is_empty());
    let events: Api<Event> = Api::default_namespaced(lab.control_plane.admin_client());
    let about = ListParams::default().fields("involvedObject.name=barren,reason=ClassNotFound");
    let deadline = Instant::now() + LIMIT;
    let published = loop {
        let found = events.list(&about).await.unwrap().items;
        if !found.is_empty() {
            break found;
        }
        assert!(Instant::now() < deadline, "no Event was published");
        sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((published.len(), published[0].count), (1, Some(1)), "{published:?}");
    *source.problem.lock() = None;
    lab.until(&controller, "barren", |set, servers| {
        servers.len() == 2 && stalled(set).is_some_and(|(status, _)| status == "False")
    })
    .await;
    let names: Vec<String> = lab.read("barren").await.1.iter().map(|server| server.name().to_owned()).collect();
    assert_eq!(names, ["barren-0", "barren-1"]);
}
