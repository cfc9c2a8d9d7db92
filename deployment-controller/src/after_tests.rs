use berth_core::{
    api::{After, VMDeployment, VMDeploymentStatus},
    conditions::{self, RECONCILING},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use serde_json::json;

use super::Other;
use crate::{story::Story, testing::deployment};

/// v2 waits until its artifact has been stable on staging/web for an hour.
fn story() -> Story {
    let after = json!([{"namespace": "staging", "name": "web", "bakeSeconds": 3600}]);
    let mut story = Story::new(json!({"after": after, "steps": [{"servers": 1}, {"pause": {}}]}));
    assert_eq!(story.settle(&[]), 0, "nothing begins before the first look");
    assert!(story.waiting_for().starts_with("a look at VMDeployment staging/web"), "{}", story.waiting_for());
    story
}

/// staging/web is this.
fn see(story: &mut Story, found: Option<&VMDeployment>) -> usize {
    let after: &After = &story.deployment.spec.rollout.after[0];
    story.others = vec![Other::new(after, found, story.deployment.metadata.namespace.as_deref().unwrap())];
    story.settle(&[])
}

/// A VMDeployment that allows this namespace to wait for it, on which this artifact was stable so many seconds ago.
fn other(story: &Story, sha256: Option<&str>, seconds: i64) -> VMDeployment {
    let mut other = deployment("any", |_| {});
    other.spec.rollout.follower_namespaces = vec![story.deployment.metadata.namespace.clone().unwrap()];
    let mut app = story.deployment.spec.app.clone();
    app.revision = Some("named otherwise".into());
    if let Some(sha256) = sha256 {
        app.artifact.sha256 = sha256.into();
    }
    let since = Some(Time(story.now - SignedDuration::from_secs(seconds)));
    other.status = Some(VMDeploymentStatus { stable_app: Some(app), stable_since: since, ..Default::default() });
    other
}

#[test]
fn a_roll_out_begins_once_its_artifact_was_stable_elsewhere_for_long_enough() {
    let mut story = story();
    let another = other(&story, Some(&"c".repeat(64)), 9999);
    assert_eq!(see(&mut story, Some(&another)), 0);
    let said = story.waiting_for();
    assert!(
        said.contains("to be stable there, where cccccccccccc is; to go on without, change spec.rollout.after"),
        "{said}"
    );
    let status = story.status();
    assert_eq!(conditions::get_true(&status.conditions, RECONCILING).unwrap().reason, "WaitingForOther");
    let same = other(&story, None, 3599);
    assert_eq!(see(&mut story, Some(&same)), 0);
    assert!(story.waiting_for().contains("bakes there until "), "{}", story.waiting_for());
    story.later(1);
    assert_eq!(story.settle(&[]), 1);
    assert_eq!(see(&mut story, Some(&another)), 1);
    assert!(story.waiting_for().contains("step 2 of 2 is a pause"), "what has begun goes on: {}", story.waiting_for());
}

#[test]
fn a_vmdeployment_that_is_missing_or_does_not_allow_it_is_waited_for_and_not_told_apart() {
    let mut story = story();
    assert_eq!(see(&mut story, None), 0);
    let missing = story.waiting_for();
    assert!(
        missing.starts_with("VMDeployment staging/web: there is none, or it does not allow this namespace"),
        "{missing}"
    );
    let mut closed = other(&story, None, 9999);
    closed.spec.rollout.follower_namespaces = vec!["elsewhere".into()];
    assert_eq!((see(&mut story, Some(&closed)), story.waiting_for()), (0, missing));
    story.later(1_000_000);
    story.settle(&[]);
    assert_eq!(story.reasons().1, "Progressing", "it is not late");
    let mut young = other(&story, None, 9999);
    young.status.as_mut().unwrap().stable_since = None;
    assert_eq!(see(&mut story, Some(&young)), 0, "nobody knows since when");
}

#[test]
fn a_new_attempt_asks_again_and_the_way_back_asks_nobody() {
    let mut story = story();
    let same = other(&story, None, 3600);
    assert_eq!(see(&mut story, Some(&same)), 1);
    story.request("Abort", "r1");
    assert_eq!(see(&mut story, None), 0);
    story.request("Retry", "r2");
    assert_eq!(story.settle(&[]), 0);
    assert!(story.waiting_for().contains("there is none"), "{}", story.waiting_for());
    story.deployment.spec.app.revision = Some("v1".into());
    story.settle(&[]);
    assert_eq!(story.reasons().0, "Complete");
}

#[test]
fn it_is_said_since_when_a_version_is_stable() {
    let mut story = Story::new(json!({}));
    story.settle(&[]);
    let since = |story: &Story| story.status().stable_since.map(|since| since.0);
    let first = since(&story);
    assert_eq!(first, Some(story.now));
    story.later(100);
    story.settle(&[]);
    assert_eq!(since(&story), first);
    story.deployment.spec.app.revision = Some("v3".into());
    story.settle(&[]);
    assert_eq!(since(&story), Some(story.now));
}
