use berth_core::api::CheckVerdict::{Fail, Inconclusive, Pass};
use serde_json::{Value, json};

use crate::{
    replica_set::{self, newest_app},
    story::{Story, reasons},
    testing::deployment,
    watch::Watch,
};

/// v2 goes out in steps, and check slo is looked at every 30 s meanwhile.
fn story(change: impl FnOnce(&mut Value)) -> Story {
    let mut rollout = json!({
        "checks": [{"name": "slo", "source": "main", "query": "q", "condition": "< 1"}],
        "background": {"checks": ["slo"], "intervalSeconds": 30},
        "steps": [{"servers": 2}, {"pause": {"seconds": 40}}, {"servers": "100%"}, {"bake": {"seconds": 100}}],
    });
    change(&mut rollout);
    Story::new(rollout)
}

/// The next look says this.
fn look(story: &mut Story, verdict: berth_core::api::CheckVerdict) {
    story.look(&[("slo", verdict)]);
    story.settle(&[]);
}

#[test]
fn checks_are_looked_at_from_the_first_step_until_the_version_is_stable() {
    let mut story = story(|_| {});
    assert_eq!(story.settle(&[]), 2);
    let begun = story.now;
    story.later(30);
    look(&mut story, Pass);
    story.later(10);
    assert_eq!(story.settle(&[]), 10, "the pause is over");
    let known = |story: &Story| story.status().rollout.unwrap().background;
    let second = known(&story).unwrap();
    assert_eq!((second.step, second.looks, second.checks[0].passes), (4, 1, 1), "what was said counts on");
    assert!(second.since.0 > begun, "the queries are about the present step alone");
    story.later(20);
    look(&mut story, Inconclusive);
    for _ in 0..3 {
        story.later(30);
        story.settle(&[]);
    }
    assert_eq!(story.reasons(), reasons("Complete", "Progressing", "v2"), "what is inconclusive decides nothing");
    assert_eq!(known(&story), None);
}

#[test]
fn one_failure_more_than_may_be_brings_the_stable_version_back_in_any_step() {
    for (seconds, step) in [(30, 2), (60, 4)] {
        let mut story = story(|rollout| rollout["onFailure"] = json!("Rollback"));
        story.settle(&[]);
        story.later(seconds);
        story.settle(&[]);
        assert_eq!(story.status().rollout.unwrap().current_step, Some(step));
        look(&mut story, Fail);
        assert_eq!(story.updated(), 0);
        let abort = story.status().rollout.unwrap().aborted.unwrap();
        assert_eq!(abort.reason, "BackgroundCheckFailed");
        assert!(abort.message.starts_with("check slo in the background has failed at 1 of 1 looks, at most 0"));
        assert_eq!(story.reasons(), reasons("RolledBack", "RolloutAborted", "v1"));
    }
}

#[test]
fn a_failure_stops_the_roll_out_where_it_does_not_go_back_until_a_person_accepts_it() {
    let mut story = story(|rollout| rollout["background"]["maxFailures"] = json!(1));
    story.settle(&[]);
    story.later(30);
    look(&mut story, Fail);
    assert_eq!(story.reasons().1, "Progressing", "one may fail");
    story.later(30);
    assert_eq!(story.settle(&[]), 10);
    look(&mut story, Fail);
    assert_eq!(story.reasons(), reasons("BackgroundCheckFailed", "BackgroundCheckFailed", "v1"));
    story.later(1000);
    story.settle(&[]);
    assert_eq!(story.reasons().2, "v1", "no step goes on");
    let servers: Vec<_> = story.servers.iter().collect();
    assert!(crate::look::due(&story.deployment, &servers, None, story.now).is_empty());
    story.request("Promote", "r1");
    story.settle(&[]);
    assert_eq!(story.reasons(), reasons("Complete", "Progressing", "v2"));
}

#[test]
fn a_roll_out_without_steps_is_watched_too_and_a_person_accepts_what_has_failed() {
    let mut story = story(|rollout| rollout["steps"] = json!([]));
    story.deployment.status = Some(story.status());
    story.later(30);
    story.look(&[("slo", Fail)]);
    assert_eq!(story.reasons().1, "BackgroundCheckFailed");
    story.request("Promote", "r1");
    story.deployment.status = Some(story.status());
    let progress = story.status().rollout.unwrap();
    assert_eq!((progress.refused, progress.background.unwrap().looks), (None, 0), "it begins anew");
}

#[test]
fn neither_the_first_version_nor_the_stable_one_is_watched() {
    let mut story = story(|_| {});
    story.deployment.spec.app.revision = Some("v1".into());
    story.settle(&[]);
    assert_eq!(story.status().rollout.unwrap().background, None);
}

#[test]
fn the_environment_is_held_only_while_revisions_are_compared() {
    let is_held = |story: &Story| replica_set::desired(&story.deployment, newest_app(&story.deployment)).spec.paused;
    let mut plain = story(|_| {});
    plain.settle(&[]);
    assert!(!is_held(&plain));
    let proportion = json!({"bad": "q", "total": "q", "maxIncrease": "0.1"});
    let mut compared = story(|rollout| {
        rollout["checks"] = json!([{"name": "slo", "source": "main", "proportion": proportion}]);
    });
    compared.settle(&[]);
    assert!(is_held(&compared));
    compared.later(30);
    look(&mut compared, Fail);
    assert!(!is_held(&compared), "a person may need to repair it");
    assert!(!is_held(&Story { deployment: deployment("v1", |_| {}), ..compared }));
}

#[test]
fn all_looks_together_spend_no_more_than_alpha() {
    let mut story = story(|_| {});
    story.settle(&[]);
    let mut known = story.status().rollout.unwrap().background.unwrap();
    let declared = story.deployment.spec.rollout.background.as_ref().unwrap();
    let mut spent = 0.0;
    for looks in 0..100_000 {
        known.looks = looks;
        spent += 1.0 / f64::from(Watch::Background(declared).looks(&known));
    }
    assert!(spent <= 1.0 && spent > 0.99, "{spent}");
}
