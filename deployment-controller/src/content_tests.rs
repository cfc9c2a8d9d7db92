use std::collections::BTreeMap;

use berth_core::{
    api::RolloutProgress,
    conditions::{self, STALLED},
};
use berth_machine::app::{AppFile, SecretEnv};
use serde_json::{Value, json};

use super::*;
use crate::{
    assessment::Assessment,
    history::Revision,
    observed::ObservedDeployment,
    reconcile::{history_changes, new_status},
    replica_set, rollout, stable,
    testing::{self, deployment, now, server},
    undo,
};

fn values(password: &str, files: &[(&str, &str)]) -> AppValues {
    let file = |(path, content): &(&str, &str)| AppFile {
        path: (*path).to_owned(),
        content: content.as_bytes().to_vec(),
        secret: false,
    };
    AppValues {
        secrets: SecretEnv([("DB".to_owned(), password.to_owned())].into()),
        files: files.iter().map(file).collect(),
        ..AppValues::default()
    }
}

#[test]
fn the_digest_tells_every_content_apart_and_needs_the_key() {
    let key = ContentKey::derived_from(b"ssh key");
    let one = key.digest(&values("a", &[("x", "1"), ("y", "2")]));
    assert_eq!(one.len(), 20);
    assert_eq!(one, key.digest(&values("a", &[("y", "2"), ("x", "1")])), "the order does not matter");
    let plain = [("LEVEL".to_owned(), "debug".to_owned())].into();
    for other in [
        values("b", &[("x", "1"), ("y", "2")]),
        values("a", &[("x", "1")]),
        values("a", &[("x", "1y"), ("y", "2")]),
        values("a", &[("x1", ""), ("y", "2")]),
        values("a", &[("x", "2"), ("y", "1")]),
        AppValues { env: plain, ..values("a", &[("x", "1"), ("y", "2")]) },
    ] {
        assert_ne!(one, key.digest(&other), "{other:?}");
    }
    assert_ne!(one, ContentKey::derived_from(b"another").digest(&values("a", &[("x", "1"), ("y", "2")])));
}

/// This revision, with a file from this ConfigMap.
fn declared(revision: &str, map: &str) -> VMDeployment {
    deployment(revision, |spec| {
        spec["app"]["files"] = json!([{"path": "conf", "configMapKeyRef": {"name": map, "key": "a"}}]);
    })
}

/// A VMDeployment of three Servers whose application has a file from a ConfigMap, and what its controller does.
struct Story {
    deployment: VMDeployment,
    set: Option<VMReplicaSet>,
    servers: Vec<Server>,
    history: Vec<Revision>,
    /// The content of each ConfigMap.
    maps: BTreeMap<&'static str, &'static str>,
    /// Revisions and contents that do not start.
    broken: Vec<&'static str>,
    requests: u32,
}

impl Story {
    /// Revision v1 runs, with the content c1 of the ConfigMap `conf`.
    fn new(rollout: &Value) -> Self {
        let mut story = Self::before(rollout, Some("c1"));
        story.create_servers();
        story.settle();
        assert_eq!(story.code(), "v1+c1 v1+c1 v1+c1, new: v1+c1");
        story
    }

    /// There is no Server yet.
    fn before(rollout: &Value, content: Option<&'static str>) -> Self {
        let mut deployment = declared("v1", "conf");
        deployment.spec.rollout = serde_json::from_value(rollout.clone()).unwrap();
        let mut story = Self {
            set: None,
            deployment,
            servers: Vec::new(),
            history: Vec::new(),
            maps: content.map(|content| ("conf", content)).into_iter().collect(),
            broken: Vec::new(),
            requests: 0,
        };
        story.settle();
        story
    }

    fn create_servers(&mut self) {
        let template = self.template().cloned();
        self.servers = ["web-0", "web-1", "web-2"].map(|name| server(name, "v1", "Ready", 90)).to_vec();
        self.servers.iter_mut().for_each(|server| server.spec.app.clone_from(&template));
    }

    fn template(&self) -> Option<&App> {
        self.set.as_ref()?.spec.template.spec.app.as_ref()
    }

    fn declare(&mut self, revision: &str, map: &str) {
        self.deployment.spec.app = declared(revision, map).spec.app;
        self.settle();
    }

    fn change(&mut self, map: &'static str, content: Option<&'static str>) {
        match content {
            Some(content) => self.maps.insert(map, content),
            None => self.maps.remove(map),
        };
        self.settle();
    }

