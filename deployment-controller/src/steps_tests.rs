use berth_core::api::Server;
use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use crate::{
    replica_set::newest_app,
    rollout,
    story::{Story, reasons, testing_v1},
    testing::{ready_set, server},
};

#[test]
fn the_end_of_a_pause_is_said_as_it_is_stored() {
    let mut story = Story::new(json!({"steps": [{"pause": {"seconds": 60}}]}));
    story.now += SignedDuration::from_nanos(123_456_789);
    story.settle(&[]);
    let waits = story.waiting_for();
    assert!(waits.ends_with('Z') && !waits.contains('.'), "{waits}");
}

#[test]
fn each_step_lets_so_many_servers_have_the_new_version_and_then_all_do() {
    let steps = json!([{"servers": 1}, {"pause": {"seconds": 60}}, {"servers": "50%"}, {"pause": {}}]);
    let mut story = Story::new(json!({"steps": steps}));
    assert_eq!(story.settle(&[]), 1);
    assert!(story.waiting_for().starts_with("step 2 of 4: a pause until "), "{}", story.waiting_for());
    assert_eq!(story.initial(), "v1", "a new Server gets the stable version");
    story.later(59);
    assert_eq!(story.settle(&[]), 1);
    story.later(1);
    assert_eq!(story.settle(&[]), 5);
    assert!(story.waiting_for().starts_with("a person: step 4 of 4 is a pause"), "{}", story.waiting_for());
    assert_eq!(story.reasons(), reasons("RollingOut", "Progressing", "v1"));
    story.later(1_000_000);
    assert_eq!(story.settle(&[]), 5, "nobody has promoted it, and it is not late");
    assert_eq!(story.reasons(), reasons("RollingOut", "Progressing", "v1"));
    story.request("Promote", "r1");
    assert_eq!(story.settle(&[]), 10);
    assert_eq!(story.reasons(), reasons("Complete", "Progressing", "v2"));
    assert_eq!((story.waiting_for(), story.initial()), (String::new(), "v2".to_owned()));
}

#[test]
fn the_first_version_and_the_way_back_to_the_stable_one_need_no_steps() {
    let mut story = Story::new(json!({"steps": [{"servers": 1}, {"pause": {}}]}));
    assert_eq!(story.settle(&[]), 1);
    story.deployment.spec.app.revision = Some("v1".into());
    assert_eq!(story.settle(&[]), 10, "a person takes v2 back");
    assert_eq!(story.reasons(), reasons("Complete", "Progressing", "v1"));
    story.deployment.status = None;
    story.deployment.status = Some(story.status());
    assert_eq!(
        (story.settle(&[]), story.reasons()),
        (10, reasons("Complete", "Progressing", "v1")),
        "the first version"
    );
}

#[test]
fn a_request_is_carried_out_once_and_not_for_the_next_version() {
    let mut story = Story::new(json!({"steps": [{"servers": 1}, {"pause": {}}, {"servers": 3}, {"pause": {}}]}));
    assert_eq!(story.settle(&[]), 1);
    story.request("Promote", "r1");
    assert_eq!(story.settle(&[]), 3, "one step");
    story.deployment.spec.app.revision = Some("v3".into());
    assert_eq!(story.settle(&[]), 1);
    assert!(story.waiting_for().starts_with("a person: step 2 of 4"), "{}", story.waiting_for());
    story.request("PromoteFull", "r2");
    assert_eq!(story.settle(&[]), 10);
}

