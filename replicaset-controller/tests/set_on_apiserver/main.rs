//! VMReplicaSets against a real kube-apiserver. There is no webhook: the test itself sets the state of Servers.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "../common/context.rs"]
mod context;
mod failover;
mod gates;
mod lab;
mod late_creation;
mod machines;
mod writes;

use berth_core::api::Server;
use berth_testing::manifest;
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use lab::Lab;
use serde_json::{Value, json};

fn names(servers: &[Server]) -> Vec<String> {
    let mut names: Vec<String> = servers.iter().map(|server| server.name().to_owned()).collect();
    names.sort();
    names
}

fn package(name: &str) -> Value {
    json!({"name": name, "version": "1", "archive": {"url": "http://127.0.0.1/a", "sha256": "a".repeat(64)}})
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_scale_and_change_their_servers() {
    let lab = Lab::start().await;
    Box::pin(two_copies_with_stale_caches_create_the_declared_number(&lab)).await;
    Box::pin(late_creation::a_server_whose_name_was_given_up_never_begins(&lab)).await;
    Box::pin(a_label_edit_makes_no_surplus_server(&lab)).await;
    Box::pin(scale_down_prefers_named_servers(&lab)).await;
    Box::pin(a_name_that_another_server_has_is_not_used(&lab)).await;
    Box::pin(a_changed_template_is_rolled_out_within_the_budget(&lab)).await;
    Box::pin(server_side_apply_would_keep_removed_packages(&lab)).await;
    Box::pin(machines::changed_machines_are_replaced_with_a_surge(&lab)).await;
    Box::pin(machines::a_strategy_without_headroom_is_refused(&lab)).await;
    Box::pin(machines::a_set_without_machines_reports_it_once(&lab)).await;
    Box::pin(failover::a_machine_that_answers_is_kept_and_a_dead_one_replaced(&lab)).await;
    Box::pin(failover::sets_of_one_that_are_all_unreachable_keep_their_servers(&lab)).await;
    Box::pin(gates::one_approval_settles_the_gates_of_a_whole_scale_out(&lab)).await;
    Box::pin(gates::an_approval_of_a_set_names_generation_and_gate(&lab)).await;
    Box::pin(writes::a_thousand_changing_servers_cost_a_write_per_second(&lab)).await;
    lab.control_plane.stop().await.unwrap();
}

async fn two_copies_with_stale_caches_create_the_declared_number(lab: &Lab) {
    lab.create("twins", json!({"replicas": 7})).await;
    let (one, other) = (lab.controller("a").await, lab.controller("b").await);
    // A cache that never shows a change: both copies believe over and over that there is no Server yet.
    let (stale, none) = lab.read("twins").await;
    assert!(none.is_empty());
    for _ in 0..4 {
        let (first, second) = tokio::join!(one.reconcile(&stale, &[]), other.reconcile(&stale, &[]));
        first.unwrap();
        second.unwrap();
        assert!(lab.read("twins").await.1.len() <= 7);
    }
    let (_, servers) = lab.read("twins").await;
    assert_eq!(names(&servers), ["twins-0", "twins-1", "twins-2", "twins-3", "twins-4", "twins-5", "twins-6"]);
    lab.until(&one, "twins", |set, _| set.status.as_ref().is_some_and(|s| s.replicas == 7 && s.creating.is_empty()))
        .await;
    let (set, servers) = lab.read("twins").await;
    let status = set.status.as_ref().unwrap();
    assert_eq!((status.selector.as_deref(), status.ready_replicas), (Some("set=twins"), 0));

    // At rest nothing is written.
    for _ in 0..3 {
        // A new copy has written nothing yet, and so waits for nothing.
        lab.controller("c").await.reconcile(&set, &servers.iter().collect::<Vec<_>>()).await.unwrap();
    }
    let (again, after) = lab.read("twins").await;
    assert_eq!(again.resource_version(), set.resource_version());
    let versions = |all: &[Server]| all.iter().map(kube::ResourceExt::resource_version).collect::<Vec<_>>();
    assert_eq!(versions(&after), versions(&servers));

    // Both scale in at once, from caches that show different Servers as Ready.
    lab.change("twins", json!({"replicas": 4})).await;
    let (set, mut seen) = lab.read("twins").await;
    seen.pop();
    let full = lab.read("twins").await.1;
    let (full, seen): (Vec<&Server>, Vec<&Server>) = (full.iter().collect(), seen.iter().collect());
    for _ in 0..3 {
        let (first, second) = tokio::join!(one.reconcile(&set, &full), other.reconcile(&set, &seen));
        first.unwrap();
        second.unwrap();
        assert!(lab.read("twins").await.1.len() >= 4);
    }
    lab.until(&other, "twins", |set, servers| {
        servers.len() == 4 && set.status.as_ref().is_some_and(|s| s.replicas == 4 && s.disturbed.is_empty())
    })
    .await;
}

async fn a_label_edit_makes_no_surplus_server(lab: &Lab) {
    let controller = lab.controller("a").await;
    lab.create("relabelled", json!({"replicas": 2})).await;
    lab.until(&controller, "relabelled", |_, servers| servers.len() == 2).await;
    let labels = Patch::Merge(json!({"metadata": {"labels": {"set": "another"}}}));
    lab.servers.patch("relabelled-0", &PatchParams::default(), &labels).await.unwrap();
    lab.change("relabelled", json!({"replicas": 3})).await;
    lab.until(&controller, "relabelled", |_, servers| {
        assert!(servers.len() <= 3, "the owner reference decides, not the labels: {:?}", names(servers));
        servers.len() == 3
    })
    .await;
    lab.until(&controller, "relabelled", |set, _| set.status.as_ref().is_some_and(|s| s.replicas == 3)).await;
    assert_eq!(names(&lab.read("relabelled").await.1), ["relabelled-0", "relabelled-1", "relabelled-2"]);
    // It is the set's also when there are too many.
    lab.change("relabelled", json!({"replicas": 0})).await;
    lab.until(&controller, "relabelled", |_, servers| servers.is_empty()).await;
}

async fn scale_down_prefers_named_servers(lab: &Lab) {
    let controller = lab.controller("a").await;
    lab.create("named", json!({"replicas": 3})).await;
    lab.until(&controller, "named", |_, servers| servers.len() == 3).await;
    lab.change("named", json!({"replicas": 2, "scaleDown": {"servers": ["named-0"]}})).await;
    lab.until(&controller, "named", |_, servers| servers.len() == 2).await;
    assert_eq!(names(&lab.read("named").await.1), ["named-1", "named-2"]);
}

async fn a_name_that_another_server_has_is_not_used(lab: &Lab) {
    let stranger = berth_testing::server(json!({"metadata": {"name": "mine-1"}}));
    lab.servers.create(&PostParams::default(), &stranger).await.unwrap();
    let controller = lab.controller("a").await;
    lab.create("mine", json!({"replicas": 3})).await;
    lab.until(&controller, "mine", |_, servers| servers.len() == 3).await;
    assert_eq!(names(&lab.read("mine").await.1), ["mine-0", "mine-2", "mine-3"]);
}

async fn a_changed_template_is_rolled_out_within_the_budget(lab: &Lab) {
    let controller = lab.controller("a").await;
    let app = json!({
        "name": "web", "revision": "v1", "artifact": {"url": "http://127.0.0.1/w", "sha256": "b".repeat(64)}, "command": "./run",
    });
    let template = json!({"spec": {"packages": [package("old"), package("kept")], "app": app}});
    let spec = json!({"replicas": 3, "updateStrategy": {"maxUnavailable": 1}, "template": template});
    lab.create("roll", spec).await;
    lab.until(&controller, "roll", |_, servers| servers.len() == 3).await;
    for server in lab.read("roll").await.1 {
        lab.make_ready(&server).await;
    }
    lab.until(&controller, "roll", |set, _| set.status.as_ref().is_some_and(|s| s.available_replicas == 3)).await;

    let packages = json!([package("kept"), package("new")]);
    lab.change("roll", json!({"template": {"spec": {"packages": packages, "app": {"revision": "v2"}}}})).await;
    let changed = |server: &Server| server.spec.packages.iter().any(|p| p.name == "new");
    for done in 1..=3 {
        lab.until(&controller, "roll", |_, servers| servers.iter().filter(|s| changed(s)).count() == done).await;
        // However often the set is reconciled, the next Server waits until this one is Ready.
        for _ in 0..3 {
            let (set, servers) = lab.read("roll").await;
            lab.controller("c").await.reconcile(&set, &servers.iter().collect::<Vec<_>>()).await.unwrap();
        }
        let servers = lab.read("roll").await.1;
        assert_eq!(servers.iter().filter(|s| changed(s)).count(), done);
        for server in servers.iter().filter(|s| changed(s)) {
            let names: Vec<&str> = server.spec.packages.iter().map(|p| p.name.as_str()).collect();
            assert_eq!(names, ["kept", "new"], "a package that left the template leaves the Server");
            let revision = server.spec.app.as_ref().unwrap().revision.as_deref();
            assert_eq!(revision, Some("v1"), "the code is not this controller's");
            lab.make_ready(server).await;
        }
    }
    lab.until(&controller, "roll", |set, _| {
        set.status
            .as_ref()
            .is_some_and(|s| s.updated_replicas == 3 && s.available_replicas == 3 && s.disturbed.is_empty())
    })
    .await;
}

/// Why Servers are changed by JSON Patch: the fields that a Server was created with belong to an Update, and an Apply by the
/// same manager does not remove them.
async fn server_side_apply_would_keep_removed_packages(lab: &Lab) {
    let server = |packages: Value| {
        manifest("Server", "applied", json!({"machine": {"className": "local"}, "packages": packages}))
    };
    let params = PostParams { field_manager: Some("replicaset-controller".into()), dry_run: false };
    let created = serde_json::from_value(server(json!([package("old"), package("kept")]))).unwrap();
    lab.servers.create(&params, &created).await.unwrap();
    let apply = PatchParams::apply("replicaset-controller").force();
    let applied = lab.servers.patch("applied", &apply, &Patch::Apply(server(json!([package("kept")])))).await.unwrap();
    let names: Vec<&str> = applied.spec.packages.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["old", "kept"]);
}
