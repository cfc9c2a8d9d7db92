use berth_core::{
    api::{Server, VMDeployment, VMDeploymentStatus, VMReplicaSet},
    conditions::{self, PROGRESSING, READY, RECONCILING, STALLED},
};
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::{
    look,
    observed::ObservedDeployment,
    replica_set::{self, newest_app},
    rollout, status,
    testing::{deployment, now, ready_set, server},
};

use CheckVerdict::{Fail, Inconclusive, Pass};

/// A VMDeployment that rolls v2 out over three Servers; the first has it, and the analysis of step 2 begins.
struct Story {
    deployment: VMDeployment,
    servers: Vec<Server>,
    now: Timestamp,
}

impl Story {
    fn new(step: &Value, change: impl FnOnce(&mut Value)) -> Self {
        let mut analysis = json!({"checks": ["errors", "slo"], "intervalSeconds": 60, "maxSeconds": 600});
        analysis.as_object_mut().unwrap().extend(step.as_object().cloned().unwrap());
        let checks = json!([{"name": "errors", "source": "main", "query": "q", "condition": "< 1"},
            {"name": "slo", "source": "main", "query": "q", "condition": "< 1"}]);
        let mut deployment = deployment("v2", |spec| {
            spec["rollout"] =
                json!({"checks": checks, "steps": [{"servers": 1}, {"analysis": analysis}, {"pause": {}}]});
            change(spec);
        });
        deployment.status = Some(VMDeploymentStatus {
            stable_app: Some(newest_app(&super::super::testing::deployment("v1", |_| {}))),
            stable_revision: Some("v1".into()),
            ..Default::default()
        });
        let servers = vec![
            server("web-0", "v2", "Ready", 90),
            server("web-1", "v1", "Ready", 90),
            server("web-2", "v1", "Ready", 90),
        ];
        let mut story = Self { deployment, servers, now: now() };
        story.settle();
        story
    }

    fn compute(&self, look: Option<&Look>) -> (VMDeploymentStatus, Option<Timestamp>) {
        let servers: Vec<&Server> = self.servers.iter().collect();
        let set = ready_set(&self.deployment);
        let (deployment, set, servers, looks) =
            (&self.deployment, Some(&set), &servers[..], look.map(std::slice::from_ref).unwrap_or_default());
        status::compute(&ObservedDeployment {
            deployment,
            set,
            servers,
            missing_content: None,
            looks,
            alarm_look: None,
            others: &[],
            awaited: &[],
            now: self.now,
        })
    }

    /// What the controller writes until nothing changes.
    fn settle(&mut self) {
        for _ in 0..5 {
            self.deployment.status = Some(self.compute(None).0);
        }
    }

    fn progress(&self) -> &RolloutProgress {
        self.deployment.status.as_ref().unwrap().rollout.as_ref().unwrap()
    }

    fn look_with(&self, results: &[(&str, CheckVerdict)]) -> Look {
        let result = |(name, verdict): &(&str, CheckVerdict)| CheckResult {
            name: (*name).to_owned(),
            verdict: *verdict,
            message: format!("{verdict:?} it was"),
        };
        let (app, of) = (self.progress().digest.clone(), self.progress().analysis.clone().unwrap());
        Look { subject: Subject::Step, app, of, at: self.now, results: results.iter().map(result).collect() }
    }

    /// The next look is due, and both checks say this.
    fn look(&mut self, errors: CheckVerdict, slo: CheckVerdict) {
        self.now += SignedDuration::from_secs(60);
        assert!(self.is_due(), "{:?}", self.progress());
        let look = self.look_with(&[("errors", errors), ("slo", slo)]);
        self.deployment.status = Some(self.compute(Some(&look)).0);
        self.settle();
    }

    fn is_due(&self) -> bool {
        let servers: Vec<&Server> = self.servers.iter().collect();
        look::due(&self.deployment, &servers, None, self.now).len() == 1
    }

    fn request(&mut self, action: &str) {
        let request = json!({"action": action, "id": format!("{action} {}", self.now)});
        self.deployment.spec.rollout.request = serde_json::from_value(request).unwrap();
    }

