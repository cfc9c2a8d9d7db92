use serde_json::json;

use crate::{
    story::{Story, reasons},
    testing::failed,
};

fn weight(story: &Story) -> Option<i32> {
    story.status().rollout.and_then(|rollout| rollout.weight)
}

#[test]
fn the_new_version_gets_the_traffic_of_each_weight_and_none_before_the_first() {
    let steps = json!([{"servers": 2}, {"weight": 5}, {"pause": {}}, {"servers": 5}, {"weight": 50}, {"pause": {}}]);
    let mut story = Story::new(json!({"steps": steps, "maxLoadFactor": "2"}));
    assert_eq!(story.settle(&[]), 2);
    assert_eq!(weight(&story), Some(5));
    assert!(story.waiting_for().contains("step 3 of 6 is a pause"), "{}", story.waiting_for());
    story.request("Promote", "1");
    assert_eq!(story.settle(&[]), 5);
    assert_eq!(weight(&story), Some(50));
    story.request("Promote", "2");
    assert_eq!(story.settle(&[]), 10);
    assert_eq!(weight(&story), None, "traffic is no longer split");
    assert_eq!(story.reasons(), reasons("Complete", "Progressing", "v2"));
}

#[test]
fn a_weight_that_would_overload_servers_waits_for_a_person_who_updates_more_or_changes_it() {
    let mut story = Story::new(json!({"steps": [{"servers": 1}, {"weight": 50}, {"pause": {}}]}));
    assert_eq!(story.settle(&[]), 1);
    let expected = "a person: step 2 of 3: weight 50 with 1 of 10 Servers updated would give one Server 5.0 times its share, at most 1.5 \
                    may be (spec.rollout.maxLoadFactor): update more Servers before, or change the weight";
    assert_eq!(story.waiting_for(), expected);
    let steps = json!([{"servers": 1}, {"weight": 10}, {"pause": {}}]);
    story.deployment.spec.rollout.steps = serde_json::from_value(steps).unwrap();
    story.settle(&[]);
    assert_eq!(weight(&story), Some(10));
    assert!(story.waiting_for().contains("step 3 of 3"), "{}", story.waiting_for());
}

#[test]
fn an_aborted_version_gets_no_traffic() {
    let steps = json!([{"servers": 2}, {"weight": 10}, {"pause": {}}]);
    let mut story = Story::new(json!({"steps": steps, "onFailure": "Rollback", "maxFailed": 0}));
    story.settle(&[]);
    assert_eq!(weight(&story), Some(10));
    story.servers[9] = failed("web-9", "v2");
    assert_eq!(story.settle(&[]), 0);
    assert_eq!(weight(&story), Some(0));
}

#[test]
fn a_weight_is_set_once_the_routes_follow_it() {
    let route = json!({"name": "web", "stableService": "web-stable", "canaryService": "web-canary"});
    let steps = json!([{"servers": 2}, {"weight": 10}, {"pause": {}}]);
    let mut story = Story::new(json!({"steps": steps, "httpRoutes": [route]}));
    let shows = |story: &mut Story, route| {
        let status = story.deployment.status.get_or_insert_default();
        status.http_routes = vec![serde_json::from_value(route).unwrap()];
        story.settle(&[]);
    };
    assert_eq!(story.settle(&[]), 2);
    assert_eq!(weight(&story), Some(10));
    let waits = "step 2 of 3: weight 10 is being set in HTTPRoute web";
    assert_eq!(story.waiting_for(), waits);
    shows(&mut story, json!({"name": "web", "weight": 0}));
    assert_eq!(story.waiting_for(), waits, "the weight of before");
    shows(&mut story, json!({"name": "web", "problem": "HTTPRoute default/web does not exist"}));
    assert_eq!(story.waiting_for(), "a person: step 2 of 3: weight 10: HTTPRoute default/web does not exist");
    shows(&mut story, json!({"name": "web", "weight": 10}));
    assert!(story.waiting_for().contains("step 3 of 3 is a pause"), "{}", story.waiting_for());
}
