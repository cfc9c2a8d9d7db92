//! Failover of Servers that monitor-controller cannot reach.

use std::sync::Arc;

use berth_core::{
    api::{Server, VMReplicaSet},
    conditions,
};
use berth_runtime::Change;
use kube::ResourceExt as _;
use replicaset_controller::set::reconcile::SetReconciler;
use serde_json::json;

use super::lab::{Lab, Source};

fn condition(set: &VMReplicaSet, kind: &str) -> Option<(String, String, String)> {
    let status = set.status.as_ref()?;
    conditions::get(&status.conditions, kind).map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
}

fn is(set: &VMReplicaSet, kind: &str, reason: &str) -> bool {
    condition(set, kind).is_some_and(|(status, of, _)| status == "True" && of == reason)
}

/// Writes nothing, however often it is reconciled, also not in a copy that has just started.
async fn is_at_rest(lab: &Lab, name: &str, source: &Arc<Source>) {
    let version = lab.read(name).await.0.resource_version();
    let started = lab.controller_with("c", source.clone()).await;
    for _ in 0..5 {
        let (set, servers) = lab.read(name).await;
        started.reconcile(&set, &servers.iter().collect::<Vec<_>>()).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(lab.read(name).await.0.resource_version(), version);
}

pub(crate) async fn a_machine_that_answers_is_kept_and_a_dead_one_replaced(lab: &Lab) {
    let source = Arc::new(Source { zone: Some("z1".into()), ..Source::default() });
    let controller = lab.controller_with("a", source.clone()).await;
    let failover = json!({"waitSeconds": 0, "action": "Replace", "maxInFlight": 1, "unhealthyLessThanOrEqualTo": 2});
    lab.create("lost", json!({"replicas": 3, "failover": failover})).await;
    lab.until(&controller, "lost", |_, servers| servers.len() == 3).await;
    let before = lab.read("lost").await.1;
    for server in &before {
        assert_eq!(server.labels().get("topology.kubernetes.io/zone").map(String::as_str), Some("z1"));
        lab.make_ready(server).await;
    }
    source.alive.lock().insert("lost-1".into());
    lab.make_unreachable(&before[1]).await;
    lab.until(&controller, "lost", |set, servers| {
        assert!(servers.iter().any(|server| server.uid() == before[1].uid()), "its machine runs and answers");
        is(set, "Stalled", "MachineAnswers")
    })
    .await;
    let (set, _) = lab.read("lost").await;
    assert!(condition(&set, "Stalled").unwrap().2.starts_with("lost-1: monitor-controller cannot reach"));
    assert!(set.status.unwrap().disturbed.is_empty());
    is_at_rest(lab, "lost", &source).await;

    // Another one is dead: it is replaced, and the first one stays.
    lab.make_unreachable(&before[2]).await;
    lab.until(&controller, "lost", |_, servers| {
        assert!(servers.iter().any(|server| server.uid() == before[1].uid()));
        servers.len() == 3 && servers.iter().all(|server| server.uid() != before[2].uid())
    })
    .await;
    for server in lab.read("lost").await.1.iter().filter(|server| server.status.is_none()) {
        lab.make_ready(server).await;
    }
    // Now the first one is dead, too. A copy that has not asked lately asks at once.
    source.alive.lock().clear();
    let other = lab.controller_with("b", source.clone()).await;
    lab.until(&other, "lost", |_, servers| {
        servers.len() == 3 && servers.iter().all(|server| server.uid() != before[1].uid())
    })
    .await;
}

async fn follow(lab: &Lab, controller: &SetReconciler, names: &[String]) -> Vec<Server> {
    let mut all = Vec::new();
    for name in names {
        for server in lab.read(name).await.1 {
            controller.zones().follow(&Change::Present(Arc::new(server.clone())));
            all.push(server);
        }
    }
    all
}

pub(crate) async fn sets_of_one_that_are_all_unreachable_keep_their_servers(lab: &Lab) {
    let source = Arc::new(Source::default());
    let controller = lab.controller_with("a", source.clone()).await;
    let names: Vec<String> = (0..6).map(|n| format!("single-{n}")).collect();
    let failover = json!({"waitSeconds": 0, "action": "Replace", "unhealthyLessThanOrEqualTo": "100%"});
    let template = json!({"spec": {"machine": {"className": "alone"}}});
    for name in &names {
        lab.create(name, json!({"replicas": 1, "failover": failover, "template": template})).await;
        lab.until(&controller, name, |_, servers| servers.len() == 1).await;
        lab.make_unreachable(&lab.read(name).await.1[0]).await;
    }
    let before = follow(lab, &controller, &names).await;
    for (name, server) in names.iter().zip(&before) {
        lab.until(&controller, name, |set, servers| {
            assert_eq!(servers.first().map(Server::uid), Some(server.uid()), "all six are unreachable at once");
            is(set, "FailoverHeld", "TooManyUnknownInZone") && is(set, "Stalled", "TooManyUnknownInZone")
        })
        .await;
    }
    is_at_rest_with_zones(lab, &names).await;
    // All but one are back: it waits anew, which takes no time here, and is replaced.
    for server in &before[1..] {
        lab.make_ready(server).await;
    }
    follow(lab, &controller, &names).await;
    lab.until(&controller, &names[0], |_, servers| servers.len() == 1 && servers[0].uid() != before[0].uid()).await;
    let (set, _) = lab.read(&names[0]).await;
    let (status, reason, _) = condition(&set, "FailoverHeld").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "FewEnoughUnknown"));
}

async fn is_at_rest_with_zones(lab: &Lab, names: &[String]) {
    let started = lab.controller_with("c", Arc::default()).await;
    follow(lab, &started, names).await;
    for name in names {
        let (set, servers) = lab.read(name).await;
        started.reconcile(&set, &servers.iter().collect::<Vec<_>>()).await.unwrap();
        assert_eq!(lab.read(name).await.0.resource_version(), set.resource_version());
    }
}