    /// Reason and message of what is True of Ready, Reconciling and Stalled.
    fn standing(&self) -> (String, String) {
        let status = self.deployment.status.as_ref().unwrap();
        let found = [READY, RECONCILING, STALLED].map(|kind| conditions::get_true(&status.conditions, kind));
        let found = found.into_iter().flatten().next().unwrap();
        (found.reason.clone(), status.waiting_for.clone().unwrap_or_default())
    }

    fn waiting_for(&self) -> String {
        self.standing().1
    }

    /// How many Servers get another application now.
    fn updates(&self) -> (usize, String) {
        let servers: Vec<&Server> = self.servers.iter().collect();
        let set: VMReplicaSet = ready_set(&self.deployment);
        let next = rollout::next_updates(&self.deployment, &set, &servers, None, self.now);
        (next.servers.len(), next.app.effective_revision())
    }
}

#[test]
fn a_step_begins_with_its_record_and_ends_when_every_check_has_passed_often_enough() {
    let mut story = Story::new(&json!({"count": 2}), |_| {});
    let known = story.progress().analysis.clone().unwrap();
    assert_eq!((known.step, known.attempt, known.looks, known.since.0), (2, 0, 0, story.now));
    assert_eq!(story.compute(None).1, Some(story.now + SignedDuration::from_secs(60)), "the first look");
    assert!(!story.is_due());
    assert_eq!(
        story.standing(),
        ("Analysing".into(), "the analysis of step 2 of 3: the first look at errors, slo".into())
    );
    story.look(Pass, Inconclusive);
    story.look(Pass, Pass);
    let expected = "the analysis of step 2 of 3: check slo has passed at 1 of 2 looks (Pass at look 2: Pass it was)";
    assert_eq!(story.waiting_for(), expected);
    assert_eq!(story.updates().0, 0, "nothing is rolled out during an analysis");
    story.look(Inconclusive, Pass);
    assert!(story.waiting_for().contains("step 3 of 3 is a pause"), "{}", story.waiting_for());
    let known = story.progress().analysis.clone().unwrap();
    assert_eq!((known.looks, known.checks[0].passes, known.checks[0].inconclusive), (3, 2, 1), "it stays to be read");
    assert!(!story.is_due());
}

#[test]
fn one_failure_more_than_may_be_pauses_or_rolls_back_as_declared() {
    let rolls_back = |irreversible: Option<i32>| {
        let mut story = Story::new(&json!({"maxFailures": 1}), |spec| {
            spec["rollout"]["onFailure"] = json!("Rollback");
            spec["rollout"]["irreversibleAfter"] = json!(irreversible);
        });
        story.look(Pass, Fail);
        assert_eq!(story.updates().0, 0);
        assert!(story.progress().aborted.is_none(), "one may fail");
        story.look(Pass, Fail);
        story
    };
    let story = rolls_back(None);
    let aborted = story.progress().aborted.clone().unwrap();
    let message = "the analysis of step 2 of 3: check slo has failed at 2 of 2 looks, at most 1 may: Fail it was";
    assert_eq!((aborted.reason.as_str(), aborted.message.as_str()), (ANALYSIS_FAILED, message));
    assert_eq!(story.updates(), (1, "v1".into()), "the one with v2 gets v1 back");
    assert!(!story.is_due());

    let mut story = rolls_back(Some(2));
    let (reason, waiting_for) = story.standing();
    assert!(
        reason == ANALYSIS_FAILED && waiting_for.starts_with(&format!("a person: {message}; no other Server")),
        "{waiting_for}"
    );
    let status = story.deployment.status.as_ref().unwrap();
    let progressing = conditions::get(&status.conditions, PROGRESSING).unwrap();
    assert_eq!((progressing.status.as_str(), progressing.reason.as_str()), ("False", ANALYSIS_FAILED));
    assert!(!story.is_due() && story.progress().aborted.is_none());
    story.request("Promote");
    story.settle();
    assert!(story.waiting_for().contains("step 3 of 3 is a pause"), "{}", story.waiting_for());
}

