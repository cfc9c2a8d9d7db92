use serde_json::json;

use super::*;

fn declared() -> HttpRoute {
    HttpRoute { name: "web".into(), stable_service: "web-stable".into(), canary_service: "web-canary".into() }
}

fn deployment(weight: Option<i32>) -> VMDeployment {
    berth_testing::deployment(json!({"status": {"rollout": {"digest": "d", "healthyReplicas": 1, "weight": weight}}}))
}

/// A route that gives its weights to the VMDeployment `web`, with these rules.
fn route(rules: &Value) -> DynamicObject {
    let metadata = json!({"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7",
                          "annotations": {WEIGHTS_OF: "web"}});
    serde_json::from_value(json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                                  "metadata": metadata, "spec": {"rules": rules}}))
    .unwrap()
}

fn backend(name: &str, weight: i32) -> Value {
    json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight})
}

/// The rules after the write.
fn written(rules: &Value, canary: i32) -> Value {
    let route = route(rules);
    let patch = write(&route, &deployment(None), &declared(), canary).unwrap().expect("a write").build();
    let mut value = serde_json::to_value(&route).unwrap();
    json_patch::patch(&mut value, &patch).unwrap();
    value["spec"]["rules"].clone()
}

#[test]
fn the_two_weights_are_set_in_each_rule_with_both_and_nothing_else() {
    let before = json!([
        {"matches": [{"headers": [{"name": "x-canary", "value": "yes"}]}], "backendRefs": [backend("web-canary", 1)]},
        {"backendRefs": [backend("other", 9), backend("web-stable", 1), backend("web-canary", 1)]},
        {"filters": [{"type": "ExtensionRef"}]},
        {"backendRefs": [backend("web-canary", 7), {"name": "web-stable", "port": 80}]},
        {"backendRefs": [{"name": "web-stable", "namespace": "elsewhere", "weight": 3}, backend("web-canary", 4)]},
        {"backendRefs": [{"name": "web-stable", "kind": "Other", "group": "x", "weight": 3}, backend("web-canary", 4)]},
    ]);
    let mut expected = before.clone();
    expected[1]["backendRefs"] = json!([backend("other", 9), backend("web-stable", 95), backend("web-canary", 5)]);
    expected[3]["backendRefs"] = json!([backend("web-canary", 5), {"name": "web-stable", "port": 80, "weight": 95}]);
    assert_eq!(written(&before, 5), expected);
    let at_rest = write(&route(&expected), &deployment(None), &declared(), 5).unwrap();
    assert_eq!(at_rest, None, "nothing is written when nothing changed");
}

#[test]
fn a_write_is_refused_when_the_route_has_changed() {
    let rules = json!([{"backendRefs": [backend("web-stable", 1), backend("web-canary", 1)]}]);
    let read = route(&rules);
    let patch = write(&read, &deployment(None), &declared(), 5).unwrap().unwrap().build();
    let mut newer = serde_json::to_value(&read).unwrap();
    newer["metadata"]["resourceVersion"] = json!("8");
    json_patch::patch(&mut newer, &patch).unwrap_err();
}

#[test]
fn what_is_wrong_with_a_route_is_said() {
    let both = || vec![backend("web-stable", 1), backend("web-canary", 1)];
    let refused = |route: &DynamicObject| write(route, &deployment(None), &declared(), 5).unwrap_err();

    let mut foreign = route(&json!([{"backendRefs": both()}]));
    foreign.metadata.annotations = Some([(WEIGHTS_OF.to_owned(), "api".to_owned())].into());
    assert!(refused(&foreign).ends_with("set its annotation berth.dev/weights-of to \"web\", it has \"api\""));
    foreign.metadata.annotations = None;
    assert!(refused(&foreign).ends_with("it has none"));

    let without =
        route(&json!([{"backendRefs": [backend("web-stable", 1)]}, {"backendRefs": [backend("web-canary", 1)]}]));
    assert!(refused(&without).starts_with("no rule of HTTPRoute web has both Services, web-stable and web-canary"));
    let mut twice = both();
    twice.push(backend("web-stable", 1));
    let twice = route(&json!([{"backendRefs": both()}, {"backendRefs": twice}]));
    assert!(refused(&twice).starts_with("rule 2 of HTTPRoute web names Service"), "{}", refused(&twice));
}

#[test]
fn the_share_is_that_of_the_roll_out_as_far_as_servers_bear_it() {
    let weight = |percent, updated, stable| canary_weight(&deployment(percent), Sides { updated, stable });
    assert_eq!(weight(None, 3, 1), 0, "not split");
    assert_eq!(weight(Some(10), 1, 3), 10);
    assert_eq!(weight(Some(50), 1, 3), 38, "1.5 times its even share");
    assert_eq!((weight(Some(50), 0, 3), weight(Some(50), 3, 0)), (0, 100), "nobody else is there");
}
