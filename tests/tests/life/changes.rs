//! Changed declarations are applied to the existing machines.

use std::collections::BTreeMap;

use berth_core::{
    api::{Server, State, TaskKind},
    conditions::{STALLED, get_true},
};
use berth_tests::{Archive, eventually};
use k8s_openapi::api::{
    core::v1::{Event, Secret},
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::world::{LONG, World, is_in, machine_id, succeeded};

fn ids(servers: &[Server]) -> BTreeMap<String, Option<String>> {
    servers.iter().map(|s| (s.name_any(), machine_id(s))).collect()
}

fn revision(server: &Server) -> Option<&str> {
    server.status.as_ref()?.app.as_ref().map(|app| app.revision.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_and_packages_are_updated_on_the_same_machines() {
    let world = World::start().await;
    world.deploy(3, |_| ()).await;
    let before = world.ready(3).await;

    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    let after = world.ready_when(3, |s| revision(s) == Some("v2")).await;
    assert_eq!(ids(&before), ids(&after), "new code replaces no machine");
    for server in &after {
        world.assert_answers(server, "v2").await;
    }

    let deployed: BTreeMap<_, _> = after.iter().map(|s| (s.name_any(), deployed_at(s))).collect();
    let packages = json!([world.package("tool", "2"), world.package("theme", "1")]);
    world.patch(json!({"spec": {"template": {"spec": {"packages": packages}}}})).await;
    let installed = world.ready_when(3, |s| version(s, "tool").as_deref() == Some("2")).await;
    assert_eq!(ids(&before), ids(&installed), "new packages replace no machine");
    for server in &installed {
        assert_eq!(version(server, "theme").as_deref(), Some("1"));
        assert_eq!(deployed.get(&server.name_any()), Some(&deployed_at(server)), "the code is untouched");
        assert!(succeeded(server, TaskKind::HoldTraffic) >= 1, "traffic was held meanwhile");
        assert!(visited(server, State::Initializing) && visited(server, State::Deploying));
        world.assert_answers(server, "v2").await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_machine_makes_its_server_unknown_and_held_until_it_is_verified_again() {
    let world = World::start_without_floor().await;
    world.deploy(1, |_| ()).await;
    let before = world.ready(1).await.remove(0);
    let uid = before.uid();
    world.berth.machines().kill(uid).unwrap();
    // The fact may be written before HoldTraffic has ended; waiting for the next task, too, means that it has.
    let awaited = |s: &Server| waits_for(s, "AwaitRecovery by monitor-controller");
    world.server("web-0", "Unknown, held and awaited", |s| is_in(State::Unknown)(s) && held(s) && awaited(s)).await;
    assert_eq!(world.endpoints().await["web-0"], (false, false, false));

    world.berth.machines().reboot(uid).await.unwrap();
    let after = world.ready(1).await.remove(0);
    assert_eq!((after.uid(), machine_id(&after)), (before.uid(), machine_id(&before)), "the machine is the same");
    let states = berth_testing::entered_states(after.status.as_ref().unwrap());
    let tail = &states[states.len() - 4..];
    assert_eq!(tail, [State::Unknown, State::Initializing, State::Deploying, State::Ready]);
    world.assert_answers(&after, "v1").await;
    world.gets_traffic("web-0").await;
    world.end().await;
}

fn held(server: &Server) -> bool {
    crate::world::traffic(server) == Some(berth_core::api::TrafficPhase::Held)
}

fn waits_for(server: &Server, what: &str) -> bool {
    server.status.iter().flat_map(|s| &s.waiting_for).any(|w| w.contains(what))
}

fn deployed_at(server: &Server) -> Option<String> {
    let fact = server.status.as_ref()?.app.as_ref()?;
    fact.deployed_at.as_ref().map(|t| t.0.to_string())
}

fn version(server: &Server, package: &str) -> Option<String> {
    let fact = server.status.as_ref()?.environment.as_ref()?;
    fact.packages.iter().find(|p| p.name == package).map(|p| p.version.clone())
}

fn visited(server: &Server, state: State) -> bool {
    server.status.iter().any(|s| berth_testing::entered_states(s).contains(&state))
}

#[tokio::test(flavor = "multi_thread")]
async fn after_failed_canaries_a_roll_back_works_without_the_artifact_store() {
    let world = World::start().await;
    let stable = world.app("v1");
    world.deploy(1, |v| v["spec"]["template"]["spec"]["healthCheck"]["deadlineSeconds"] = json!(2)).await;
    world.ready(1).await;
    let run = "#!/bin/sh\nexec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port 8080 --root ./www\n";
    for canary in ["v2", "v3", "v4", "v5"] {
        let name = format!("canary-{canary}.tar");
        let archive = Archive::new().executable("run", run).file("www/index.html", canary).build().unwrap();
        let artifact = world.berth.artifacts().put(&name, archive);
        let app = json!({"revision": canary, "artifact": {"url": artifact.url, "sha256": artifact.sha256}});
        world.patch(json!({"spec": {"app": app}})).await;
        let has_failed = |server: &Server| {
            let is_stalled = server.status.as_ref().is_some_and(|s| get_true(&s.conditions, STALLED).is_some());
            revision(server) == Some(canary) && is_stalled
        };
        world.server("web-0", &format!("{canary} has failed"), has_failed).await;
    }
    world.berth.artifacts().remove("web-v1.tar");
    world.patch(json!({"spec": {"app": stable}})).await;
    let after = world.ready_when(1, |s| revision(s) == Some("v1")).await.remove(0);
    world.assert_answers(&after, "v1").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_gets_the_value_of_a_secret_and_nobody_else_sees_it() {
    const VALUE: &str = "hush-4711";
    let world = World::start().await;
    // A person who may give rights lets Berth read this one Secret.
    let (client, account) = (world.berth.client(), ("berth-system", "deployment-controller"));
    grant(client.clone(), account).await;
    let run = "#!/bin/sh\nprintf '%s' \"$TOKEN\" >www/index.html\n\
               exec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port 8080 --root ./www\n";
    let archive = Archive::new().executable("run", run).file("www/index.html", "").file("www/healthz", "ok");
    let artifact = world.berth.artifacts().put("secret.tar", archive.build().unwrap());
    let mut app = world.app("v1");
    app["artifact"] = json!({"url": artifact.url, "sha256": artifact.sha256});
    let variable = |key: &str| json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "db", "key": key}}}]);
    app["env"] = variable("token");
    app["files"] = json!([{"path": "conf/key", "secretKeyRef": {"name": "db", "key": "token"}}]);

    // A new Server waits for it.
    world.deploy(1, |v| v["spec"]["app"] = app).await;
    let missing = "DeployApp by deployment-controller: variable TOKEN (spec.app.env) needs key token of Secret default/db: \
                   there is no such Secret";
    world.server("web-0", missing, |server| waits_for(server, missing)).await;
    let secret = json!({"metadata": {"name": "db"}, "stringData": {"token": VALUE}});
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let server = world.ready(1).await.remove(0);
    world.assert_answers(&server, VALUE).await;

    // A roll-out touches no Server before everything is there.
    world.patch(json!({"spec": {"app": {"revision": "v2", "env": variable("other")}}})).await;
    let missing =
        "a person: variable TOKEN (spec.app.env) needs key other of Secret default/db: the Secret has no such key";
    let told = eventually(missing, LONG, async || {
        let status = world.deployments().get("web").await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        let is_told = status.waiting_for.as_ref().is_some_and(|text| text.starts_with(missing));
        if is_told { Ok(()) } else { Err(format!("{:?}", status.waiting_for)) }
    });
    told.await.unwrap();
    let untouched = world.ready(1).await.remove(0);
    assert_eq!((&untouched.spec.app, revision(&untouched)), (&server.spec.app, Some("v1")));
    world.gets_traffic("web-0").await;
    let patch = Patch::Merge(json!({"stringData": {"other": "changed"}}));
    secrets.patch("db", &PatchParams::default(), &patch).await.unwrap();
    let after = world.ready_when(1, |s| revision(s) == Some("v2")).await.remove(0);
    world.assert_answers(&after, "changed").await;

    // A value that changes goes out by itself.
    let patch = Patch::Merge(json!({"stringData": {"other": "rotated"}}));
    secrets.patch("db", &PatchParams::default(), &patch).await.unwrap();
    let content = |server: &Server| server.spec.app.as_ref().and_then(|app| app.content_digest.clone());
    let before = content(&after);
    let after = world.ready_when(1, |server| content(server) != before).await.remove(0);
    world.assert_answers(&after, "rotated").await;
    let events: Api<Event> = Api::namespaced(client, "default");
    let shown = [
        serde_json::to_string(&world.list().await).unwrap(),
        serde_json::to_string(&world.deployments().get("web").await.unwrap()).unwrap(),
        serde_json::to_string(&events.list(&ListParams::default()).await.unwrap().items).unwrap(),
        world.logs(),
    ];
    assert!(!shown.iter().any(|text| text.contains(VALUE)), "{shown:?}");
    world.end().await;
}

/// Lets the account read the Secret `db`.
async fn grant(client: Client, (namespace, account): (&str, &str)) {
    let reading = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["db"], "verbs": ["get"]}]);
    let role = json!({"metadata": {"name": "berth-secrets"}, "rules": reading});
    let binding = json!({"metadata": {"name": "berth-secrets"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "berth-secrets"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]});
    let (roles, bindings): (Api<Role>, Api<RoleBinding>) =
        (Api::namespaced(client.clone(), "default"), Api::namespaced(client, "default"));
    roles.create(&PostParams::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
}
