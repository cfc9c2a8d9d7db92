//! VMDeployments against a real kube-apiserver. Neither the webhook nor replicaset-controller runs: the test does what they
//! would do.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod cluster;

use std::{collections::BTreeMap, time::Duration};

use berth_core::api::VMDeployment;
use deployment_controller::Deployments;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use cluster::{Cluster, LIMIT, Snapshot, reconcile};

fn app(revision: &str, env: &[&str]) -> Value {
    let env: Vec<Value> = env.iter().map(|name| json!({"name": name, "value": "1"})).collect();
    let artifact = json!({"url": "http://127.0.0.1/w", "sha256": "b".repeat(64)});
    json!({"name": "web", "revision": revision, "artifact": artifact, "command": "./run", "env": env})
}

/// Each digest of content that Servers declare, and how many declare it.
fn contents(snapshot: &Snapshot) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for app in snapshot.servers.iter().filter_map(|server| server.spec.app.as_ref()) {
        *counts.entry(app.content_digest.clone().unwrap_or_default()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_roll_the_changed_content_of_a_config_map_out_within_the_budget() {
    let cluster = Cluster::start().await;
    let (one, other) = (cluster.controller("a").await, cluster.controller("b").await);
    let mut declared = app("v1", &[]);
    declared["files"] = json!([{"path": "conf/a", "configMapKeyRef": {"name": "conf", "key": "a"}}]);
    cluster.create_deployment(declared.clone()).await;
    let missing =
        "a person: file conf/a (spec.app.files) needs key a of ConfigMap default/conf: there is no such ConfigMap";
    let is_told = |snapshot: &Snapshot, what: &str| {
        let status = snapshot.deployment.status.as_ref();
        status.and_then(|status| status.waiting_for.as_ref()).is_some_and(|text| text.starts_with(what))
    };
    let snapshot = cluster.reconcile_until(&one, |snapshot| snapshot.set.is_some()).await;
    for name in ["web-0", "web-1", "web-2"] {
        cluster.create_server(snapshot.set.as_ref().unwrap(), name).await;
    }
    cluster.write_config("first").await;
    let mut known = Box::pin(follow(&cluster, &one, &other, &BTreeMap::new())).await;
    for text in ["second", "third"] {
        cluster.write_config(text).await;
        let after = Box::pin(follow(&cluster, &one, &other, &known)).await;
        assert_eq!(known.keys().filter(|digest| after.contains_key(*digest)).count(), 0, "{text}");
        known = after;
    }
    assert_eq!(cluster.history().await, ["1 v1 stable"], "it has what was declared");

    declared["files"][0]["configMapKeyRef"]["name"] = "gone".into();
    declared["revision"] = "v2".into();
    let change = Patch::Merge(json!({"spec": {"app": declared}}));
    cluster.deployments.patch("web", &PatchParams::default(), &change).await.unwrap();
    let missing = missing.replace("default/conf", "default/gone");
    let snapshot = cluster.reconcile_until(&one, |snapshot| is_told(snapshot, &missing)).await;
    assert_eq!((contents(&snapshot), snapshot.template_revision()), (known, Some("v1")), "nothing is touched");
    cluster.control_plane.stop().await.unwrap();
}

/// Lets both copies reconcile, one of them on what was true before, until all Servers are stable with another content than this.
/// Returns it.
async fn follow(
    cluster: &Cluster,
    one: &Deployments,
    other: &Deployments,
    before: &BTreeMap<String, usize>,
) -> BTreeMap<String, usize> {
    let deadline = Instant::now() + LIMIT;
    let (mut stale, mut most) = (cluster.snapshot().await, 0);
    loop {
        let newer = cluster.snapshot().await;
        tokio::join!(reconcile(one, &newer), reconcile(other, &stale));
        stale = newer;
        let snapshot = cluster.snapshot().await;
        let found = contents(&snapshot);
        let new: usize = found.iter().filter(|(digest, _)| !before.contains_key(*digest)).map(|(_, count)| count).sum();
        if !before.is_empty() {
            assert!((most..=most + 1).contains(&new), "one at a time, and none goes back: {most}, {found:?}");
        }
        most = new;
        let is_stable = |snapshot: &Snapshot| {
            let app = snapshot.deployment.status.as_ref().and_then(|status| status.stable_app.clone());
            app.is_some_and(|app| found.get(&app.content_digest.unwrap_or_default()) == Some(&3))
        };
        if new == 3 && is_stable(&snapshot) && snapshot.nothing_is_disturbed() {
            return found;
        }
        assert!(Instant::now() < deadline, "{:?}", snapshot.deployment.status);
        for server in &snapshot.servers {
            let is_ready = server.status.as_ref().and_then(|status| status.observed_generation);
            if is_ready != server.metadata.generation {
                cluster.make_ready(server).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_rolled_out_within_the_budget() {
    let cluster = Cluster::start().await;
    let (one, other) = (cluster.controller("a").await, cluster.controller("b").await);
    cluster.create_deployment(app("v1", &["OLD", "KEPT"])).await;
    let snapshot = cluster.reconcile_until(&one, |snapshot| snapshot.set.is_some()).await;
    assert_eq!(snapshot.template_revision(), Some("v1"));
    for name in ["web-0", "web-1", "web-2"] {
        cluster.create_server(snapshot.set.as_ref().unwrap(), name).await;
    }
    cluster.reconcile_until(&one, |snapshot| snapshot.is_stable("v1")).await;

    let change = Patch::Merge(json!({"spec": {"app": app("v2", &["KEPT", "NEW"])}}));
    cluster.deployments.patch("web", &PatchParams::default(), &change).await.unwrap();
    for updated in 1..=3 {
        // In a box, because a future that holds several snapshots is large.
        Box::pin(update_one_more(&cluster, &one, &other, updated)).await;
    }
    cluster.reconcile_until(&one, |snapshot| snapshot.is_stable("v2")).await;
    let is_at_rest =
        |snapshot: &Snapshot| snapshot.template_revision() == Some("v2") && snapshot.nothing_is_disturbed();
    cluster.reconcile_until(&one, is_at_rest).await;

    Box::pin(assert_nothing_is_written_at_rest(&cluster, &one)).await;
    Box::pin(assert_history(&cluster, &one)).await;
    cluster.control_plane.stop().await.unwrap();
}

/// Otherwise two copies would change the set to and fro: to fewer replicas, Servers would be removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_cache_is_behind_does_not_take_a_newer_declaration_back() {
    let cluster = Cluster::start().await;
    let (one, behind) = (cluster.controller("a").await, cluster.controller("b").await);
    cluster.create_deployment(app("v1", &[])).await;
    cluster.reconcile_until(&one, |snapshot| snapshot.set.is_some()).await;
    let old = cluster.snapshot().await;

    let more = Patch::Merge(json!({"spec": {"replicas": 5}}));
    cluster.deployments.patch("web", &PatchParams::default(), &more).await.unwrap();
    let replicas = |snapshot: &Snapshot| snapshot.set.as_ref().unwrap().spec.replicas;
    let new = cluster.reconcile_until(&one, |snapshot| replicas(snapshot) == 5).await;
    // Its cache of sets is up to date, that of VMDeployments is not.
    reconcile(&behind, &Snapshot { deployment: old.deployment, ..new }).await;
    assert_eq!(replicas(&cluster.snapshot().await), 5);
    cluster.control_plane.stop().await.unwrap();
}

/// Each version has one revision, a person goes back to one, and one that is gone is answered in words.
async fn assert_history(cluster: &Cluster, controller: &Deployments) {
    assert_eq!(cluster.history().await, ["1 v1 stable", "2 v2 stable"]);
    cluster.request(json!({"action": "Undo", "id": "1"})).await;
    for updated in 1..=3 {
        let snapshot = cluster.reconcile_until(controller, |now| now.with_revision("v1").len() == updated).await;
        assert_eq!(snapshot.deployment.spec.app.revision.as_deref(), Some("v2"), "the declaration stays");
        for server in snapshot.with_revision("v1") {
            cluster.make_ready(server).await;
        }
    }
    cluster.reconcile_until(controller, |snapshot| snapshot.is_stable("v1")).await;
    assert_eq!(cluster.history().await, ["2 v2 stable", "3 v1 stable"], "what comes back gets a new number");
    let is_number = |snapshot: &Snapshot, number| {
        let progress = snapshot.deployment.status.as_ref().and_then(|status| status.rollout.as_ref());
        progress.and_then(|progress| progress.revision_number) == Some(number)
    };
    cluster.reconcile_until(controller, |snapshot| is_number(snapshot, 3)).await;

    cluster.request(json!({"action": "Undo", "toRevision": 1, "id": "2"})).await;
    let refused = |snapshot: &Snapshot| snapshot.deployment.status.as_ref()?.rollout.as_ref()?.refused.clone();
    let snapshot = cluster.reconcile_until(controller, |snapshot| refused(snapshot).is_some()).await;
    assert_eq!(refused(&snapshot).unwrap(), "there is no revision 1 any more; there are 2 (v2), 3 (v1)");
    assert_eq!(snapshot.with_revision("v1").len(), 3, "nothing is done");

    // Other fields do not count, and the limit holds as soon as it is declared.
    let patch =
        json!({"spec": {"revisionHistoryLimit": 0, "app": app("v1", &["OLD", "KEPT"]), "rollout": {"request": null}}});
    cluster.deployments.patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let is_done = |snapshot: &Snapshot| {
        let status = snapshot.deployment.status.as_ref();
        status.is_some_and(|status| status.observed_generation == snapshot.deployment.metadata.generation)
    };
    cluster.reconcile_until(controller, is_done).await;
    assert_eq!(cluster.history().await, ["3 v1 stable"]);
}

/// Reconciles until one more Server has the new revision, and then makes it Ready with it.
async fn update_one_more(cluster: &Cluster, one: &Deployments, other: &Deployments, updated: usize) {
    let stale = cluster.reconcile_until(one, |snapshot| snapshot.with_revision("v2").len() == updated).await;
    // Two copies, one of which has a stale cache: neither updates another Server.
    for _ in 0..3 {
        let newer = cluster.snapshot().await;
        tokio::join!(reconcile(one, &newer), reconcile(other, &stale));
    }
    let snapshot = cluster.snapshot().await;
    assert_eq!(snapshot.with_revision("v2").len(), updated);
    if updated < 3 {
        assert_eq!(snapshot.template_revision(), Some("v1"), "new Servers get the stable application");
    }
    for server in snapshot.with_revision("v2") {
        let env: Vec<&str> = server.spec.app.as_ref().unwrap().env.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(env, ["KEPT", "NEW"], "what left the application leaves the Server");
        cluster.make_ready(server).await;
    }
}

async fn assert_nothing_is_written_at_rest(cluster: &Cluster, controller: &Deployments) {
    // The first reconcile may bring the status up to date, and the next one may write it again only after a second.
    reconcile(controller, &cluster.snapshot().await).await;
    sleep(Duration::from_millis(1100)).await;
    reconcile(controller, &cluster.snapshot().await).await;
    let before = cluster.snapshot().await;
    for _ in 0..3 {
        reconcile(controller, &before).await;
    }
    let after = cluster.snapshot().await;
    assert_eq!(after.deployment, before.deployment);
    assert_eq!((after.set, after.servers), (before.set, before.servers));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_out_waits_for_another_vmdeployment_that_allows_it() {
    let cluster = Cluster::start().await;
    let one = cluster.controller("a").await;
    cluster.create_deployment(app("v1", &[])).await;
    let snapshot = cluster.reconcile_until(&one, |snapshot| snapshot.set.is_some()).await;
    for name in ["web-0", "web-1", "web-2"] {
        cluster.create_server(snapshot.set.as_ref().unwrap(), name).await;
    }
    cluster.reconcile_until(&one, |snapshot| snapshot.is_stable("v1")).await;
    let after = json!([{"namespace": "berth-system", "name": "first", "bakeSeconds": 3600}]);
    let change = Patch::Merge(json!({"spec": {"app": app("v2", &[]), "rollout": {"after": after}}}));
    cluster.deployments.patch("web", &PatchParams::default(), &change).await.unwrap();
    let waits = |words: &'static str| {
        move |snapshot: &Snapshot| {
            let status = snapshot.deployment.status.as_ref();
            let said = status.and_then(|status| status.waiting_for.as_ref());
            said.is_some_and(|said| said.starts_with("VMDeployment berth-system/first: ") && said.contains(words))
        }
    };
    cluster.reconcile_until(&one, waits("there is none, or it does not allow")).await;
    let first = berth_testing::deployment(json!({"metadata": {"name": "first", "namespace": "berth-system"},
        "spec": {"app": app("other", &[]), "rollout": {"followerNamespaces": ["default"]}}}));
    let others: Api<VMDeployment> = Api::namespaced(cluster.control_plane.admin_client(), "berth-system");
    others.create(&PostParams::default(), &first).await.unwrap();
    cluster.reconcile_until(&one, waits("to be stable there, where nothing is")).await;
    let stable = json!({"status": {"stableApp": app("other", &[]), "stableSince": "2026-01-01T00:00:00Z"}});
    others.patch_status("first", &PatchParams::default(), &Patch::Merge(stable)).await.unwrap();
    cluster.reconcile_until(&one, |snapshot| snapshot.with_revision("v2").len() == 1).await;
    cluster.control_plane.stop().await.unwrap();
}
