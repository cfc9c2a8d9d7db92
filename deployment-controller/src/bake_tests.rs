use serde_json::json;

use crate::{
    story::{Story, reasons},
    testing::{failed, server},
};

/// Reason of Reconciling.
fn waits(story: &Story) -> String {
    let status = story.status();
    let found = berth_core::conditions::get_true(&status.conditions, berth_core::conditions::RECONCILING);
    found.map(|condition| condition.reason.clone()).unwrap_or_default()
}

#[test]
fn a_bake_at_the_end_keeps_the_version_from_becoming_stable_until_it_is_over() {
    let steps = json!([{"servers": 2}, {"bake": {"seconds": 60}}, {"servers": "100%"}, {"bake": {"seconds": 3600}}]);
    let mut story = Story::new(json!({"steps": steps}));
    assert_eq!(story.settle(&[]), 2);
    assert_eq!(waits(&story), "Baking");
    let expected = "; 2 of 2 Servers are well with revision v2";
    let said = story.waiting_for();
    assert!(said.starts_with("step 2 of 4: bakes until ") && said.ends_with(expected), "{said}");
    story.later(60);
    assert_eq!(story.settle(&[]), 10);
    story.later(3599);
    story.settle(&[]);
    assert_eq!(
        story.reasons(),
        reasons("RollingOut", "Progressing", "v1"),
        "every Server has v2, and it is not stable"
    );
    assert_eq!(story.initial(), "v1");
    assert!(story.waiting_for().starts_with("step 4 of 4: bakes until "), "{}", story.waiting_for());
    story.later(1);
    story.settle(&[]);
    assert_eq!(story.reasons(), reasons("Complete", "Progressing", "v2"));
}

#[test]
fn a_server_that_fails_while_it_bakes_brings_the_stable_version_back() {
    let steps = json!([{"servers": 3}, {"bake": {"seconds": 60}}]);
    let mut story = Story::new(json!({"steps": steps, "onFailure": "Rollback"}));
    assert_eq!(story.settle(&[]), 3);
    story.later(59);
    story.servers[9] = failed("web-9", "v2");
    assert_eq!(story.settle(&[]), 0);
    assert_eq!(story.reasons(), reasons("RolledBack", "RolloutAborted", "v1"));
}

#[test]
fn a_bake_does_not_end_while_servers_are_not_well_and_then_it_is_late() {
    let steps = json!([{"servers": 5}, {"bake": {"seconds": 60}}]);
    let mut story = Story::new(json!({"steps": steps, "progressDeadlineSeconds": 100}));
    assert_eq!(story.settle(&[]), 5);
    story.servers[9] = server("web-9", "v2", "Deploying", 1);
    story.later(60);
    assert_eq!(story.settle(&[]), 5);
    let expected = "step 2 of 2: the bake is over once the Servers are well: 4 of 5 are with revision v2";
    assert_eq!(story.waiting_for(), expected);
    assert_eq!(story.reasons().1, "Progressing");
    story.later(100);
    story.settle(&[]);
    assert_eq!(story.reasons().1, "ProgressDeadlineExceeded");
    story.servers[9] = server("web-9", "v2", "Ready", 1);
    assert_eq!(story.settle(&[]), 10, "it has become well");
}

#[test]
fn promoting_ends_a_bake() {
    let mut story = Story::new(json!({"steps": [{"servers": 1}, {"bake": {"seconds": 3600}}]}));
    assert_eq!(story.settle(&[]), 1);
    story.request("Promote", "r1");
    assert_eq!(story.settle(&[]), 10);
}
