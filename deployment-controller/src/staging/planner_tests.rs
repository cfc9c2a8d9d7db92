use berth_core::api::{LedgerEntry, VMReplicaSet, VMReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::*;
use crate::{
    rollout::{next_updates, next_updates_except},
    story::Story,
    testing::{failed, ready_set},
    undo,
};

/// v2 goes out to ten Servers that have machines, with this declared; the status says how far it is.
fn story(rollout: Value) -> Story {
    let mut story = Story::new(rollout);
    story.deployment.spec.update_strategy.max_unavailable = Some(IntOrString::Int(1));
    give_machines(&mut story);
    story.deployment.status = Some(story.status());
    story
}

fn give_machines(story: &mut Story) {
    for server in &mut story.servers {
        let machine = json!({"phase": "Running", "address": "127.0.0.1"});
        server.status.as_mut().unwrap().machine = serde_json::from_value(machine).unwrap();
    }
}

fn set(story: &Story, disturbed: &[LedgerEntry]) -> VMReplicaSet {
    let status = VMReplicaSetStatus { disturbed: disturbed.to_vec(), ..VMReplicaSetStatus::default() };
    VMReplicaSet { status: Some(status), ..ready_set(&story.deployment) }
}

/// The numbers of the Servers that the artifact is brought to; none if nothing may be brought.
fn numbers_with(story: &Story, disturbed: &[LedgerEntry], missing: Option<&str>) -> Option<String> {
    let servers: Vec<&Server> = story.servers.iter().collect();
    let set = set(story, disturbed);
    let observed = ObservedDeployment { missing_content: missing, ..story.observed(&set, &servers) };
    let ahead = ahead(&observed)?;
    Some(ahead.servers.iter().map(|server| server.name().trim_start_matches("web-")).collect::<Vec<_>>().join(" "))
}

fn numbers(story: &Story) -> Option<String> {
    numbers_with(story, &[], None)
}

/// The Server of this number, counted by age: the oldest is web-9, and has its turn first.
fn server(story: &mut Story, number: usize) -> &mut Server {
    story.servers.iter_mut().find(|server| server.name() == format!("web-{number}")).unwrap()
}

#[test]
fn the_artifact_is_brought_to_as_many_as_declared_of_those_that_come_next() {
    for (declared, expected) in [
        (json!(2), Some("9 8")),
        (json!("30%"), Some("9 8 7")),
        (json!("5%"), Some("9")),
        (json!("100%"), Some("9 8 7 6 5 4 3 2 1 0")),
        (json!(0), None),
        (json!("0%"), None),
        (Value::Null, None),
    ] {
        let story = story(json!({"stageAhead": declared}));
        assert_eq!(numbers(&story).as_deref(), expected, "{declared}");
    }
    // The one that is worked on is in the ledger, and the next ones follow. An entry may be left from the version before.
    let mut story = story(json!({"stageAhead": 2}));
    let entered = [LedgerEntry::new("web-9", Axis::App)];
    assert_eq!(numbers_with(&story, &entered, None).as_deref(), Some("9 8"));
    server(&mut story, 9).status.as_mut().unwrap().state = Some(berth_core::api::State::Deploying);
    assert_eq!(numbers_with(&story, &entered, None).as_deref(), Some("8 7"));
}

#[test]
fn it_goes_to_servers_in_the_order_in_which_the_roll_out_takes_them() {
    let zones = json!({"stageAhead": "100%", "spread": {"topologyKey": "zone"}, "partition": 2});
    let priority = json!({"stageAhead": "100%", "order": "Priority", "partition": 3});
    let steps = json!({"stageAhead": "100%", "steps": [{"servers": 1}, {"servers": "50%"}]});
    for rollout in [zones, priority, steps] {
        let prepare = |story: &mut Story| {
            give_machines(story);
            for (number, server) in story.servers.iter_mut().enumerate() {
                let zone = ["a", "b", "c"][number % 3];
                server.metadata.labels = Some([("zone".to_owned(), zone.to_owned())].into());
                let priority = (number * 7 % 10).to_string();
                server.metadata.annotations = Some([("berth.dev/rollout-priority".to_owned(), priority)].into());
            }
        };
        let mut story = story(rollout.clone());
        prepare(&mut story);
        let planned = numbers(&story).unwrap();
        let mut taken = Vec::new();
        for _ in 0..40 {
            let servers: Vec<&Server> = story.servers.iter().collect();
            let updates = next_updates(&story.deployment, &set(&story, &[]), &servers, None, story.now);
            taken.extend(updates.servers.iter().map(|server| server.name().trim_start_matches("web-").to_owned()));
            story.settle_once(&[]);
            prepare(&mut story);
        }
        assert_eq!(planned, taken.join(" "), "{rollout}");
        assert_eq!(numbers(&story).as_deref(), Some(""), "nobody is left: {rollout}");
    }
}

#[test]
fn it_goes_to_servers_of_later_steps_during_a_pause() {
    let mut story = story(json!({"stageAhead": 3, "steps": [{"servers": 1}, {"pause": {}}]}));
    assert_eq!(story.settle(&[]), 1);
    give_machines(&mut story);
    assert_eq!(numbers(&story).as_deref(), Some("8 7 6"));
}

#[test]
fn servers_that_do_not_serve_or_that_somebody_works_on_are_left_out() {
    let mut story = story(json!({"stageAhead": 3}));
    let force = json!({"state": "Ready", "reason": "disk", "by": "ann"});
    server(&mut story, 9).spec.force = serde_json::from_value(force).unwrap();
    server(&mut story, 8).status.as_mut().unwrap().state = Some(berth_core::api::State::Initializing);
    server(&mut story, 7).status.as_mut().unwrap().machine = None;
    server(&mut story, 6).spec.offline = true;
    let lock = json!({"holder": "replicaset-controller/a", "taskID": 3, "acquiredAt": "2026-01-01T00:00:00Z",
        "renewedAt": "2026-01-01T00:00:00Z", "durationSeconds": 30});
    server(&mut story, 5).status.as_mut().unwrap().lock = serde_json::from_value(lock).unwrap();
    server(&mut story, 4).metadata.generation = Some(2);
    let disturbed = [LedgerEntry::new("web-3", Axis::Environment)];
    assert_eq!(numbers_with(&story, &disturbed, None).as_deref(), Some("2 1 0"));
}

#[test]
fn nothing_is_brought_while_the_roll_out_is_held_or_goes_back() {
    let is_none = |what: &str, change: &dyn Fn(&mut Story)| {
        let mut story = story(json!({"stageAhead": "100%", "maxFailed": 0}));
        assert_eq!(numbers(&story).unwrap().len(), 19, "before: {what}");
        change(&mut story);
        story.deployment.status = Some(story.status());
        assert_eq!(numbers(&story), None, "{what}");
    };
    is_none("paused", &|story| story.deployment.spec.rollout.paused = true);
    is_none("all is paused", &|story| story.deployment.spec.paused = true);
    is_none("aborted", &|story| story.request("Abort", "1"));
    is_none("a Server has failed", &|story| *server(story, 9) = failed("web-9", "v2"));
    let external = json!({"type": "External", "className": "house"});
    is_none("a deploy system deploys", &|story| {
        story.deployment.spec.app.executor = serde_json::from_value(external.clone()).unwrap();
    });
    let after = json!([{"namespace": "staging", "name": "web"}]);
    is_none("another one comes first", &|story| {
        story.deployment.spec.rollout.after = serde_json::from_value(after.clone()).unwrap();
        story.deployment.status.as_mut().unwrap().rollout = None;
    });
    let alarms = json!({"source": "main", "names": ["WebBurn"]});
    is_none("it is not known whether an alarm fires", &|story| {
        story.deployment.spec.rollout.alarms = serde_json::from_value(alarms.clone()).unwrap();
        story.deployment.status.as_mut().unwrap().rollout = None;
    });
    let story = story(json!({"stageAhead": 3}));
    assert_eq!(numbers_with(&story, &[], Some("needs key password of Secret shop/db")), None, "content is missing");
    let mut unknown = story;
    unknown.deployment.status.as_mut().unwrap().rollout = None;
    assert_eq!(numbers(&unknown), None, "it is not known yet how far it is");
}

#[test]
fn a_restart_and_a_person_who_goes_back_bring_nothing() {
    let mut story = story(json!({"stageAhead": 3}));
    let known = story.deployment.status.as_mut().unwrap().rollout.as_mut().unwrap();
    let undone = json!({"revision": "v3", "digest": "d", "app": story.deployment.spec.app, "message": "slow",
        "at": "2026-01-01T00:00:00Z"});
    known.undone = serde_json::from_value(undone).unwrap();
    assert_eq!(numbers(&story), None);

    let mut story = self::story(json!({"stageAhead": 3}));
    story.settle(&[]);
    give_machines(&mut story);
    story.deployment.status = Some(story.status());
    assert_eq!(numbers(&story).as_deref(), Some(""), "it is rolled out");
    let restart = json!({"id": "1", "message": "certificates", "at": "2026-01-01T00:00:00Z"});
    let known = story.deployment.status.as_mut().unwrap().rollout.as_mut().unwrap();
    known.restart = serde_json::from_value(restart).unwrap();
    story.deployment = undo::wanted(&story.deployment).into_owned();
    assert_eq!(numbers(&story), None);
}

#[test]
fn a_change_of_the_configuration_alone_needs_no_artifact() {
    let mut story = story(json!({"stageAhead": 3}));
    story.settle(&[]);
    give_machines(&mut story);
    story.deployment.spec.app.command = "./run --verbose".into();
    story.deployment.status = Some(story.status());
    assert_eq!(numbers(&story).as_deref(), Some(""), "every machine has the release");
}

#[test]
fn what_is_on_its_way_to_a_server_whose_traffic_is_being_held_may_arrive() {
    let mut story = story(json!({"stageAhead": 1}));
    let drained = |story: &Story| {
        let servers: Vec<&Server> = story.servers.iter().collect();
        let set = set(story, &[LedgerEntry::new("web-9", Axis::App), LedgerEntry::new("web-8", Axis::Environment)]);
        let ahead = ahead(&story.observed(&set, &servers)).unwrap();
        ahead.drained.iter().map(|server| server.name().to_owned()).collect::<Vec<_>>()
    };
    server(&mut story, 9).status.as_mut().unwrap().state = Some(berth_core::api::State::Deploying);
    assert_eq!(drained(&story), ["web-9"]);
    let lock = json!({"holder": "deployment-controller/a", "taskID": 3, "acquiredAt": "2026-01-01T00:00:00Z",
        "renewedAt": "2026-01-01T00:00:00Z", "durationSeconds": 30});
    server(&mut story, 9).status.as_mut().unwrap().lock = serde_json::from_value(lock).unwrap();
    assert_eq!(drained(&story), [""; 0], "DeployApp has begun");
}

/// The numbers of the Servers that are updated next, if the artifact is where this says.
fn updated(story: &Story, is_there: impl Fn(&Server) -> bool) -> String {
    updated_with(story, &[], is_there)
}

fn updated_with(story: &Story, disturbed: &[LedgerEntry], is_there: impl Fn(&Server) -> bool) -> String {
    let servers: Vec<&Server> = story.servers.iter().collect();
    let set = set(story, disturbed);
    let awaited = awaited(&story.observed(&set, &servers), is_there);
    let updates = next_updates_except(&story.deployment, &set, &servers, None, &awaited, story.now);
    let entered = updates.ledger.on(Axis::App).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        entered,
        updates.servers.iter().map(|server| server.name()).collect::<Vec<_>>(),
        "nobody else is in the ledger"
    );
    updates.servers.iter().map(|server| server.name().trim_start_matches("web-")).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_server_that_serves_has_its_turn_when_the_artifact_is_there() {
    let story = story(json!({"stageAhead": 3}));
    assert_eq!(updated(&story, |_| false), "");
    assert_eq!(updated(&story, |server| server.name() == "web-8"), "8", "what does not arrive holds up nobody else");
    assert_eq!(updated(&story, |_| true), "9");
    let mut unknown = self::story(json!({"stageAhead": 3}));
    unknown.deployment.status.as_mut().unwrap().rollout = None;
    assert_eq!(updated(&unknown, |_| false), "", "it is brought as soon as it is known how far the roll-out is");
    assert_eq!(updated(&self::story(json!({})), |_| false), "9");
    let left = [LedgerEntry::new("web-9", Axis::App)];
    assert_eq!(updated_with(&story, &left, |_| false), "", "it was entered for the version before");
}

#[test]
fn who_does_not_serve_or_needs_no_artifact_waits_for_none() {
    let mut story = story(json!({"stageAhead": 3}));
    server(&mut story, 3).status.as_mut().unwrap().state = Some(berth_core::api::State::Initializing);
    assert_eq!(updated(&story, |_| false), "3");

    let mut back = self::story(json!({"stageAhead": 3}));
    back.settle(&[]);
    give_machines(&mut back);
    back.deployment.spec.app.command = "./run --verbose".into();
    back.deployment.status = Some(back.status());
    assert_eq!(updated(&back, |_| false), "9", "every machine has the release");
}
