//! A new version is compared with Servers that were restarted for that, by what a real Prometheus has measured.

use std::collections::BTreeMap;

use berth_control_plane::free_port;
use berth_core::api::{CheckVerdict, Server, VMDeploymentStatus};
use berth_tests::{Options, Part};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    deploy_house::{TOKEN, let_berth_in},
    deployment_status::{runs, status, waits_for},
    prometheus::{app, create_class, start_front, start_prometheus},
    world::{World, uid},
};

/// What a check has said last.
fn said<'a>(status: &'a VMDeploymentStatus, check: &str) -> Option<(CheckVerdict, &'a str)> {
    let known = status.rollout.as_ref()?.analysis.as_ref()?;
    let found = known.checks.iter().find(|found| found.name == check)?;
    Some((found.verdict, &found.message))
}

/// The process of the application on each Server.
fn processes(world: &World, servers: &[Server]) -> BTreeMap<String, String> {
    let of = |server: &Server| {
        let service = world.berth.machines().of(&uid(server)).root().join("opt/berth/services/web");
        (server.name().to_owned(), std::fs::read_to_string(service.join("pid")).unwrap())
    };
    servers.iter().map(of).collect()
}

/// Names of the Servers that were restarted in this attempt.
fn restarted(servers: &[Server], status: &VMDeploymentStatus) -> Vec<String> {
    let mark = &status.rollout.as_ref().unwrap().baseline.as_ref().unwrap().mark;
    let has_it = |server: &&Server| server.spec.app.as_ref().unwrap().baseline.as_ref() == Some(mark);
    servers.iter().filter(has_it).map(|server| server.name().to_owned()).collect()
}

