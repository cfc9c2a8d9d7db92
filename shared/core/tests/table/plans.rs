//! The task table: the tasks of each state, in steps, with gates, without tasks whose result is true already.

use berth_core::{
    api::{GatePoint, MonitoringPhase, ServerSpec, State, TaskKind, TrafficPhase},
    lifecycle::plan,
};

use berth_testing::{Fixture, entered_states, start, unreachable};

/// The tasks that are planned for a state, in steps.
fn planned(fixture: &Fixture, state: State) -> String {
    let mut out = String::new();
    let mut step = 0;
    for task in plan(&fixture.server, state) {
        match task.step - step {
            0 => out.push_str(" + "),
            1 if step > 0 => out.push_str(" > "),
            1 => {}
            other => panic!("step {} after {step}, {other} apart", task.step),
        }
        step = task.step;
        out.push_str(&task.gate.map_or(task.kind.to_string(), |point| format!("Gate({point})")));
    }
    out
}

#[track_caller]
fn plans(fixture: &Fixture, state: State, tasks: &str) {
    assert_eq!(planned(fixture, state), tasks, "in {state}");
}

fn all_gates(fixture: Fixture) -> Fixture {
    GatePoint::ALL.into_iter().fold(fixture, Fixture::gate)
}

#[test]
fn tasks_of_initializing() {
    plans(&Fixture::registering(), State::Initializing, "CreateMachine > InstallPackages + RegisterBackend");
    plans(&Fixture::registering().running(), State::Initializing, "InstallPackages + RegisterBackend");
    plans(&Fixture::registering().running().installed(), State::Initializing, "RegisterBackend");
    plans(&Fixture::registering().running().registered(), State::Initializing, "InstallPackages");
    plans(&Fixture::registering().running().installed().registered(), State::Initializing, "");
    plans(&Fixture::bare(), State::Initializing, "CreateMachine > InstallPackages");
    let serving = Fixture::registering().running().traffic(TrafficPhase::Serving);
    plans(&serving, State::Initializing, "HoldTraffic > InstallPackages");
    plans(&serving.traffic(TrafficPhase::Draining), State::Initializing, "HoldTraffic > InstallPackages");
}

/// A Service has no use for an endpoint without traffic: the Server is registered when its traffic is released.
#[test]
fn a_server_of_a_service_is_registered_with_its_release() {
    plans(&Fixture::new(), State::Initializing, "CreateMachine > InstallPackages");
    let released = Fixture::new().running().installed().deployed().healthy().decided();
    assert_eq!((released.state(), released.steps().as_str()), (State::Ready, "ReleaseTraffic + BindMonitoring"));
    // Another Service: the Server leaves the old one, and the release brings the new one.
    let declare = |spec: &mut ServerSpec| spec.traffic.as_mut().unwrap().backends[0].service = Some("other".into());
    let mut moved = Fixture::ready().spec(declare).decided();
    assert_eq!((moved.state(), moved.steps().as_str()), (State::Initializing, "HoldTraffic"));
    moved.perform(TaskKind::HoldTraffic);
    assert_eq!((moved.state(), moved.steps().as_str()), (State::Ready, "ReleaseTraffic"));
    // No Service at all: what is registered is removed.
    let mut withdrawn = Fixture::ready().spec(|spec| spec.traffic = None).decided();
    withdrawn.perform(TaskKind::HoldTraffic);
    assert_eq!((withdrawn.state(), withdrawn.steps().as_str()), (State::Initializing, "RegisterBackend"));
}

#[test]
fn tasks_of_initializing_with_gates() {
    plans(
        &all_gates(Fixture::registering()),
        State::Initializing,
        "Gate(CreateMachine) > CreateMachine > Gate(InstallPackages) > InstallPackages + RegisterBackend",
    );
    let serving = all_gates(Fixture::registering().running()).traffic(TrafficPhase::Serving);
    plans(&serving, State::Initializing, "HoldTraffic > Gate(InstallPackages) > InstallPackages");
    // There is a gate only if the task that it holds up is needed.
    plans(&all_gates(Fixture::registering().running().installed()), State::Initializing, "RegisterBackend");
    let other = Fixture::registering().gate(GatePoint::DeployApp).gate(GatePoint::ReleaseTraffic);
    plans(&other, State::Initializing, "CreateMachine > InstallPackages + RegisterBackend");
}

