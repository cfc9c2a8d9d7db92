//! The status of a set, and the patch that gives a Server the template's environment.

use berth_core::{
    api::{Server, VMReplicaSet, VMReplicaSetStatus},
    conditions::{self, AVAILABLE, FAILOVER_HELD, PROGRESSING, READY, RECONCILING, STALLED},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{next_change, status};
use crate::set::{
    plan::{Blocker, Brake, Effect, FailoverPlan, Plan, TOO_MANY_FAILED, TOO_MANY_UNKNOWN},
    template::new_server,
    template_patch,
};

const NOW: i64 = 1_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn set(change: impl FnOnce(&mut Value)) -> VMReplicaSet {
    let template = json!({"spec": {"packages": [package("web", "1")]}});
    let mut spec = json!({"replicas": 2, "minReadySeconds": 10, "template": template});
    change(&mut spec);
    berth_testing::replica_set(json!({"metadata": {"generation": 3}, "spec": spec}))
}

fn package(name: &str, version: &str) -> Value {
    json!({"name": name, "version": version, "archive": {"url": "http://127.0.0.1/a", "sha256": "a".repeat(64)}})
}

fn server(set: &VMReplicaSet, name: &str, state: &str, age: i64) -> Server {
    let mut value = serde_json::to_value(new_server(set, name)).unwrap();
    value["metadata"]["generation"] = 1.into();
    value["metadata"]["uid"] = name.into();
    let since = Timestamp::from_second(NOW - age).unwrap().to_string();
    value["status"] = json!({
        "state": state, "stateSince": since, "observedGeneration": 1, "waitingFor": "CheckHealth by monitor-controller",
    });
    serde_json::from_value(value).unwrap()
}

fn of(set: &VMReplicaSet, servers: &[Server]) -> VMReplicaSetStatus {
    status(set, &servers.iter().collect::<Vec<_>>(), &Plan::default(), now())
}

fn reason(status: &VMReplicaSetStatus, kind: &str) -> String {
    conditions::get(&status.conditions, kind).unwrap().reason.clone()
}

#[test]
fn a_complete_set_waits_for_nothing_and_its_status_is_stable() {
    let mut set = set(|_| {});
    let fleet = ["web-0", "web-1"].map(|name| server(&set, name, "Ready", 60));
    let first = of(&set, &fleet);
    assert_eq!((first.replicas, first.ready_replicas, first.available_replicas, first.updated_replicas), (2, 2, 2, 2));
    assert_eq!((first.waiting_for.as_deref(), first.selector.as_deref()), (None, Some("app=web")));
    assert_eq!(first.observed_generation, Some(3));
    assert_eq!(
        [AVAILABLE, PROGRESSING, STALLED].map(|kind| conditions::get_true(&first.conditions, kind).is_some()),
        [true, false, false]
    );
    set.status = Some(first.clone());
    assert_eq!(of(&set, &fleet), first);
}

#[test]
fn waiting_for_names_what_is_missing() {
    let set = set(|_| {});
    let mut offline = server(&set, "web-0", "Offline", 60);
    offline.spec.offline = true;
    let missing = of(&set, &[offline, server(&set, "web-1", "Ready", 60)]);
    assert_eq!((missing.replicas, missing.waiting_for.as_deref()), (1, Some("2 Servers, there are 1")));
    assert_eq!(reason(&missing, PROGRESSING), "Scaling");
    let sick = of(&set, &[server(&set, "web-0", "Deploying", 60), server(&set, "web-1", "Ready", 60)]);
    let waiting = sick.waiting_for.as_deref().unwrap();
    assert_eq!(waiting, "web-0 to be Ready: it waits for CheckHealth by monitor-controller");
    let none = of(&set, &["web-0", "web-1"].map(|name| server(&set, name, "Unknown", 60)));
    assert_eq!(reason(&none, AVAILABLE), "TooFewAvailable");
}

/// Which of the three conditions that tools read is True, with reason and message.
fn standing(status: &VMReplicaSetStatus) -> (&str, &str, &str) {
    let is_true = |kind: &&str| conditions::get_true(&status.conditions, kind);
    let found: Vec<_> = [READY, RECONCILING, STALLED].iter().filter_map(is_true).collect();
    let [one] = found.as_slice() else { panic!("{found:?}") };
    (&one.type_, &one.reason, &one.message)
}

#[test]
fn tools_see_whether_a_set_is_ready_under_way_or_has_failed() {
    let (same, paused) = (set(|_| {}), set(|spec| spec["paused"] = true.into()));
    let with_package = |version: &str, paused: bool| {
        set(|spec| {
            spec["template"]["spec"]["packages"] = json!([package("web", version)]);
            spec["paused"] = paused.into();
        })
    };
    let two = |first: (&str, i64), second: (&str, i64)| {
        vec![server(&same, "web-0", first.0, first.1), server(&same, "web-1", second.0, second.1)]
    };
    let (ready, young, sick) = (("Ready", 60), ("Ready", 4), ("Deploying", 60));
    let kept = set(|spec| {
        spec["template"]["spec"]["packages"] = json!([package("web", "2")]);
        spec["updateStrategy"] = json!({"partition": 2});
    });
    for (case, set, servers, expected) in [
        ("new", &same, vec![], (RECONCILING, "Scaling", "2 Servers, there are 0")),
        ("done", &same, two(ready, ready), (READY, "Complete", "")),
        ("done and paused", &paused, two(ready, ready), (READY, "Complete", "")),
        (
            "coming up",
            &same,
            two(ready, sick),
            (RECONCILING, "BecomingReady", "web-1 to be Ready: it waits for CheckHealth by monitor-controller"),
        ),
        (
            "young",
            &same,
            two(ready, young),
            (RECONCILING, "BecomingAvailable", "Servers to be Ready for long enough, and to get their traffic"),
        ),
        (
            "under way",
            &with_package("2", false),
            two(ready, ready),
            (RECONCILING, "RollingOut", "2 Servers to be updated"),
        ),
        ("kept by the partition", &kept, two(ready, ready), (READY, "Complete", "")),
        (
            "held by a person",
            &with_package("2", true),
            two(ready, ready),
            (RECONCILING, "Paused", "a person: the roll-out of the template is paused"),
        ),
    ] {
        assert_eq!(standing(&of(set, &servers)), expected, "{case}");
    }
    let blocked = |effect, reason| {
        let blocker = Blocker { effect, reason, message: "web-0, web-1".to_owned() };
        let (plan, servers) = (Plan { blockers: vec![blocker], ..Plan::default() }, two(ready, sick));
        status(&same, &servers.iter().collect::<Vec<_>>(), &plan, now())
    };
    for (effect, reason, expected) in [
        (Effect::Stalled, "AskHuman", (STALLED, "AskHuman", "web-0, web-1")),
        (Effect::Held, TOO_MANY_FAILED, (STALLED, TOO_MANY_FAILED, "web-0, web-1")),
        (Effect::Delayed, "ProviderUnresponsive", (RECONCILING, "ProviderUnresponsive", "web-0, web-1")),
    ] {
        assert_eq!(standing(&blocked(effect, reason)), expected);
    }
}

#[test]
fn a_young_server_becomes_available_by_time_alone() {
    let set = set(|_| {});
    let fleet = [server(&set, "web-0", "Ready", 4), server(&set, "web-1", "Ready", 60)];
    assert_eq!((of(&set, &fleet).ready_replicas, of(&set, &fleet).available_replicas), (2, 1));
    let at = now().checked_add(SignedDuration::from_secs(6)).unwrap();
    assert_eq!(next_change(&set, &fleet.iter().collect::<Vec<_>>(), now()), Some(at));
}

#[test]
fn a_stalled_server_or_a_changed_machine_stalls_the_set() {
    let first = set(|_| {});
    let mut stalled = server(&first, "web-0", "Initializing", 60);
    conditions::set(
        &mut stalled.status.as_mut().unwrap().conditions,
        STALLED,
        true,
        "TaskFailed",
        "no disk",
        None,
        now(),
    );
    let status = of(&first, &[stalled, server(&first, "web-1", "Ready", 60)]);
    assert_eq!(reason(&status, STALLED), "ServerStalled");
    assert_eq!(status.waiting_for.as_deref(), Some("a person: web-0: no disk"));

    let other = set(|spec| spec["template"]["spec"]["machine"]["className"] = "large".into());
    let status = of(&other, &["web-0", "web-1"].map(|name| server(&first, name, "Ready", 60)));
    assert_eq!(reason(&status, STALLED), "MachineChanged");
    assert_eq!(status.updated_replicas, 0, "another machine is another template");
    assert_eq!(reason(&status, PROGRESSING), "Complete", "nothing is done about it");
}

#[test]
fn failover_held_keeps_when_the_brake_was_released() {
    let mut set = set(|_| {});
    let fleet = ["web-0", "web-1"].map(|name| server(&set, name, "Ready", 60));
    assert_eq!(conditions::get(&of(&set, &fleet).conditions, FAILOVER_HELD), None);
    let mut status_with = |brake: Option<&str>, second: i64| {
        let failover = FailoverPlan {
            brake: brake.map(|why| Brake { reason: TOO_MANY_UNKNOWN, message: why.to_owned() }),
            ..FailoverPlan::default()
        };
        let plan = Plan { failover, ..Plan::default() };
        let at = Timestamp::from_second(second).unwrap();
        set.status = Some(status(&set, &fleet.iter().collect::<Vec<_>>(), &plan, at));
        let held = conditions::get(&set.status.as_ref().unwrap().conditions, FAILOVER_HELD).unwrap();
        (held.status.clone(), held.reason.clone(), held.message.clone(), held.last_transition_time.0.as_second())
    };
    assert_eq!(status_with(Some("2 of 2"), NOW), ("True".into(), "TooManyUnknown".into(), "2 of 2".into(), NOW));
    assert_eq!(status_with(Some("1 of 2"), NOW + 5).3, NOW);
    assert_eq!(status_with(None, NOW + 9), ("False".into(), "FewEnoughUnknown".into(), String::new(), NOW + 9));
    assert_eq!(status_with(None, NOW + 20).3, NOW + 9);
}

#[test]
fn the_patch_replaces_the_environment_and_leaves_the_rest() {
    let old = set(|spec| {
        spec["template"]["spec"]["healthCheck"] = json!({"httpGet": {"port": 80}});
        spec["template"]["spec"]["monitoring"] = json!({"port": 9100});
        spec["template"]["spec"]["gates"] = json!([{"before": "ReleaseTraffic"}]);
    });
    let new = set(|spec| {
        spec["template"]["metadata"]["labels"]["a/b~c"] = "1".into();
        spec["template"]["metadata"]["annotations"] = json!({"note": "x"});
        spec["template"]["spec"]["packages"] = json!([package("theme", "2")]);
        spec["template"]["spec"]["prunePackages"] = true.into();
        spec["template"]["spec"]["healthCheck"] = json!({"tcpSocket": {"port": 80}});
        spec["template"]["spec"]["taskAttempts"] = 9.into();
        spec["template"]["spec"]["traffic"] = json!({"backends": [{"service": "web", "port": 80}]});
    });
    let mut server = server(&old, "web-0", "Ready", 60);
    server.spec.offline = true;
    server.metadata.labels.as_mut().unwrap().insert("person".into(), "label".into());
    assert!(new.environment_differs(&server) && !old.environment_differs(&server));
    let mut value = serde_json::to_value(&server).unwrap();
    json_patch::patch(&mut value, &template_patch::patch(&new, &server)).unwrap();
    let changed: Server = serde_json::from_value(value).unwrap();
    assert!(!new.environment_differs(&changed), "{changed:?}");
    assert!(changed.spec.offline && changed.spec.monitoring.is_none() && changed.spec.gates.is_empty());
    assert_eq!(changed.spec.health_check.unwrap().http_get, None);
    let labels = changed.metadata.labels.unwrap();
    assert_eq!((labels["person"].as_str(), labels["a/b~c"].as_str()), ("label", "1"));

    let mut other = serde_json::to_value(&server).unwrap();
    other["metadata"]["uid"] = "another".into();
    json_patch::patch(&mut other, &template_patch::patch(&new, &server)).unwrap_err();
}

/// It was on its way for so long that its sender has given up, and has declared something newer.
#[test]
fn a_patch_that_comes_late_does_not_bring_an_earlier_environment_back() {
    let new = set(|spec| spec["template"]["spec"]["packages"] = json!([package("theme", "2")]));
    let server = server(&set(|_| {}), "web-0", "Ready", 60);
    let patch = template_patch::patch(&new, &server);
    let mut newer = serde_json::to_value(&server).unwrap();
    json_patch::patch(&mut newer, &patch).unwrap();
    newer["metadata"]["generation"] = (server.metadata.generation.unwrap() + 1).into();
    json_patch::patch(&mut newer, &patch).unwrap_err();
}