#[test]
fn a_version_that_fails_is_rolled_back_and_not_deployed_again_without_a_person() {
    let steps = json!([{"servers": 2}, {"pause": {}}]);
    let mut story = Story::new(json!({"steps": steps, "onFailure": "Rollback"}));
    assert_eq!(story.settle(&["web-9"]), 0, "the oldest is the first");
    let message = story.waiting_for();
    assert!(
        message.starts_with("a person: the roll-out of revision v2 was aborted (1 Servers have failed"),
        "{message}"
    );
    assert_eq!(story.reasons(), reasons("RolledBack", "RolloutAborted", "v1"));
    assert!(story.servers.iter().all(|server| server.spec.app == Some(newest_app(&testing_v1()))));
    story.later(1_000_000);
    assert_eq!(story.settle(&[]), 0);
    assert_eq!(story.initial(), "v1");
    story.request("Retry", "r1");
    assert_eq!(story.settle(&[]), 2, "it begins again with the first step");
    assert_eq!(story.status().rollout.unwrap().retries, 1);
    story.deployment.spec.app.revision = Some("v3".into());
    assert_eq!(story.settle(&[]), 2);
}

#[test]
fn a_person_can_abort_and_a_paused_roll_out_still_goes_back() {
    let mut story = Story::new(json!({"steps": [{"servers": 4}, {"pause": {}}]}));
    assert_eq!(story.settle(&[]), 4);
    story.deployment.spec.rollout.paused = true;
    story.request("Abort", "r1");
    assert_eq!(story.settle(&[]), 0);
    let message = story.waiting_for();
    assert!(message.contains("was aborted (requested by ann: because): declare another revision"), "{message}");
}

#[test]
fn a_late_roll_out_goes_back_if_that_is_declared() {
    let rollout = json!({"onFailure": "Rollback", "progressDeadlineSeconds": 60});
    let mut story = Story::new(rollout);
    story.servers.truncate(1);
    story.deployment.spec.replicas = 1;
    story.deployment.status = Some(story.status());
    story.servers[0] = server("web-0", "v2", "Deploying", 1);
    story.later(61);
    assert_eq!(story.settle(&[]), 0);
    assert!(story.waiting_for().contains("no progress for 60 s"), "{}", story.waiting_for());
}

#[test]
fn from_the_irreversible_step_on_a_failure_pauses() {
    let steps = json!([{"servers": 1}, {"servers": 3}]);
    for (after, updated, stalled) in [(3, 0, "RolloutAborted"), (2, 3, "TooManyFailed")] {
        let rollout = json!({"steps": steps, "onFailure": "Rollback", "irreversibleAfter": after});
        let mut story = Story::new(rollout);
        // The second Server fails, in the second step.
        assert_eq!(story.settle(&["web-8"]), updated, "{after}");
        assert_eq!(story.reasons().1, stalled, "{after}");
    }
}

#[test]
fn without_a_stable_version_there_is_nothing_to_go_back_to() {
    let mut story = Story::new(json!({"onFailure": "Rollback"}));
    story.deployment.status = None;
    story.settle(&["web-9"]);
    assert_eq!(story.reasons().1, "TooManyFailed");
    story.request("Abort", "r1");
    story.settle(&["web-9"]);
    assert_eq!(story.status().rollout.unwrap().aborted, None);
}

#[test]
fn nothing_is_updated_before_it_is_written_that_the_first_step_has_begun() {
    let story = Story::new(json!({"steps": [{"servers": 4}]}));
    let servers: Vec<&Server> = story.servers.iter().collect();
    let set = ready_set(&story.deployment);
    let updates = rollout::next_updates(&story.deployment, &set, &servers, None, story.now);
    assert!(updates.servers.is_empty(), "{:?}", updates.servers.len());
}

#[test]
fn another_version_in_the_middle_never_takes_a_server_back_through_the_stable_one() {
    let mut story = Story::new(json!({"steps": [{"servers": 4}, {"pause": {}}]}));
    assert_eq!(story.settle(&[]), 4);
    story.deployment.spec.app.revision = Some("v3".into());
    let revisions = |story: &Story| -> Vec<String> {
        story.servers.iter().map(|server| server.spec.app.as_ref().unwrap().effective_revision()).collect()
    };
    let before = revisions(&story);
    story.settle(&[]);
    let changed: Vec<_> = before.iter().zip(revisions(&story)).filter(|(b, a)| *b != a).map(|(_, a)| a).collect();
    assert_eq!(changed, ["v3"; 4]);
}
