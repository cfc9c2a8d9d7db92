//! The finalizer of a Server, and abandoning a Server.

use berth_core::{
    FINALIZER,
    api::{Executor, Server, State, TaskKind, TaskPhase, TrafficFact, TrafficPhase},
    lifecycle::{ABANDON_ANNOTATION, RefusalReason},
};

use berth_testing::{Denied, Fixture, controller, created, full_spec, person, refusal};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

fn let_go(server: &mut Server) {
    server.metadata.finalizers.get_or_insert_default().retain(|finalizer| finalizer != FINALIZER);
}

fn abandon(server: &mut Server, why: &str) {
    server.metadata.annotations.get_or_insert_default().insert(ABANDON_ANNOTATION.into(), why.into());
}

#[test]
fn a_new_server_gets_the_finalizer_once() {
    assert_eq!(created(full_spec()).metadata.finalizers, Some(vec![FINALIZER.to_owned()]));
    let author = controller(Executor::ReplicasetController);
    for before in [vec!["other", FINALIZER], vec!["other"]] {
        let mut server = created(full_spec());
        server.metadata.finalizers = Some(before.into_iter().map(str::to_owned).collect());
        let admitted = berth_core::lifecycle::admit_create(server, &author, berth_testing::start()).unwrap();
        assert_eq!(admitted.metadata.finalizers, Some(vec!["other".to_owned(), FINALIZER.to_owned()]));
    }
}

#[test]
fn the_finalizer_cannot_be_removed_before_traffic_monitoring_and_machine_are_gone() {
    let mut fixture = Fixture::registering().decided();
    fixture.perform_all();
    fixture.delete();
    let mut left = Vec::new();
    for kind in [TaskKind::HoldTraffic, TaskKind::RemoveBackend, TaskKind::UnbindMonitoring, TaskKind::DestroyMachine] {
        let result = fixture.update(&controller(Executor::ReplicasetController), let_go);
        let Err(Denied::Refused(denied)) = result else { panic!("before {kind}: {result:?}") };
        assert_eq!((denied.field.as_str(), denied.reason), ("metadata.finalizers", RefusalReason::CleanupIncomplete));
        left.push(denied.message.split("still: ").nth(1).unwrap().split('.').next().unwrap().to_owned());
        fixture.perform(kind);
    }
    assert_eq!(
        left,
        ["traffic, monitoring, machine", "traffic, monitoring, machine", "monitoring, machine", "machine"]
    );
    fixture.update(&controller(Executor::ReplicasetController), let_go).unwrap();
    assert_eq!(fixture.server.metadata.finalizers, Some(vec![]));
}

/// Nothing is left of a new Server either, but a machine is about to be.
#[test]
fn the_finalizer_of_a_server_that_nobody_deletes_stays() {
    let mut fixture = Fixture::registering();
    let (field, why) = refusal(fixture.update(&controller(Executor::ReplicasetController), let_go));
    assert_eq!((field.as_str(), why), ("metadata.finalizers", RefusalReason::CleanupIncomplete));
    fixture.delete();
    fixture.update(&controller(Executor::ReplicasetController), let_go).unwrap();
}

#[test]
fn a_person_cannot_remove_the_finalizer_without_abandoning_the_server() {
    let mut fixture = Fixture::ready();
    assert_eq!(refusal(fixture.update(&person("ann"), let_go)).1, RefusalReason::CleanupIncomplete);
    assert_eq!(
        refusal(fixture.update(&person("ann"), |s| s.metadata.finalizers = None)).1,
        RefusalReason::CleanupIncomplete
    );
}

#[test]
fn a_person_abandons_a_server_by_an_annotation_with_a_reason() {
    let mut silent = Fixture::ready();
    let result = silent.update(&person("ann"), |server| {
        abandon(server, "");
        let_go(server);
    });
    assert_eq!(refusal(result).1, RefusalReason::CleanupIncomplete);
    let mut at_once = Fixture::ready();
    at_once
        .update(&person("ann"), |server| {
            abandon(server, "the data centre burnt down");
            let_go(server);
        })
        .unwrap();
    let mut before = Fixture::ready();
    before.update(&person("ann"), |server| abandon(server, "the data centre burnt down")).unwrap();
    before.update(&controller(Executor::ReplicasetController), let_go).unwrap();
    let mut other = Fixture::ready();
    let result = other.update(&person("ann"), |server| {
        server.metadata.annotations = Some([("other".to_owned(), "text".to_owned())].into());
        let_go(server);
    });
    assert_eq!(refusal(result).1, RefusalReason::CleanupIncomplete);
}

#[test]
fn other_finalizers_and_other_writes_are_not_restricted() {
    let mut fixture = Fixture::ready();
    fixture.server.metadata.finalizers = Some(vec![FINALIZER.into(), "other".into()]);
    fixture.update(&person("ann"), |s| s.metadata.finalizers = Some(vec![FINALIZER.into()])).unwrap();
    fixture.server.metadata.finalizers = None;
    fixture.update(&person("ann"), |server| server.spec.offline = true).unwrap();
    assert_eq!(fixture.server.metadata.finalizers, None);
}

#[test]
fn the_finalizer_stays_while_a_machine_may_exist() {
    let mut fixture = Fixture::bare().decided();
    fixture.claim(TaskKind::CreateMachine, "a").unwrap();
    fixture.delete();
    assert_eq!(fixture.steps(), "DestroyMachine");
    assert_eq!(refusal(fixture.update(&person("ann"), let_go)).1, RefusalReason::CleanupIncomplete);
}

#[test]
fn a_server_that_says_that_it_drains_is_decided_to_be_retired_and_has_begun_with_it() {
    let mut fixture = Fixture::ready();
    fixture.server.metadata.deletion_timestamp = Some(Time(fixture.now));
    assert!(fixture.server.may_hold_before_decision());
    let fact = fixture.status().traffic.clone().map(|fact| TrafficFact { phase: TrafficPhase::Draining, ..fact });
    fixture.write(Executor::LbController, |write| write.traffic(fact)).unwrap();
    let status = fixture.status();
    let hold = status.tasks.iter().rfind(|task| task.kind == TaskKind::HoldTraffic).unwrap();
    assert_eq!((status.state, hold.phase, hold.attempts), (Some(State::Offline), TaskPhase::Running, 1));
    assert_eq!(hold.started_at, Some(Time(fixture.now)));
    assert!(!fixture.server.may_hold_before_decision());
    fixture.perform(TaskKind::HoldTraffic);
}

#[test]
fn a_server_that_drained_before_is_drained_by_a_task_of_its_own() {
    let mut fixture = Fixture::ready().traffic(TrafficPhase::Draining);
    fixture.delete();
    fixture.acknowledge();
    assert_eq!(fixture.phase(TaskKind::HoldTraffic), TaskPhase::Pending, "only lb-controller begins it");
}