    fn request(&mut self, action: &str) {
        self.requests += 1;
        let request = json!({"action": action, "id": self.requests.to_string(), "by": "ann"});
        self.deployment.spec.rollout.request = serde_json::from_value(request).unwrap();
        self.settle();
    }

    fn settle(&mut self) {
        (0..30).for_each(|_| self.reconcile());
    }

    /// What there is of the content of this application.
    fn seen(&self, app: &App) -> SeenContent {
        let Some(of) = app.files.iter().find_map(|file| file.config_map_key_ref.as_ref()) else {
            return SeenContent::Nothing;
        };
        match self.maps.get(of.name.as_str()) {
            Some(content) => SeenContent::Digest((*content).into()),
            None => SeenContent::Missing(format!("file conf needs key a of ConfigMap shop/{}", of.name).into()),
        }
    }

    fn contents(&self, wanted: &VMDeployment) -> Contents {
        let stable = another_stable_app(wanted).map(|stable| self.seen(stable)).unwrap_or_default();
        let servers: Vec<&Server> = self.servers.iter().collect();
        Contents::new(wanted, self.set.as_ref(), &servers, self.seen(&wanted.spec.app), stable)
    }

    /// One reconcile; Servers become Ready at once with what is declared, except with what is broken.
    fn reconcile(&mut self) {
        let read = self.deployment.clone();
        let mut turned = read.clone();
        if let Some(request) = undo::pending(&read) {
            let content = self.contents(&undo::wanted(&read)).newest();
            let rollout = undo::carry_out(&read, content, request, &self.history, now());
            turned.status.get_or_insert_default().rollout = Some(rollout);
        }
        let wanted = undo::wanted(&turned);
        let (set, servers) = (self.set.clone(), self.servers.clone());
        let servers: Vec<&Server> = servers.iter().collect();
        let contents = self.contents(&wanted);
        let deployment = &*contents.of(&wanted);
        let missing = contents.missing(deployment, &servers, now());
        let observed = ObservedDeployment {
            deployment,
            set: set.as_ref(),
            servers: &servers,
            missing_content: missing,
            looks: &[],
            alarm_look: None,
            others: &[],
            awaited: &[],
            now: now(),
        };
        if undo::pending(&read).is_none() {
            let template = stable::initial_app(&observed, &Assessment::of(&observed));
            let mut present = testing::ready_set(deployment);
            present.spec = replica_set::desired(deployment, template).spec;
            let updates = rollout::next_updates(deployment, &present, &servers, missing, now());
            self.set = Some(present);
            if contents.are_of(deployment, &contents.of(&undo::wanted(&read))) {
                updates.servers.iter().for_each(|server| self.give(server.name(), &updates.app));
            }
        }
        let status = new_status(&read, &observed).0;
        for revision in history_changes(&read, &observed, &status, &self.history).apply {
            self.history.retain(|known| known.name != revision.name);
            self.history.push(revision);
        }
        self.deployment.status = Some(status);
    }

    fn give(&mut self, name: &str, app: &App) {
        let is_broken = self.broken.iter().any(|broken| name_of(app).contains(broken));
        let known = self.servers.iter_mut().find(|server| server.name() == name).unwrap();
        *known = server(name, "v1", "Ready", 9);
        known.spec.app = Some(app.clone());
        if is_broken {
            testing::fail(known);
        }
    }

    /// What the Servers have, and what a new one begins with.
    fn code(&self) -> String {
        let of: Vec<String> = self.servers.iter().filter_map(|server| server.spec.app.as_ref().map(name_of)).collect();
        format!("{}, new: {}", of.join(" "), self.template().map(name_of).unwrap_or_default())
    }

    fn status(&self) -> &VMDeploymentStatus {
        self.deployment.status.as_ref().unwrap()
    }

    fn stalled(&self) -> &str {
        conditions::get(&self.status().conditions, STALLED).map_or("", |condition| &condition.reason)
    }

    fn progress(&self) -> &RolloutProgress {
        self.status().rollout.as_ref().unwrap()
    }

    fn revisions(&self) -> Vec<String> {
        self.history.iter().map(Revision::label).collect()
    }
}

fn name_of(app: &App) -> String {
    format!("{}+{}", app.effective_revision(), app.content_digest.as_deref().unwrap_or("none"))
}