#[test]
fn tasks_of_deploying() {
    let here = Fixture::registering().running().installed().registered();
    plans(&here, State::Deploying, "DeployApp > CheckHealth");
    plans(&here.clone().healthy(), State::Deploying, "DeployApp > CheckHealth");
    plans(&here.clone().deployed(), State::Deploying, "CheckHealth");
    plans(&here.clone().deployed().healthy(), State::Deploying, "");
    plans(&here.clone().spec(|spec| spec.health_check = None), State::Deploying, "DeployApp");
    plans(&here.clone().traffic(TrafficPhase::Serving), State::Deploying, "HoldTraffic > DeployApp > CheckHealth");
    plans(&here.traffic(TrafficPhase::Draining).deployed(), State::Deploying, "HoldTraffic + CheckHealth");
}

#[test]
fn tasks_of_deploying_with_gates() {
    let here = all_gates(Fixture::registering().running().installed().traffic(TrafficPhase::Serving));
    plans(&here, State::Deploying, "HoldTraffic > Gate(DeployApp) > DeployApp > CheckHealth");
    plans(&here.deployed(), State::Deploying, "HoldTraffic + CheckHealth");
}

#[test]
fn ready() {
    let right = Fixture::registering().all_right();
    plans(&right, State::Ready, "");
    plans(&right.clone().registered(), State::Ready, "ReleaseTraffic");
    plans(&right.clone().traffic(TrafficPhase::Draining), State::Ready, "ReleaseTraffic");
    let unbound = right.clone().fact(|status| status.monitoring = None);
    plans(&unbound, State::Ready, "BindMonitoring");
    plans(&unbound.registered(), State::Ready, "ReleaseTraffic + BindMonitoring");
    plans(&right.clone().monitoring(MonitoringPhase::Paused), State::Ready, "BindMonitoring");
    let moved = right.clone().fact(|status| status.machine.as_mut().unwrap().address = Some("127.1.0.9".into()));
    plans(&moved, State::Ready, "BindMonitoring");
    plans(&right.clone().spec(|spec| spec.monitoring.as_mut().unwrap().port = 1), State::Ready, "BindMonitoring");
    plans(&right.clone().spec(|spec| spec.monitoring = None), State::Ready, "UnbindMonitoring");
    let unwatched = right.spec(|spec| spec.monitoring = None).fact(|status| status.monitoring = None);
    plans(&unwatched, State::Ready, "");
    plans(&Fixture::bare().all_right(), State::Ready, "");
}

#[test]
fn tasks_of_ready_with_gates() {
    let held = all_gates(Fixture::registering()).all_right().registered().fact(|status| status.monitoring = None);
    plans(&held, State::Ready, "Gate(ReleaseTraffic) > ReleaseTraffic + BindMonitoring");
    plans(&held.traffic(TrafficPhase::Serving), State::Ready, "BindMonitoring");
}

fn request(id: &str) -> berth_core::api::Request {
    berth_core::api::Request { id: id.into(), reason: String::new(), by: None, at: None }
}

#[test]
fn tasks_of_unknown() {
    let unreachable_machine =
        |fixture: Fixture| fixture.fact(|status| status.reachability = Some(unreachable(60, start())));
    let right = Fixture::registering().all_right();
    plans(&unreachable_machine(right.clone()), State::Unknown, "HoldTraffic + PauseMonitoring > AwaitRecovery");
    plans(&unreachable_machine(right.clone().registered()), State::Unknown, "PauseMonitoring > AwaitRecovery");
    let paused = right.clone().monitoring(MonitoringPhase::Paused);
    plans(&unreachable_machine(paused.clone()), State::Unknown, "HoldTraffic > AwaitRecovery");
    plans(&unreachable_machine(paused.registered()), State::Unknown, "AwaitRecovery");
    let reboots = right.clone().spec(|spec| spec.reboot = Some(request("1")));
    plans(
        &unreachable_machine(reboots.clone()),
        State::Unknown,
        "HoldTraffic + PauseMonitoring > RebootMachine > AwaitRecovery",
    );
    plans(
        &unreachable_machine(reboots.clone().fact(|status| status.observed_reboot = Some("1".into()))),
        State::Unknown,
        "HoldTraffic + PauseMonitoring > AwaitRecovery",
    );
    plans(
        &unreachable_machine(reboots.clone().fact(|status| status.observed_reboot = Some("0".into()))),
        State::Unknown,
        "HoldTraffic + PauseMonitoring > RebootMachine > AwaitRecovery",
    );
    // The Server is forced to be Unknown; its machine is reachable.
    plans(&reboots, State::Unknown, "HoldTraffic + PauseMonitoring");
    plans(&all_gates(unreachable_machine(right)), State::Unknown, "HoldTraffic + PauseMonitoring > AwaitRecovery");
}

