//! The weights of an HTTPRoute of the Gateway API follow a roll-out. The CRDs are those of the project.

use std::{collections::BTreeMap, fs};

use berth_core::api::{HttpRouteStatus, VMDeploymentStatus};
use berth_testing::manifest;
use berth_tests::{Options, eventually, http_route_crd};
use k8s_openapi::{
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams},
    runtime::{conditions, wait::await_condition},
};
use serde_json::{Value, json};

use crate::{
    deployment_status::{runs, status, waits_for},
    world::{LONG, World, check},
};

fn routes(world: &World) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
    Api::namespaced_with(world.berth.client(), "default", &ApiResource::from_gvk(&kind))
}

fn backend(service: &str, weight: i32) -> Value {
    json!({"group": "", "kind": "Service", "name": service, "port": 80, "weight": weight})
}

/// A route whose second rule is to be split, beside rules that are not.
fn rules(stable: i32, canary: i32) -> Value {
    let path = json!({"type": "PathPrefix", "value": "/"});
    let header = json!({"type": "Exact", "name": "x-canary", "value": "yes"});
    let filter =
        json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-edge", "value": "1"}]}});
    json!([
        {"matches": [{"path": path, "headers": [header]}], "backendRefs": [backend("web-canary", 1)]},
        {"matches": [{"path": path}], "filters": [filter], "timeouts": {"request": "10s"},
         "backendRefs": [backend("web-stable", stable), backend("web-canary", canary), backend("shadow", 0)]},
    ])
}

async fn create_route(world: &World) {
    let spec = json!({"parentRefs": [{"name": "edge"}], "hostnames": ["shop.example"], "rules": rules(1, 1)});
    let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"}, "spec": spec});
    routes(world).create(&PostParams::default(), &serde_json::from_value(route).unwrap()).await.unwrap();
}

async fn install_crd(world: &World) {
    let crds: Api<CustomResourceDefinition> = Api::all(world.berth.client());
    let crd = crds.create(&PostParams::default(), &http_route_crd().await.unwrap()).await.unwrap();
    let name = crd.metadata.name.unwrap();
    let established = await_condition(crds, &name, conditions::is_crd_established());
    tokio::time::timeout(LONG, established).await.unwrap().unwrap();
}

/// Waits until the split rule has these weights, and checks that nothing else has changed.
async fn has_weights(world: &World, stable: i32, canary: i32) {
    let found = eventually(format!("weights {stable} and {canary}"), LONG, async || {
        let route = routes(world).get("web").await.map_err(|error| error.to_string())?;
        let backends = &route.data["spec"]["rules"][1]["backendRefs"];
        let is_it = backends[0]["weight"] == stable && backends[1]["weight"] == canary;
        if is_it { Ok(route) } else { Err(format!("{backends}")) }
    });
    let route = found.await.unwrap_or_else(|error| panic!("{error}\n{}", world.logs()));
    assert_eq!(route.data["spec"]["rules"], rules(stable, canary), "something else was changed");
    assert_eq!(route.data["spec"]["hostnames"], json!(["shop.example"]));
    assert_eq!(route.data["spec"]["parentRefs"][0]["name"], "edge");
}

async fn route_says(world: &World, what: &str, holds: impl Fn(&HttpRouteStatus) -> bool) {
    let says = |status: &VMDeploymentStatus| matches!(status.http_routes.as_slice(), [route] if holds(route));
    status(world, what, says).await;
}

async fn problem(world: &World, words: &str) {
    route_says(world, words, |route| route.problem.as_ref().is_some_and(|problem| problem.contains(words))).await;
}

/// The Servers that receive traffic from each Service.
async fn serving(world: &World) -> BTreeMap<String, Vec<String>> {
    let api: Api<EndpointSlice> = Api::namespaced(world.berth.client(), "default");
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for slice in api.list(&ListParams::default()).await.unwrap().items {
        let service =
            slice.metadata.labels.unwrap_or_default().remove("kubernetes.io/service-name").unwrap_or_default();
        for endpoint in slice.endpoints.unwrap_or_default() {
            if endpoint.conditions.unwrap_or_default().ready == Some(true) {
                found.entry(service.clone()).or_default().push(endpoint.target_ref.unwrap().name.unwrap());
            }
        }
    }
    for servers in found.values_mut() {
        servers.sort();
    }
    found
}

/// Waits until so many Servers get traffic from each of the two Services.
async fn serve(world: &World, stable: usize, canary: usize) -> BTreeMap<String, Vec<String>> {
    let found = eventually(format!("{stable} stable Servers and {canary} updated ones"), LONG, async || {
        let serving = serving(world).await;
        let count = |service: &str| serving.get(service).map_or(0, Vec::len);
        let is_it = (count("web-stable"), count("web-canary")) == (stable, canary);
        if is_it { Ok(serving) } else { Err(format!("{serving:?}")) }
    });
    found.await.unwrap_or_else(|error| panic!("{error}\n{}", world.logs()))
}