#[test]
fn changed_content_goes_out_in_steps_like_another_revision() {
    let mut story = Story::new(&json!({"steps": [{"servers": 1}, {"pause": {}}]}));
    story.change("conf", Some("c2"));
    assert_eq!(story.code(), "v1+c2 v1+c1 v1+c1, new: v1+c2", "a new Server can only get what there is");
    assert_eq!(story.progress().current_step, Some(2));
    assert_eq!(story.status().content_digest.as_deref(), Some("c2"));
    story.request("Promote");
    assert_eq!(story.code(), "v1+c2 v1+c2 v1+c2, new: v1+c2");
    assert_eq!(story.revisions(), ["1 (v1)"], "the history has what was declared");

    story.change("conf", Some("c3"));
    assert_eq!(story.code(), "v1+c3 v1+c2 v1+c2, new: v1+c3");
    story.change("conf", Some("c2"));
    assert_eq!(story.code(), "v1+c2 v1+c2 v1+c2, new: v1+c2", "what was stable needs no steps");
}

#[test]
fn an_undo_gives_the_earlier_revision_the_content_that_there_is_now() {
    let mut story = Story::new(&json!({}));
    story.declare("v2", "conf");
    story.change("conf", Some("c2"));
    assert_eq!(story.code(), "v2+c2 v2+c2 v2+c2, new: v2+c2");
    story.request("Undo");
    assert_eq!((story.code().as_str(), story.stalled()), ("v1+c2 v1+c2 v1+c2, new: v1+c2", "RolloutUndone"));
    story.change("conf", Some("c3"));
    assert_eq!(story.code(), "v1+c3 v1+c3 v1+c3, new: v1+c3");
    assert_eq!(story.stalled(), "RolloutUndone", "another content does not bring back what was undone");
    story.change("conf", None);
    assert_eq!((story.code().as_str(), story.stalled()), ("v1+c3 v1+c3 v1+c3, new: v1+c3", "RolloutUndone"));
    story.change("conf", Some("c3"));
    story.request("Retry");
    assert_eq!((story.code().as_str(), story.stalled()), ("v2+c3 v2+c3 v2+c3, new: v2+c3", "Progressing"));
    assert_eq!(story.revisions(), ["3 (v1)", "4 (v2)"]);
}

#[test]
fn a_roll_back_gives_the_stable_revision_the_content_that_there_is_now_and_touches_no_other_server() {
    let mut story = Story::new(&json!({"onFailure": "Rollback", "steps": [{"servers": 1}]}));
    story.broken.push("v2");
    // As one command of a package manager changes both.
    story.maps.insert("conf", "c2");
    story.declare("v2", "conf");
    assert_eq!((story.code().as_str(), story.stalled()), ("v1+c2 v1+c1 v1+c1, new: v1+c2", "RolloutAborted"));
    let stable = story.status().stable_app.as_ref().map(name_of);
    assert_eq!(stable.as_deref(), Some("v1+c1"), "what was stable stays known");

    // While the ConfigMap is away for a moment, nothing becomes another application.
    story.change("conf", None);
    assert_eq!((story.code().as_str(), story.stalled()), ("v1+c2 v1+c1 v1+c1, new: v1+c2", "RolloutAborted"));
    story.broken.clear();
    story.change("conf", Some("c2"));
    assert_eq!(
        (story.code().as_str(), story.stalled()),
        ("v1+c2 v1+c1 v1+c1, new: v1+c2", "RolloutAborted"),
        "an aborted version is not deployed again without a person"
    );
    story.change("conf", Some("c3"));
    assert_eq!(story.code(), "v2+c3 v2+c3 v2+c3, new: v2+c3", "a person has changed what the version is");
}

#[test]
fn content_that_fails_stops_and_comes_back_when_a_person_puts_it_back() {
    let mut story = Story::new(&json!({"onFailure": "Rollback"}));
    story.broken.push("c2");
    story.change("conf", Some("c2"));
    assert_eq!((story.code().as_str(), story.stalled()), ("v1+c2 v1+c1 v1+c1, new: v1+c2", "TooManyFailed"));
    story.request("Abort");
    let refused = story.progress().refused.clone().unwrap_or_default();
    assert!(refused.contains("only a person can put back into them"), "{refused}");
    assert_eq!(story.code(), "v1+c2 v1+c1 v1+c1, new: v1+c2");
    story.change("conf", Some("c1"));
    assert_eq!((story.code().as_str(), story.stalled()), ("v1+c1 v1+c1 v1+c1, new: v1+c1", "Progressing"));
}