#[test]
fn what_stays_inconclusive_waits_for_a_person() {
    let mut over = Story::new(&json!({"maxSeconds": 180}), |_| {});
    let mut too_many = Story::new(&json!({"maxInconclusive": 2}), |_| {});
    for story in [&mut over, &mut too_many] {
        for _ in 0..3 {
            assert!(!story.waiting_for().starts_with("a person"), "{}", story.waiting_for());
            story.look(Pass, Inconclusive);
        }
        let (reason, waiting_for) = story.standing();
        let start = "a person: the analysis of step 2 of 3 has come to no verdict after 3 looks: check slo passed at 0 (of 1 needed) \
                     and was inconclusive at 3; at last: Inconclusive it was. To go on, set spec.rollout.request to {action: Promote";
        assert!(reason == "AnalysisInconclusive" && waiting_for.starts_with(start), "{reason}: {waiting_for}");
        story.now += SignedDuration::from_secs(999);
        assert!(!story.is_due() && story.updates().0 == 0);
    }
    over.request("Abort");
    over.settle();
    assert_eq!(over.updates(), (1, "v1".into()));
    too_many.request("Promote");
    too_many.settle();
    assert!(too_many.waiting_for().contains("step 3 of 3 is a pause"));
}

#[test]
fn a_look_counts_once_and_only_for_what_it_was_made_for() {
    let mut story = Story::new(&json!({"maxFailures": 3}), |spec| spec["rollout"]["onFailure"] = json!("Rollback"));
    let first = story.look_with(&[("errors", Fail), ("slo", Fail)]);
    let looks = |story: &Story, look: &Look| story.compute(Some(look)).0.rollout.unwrap().analysis.unwrap().looks;
    assert_eq!(looks(&story, &first), 1);
    assert_eq!(looks(&story, &Look { app: "another".into(), ..first.clone() }), 0);
    story.look(Pass, Inconclusive);
    assert_eq!(looks(&story, &first), 1, "another copy has looked before");
    story.request("Abort");
    story.settle();
    story.request("Retry");
    story.settle();
    let again = story.progress().analysis.clone().unwrap();
    assert_eq!((again.attempt, again.looks), (1, 0), "a new attempt begins anew");
    assert_eq!(looks(&story, &first), 0);
    let before = story.look_with(&[("errors", Fail), ("slo", Fail)]);
    story.deployment.spec.rollout.checks[0].condition = Some("< 2".into());
    story.now += SignedDuration::from_secs(5);
    story.settle();
    let changed = story.progress().analysis.clone().unwrap();
    assert!(changed.digest != again.digest && changed.since.0 == story.now, "a changed check begins anew");
    assert_eq!(looks(&story, &before), 0);
}

#[test]
fn nothing_is_looked_at_while_the_roll_out_is_held_or_a_request_waits() {
    let mut story = Story::new(&json!({}), |_| {});
    story.now += SignedDuration::from_secs(60);
    assert!(story.is_due());
    story.deployment.spec.rollout.paused = true;
    assert!(!story.is_due());
    assert_eq!(story.compute(None).1, None);
    story.deployment.spec.rollout.paused = false;
    story.request("Abort");
    assert!(!story.is_due());
}

#[test]
fn the_environment_is_held_during_an_analysis_and_no_deadline_runs() {
    let mut story = Story::new(&json!({}), |_| {});
    let is_held = |story: &Story| replica_set::desired(&story.deployment, newest_app(&story.deployment)).spec.paused;
    assert!(is_held(&story));
    assert_eq!(story.progress().progressed_at, None);
    story.look(Pass, Pass);
    assert!(!is_held(&story));
}

#[test]
fn a_step_that_names_no_check_never_passes() {
    let mut story = Story::new(&json!({}), |_| {});
    story.deployment.spec.rollout.steps[1].analysis.as_mut().unwrap().checks.clear();
    story.settle();
    story.now += SignedDuration::from_secs(9999);
    assert!(!story.is_due());
    assert!(story.waiting_for().contains("names no check"), "{}", story.waiting_for());
}