/// What Berth has written to the route: the answers of the API server, with their times.
fn writes(world: &World) -> Vec<String> {
    let log = fs::read_to_string(world.berth.control_plane().audit_log().unwrap()).unwrap();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_write = |event: &Value| {
        event["objectRef"]["resource"] == "httproutes"
            && event["verb"] == "patch"
            && event["user"]["username"].as_str().is_some_and(|user| user.ends_with(":lb-controller"))
    };
    events.filter(is_write).map(|event| format!("{} {}", event["stageTimestamp"], event["responseStatus"])).collect()
}

async fn deploy(world: &World) {
    let services: Api<Service> = Api::namespaced(world.berth.client(), "default");
    for name in ["web-stable", "web-canary"] {
        let mut service = manifest("Service", name, json!({"ports": [{"port": 80, "targetPort": 8080}]}));
        service["apiVersion"] = json!("v1");
        services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    }
    world
        .deploy(4, |deployment| {
            let backends = json!([
                {"service": "web-stable", "port": 8080, "subset": "Stable"},
                {"service": "web-canary", "port": 8080, "subset": "Updated"},
            ]);
            deployment["spec"]["template"]["spec"]["traffic"]["backends"] = backends;
            let route = json!({"name": "web", "stableService": "web-stable", "canaryService": "web-canary"});
            let steps = json!([{"servers": 1}, {"weight": 10}, {"pause": {}}]);
            deployment["spec"]["rollout"] = json!({"steps": steps, "httpRoutes": [route]});
        })
        .await;
    world.ready(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_weights_of_a_route_follow_the_roll_out_and_nothing_else_is_touched() {
    let control_plane = berth_control_plane::ControlPlaneOptions { audit: true, ..Default::default() };
    let world = World::start_with(Options { control_plane, ..Options::default() }).await;
    deploy(&world).await;
    serve(&world, 4, 4).await;
    status(&world, "v1 is stable", |status| status.stable_revision.as_deref() == Some("v1")).await;
    problem(&world, "the cluster does not know HTTPRoutes: install the Gateway API").await;
    install_crd(&world).await;
    problem(&world, "HTTPRoute default/web does not exist: create it").await;
    create_route(&world).await;
    problem(&world, "set its annotation berth.dev/weights-of to \"web\", it has none").await;
    assert_eq!(writes(&world), [""; 0], "its owner has not allowed it");

    // A roll-out waits for the route.
    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    status(&world, "the weight waits for the annotation", waits_for("a person: step 2 of 3: weight 10: HTTPRoute web"))
        .await;
    let allow = Patch::Merge(json!({"metadata": {"annotations": {"berth.dev/weights-of": "web"}}}));
    routes(&world).patch("web", &PatchParams::default(), &allow).await.unwrap();
    status(&world, "the weight is set", waits_for("step 3 of 3 is a pause")).await;
    has_weights(&world, 90, 10).await;
    route_says(&world, "the route follows", |route| route.weight == Some(10) && route.problem.is_none()).await;
    let updated: Vec<String> = world
        .ready(4)
        .await
        .iter()
        .filter(|server| runs(server, "v2"))
        .map(|server| server.name().to_owned())
        .collect();
    let serving = serve(&world, 3, 1).await;
    assert_eq!(serving["web-canary"], updated);
    assert!(!serving["web-stable"].contains(&updated[0]), "{serving:?}");

    // What somebody else writes is corrected, and said.
    let other = json!([{"op": "replace", "path": "/spec/rules/1/backendRefs/0/weight", "value": 50}]);
    let other: json_patch::Patch = serde_json::from_value(other).unwrap();
    routes(&world).patch("web", &PatchParams::default(), &Patch::Json::<()>(other)).await.unwrap();
    has_weights(&world, 90, 10).await;
    let said = eventually("an Event", LONG, async || {
        check(!world.events("HTTPRouteCorrected").await.is_empty(), || "there is none".to_owned())
    });
    said.await.unwrap();

    world.patch(json!({"spec": {"rollout": {"request": {"action": "Promote", "id": "1"}}}})).await;
    has_weights(&world, 100, 0).await;
    world.ready_when(4, |server| runs(server, "v2")).await;
    serve(&world, 4, 4).await;
    route_says(&world, "nothing is split", |route| route.weight.is_none() && route.problem.is_none()).await;
    has_weights(&world, 100, 0).await;
    // It was looked at each second, and written when it had to change: perhaps before the updated Server counted, then for the weight,
    // the correction and the end.
    let writes = writes(&world);
    assert!((3..=4).contains(&writes.len()), "{writes:#?}\n{}", world.logs());
    world.end().await;
}