#[test]
fn nothing_goes_back_to_a_revision_whose_content_is_missing_and_the_condition_names_it() {
    let mut story = Story::new(&json!({"onFailure": "Rollback"}));
    story.maps.insert("conf-2", "c2");
    story.maps.remove("conf");
    story.broken.push("v2");
    story.declare("v2", "conf-2");
    assert_eq!((story.code().as_str(), story.stalled()), ("v2+c2 v1+c1 v1+c1, new: v1+c1", "MissingConfigMap"));
    assert_eq!(
        story.status().waiting_for.as_deref(),
        Some("a person: the stable revision cannot come back: file conf needs key a of ConfigMap shop/conf")
    );
    story.change("conf", Some("c3"));
    assert_eq!((story.code().as_str(), story.stalled()), ("v1+c3 v1+c1 v1+c1, new: v1+c3", "RolloutAborted"));
}

#[test]
fn missing_content_touches_nothing_and_is_named() {
    let mut story = Story::new(&json!({}));
    story.change("conf", None);
    let status = story.status();
    assert_eq!((story.code().as_str(), story.stalled()), ("v1+c1 v1+c1 v1+c1, new: v1+c1", "Progressing"));
    assert_eq!((status.waiting_for.as_deref(), status.updated_replicas), (None, 0), "what runs needs nothing");
    story.declare("v2", "other");
    assert_eq!((story.code().as_str(), story.stalled()), ("v1+c1 v1+c1 v1+c1, new: v1+c1", "MissingConfigMap"));
    assert_eq!(story.status().waiting_for.as_deref(), Some("a person: file conf needs key a of ConfigMap shop/other"));
    story.change("other", Some("d1"));
    assert_eq!((story.code().as_str(), story.stalled()), ("v2+d1 v2+d1 v2+d1, new: v2+d1", "Progressing"));
}

#[test]
fn the_first_version_needs_no_steps_although_its_content_comes_late() {
    let mut story = Story::before(&json!({"steps": [{"servers": 1}, {"pause": {}}]}), None);
    story.create_servers();
    story.settle();
    assert_eq!(story.code(), "v1+unknown v1+unknown v1+unknown, new: v1+unknown");
    assert_eq!(story.status().content_digest, None);
    story.change("conf", Some("c1"));
    assert_eq!(story.code(), "v1+c1 v1+c1 v1+c1, new: v1+c1");
}

#[test]
fn what_an_older_version_has_rolled_out_is_left_alone_until_it_is_declared_differently() {
    let mut story = Story::new(&json!({"onFailure": "Rollback"}));
    // Without digests of content, and with progress that is about such an application.
    let old = newest_app(&story.deployment);
    let forget = |story: &mut Story| {
        let digest = digest::short(&newest_app(&story.deployment).as_declared());
        for server in &mut story.servers {
            let app = server.spec.app.take().map(|app| app.as_declared());
            server.spec.app = app;
        }
        let status = story.deployment.status.as_mut().unwrap();
        status.content_digest = None;
        status.stable_app = status.stable_app.take().map(|app| app.as_declared());
        let template = &mut story.set.as_mut().unwrap().spec.template.spec.app;
        *template = template.take().map(|app| app.as_declared());
        status.rollout.as_mut().unwrap().digest = digest;
    };
    forget(&mut story);
    story.change("conf", Some("c2"));
    assert_eq!(story.code(), "v1+none v1+none v1+none, new: v1+none");
    assert_eq!(story.progress().digest, digest::short(&old));
    story.deployment.spec.app.content_digest = Some("forged".into());
    story.settle();
    assert_eq!(story.code(), "v1+none v1+none v1+none, new: v1+none");

    story.broken.push("v2");
    story.declare("v2", "conf");
    assert_eq!((story.code().as_str(), story.stalled()), ("v1+c2 v1+none v1+none, new: v1+c2", "RolloutAborted"));
    forget(&mut story);
    story.broken.clear();
    story.settle();
    assert_eq!(story.stalled(), "RolloutAborted", "an upgrade does not deploy again what was aborted");
    assert!(story.code().starts_with("v1+none v1+none v1+none"), "{}", story.code());
}
