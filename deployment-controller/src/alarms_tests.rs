use berth_core::conditions::{self, RECONCILING};
use serde_json::{Value, json};

use crate::story::{Story, reasons};

/// v2 goes out in two steps, with an alarm that is looked at every 30 s.
fn story(change: impl FnOnce(&mut Value)) -> Story {
    let mut rollout = json!({
        "alarms": {"source": "main", "names": ["WebBurn", "DiskFull"]},
        "steps": [{"servers": 2}, {"pause": {"seconds": 100}}, {"servers": "100%"}, {"bake": {"seconds": 100}}],
    });
    change(&mut rollout);
    let mut story = Story::new(rollout);
    assert_eq!(story.settle(&[]), 0, "nothing begins before the first look");
    story
}

/// The next look is due, and this is seen.
fn see(story: &mut Story, firing: &[&str], unknown: Option<&str>) -> usize {
    story.later(30);
    story.alarm(firing, unknown);
    story.settle(&[])
}

/// Reason of Reconciling, and what is waited for.
fn waits(story: &Story) -> (String, String) {
    let status = story.status();
    let found = conditions::get_true(&status.conditions, RECONCILING).map(|condition| condition.reason.clone());
    (found.unwrap_or_default(), status.waiting_for.unwrap_or_default())
}

#[test]
fn a_roll_out_begins_once_it_was_seen_that_no_alarm_fires() {
    let mut story = story(|_| {});
    assert_eq!(waits(&story), ("AlarmsUnknown".into(), "the first look at alarms WebBurn, DiskFull".into()));
    story.alarm(&["DiskFull"], None);
    assert_eq!(story.settle(&[]), 0);
    let (reason, message) = waits(&story);
    let expected = "alarm DiskFull of MonitoringClass main to end: a roll-out begins only then";
    assert!(reason == "AlarmFiring" && message.starts_with(expected), "{message}");
    assert_eq!(story.reasons().1, "Progressing", "nothing is wrong");
    assert_eq!(see(&mut story, &[], Some("it does not answer")), 0, "what cannot be seen is not quiet");
    let (reason, message) = waits(&story);
    assert!(
        reason == "AlarmsUnknown"
            && message.starts_with("the state of alarms WebBurn, DiskFull is not known: it does not answer; to go on"),
        "{message}"
    );
    assert_eq!(see(&mut story, &["WebBurn"], None), 0);
    assert_eq!((waits(&story).0, story.status().rollout.unwrap().aborted), ("AlarmFiring".into(), None));
    story.later(1_000_000);
    assert_eq!((story.settle(&[]), story.reasons().1), (0, "Progressing".into()), "it is not late");
    story.alarm(&[], None);
    assert_eq!(story.settle(&[]), 2);
}

#[test]
fn an_alarm_that_begins_in_a_step_or_a_bake_brings_the_stable_version_back() {
    for looks in [1, 4] {
        let mut story = story(|_| {});
        story.alarm(&[], None);
        assert_eq!(story.settle(&[]), 2);
        for _ in 0..looks {
            see(&mut story, &[], None);
        }
        assert_eq!(story.updated(), if looks == 1 { 2 } else { 10 });
        assert_eq!(see(&mut story, &["WebBurn"], None), 0);
        let abort = story.status().rollout.unwrap().aborted.unwrap();
        assert_eq!(abort.reason, "AlarmFiring", "although a failure would pause");
        assert!(abort.message.starts_with("alarm WebBurn of MonitoringClass main began to fire in the roll-out"));
        assert_eq!(story.reasons(), reasons("RolledBack", "RolloutAborted", "v1"));
    }
}

#[test]
fn nothing_goes_on_while_it_is_not_known_whether_alarms_fire() {
    let mut story = story(|_| {});
    story.alarm(&[], None);
    assert_eq!(story.settle(&[]), 2);
    for _ in 0..4 {
        assert_eq!(see(&mut story, &[], Some("down")), 2, "the pause is over, and nothing begins");
    }
    assert_eq!(waits(&story).0, "AlarmsUnknown");
    assert_eq!(see(&mut story, &[], None), 10);
    story.later(91);
    story.settle(&[]);
    let (reason, message) = waits(&story);
    assert!(
        reason == "AlarmsUnknown" && message.starts_with("a look at alarms"),
        "an old look does not count: {message}"
    );
    story.later(100);
    story.settle(&[]);
    assert_eq!(story.reasons().2, "v1", "the bake does not end");
    story.alarm(&[], None);
    story.settle(&[]);
    assert_eq!(story.reasons(), reasons("Complete", "Progressing", "v2"));
    assert_eq!(story.status().rollout.unwrap().alarms, None);
}

#[test]
fn an_alarm_can_pause_the_roll_out_until_a_person_accepts_it() {
    let mut story = story(|rollout| rollout["alarms"]["onFiring"] = json!("Pause"));
    story.alarm(&[], None);
    story.settle(&[]);
    assert_eq!(see(&mut story, &["WebBurn"], None), 2);
    story.later(1000);
    assert_eq!(story.settle(&[]), 2);
    assert_eq!(story.reasons(), reasons("AlarmFiring", "AlarmFiring", "v1"));
    assert!(story.waiting_for().starts_with("a person: alarm WebBurn of MonitoringClass main began to fire"));
    story.request("Promote", "r1");
    story.settle(&[]);
    assert_eq!(see(&mut story, &["WebBurn"], None), 10, "it fires still, and that was accepted");
    see(&mut story, &[], None);
    see(&mut story, &["WebBurn"], None);
    assert_eq!(story.reasons().1, "AlarmFiring", "it fires again");
}

#[test]
fn an_alarm_that_fires_already_can_be_ignored_until_it_has_ended() {
    let mut story = story(|rollout| rollout["alarms"]["alreadyFiring"] = json!("Ignore"));
    story.alarm(&["WebBurn"], None);
    assert_eq!(story.settle(&[]), 2);
    assert_eq!(see(&mut story, &["WebBurn"], None), 2);
    assert_eq!(see(&mut story, &[], Some("down")), 2);
    assert_eq!(see(&mut story, &["WebBurn"], None), 2, "one that could not be seen has not ended");
    assert_eq!(see(&mut story, &[], None), 10);
    assert_eq!(see(&mut story, &["WebBurn"], None), 0);
}

#[test]
fn what_goes_back_waits_for_no_alarm_and_a_new_attempt_looks_anew() {
    let mut story = story(|_| {});
    story.alarm(&[], None);
    assert_eq!(story.settle(&[]), 2);
    see(&mut story, &[], Some("down"));
    story.request("Abort", "r1");
    assert_eq!(story.settle(&[]), 0);
    story.request("Retry", "r2");
    assert_eq!(story.settle(&[]), 0);
    story.alarm(&["WebBurn"], None);
    assert_eq!((story.settle(&[]), waits(&story).0), (0, "AlarmFiring".into()));
    story.deployment.spec.app.revision = Some("v1".into());
    story.settle(&[]);
    assert_eq!(story.reasons().0, "Complete", "the stable version needs no alarms");
}

#[test]
fn a_roll_out_without_steps_is_held_too() {
    let mut story = story(|rollout| rollout["steps"] = json!([]));
    story.alarm(&["WebBurn"], None);
    assert_eq!(story.settle(&[]), 0);
    assert_eq!(see(&mut story, &[], None), 10);
}
