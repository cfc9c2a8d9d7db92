//! A new version is judged by what a real Prometheus has scraped from the applications on both sides.

use berth_control_plane::free_port;
use berth_core::api::{AnalysisProgress, CheckVerdict, VMDeploymentStatus};
use berth_tests::{Options, Part};
use serde_json::{Value, json};

use crate::{
    deployment_status::{runs, status},
    prometheus::{app, create_class, start_prometheus},
    world::World,
};

fn analysis(status: &VMDeploymentStatus) -> Option<&AnalysisProgress> {
    status.rollout.as_ref()?.analysis.as_ref()
}

fn says(status: &VMDeploymentStatus, check: &str, words: &str) -> bool {
    let found = analysis(status).and_then(|known| known.checks.iter().find(|found| found.name == check));
    found.is_some_and(|found| found.verdict == CheckVerdict::Inconclusive && found.message.contains(words))
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_decides_whether_a_version_goes_on_or_back() {
    let [targets, port] = [free_port().unwrap(), free_port().unwrap()];
    let arguments = [(Part::MonitorController, vec![format!("--targets-address=127.0.0.1:{targets}")])].into();
    let world = World::start_with(Options { arguments, ..Options::default() }).await;
    let address = format!("http://127.0.0.1:{port}");
    create_class(&world, "main", json!({"address": address, "tenant": {"value": "shop"}})).await;
    create_class(&world, "closed", json!({"address": address, "allowedNamespaces": ["other"]})).await;
    let counted = |name: &str| format!(r#"sum by (server) (increase({name}{{namespace="$namespace"}}[$elapsed]))"#);
    let checks = json!([
        {"name": "errors", "source": "main", "proportion": {"bad": counted("http_errors_total"),
            "total": counted("http_requests_total"), "maxIncrease": "0.005"}},
        {"name": "slo", "source": "main", "condition": "< 0.05",
            "query": "sum(increase(http_errors_total[$elapsed])) / sum(increase(http_requests_total[$elapsed]))"},
    ]);
    let steps =
        json!([{"servers": 1}, {"analysis": {"checks": ["errors", "slo"], "intervalSeconds": 3, "maxSeconds": 300}}]);
    let change = |v: &mut Value| {
        v["spec"]["app"] = app(&world, "v1", "0.01");
        v["spec"]["template"]["spec"]["packages"] = json!([]);
        v["spec"]["rollout"] = json!({"checks": checks, "steps": steps, "onFailure": "Rollback"});
    };
    world.deploy(3, change).await;
    world.ready(3).await;
    status(&world, "v1 is stable", |status| status.stable_revision.as_deref() == Some("v1")).await;

    // As good as v1; at first Prometheus is down.
    world.patch(json!({"spec": {"app": app(&world, "v2", "0.0101")}})).await;
    let down = status(&world, "Prometheus is down", |status| says(status, "errors", "does not answer")).await;
    let waiting_for = down.waiting_for.unwrap();
    assert!(
        waiting_for.contains("the analysis of step 2 of 2: check ") && waiting_for.contains("MonitoringClass main"),
        "{waiting_for}"
    );
    assert_eq!(down.updated_replicas, 1);
    let _prometheus = start_prometheus(&world, port, targets, &json!([]));
    let good = status(&world, "v2 is stable", |status| status.stable_revision.as_deref() == Some("v2")).await;
    let known = analysis(&good).unwrap();
    assert!(known.checks.iter().all(|check| check.passes == 1 && check.inconclusive > 0), "{known:?}");

    // Twice as many errors as v2.
    world.patch(json!({"spec": {"app": app(&world, "v3", "0.0202")}})).await;
    let aborted = |status: &VMDeploymentStatus| status.rollout.as_ref().is_some_and(|known| known.aborted.is_some());
    let bad = status(&world, "v3 is found", aborted).await;
    let abort = bad.rollout.as_ref().unwrap().aborted.as_ref().unwrap();
    assert!(abort.reason == "AnalysisFailed" && abort.message.contains("check errors has failed at 1 of"), "{abort:?}");
    assert!(abort.message.contains("bad on 1 of 1 Servers with the new version"), "{abort:?}");
    for server in world.ready_when(3, |server| runs(server, "v2")).await {
        world.assert_answers(&server, "v2").await;
    }
    Box::pin(what_cannot_be_asked_is_said(&world, &counted("http_requests_total"))).await;
    world.end().await;
}

/// Each bad query, and each class that does not answer, is inconclusive and says why.
async fn what_cannot_be_asked_is_said(world: &World, total: &str) {
    let of = |name: &str, source: &str, query: &str| json!({"name": name, "source": source, "query": query, "condition": "< 1"});
    let proportion = |name: &str, bad: &str| {
        let proportion = json!({"bad": bad, "total": total, "maxIncrease": "0.005"});
        json!({"name": name, "source": "main", "proportion": proportion})
    };
    let bad = [
        (of("parse", "main", "sum("), "refuses the query (bad_data): "),
        (of("empty", "main", "no_such_metric"), "no data: the query returns no number"),
        (of("several", "main", "sum by (instance) (http_errors_total)"), "3 series without the label server"),
        (of("range", "main", "http_errors_total[1m]"), "numbers over a time"),
        (of("nowhere", "elsewhere", "up"), "there is no MonitoringClass elsewhere"),
        (of("closed", "closed", "up"), "MonitoringClass closed does not allow namespace default"),
        (
            proportion("never-bad", "sum by (server) (no_such_metric)"),
            "let it return 0: add `or 0 * <the query for the total>`",
        ),
        (proportion("alone", "sum(http_errors_total)"), "bad: the query returns 1 series without the label server"),
    ];
    let names: Vec<&str> = bad.iter().filter_map(|(check, _)| check["name"].as_str()).collect();
    let checks: Vec<&Value> = bad.iter().map(|(check, _)| check).collect();
    let steps = json!([{"servers": 1}, {"analysis": {"checks": names, "intervalSeconds": 2, "maxInconclusive": 2}}]);
    world
        .patch(json!({"spec": {"app": app(world, "v4", "0.01"), "rollout": {"checks": checks, "steps": steps}}}))
        .await;
    for (check, words) in &bad {
        let name = check["name"].as_str().unwrap();
        status(world, &format!("{name}: {words}"), |status| says(status, name, words)).await;
    }
    let undecided = "has come to no verdict after 3 looks";
    let waits = |status: &VMDeploymentStatus| status.waiting_for.as_ref().is_some_and(|text| text.contains(undecided));
    let status = status(world, undecided, waits).await;
    assert!(status.waiting_for.as_ref().unwrap().starts_with("a person: "), "{:?}", status.waiting_for);
    assert_eq!((status.updated_replicas, status.stable_revision.as_deref()), (1, Some("v2")));
}
