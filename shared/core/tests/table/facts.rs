//! What other rules build on: leftovers, the monitoring digest, open tasks, the expiry of locks.

use berth_core::api::{Executor, Lock, MachinePhase, TaskKind, TrafficPhase};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use berth_testing::{Fixture, LOCK, machine_phase, start};

#[test]
fn leftovers_names_traffic_monitoring_and_machine() {
    let left = |fixture: Fixture| (fixture.server.leftovers(), fixture.server.is_retired());
    assert_eq!(left(Fixture::registering()), (vec![], true));
    assert_eq!(left(Fixture::registering().all_right()), (vec!["traffic", "monitoring", "machine"], false));
    assert_eq!(left(Fixture::registering().registered()), (vec!["traffic"], false));
    assert_eq!(left(Fixture::registering().bound()), (vec!["monitoring"], false));
    for (phase, exists) in [
        (MachinePhase::Creating, true),
        (MachinePhase::Running, true),
        (MachinePhase::Stopped, true),
        (MachinePhase::Gone, false),
    ] {
        let fixture = Fixture::registering().fact(|status| status.machine = Some(machine_phase(phase)));
        assert_eq!(left(fixture).1, !exists, "{phase:?}");
    }
}

#[test]
fn the_monitoring_digest_covers_declaration_and_address() {
    let digest = |fixture: &Fixture| fixture.server.monitoring_digest();
    let running = Fixture::registering().running();
    assert!(digest(&running).is_some_and(|digest| digest.len() == 10));
    assert_ne!(digest(&running), digest(&Fixture::registering()));
    assert_ne!(digest(&running), digest(&running.clone().spec(|spec| spec.monitoring.as_mut().unwrap().port = 1)));
    assert_eq!(digest(&running), digest(&running.clone().spec(|spec| spec.offline = true)));
    assert_eq!(digest(&running.spec(|spec| spec.monitoring = None)), None);
}

#[test]
fn a_lock_expires_after_its_duration_and_the_margin_for_clocks() {
    let since = Time(start());
    let lock = Lock {
        holder: "replicaset-controller/a".into(),
        task_id: 1,
        acquired_at: since.clone(),
        renewed_at: since,
        duration_seconds: LOCK,
    };
    let at = |seconds| start() + SignedDuration::from_secs(seconds);
    assert!(!lock.is_expired(at(0)));
    assert!(!lock.is_expired(at(90)));
    assert!(lock.is_expired(at(91)));
    assert!(!lock.is_expired(at(-100)));
}

#[test]
fn tasks_open_step_by_step() {
    let mut fixture = Fixture::registering();
    fixture.acknowledge();
    let open = |fixture: &Fixture, executor| -> Vec<TaskKind> {
        fixture.server.open_tasks(executor).map(|task| task.kind).collect()
    };
    assert_eq!(open(&fixture, Executor::ReplicasetController), [TaskKind::CreateMachine]);
    assert!(open(&fixture, Executor::LbController).is_empty());
    fixture.perform(TaskKind::CreateMachine);
    assert_eq!(open(&fixture, Executor::ReplicasetController), [TaskKind::InstallPackages]);
    assert_eq!(open(&fixture, Executor::LbController), [TaskKind::RegisterBackend]);
    assert!(open(&fixture, Executor::MonitorController).is_empty());
    fixture.perform(TaskKind::InstallPackages);
    fixture.perform(TaskKind::RegisterBackend);
    assert!(open(&fixture, Executor::LbController).is_empty());
    assert_eq!(open(&fixture, Executor::DeploymentController), [TaskKind::DeployApp]);
}

#[test]
fn a_task_of_an_earlier_state_is_not_open() {
    let mut fixture = Fixture::ready().traffic(TrafficPhase::Serving);
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r2".into()));
    let task = fixture.task(TaskKind::HoldTraffic).clone();
    assert!(fixture.server.is_open(&task));
    let next = fixture.fact(|status| status.first_task_id = Some(task.id + 1));
    assert!(!next.server.is_open(&task));
    let this = next.fact(|status| status.first_task_id = Some(task.id));
    assert!(this.server.is_open(&task));
}

#[test]
fn earliest_begin_is_not_before() {
    let mut fixture = Fixture::registering();
    fixture.acknowledge();
    let mut task = fixture.task(TaskKind::CreateMachine).clone();
    assert_eq!(task.earliest_begin(), None);
    task.not_before = Some(Time(start()));
    assert_eq!(task.earliest_begin(), Some(start()));
}