#[test]
fn tasks_of_offline() {
    let serving = Fixture::registering().all_right();
    plans(&serving, State::Offline, "HoldTraffic > RemoveBackend + UnbindMonitoring > DestroyMachine");
    plans(&serving.clone().registered(), State::Offline, "RemoveBackend + UnbindMonitoring > DestroyMachine");
    let unwatched = serving.clone().registered().fact(|status| status.monitoring = None);
    plans(&unwatched, State::Offline, "RemoveBackend > DestroyMachine");
    let unknown = serving.clone().fact(|status| status.traffic = None);
    plans(&unknown, State::Offline, "UnbindMonitoring > DestroyMachine");
    plans(&Fixture::registering().running(), State::Offline, "DestroyMachine");
    plans(&Fixture::registering(), State::Offline, "");
}

#[test]
fn tasks_of_offline_with_gates() {
    let all = "Gate(DestroyMachine) > HoldTraffic > RemoveBackend + UnbindMonitoring > DestroyMachine";
    plans(&all_gates(Fixture::registering()).all_right(), State::Offline, all);
    plans(&all_gates(Fixture::registering().running()), State::Offline, "Gate(DestroyMachine) > DestroyMachine");
    plans(&all_gates(Fixture::registering()).registered(), State::Offline, "Gate(DestroyMachine) > RemoveBackend");
    plans(&all_gates(Fixture::registering()), State::Offline, "");
}

#[test]
fn tasks_on_the_machine_need_the_lock_and_every_task_has_an_executor() {
    use TaskKind as K;
    use berth_core::api::Executor as E;
    let table = [
        (E::Person, false, vec![K::Gate]),
        (
            E::ReplicasetController,
            true,
            vec![K::CreateMachine, K::InstallPackages, K::RebootMachine, K::DestroyMachine],
        ),
        (E::DeploymentController, true, vec![K::DeployApp]),
        (E::LbController, false, vec![K::HoldTraffic, K::RegisterBackend, K::ReleaseTraffic, K::RemoveBackend]),
        (
            E::MonitorController,
            false,
            vec![K::CheckHealth, K::BindMonitoring, K::PauseMonitoring, K::AwaitRecovery, K::UnbindMonitoring],
        ),
    ];
    let mut seen = 0;
    for (executor, locked, kinds) in table {
        for kind in kinds {
            assert_eq!((kind.executor(), kind.needs_lock()), (executor, locked), "{kind}");
            seen += 1;
        }
    }
    assert_eq!(seen, TaskKind::ALL.len());
}

#[test]
fn a_whole_life_passes_through_the_states_of_the_task_table() {
    use State::{Deploying, Offline, Ready};
    let mut life = Fixture::registering();
    life.acknowledge();
    assert_eq!(life.steps(), "CreateMachine > InstallPackages + RegisterBackend");
    life.perform_all();
    assert_eq!((life.state(), life.steps().as_str()), (State::Ready, ""));
    life.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r2".into()));
    assert_eq!(life.steps(), "HoldTraffic > DeployApp > CheckHealth");
    life.perform_all();
    life.declare(|spec| spec.offline = true);
    assert_eq!(life.steps(), "HoldTraffic > RemoveBackend + UnbindMonitoring > DestroyMachine");
    life.perform_all();
    let states = entered_states(life.status());
    assert!(states.ends_with(&[Ready, Deploying, Ready, Offline]), "{states:?}");
    assert!(life.server.is_retired());
}
