use berth_core::{
    api::{Server, VMDeploymentStatus},
    conditions::{self, PROGRESSING, STALLED},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    assessment::Assessment,
    history::{self, Wanted},
    observed::ObservedDeployment,
    rollout, stable, status,
    testing::{deployment, failed, now, ready_set, server},
};

/// A VMDeployment of three Servers on which versions follow each other, and its history.
pub(crate) struct Story {
    pub(crate) deployment: VMDeployment,
    pub(crate) servers: Vec<Server>,
    history: Vec<Revision>,
    requests: u32,
}

impl Story {
    /// These versions were rolled out, one after the other.
    pub(crate) fn new(revisions: &[&str]) -> Self {
        let first = revisions[0];
        let servers = ["web-0", "web-1", "web-2"].map(|name| server(name, first, "Ready", 90)).to_vec();
        let mut story = Self { deployment: deployment(first, |_| {}), servers, history: Vec::new(), requests: 0 };
        for revision in revisions {
            story.declare(revision);
        }
        story
    }

    pub(crate) fn declare(&mut self, revision: &str) {
        self.deployment.spec.app = deployment(revision, |_| {}).spec.app;
        self.settle(&[]);
    }

    pub(crate) fn rollout(&mut self, rollout: Value) {
        let request = self.deployment.spec.rollout.request.take();
        self.deployment.spec.rollout = serde_json::from_value(rollout).unwrap();
        self.deployment.spec.rollout.request = request;
    }

    /// A person requests this, and the controller does what follows.
    pub(crate) fn request(&mut self, action: &str, to_revision: Option<i64>) {
        self.request_with_broken(action, to_revision, &[]);
    }

    /// The same, and these versions fail.
    pub(crate) fn request_with_broken(&mut self, action: &str, to_revision: Option<i64>, broken: &[&str]) {
        self.requests += 1;
        let request = json!({"action": action, "toRevision": to_revision, "id": self.requests.to_string(), "by": "ann", "reason": "slow"});
        self.deployment.spec.rollout.request = serde_json::from_value(request).unwrap();
        self.settle(broken);
    }

    /// What the controller does until nothing changes; Servers become Ready at once with what is declared, but not with a broken version.
    pub(crate) fn settle(&mut self, broken: &[&str]) {
        for _ in 0..20 {
            let request = pending(&self.deployment).cloned();
            if let Some(request) = &request {
                let rollout = carry_out(&self.deployment, None, request, &self.history, now());
                self.deployment.status.get_or_insert_default().rollout = Some(rollout);
            }
            let wanted = wanted(&self.deployment).into_owned();
            let servers: Vec<&Server> = self.servers.iter().collect();
            let set = ready_set(&wanted);
            let updates = rollout::next_updates(&wanted, &set, &servers, None, now());
            let names: Vec<String> = updates.servers.iter().map(|server| server.name().to_owned()).collect();
            let (app, revision) = (updates.app.clone(), updates.app.effective_revision());
            let status = self.status();
            self.keep_history(&newest_app(&wanted), &status);
            self.deployment.status = Some(status);
            if request.is_some() {
                continue;
            }
            for name in &names {
                let known = self.servers.iter_mut().find(|server| server.name() == name).unwrap();
                let is_broken = broken.contains(&revision.as_str());
                *known = if is_broken { failed(name, &revision) } else { server(name, &revision, "Ready", 9) };
                known.spec.app = Some(app.clone());
            }
        }
    }

    fn keep_history(&mut self, newest: &App, status: &VMDeploymentStatus) {
        let of_servers = self.servers.iter().filter_map(|server| server.spec.app.as_ref()).map(App::as_declared);
        let in_use: Vec<App> = of_servers.chain([newest_app(&self.deployment).as_declared()]).collect();
        let (newest, stable) = (newest.as_declared(), status.stable_app.as_ref().map(App::as_declared));
        let in_use: Vec<&App> = in_use.iter().collect();
        let wanted = Wanted { newest: &newest, stable: stable.as_ref(), in_use: &in_use, limit: 10 };
        for revision in history::changes(&self.deployment, &self.history, wanted).apply {
            self.history.retain(|known| known.name != revision.name);
            self.history.push(revision);
        }
    }

    pub(crate) fn status(&self) -> VMDeploymentStatus {
        self.observe(|observed| status::compute(observed).0)
    }

