use berth_core::conditions::{self, PROGRESSING};
use serde_json::json;

use crate::undo::tests::Story;

/// The restart that each Server was started for.
fn restarts(story: &Story) -> Vec<Option<&str>> {
    story.servers.iter().map(|server| server.spec.app.as_ref().unwrap().restart.as_deref()).collect()
}

fn refused(story: &Story) -> String {
    story.deployment.status.as_ref().unwrap().rollout.as_ref().unwrap().refused.clone().unwrap_or_default()
}

#[test]
fn every_server_starts_the_stable_code_anew_without_steps_and_as_no_new_revision() {
    let mut story = Story::new(&["v1", "v2"]);
    story.rollout(json!({"steps": [{"servers": 1}, {"pause": {}}]}));
    let before = story.status();
    story.request("Restart", None);
    assert_eq!(restarts(&story), [Some("1"); 3]);
    assert_eq!(story.code(), "v2 v2 v2 v2");
    let after = story.status();
    assert_eq!((after.stable_revision, after.stable_since), (before.stable_revision, before.stable_since));
    let rollout = after.rollout.unwrap();
    assert_eq!(rollout.revision_number, before.rollout.unwrap().revision_number);
    assert_eq!(rollout.restart.unwrap().message, "requested by ann: slow");
    story.request("Restart", None);
    assert_eq!(restarts(&story), [Some("2"); 3], "another request is another restart");
}

#[test]
fn a_restart_says_how_far_it_is_and_a_pause_holds_it() {
    let mut story = Story::new(&["v1"]);
    story.rollout(json!({"paused": true}));
    story.request("Restart", None);
    assert_eq!(restarts(&story), [None; 3]);
    assert!(story.status().waiting_for.unwrap().contains("paused"), "{:?}", story.status().waiting_for);

    story.rollout(json!({}));
    let status = story.status();
    assert_eq!(status.waiting_for.as_deref(), Some("0 of 3 Servers have been restarted (requested by ann: slow)"));
    assert_eq!(conditions::get(&status.conditions, PROGRESSING).unwrap().reason, "Restarting");
    story.settle(&[]);
    assert_eq!(restarts(&story), [Some("1"); 3]);
}

#[test]
fn a_restart_that_fails_goes_back_to_nothing() {
    let mut story = Story::new(&["v1", "v2"]);
    story.rollout(json!({"onFailure": "Rollback"}));
    story.request_with_broken("Restart", None, &["v2"]);
    let status = story.status();
    assert_eq!(status.rollout.unwrap().aborted, None);
    assert_eq!(restarts(&story).iter().flatten().count(), 1, "no other Server is touched");
}

#[test]
fn new_code_keeps_the_restart_and_so_does_an_undo_so_that_nothing_starts_twice() {
    let mut story = Story::new(&["v1", "v2"]);
    story.request("Restart", None);
    story.declare("v3");
    assert_eq!((story.code(), restarts(&story)), ("v3 v3 v3 v3".into(), vec![Some("1"); 3]));
    story.request("Undo", None);
    assert_eq!((story.code(), restarts(&story)), ("v2 v2 v2 v2".into(), vec![Some("1"); 3]));
    story.request("Restart", None);
    assert_eq!((story.code(), restarts(&story)), ("v2 v2 v2 v2".into(), vec![Some("3"); 3]));
}

#[test]
fn what_a_vm_deployment_declares_is_no_restart() {
    let mut story = Story::new(&["v1"]);
    story.deployment.spec.app.restart = Some("forged".into());
    story.settle(&[]);
    assert_eq!(restarts(&story), [None; 3]);
}

#[test]
fn a_roll_out_that_is_under_way_or_was_aborted_is_not_restarted() {
    let mut story = Story::new(&["v1"]);
    story.rollout(json!({"steps": [{"servers": 1}, {"pause": {}}]}));
    story.declare("v2");
    story.request("Restart", None);
    assert_eq!(refused(&story), "revision v2 is being rolled out: request Restart when it is stable");
    story.request("Abort", None);
    story.request("Restart", None);
    let words = "the roll-out of revision v2 was aborted: declare v1 again, and then request Restart";
    assert_eq!((refused(&story).as_str(), restarts(&story)), (words, vec![None; 3]));
    story.declare("v1");
    story.request("Restart", None);
    assert_eq!((story.code(), restarts(&story)), ("v1 v1 v1 v1".into(), vec![Some("4"); 3]));
}

#[test]
fn a_restart_of_a_person_takes_servers_of_a_former_baseline_too_and_each_once() {
    let mut story = Story::new(&["v1"]);
    story.rollout(json!({"steps": [{"servers": 1}, {"baseline": {"servers": 1}}, {"pause": {}}]}));
    story.declare("v2");
    let marks = |story: &Story| {
        let of = |server: &berth_core::api::Server| server.spec.app.as_ref().unwrap().baseline.is_some();
        story.servers.iter().filter(|server| of(server)).count()
    };
    assert_eq!((story.code(), marks(&story)), ("v2 v1 v1 v1".into(), 1));
    story.request("Restart", None);
    assert_eq!(refused(&story), "revision v2 is being rolled out: request Restart when it is stable");
    story.request("Abort", None);
    story.declare("v1");
    assert_eq!((restarts(&story), marks(&story)), (vec![None; 3], 1), "the mark alone is no reason");
    assert_eq!(story.status().rollout.unwrap().baseline, None);
    story.request("Restart", None);
    assert_eq!((restarts(&story), marks(&story)), (vec![Some("3"); 3], 0));
}