/// Two checks: of the proportion of errors, and of the same number by the ranks of the Servers.
fn checks(source: &str) -> Value {
    let counted = |name: &str| format!(r#"sum by (server) (increase({name}{{namespace="$namespace"}}[$elapsed]))"#);
    let (bad, total) = (counted("http_errors_total"), counted("http_requests_total"));
    json!([
        {"name": "errors", "source": source, "proportion": {"bad": bad, "total": total, "maxIncrease": "0.005"}},
        {"name": "ranks", "source": source, "shift": {"query": format!("{bad} / {total}"), "maxIncrease": "0.005", "alpha": "0.4"}},
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_is_compared_with_servers_that_are_as_young() {
    let [targets, port, secure] = [(); 3].map(|()| free_port().unwrap());
    let arguments = [(Part::MonitorController, vec![format!("--targets-address=127.0.0.1:{targets}")])].into();
    let world = World::start_with(Options { arguments, ..Options::default() }).await;
    let _prometheus = start_prometheus(&world, port, targets, &json!([]));
    // Prometheus speaks TLS, and demands a token.
    let (_front, authority) = start_front(&world, secure, port, TOKEN);
    let_berth_in(&world, ("berth-system", "deployment-controller")).await;
    let secrets: Api<Secret> = Api::namespaced(world.berth.client(), "ci");
    let with_authority = Patch::Merge(json!({"stringData": {"ca.crt": authority}}));
    secrets.patch("berth", &PatchParams::default(), &with_authority).await.unwrap();
    let credentials = json!({"namespace": "ci", "name": "berth"});
    let address = format!("https://127.0.0.1:{secure}");
    create_class(&world, "main", json!({"address": address, "credentials": credentials})).await;
    create_class(&world, "stranger", json!({"address": address})).await;

    let looks =
        |seconds: u32| json!({"checks": ["errors", "ranks"], "intervalSeconds": seconds, "maxSeconds": seconds});
    let steps = json!([{"servers": 2}, {"baseline": {"servers": 2}}, {"analysis": looks(8)}, {"pause": {}}]);
    let change = |v: &mut Value| {
        v["spec"]["app"] = app(&world, "v1", "0.01");
        v["spec"]["template"]["spec"]["packages"] = json!([]);
        v["spec"]["rollout"] = json!({"checks": checks("main"), "steps": steps, "onFailure": "Rollback"});
    };
    world.deploy(5, change).await;
    let before = processes(&world, &world.ready(5).await);
    status(&world, "v1 is stable", |status| status.stable_revision.as_deref() == Some("v1")).await;

    // As good as v1.
    world.patch(json!({"spec": {"app": app(&world, "v2", "0.0101")}})).await;
    let good = status(&world, "v2 has passed", waits_for("step 4 of 4 is a pause")).await;
    let servers = world.ready(5).await;
    let names = restarted(&servers, &good);
    let after = processes(&world, &servers);
    for server in &servers {
        let name = server.name();
        let is_changed = runs(server, "v2") || names.iter().any(|restarted| restarted == name);
        assert_eq!(before[name] != after[name], is_changed, "{name}, restarted: {names:?}");
    }
    assert_eq!((names.len(), servers.iter().filter(|server| runs(server, "v2")).count()), (2, 2));
    let which = format!("of the baseline ({})", names.join(", "));
    for (check, words) in [("errors", " on 2 of 2 Servers of the baseline"), ("ranks", " on 2 of 2 of the baseline")] {
        let (verdict, message) = said(&good, check).unwrap();
        assert!(verdict == CheckVerdict::Pass && message.contains(words) && message.contains(&which), "{message}");
    }
    world.patch(json!({"spec": {"rollout": {"request": {"action": "Promote", "id": "1"}}}})).await;
    status(&world, "v2 is stable", |status| {
        status.stable_revision.as_deref() == Some("v2") && status.waiting_for.is_none()
    })
    .await;
    let servers = world.ready_when(5, |server| runs(server, "v2")).await;
    assert!(servers.iter().all(|server| server.spec.app.as_ref().unwrap().baseline.is_none()));

    Box::pin(a_bad_version_goes_back_and_the_baseline_stays_as_it_is(&world)).await;
    Box::pin(who_may_not_ask_is_told(&world)).await;
    world.end().await;
}

/// A shift is found, and what was restarted is not started again on the way back.
async fn a_bad_version_goes_back_and_the_baseline_stays_as_it_is(world: &World) {
    let ranks = json!({"checks": ["ranks"], "intervalSeconds": 8, "maxSeconds": 8});
    let steps = json!([{"servers": 2}, {"baseline": {"servers": 2}}, {"pause": {}}, {"analysis": ranks}]);
    let rollout = json!({"steps": steps});
    world.patch(json!({"spec": {"app": app(world, "v3", "0.03"), "rollout": rollout}})).await;
    let paused = status(world, "the baseline is there", waits_for("step 3 of 4 is a pause")).await;
    let servers = world.ready(5).await;
    let names = restarted(&servers, &paused);
    let before = processes(world, &servers);
    world.patch(json!({"spec": {"rollout": {"request": {"action": "Promote", "id": "2"}}}})).await;
    let aborted = status(world, "v3 is rolled back", waits_for("the roll-out of revision v3 was aborted")).await;
    let abort = aborted.rollout.as_ref().unwrap().aborted.as_ref().unwrap();
    let words = format!(" on 2 of 2 of the baseline ({}): between ", names.join(", "));
    assert!(abort.reason == "AnalysisFailed" && abort.message.contains(&words), "{abort:?}");
    let after = processes(world, &world.ready_when(5, |server| runs(server, "v2")).await);
    let same: Vec<&String> = before.keys().filter(|name| before[*name] == after[*name]).collect();
    assert!(same.len() == 3 && names.iter().all(|name| same.contains(&name)), "{names:?} {same:?}");
}

/// A class without the token, or without the authority, says what is wrong.
async fn who_may_not_ask_is_told(world: &World) {
    let steps = json!([{"servers": 1}, {"analysis": {"checks": ["errors"], "intervalSeconds": 2}}]);
    let rollout = json!({"checks": checks("stranger"), "steps": steps});
    world.patch(json!({"spec": {"app": app(world, "v4", "0.01"), "rollout": rollout}})).await;
    let says = |words: &'static str| {
        move |status: &VMDeploymentStatus| {
            said(status, "errors")
                .is_some_and(|(verdict, text)| verdict == CheckVerdict::Inconclusive && text.contains(words))
        }
    };
    status(world, "the authority is unknown", says("MonitoringClass stranger")).await;
}