    fn observe<T>(&self, look: impl FnOnce(&ObservedDeployment<'_>) -> T) -> T {
        let wanted = wanted(&self.deployment);
        let servers: Vec<&Server> = self.servers.iter().collect();
        let set = ready_set(&wanted);
        look(&ObservedDeployment {
            deployment: &wanted,
            set: Some(&set),
            servers: &servers,
            missing_content: None,
            looks: &[],
            alarm_look: None,
            others: &[],
            awaited: &[],
            now: now(),
        })
    }

    /// What the Servers have, and what a new one begins with.
    pub(crate) fn code(&self) -> String {
        let of = |server: &Server| server.spec.app.as_ref().unwrap().effective_revision();
        let new =
            self.observe(|observed| stable::initial_app(observed, &Assessment::of(observed)).effective_revision());
        format!("{} {new}", self.servers.iter().map(of).collect::<Vec<_>>().join(" "))
    }

    fn reasons(&self) -> [String; 2] {
        let status = self.status();
        [PROGRESSING, STALLED].map(|kind| conditions::get(&status.conditions, kind).unwrap().reason.clone())
    }

    fn waiting_for(&self) -> String {
        self.status().waiting_for.unwrap_or_default()
    }
}

#[test]
fn an_undone_version_stays_away_until_a_person_says_otherwise() {
    let mut story = Story::new(&["v1", "v2"]);
    assert_eq!((story.code(), story.reasons()), ("v2 v2 v2 v2".into(), ["Complete", "Progressing"].map(str::to_owned)));
    story.request("Undo", None);
    assert_eq!(story.code(), "v1 v1 v1 v1");
    assert_eq!(story.reasons(), ["RolledBack", "RolloutUndone"].map(str::to_owned));
    assert_eq!(
        story.waiting_for(),
        "a person: revision v2 was undone (requested by ann: slow), and revision v1 is deployed in its place: declare another \
         revision, or set spec.rollout.request to {action: Retry, id: <a new value>}"
    );
    assert_eq!(story.deployment.spec.app.revision.as_deref(), Some("v2"), "the declaration is left to people");
    let status = story.status();
    assert_eq!((status.stable_revision.as_deref(), status.revision.as_deref()), (Some("v1"), Some("v1")));

    story.request("Promote", None);
    assert_eq!(story.code(), "v1 v1 v1 v1", "another request does not bring it back");
    story.request("Retry", None);
    assert_eq!((story.code(), story.waiting_for()), ("v2 v2 v2 v2".into(), String::new()));
}

#[test]
fn another_declaration_ends_an_undo_and_the_one_gone_back_to_makes_it_true() {
    let mut story = Story::new(&["v1", "v2"]);
    story.request("Undo", None);
    story.declare("v3");
    assert_eq!((story.code(), story.waiting_for()), ("v3 v3 v3 v3".into(), String::new()));
    story.request("Undo", None);
    assert_eq!(story.code(), "v1 v1 v1 v1", "the last stable one before, not the one that was undone");
    story.declare("v1");
    assert_eq!((story.code(), story.waiting_for()), ("v1 v1 v1 v1".into(), String::new()));
    assert_eq!(story.status().rollout.unwrap().undone, None);
    story.declare("v3");
    assert_eq!(story.code(), "v3 v3 v3 v3", "it was declared anew");
}

#[test]
fn a_second_undo_goes_further_back_and_not_to_what_the_first_has_undone() {
    let mut story = Story::new(&["v0", "v1", "v2"]);
    story.request("Undo", None);
    assert_eq!(story.code(), "v1 v1 v1 v1");
    story.request("Undo", None);
    assert_eq!(story.code(), "v0 v0 v0 v0");
}

#[test]
fn a_revision_is_named_by_its_number_and_what_cannot_be_undone_is_said() {
    let mut story = Story::new(&["v1", "v2", "v3"]);
    story.request("Undo", Some(1));
    assert_eq!(story.code(), "v1 v1 v1 v1");
    assert_eq!(story.history.iter().map(|revision| revision.number).max(), Some(4), "v1 has a new number");
    for (number, answer) in [
        (1, "there is no revision 1 any more; there are 2 (v2), 3 (v3), 4 (v1)"),
        (4, "revision 4 (v1) is the present one"),
        (99, "there is no revision 99 any more; there are 2 (v2), 3 (v3), 4 (v1)"),
    ] {
        story.request("Undo", Some(number));
        let id = story.requests;
        let waiting_for = story.waiting_for();
        let expected = format!(
            "a person: nothing came of the request {id} (Undo): {answer}; besides, a person: revision v3 was undone"
        );
        assert!(waiting_for.starts_with(&expected), "{waiting_for}");
        assert_eq!(story.code(), "v1 v1 v1 v1");
    }
    story.request("Undo", Some(2));
    assert_eq!((story.code(), story.status().rollout.unwrap().refused), ("v2 v2 v2 v2".into(), None));
    story.request("Undo", Some(3));
    assert_eq!((story.code(), story.waiting_for()), ("v3 v3 v3 v3".into(), String::new()), "that is the declared one");

    let mut first = Story::new(&["v1"]);
    first.request("Undo", None);
    assert_eq!(
        first.waiting_for(),
        "a person: nothing came of the request 1 (Undo): no other revision was ever stable: name one by toRevision; there are 1 (v1)"
    );
    first.deployment.spec.rollout.request = None;
    first.settle(&[]);
    assert_eq!(first.waiting_for(), "", "the answer goes with the request");
}

#[test]
fn an_aborted_version_is_not_brought_back_by_an_undo_that_does_not_name_it() {
    let mut story = Story::new(&["v0", "v1"]);
    story.rollout(json!({"onFailure": "Rollback"}));
    story.deployment.spec.app = deployment("v2", |_| {}).spec.app;
    story.settle(&["v2"]);
    assert_eq!((story.code(), story.reasons()[1].as_str()), ("v1 v1 v1 v1".into(), "RolloutAborted"));
    story.request("Undo", None);
    assert_eq!(story.code(), "v0 v0 v0 v0", "v1 is present, and v2 was never stable");
    story.rollout(json!({}));
    story.settle(&[]);
    assert_eq!(story.code(), "v0 v0 v0 v0");
    story.request("Undo", Some(3));
    assert_eq!(story.code(), "v2 v2 v2 v2", "a person has named it");
}

#[test]
fn an_undo_goes_to_every_server_at_once_whatever_holds_the_roll_out() {
    let steps = json!([{"servers": 1}, {"pause": {}}]);
    for (case, rollout) in [
        ("paused", json!({"paused": true})),
        ("partition", json!({"partition": 2})),
        ("steps", json!({"steps": steps})),
        ("failures", json!({"maxFailed": 0, "onFailure": "Rollback"})),
    ] {
        let mut story = Story::new(&["v1", "v2"]);
        story.rollout(rollout);
        story.deployment.spec.paused = case == "paused";
        story.servers[2] = failed("web-2", "v2");
        story.request("Undo", None);
        assert_eq!(story.code(), "v1 v1 v1 v1", "{case}");
        assert_eq!(story.reasons()[1], "RolloutUndone", "{case}");
    }
}

#[test]
fn an_undo_in_the_middle_of_a_roll_out_turns_it_back_within_the_budget() {
    let mut story = Story::new(&["v1"]);
    story.rollout(json!({"steps": [{"servers": 2}, {"pause": {}}]}));
    story.declare("v2");
    assert_eq!(story.code(), "v2 v2 v1 v1");
    let status = story.status();
    let counts: Vec<_> =
        status.revisions.iter().map(|of| (of.revision.as_str(), of.replicas, of.ready_replicas)).collect();
    assert_eq!(counts, [("v1", 1, 1), ("v2", 2, 2)]);
    assert_eq!(status.rollout.unwrap().current_step, Some(2));

    story.deployment.spec.rollout.request =
        serde_json::from_value(json!({"action": "Undo", "id": "x", "by": "ann"})).unwrap();
    let request = pending(&story.deployment).unwrap();
    let turned = carry_out(&story.deployment, None, request, &story.history, now());
    story.deployment.status.as_mut().unwrap().rollout = Some(turned);
    assert_eq!(story.code(), "v2 v2 v1 v1", "a new Server begins with what is gone back to");
    assert_eq!(story.waiting_for(), "2 Servers to get revision v1 back");
    assert_eq!(story.reasons(), ["RollingBack", "Progressing"].map(str::to_owned));
    let wanted = wanted(&story.deployment).into_owned();
    let servers: Vec<&Server> = story.servers.iter().collect();
    let updates = rollout::next_updates(&wanted, &ready_set(&wanted), &servers, None, now());
    assert_eq!(updates.servers.len(), 1, "at most one Server may be unavailable");
}

#[test]
fn an_aborted_undo_leaves_what_was_stable() {
    let mut story = Story::new(&["v1", "v2"]);
    story.request("Undo", None);
    story.request("Abort", None);
    assert!(story.waiting_for().contains("there is no other stable revision to go back to"), "{}", story.waiting_for());
    assert_eq!(story.code(), "v1 v1 v1 v1");
}
