//! `decide`: every rule, and the order of the rules.

use berth_core::{
    api::{
        App, AppExecutor, AppExecutorType, EnvVar, Executor, HealthCheck, HealthState, MachinePhase, State,
        TrafficPhase,
    },
    lifecycle::decide,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use berth_testing::{Fixture, controller, environment, machine_phase, start, unreachable};

#[track_caller]
fn decides(fixture: &Fixture, state: State, reason: &str) {
    let decision = decide(&fixture.server);
    assert_eq!((decision.state, decision.reason.as_str()), (state, reason));
}

fn right() -> Fixture {
    Fixture::registering().all_right()
}

#[test]
fn deletion_leads_to_offline_before_any_other_rule() {
    let mut deleted = right().fact(|status| status.reachability = Some(unreachable(60, start())));
    deleted.server.metadata.deletion_timestamp = Some(Time(start()));
    decides(&deleted, State::Offline, "deletion was requested");
}

#[test]
fn offline_in_the_spec_comes_before_force_and_facts() {
    let mut forced = Fixture::ready();
    forced.declare(|spec| {
        spec.offline = true;
        spec.force = Some(force(State::Initializing));
    });
    decides(&forced, State::Offline, "declared offline");
}

fn force(state: State) -> berth_core::api::Force {
    berth_core::api::Force { state, reason: "to look".into(), by: None, at: None, declaration: None }
}

#[test]
fn a_force_comes_before_the_facts_and_names_user_and_reason() {
    for state in [State::Initializing, State::Deploying, State::Unknown] {
        let mut forced = Fixture::ready();
        forced.declare(|spec| spec.force = Some(force(state)));
        decides(&forced, state, "forced by ann: to look");
    }
    let mut lost = Fixture::ready().fact(|status| status.reachability = Some(unreachable(60, start())));
    lost.declare(|spec| spec.force = Some(force(State::Ready)));
    decides(&lost, State::Ready, "forced by ann: to look");
}

#[test]
fn a_machine_is_unreachable_after_its_threshold() {
    let unreachable_for = |seconds| right().fact(|status| status.reachability = Some(unreachable(seconds, start())));
    decides(&unreachable_for(30), State::Unknown, "the machine is unreachable: no answer");
    decides(&unreachable_for(29), State::Ready, "environment, application and health are as declared");
    let patient = unreachable_for(30).spec(|spec| spec.reachability.unreachable_after_seconds = 31);
    decides(&patient, State::Ready, "environment, application and health are as declared");
    let back = unreachable_for(60).fact(|status| status.reachability.as_mut().unwrap().reachable = true);
    decides(&back, State::Ready, "environment, application and health are as declared");
    let terse = unreachable_for(60).fact(|status| status.reachability.as_mut().unwrap().message.clear());
    decides(&terse, State::Unknown, "the machine is unreachable");
}

#[test]
fn a_machine_that_does_not_exist_is_not_unreachable() {
    for machine in [None, Some(machine_phase(MachinePhase::Gone))] {
        let gone = right().fact(|status| {
            status.reachability = Some(unreachable(60, start()));
            status.machine = machine;
        });
        decides(&gone, State::Initializing, "there is no machine");
    }
    let creating = right().fact(|status| {
        status.reachability = Some(unreachable(60, start()));
        status.machine = Some(machine_phase(MachinePhase::Creating));
    });
    decides(&creating, State::Unknown, "the machine is unreachable: no answer");
}

#[test]
fn without_a_running_machine_the_state_is_initializing() {
    decides(&Fixture::registering(), State::Initializing, "there is no machine");
    for phase in [MachinePhase::Creating, MachinePhase::Stopped] {
        let stopped = right().fact(|status| status.machine.as_mut().unwrap().phase = phase);
        decides(&stopped, State::Initializing, "the machine is not running");
    }
}

#[test]
fn a_server_that_leaves_unknown_is_initializing_until_its_facts_are_verified() {
    decides(
        &right().was(State::Unknown),
        State::Initializing,
        "the machine is reachable again: everything has to be verified",
    );
    decides(&right().was(State::Deploying), State::Ready, "environment, application and health are as declared");
}

#[test]
fn with_another_environment_the_state_is_initializing() {
    let wrong = |change: fn(&mut berth_core::api::EnvironmentFact)| {
        right().fact(|status| change(status.environment.as_mut().unwrap()))
    };
    let reason = "the environment is not as declared";
    decides(&wrong(|fact| fact.verified = false), State::Initializing, reason);
    decides(&wrong(|fact| fact.packages.clear()), State::Initializing, reason);
    decides(&wrong(|fact| fact.packages[0].name = "other".into()), State::Initializing, reason);
    decides(&wrong(|fact| fact.packages[0].version = "1.1".into()), State::Initializing, reason);
    decides(&wrong(|fact| fact.packages[0].sha256 = Some("c".repeat(64))), State::Initializing, reason);
    decides(&wrong(|fact| fact.packages[0].sha256 = None), State::Initializing, reason);
    decides(&right().fact(|status| status.environment = None), State::Initializing, reason);
}

#[test]
fn undeclared_packages_count_only_when_packages_are_pruned() {
    let more = right().fact(|status| {
        let packages = &mut status.environment.as_mut().unwrap().packages;
        packages.push(berth_core::api::InstalledPackage { name: "old".into(), version: "1".into(), sha256: None });
    });
    decides(&more, State::Ready, "environment, application and health are as declared");
    let pruned = more.spec(|spec| spec.prune_packages = true);
    decides(&pruned, State::Initializing, "the environment is not as declared");
    let exact = right().spec(|spec| spec.prune_packages = true);
    decides(&exact, State::Ready, "environment, application and health are as declared");
}

#[test]
fn a_package_without_a_digest_is_compared_by_version() {
    let scripted = Fixture::declaring(|spec| {
        spec.packages = serde_json::from_value(serde_json::json!([
            {"name": "tool", "version": "2", "script": {"check": "true", "install": "true"}}
        ]))
        .unwrap();
    });
    let installed = scripted.all_right();
    assert_eq!(environment(&installed.server.spec).packages[0].sha256, None);
    decides(&installed, State::Ready, "environment, application and health are as declared");
}

#[test]
fn unless_registered_as_declared_the_state_is_initializing() {
    let reason = "the Server is not registered with its load balancers as declared";
    decides(&right().fact(|status| status.traffic = None), State::Initializing, reason);
    let elsewhere = right().fact(|status| status.traffic.as_mut().unwrap().address = Some("127.1.0.9".into()));
    decides(&elsewhere, State::Initializing, reason);
    let other_port = right().spec(|spec| spec.traffic.as_mut().unwrap().backends[0].port = 1);
    decides(&other_port, State::Initializing, reason);
    let proxied = right().spec(|spec| {
        berth_testing::register_first(spec);
    });
    decides(&proxied, State::Initializing, reason);
    let proxied_only =
        proxied.spec(|spec| spec.traffic.as_mut().unwrap().backends.retain(|backend| backend.class.is_some()));
    decides(&proxied_only, State::Initializing, reason);
    let registered = proxied_only.registered().all_right();
    decides(&registered, State::Ready, "environment, application and health are as declared");
    let heavier = registered.clone().spec(|spec| spec.traffic.as_mut().unwrap().backends[0].weight = Some(7));
    decides(&heavier, State::Ready, "environment, application and health are as declared");
    let undeclared = registered.spec(|spec| spec.traffic = None);
    decides(&undeclared, State::Initializing, reason);
    let empty = right().spec(|spec| spec.traffic.as_mut().unwrap().backends.clear());
    decides(&empty, State::Initializing, reason);
    let none = empty.fact(|status| status.traffic.as_mut().unwrap().backends.clear());
    decides(&none, State::Ready, "environment, application and health are as declared");
}

#[test]
fn with_another_application_the_state_is_deploying() {
    let reason = "the application is not deployed as declared";
    let wrong = |change: fn(&mut berth_core::api::AppFact)| right().fact(|s| change(s.app.as_mut().unwrap()));
    decides(&wrong(|fact| fact.revision = "r0".into()), State::Deploying, reason);
    decides(&wrong(|fact| fact.verified = false), State::Deploying, reason);
    decides(&right().fact(|status| status.app = None), State::Deploying, reason);
    let derived = right().spec(|spec| spec.app.as_mut().unwrap().revision = None);
    decides(&derived, State::Deploying, reason);
    decides(&derived.deployed(), State::Ready, "environment, application and health are as declared");
    let no_app = wrong(|fact| fact.revision = "r0".into()).spec(|spec| spec.app = None);
    decides(&no_app, State::Ready, "environment, application and health are as declared");
}

#[test]
fn another_application_under_the_same_revision_has_to_be_deployed() {
    let reason = "the application is not deployed as declared";
    let declaring = |change: fn(&mut App)| right().spec(|spec| change(spec.app.as_mut().unwrap()));
    for changed in [
        declaring(|app| app.artifact.sha256 = "c".repeat(64)),
        declaring(|app| app.command = "./run --fast".into()),
        declaring(|app| app.name = "shop".into()),
        declaring(|app| app.env.push(EnvVar { name: "A".into(), value: "1".into(), value_from: None })),
        // The application gets it as PORT.
        right().spec(|spec| spec.health_check.as_mut().unwrap().http_get.as_mut().unwrap().port = 8081),
    ] {
        decides(&changed, State::Deploying, reason);
        decides(&changed.deployed(), State::Ready, "environment, application and health are as declared");
    }
    for same in [
        declaring(|app| app.keep_releases = 9),
        declaring(|app| app.executor = AppExecutor { kind: AppExecutorType::External, class_name: Some("ci".into()) }),
        declaring(|app| app.artifact.url = "http://mirror.example/w.tgz".into()),
        right().spec(|spec| spec.health_check.as_mut().unwrap().period_seconds = 7),
    ] {
        decides(&same, State::Ready, "environment, application and health are as declared");
    }
    let mut reordered = declaring(|app| {
        app.env = ["A", "B"].map(|name| EnvVar { name: name.into(), value: "1".into(), value_from: None }).to_vec();
    })
    .deployed();
    reordered = reordered.spec(|spec| spec.app.as_mut().unwrap().env.reverse());
    decides(&reordered, State::Ready, "environment, application and health are as declared");
}

#[test]
fn without_proven_health_the_state_is_deploying() {
    decides(&right().fact(|status| status.health = None), State::Deploying, "health is not proven");
    let sick = right().fact(|status| {
        let health = status.health.as_mut().unwrap();
        (health.state, health.message) = (HealthState::Unhealthy, "503".into());
    });
    decides(&sick, State::Deploying, "health is not proven: 503");
    decides(&right().fact(|status| status.epoch = Some(1)), State::Deploying, "health is not proven");
    decides(
        &right().fact(|status| status.epoch = Some(0)),
        State::Ready,
        "environment, application and health are as declared",
    );
    let unchecked = sick.spec(|spec| spec.health_check = None::<HealthCheck>);
    decides(&unchecked, State::Ready, "environment, application and health are as declared");
}

#[test]
fn traffic_and_monitoring_do_not_affect_the_state() {
    for phase in [TrafficPhase::Held, TrafficPhase::Draining, TrafficPhase::Serving] {
        let fixture = right().traffic(phase).fact(|status| status.monitoring = None);
        decides(&fixture, State::Ready, "environment, application and health are as declared");
    }
}

#[test]
fn the_first_rule_that_applies_decides() {
    let nothing = Fixture::registering().fact(|status| status.reachability = Some(unreachable(60, start())));
    decides(&nothing, State::Initializing, "there is no machine");
    decides(&nothing.clone().running(), State::Unknown, "the machine is unreachable: no answer");
    let here = Fixture::registering().running();
    decides(&here, State::Initializing, "the environment is not as declared");
    decides(
        &here.clone().installed(),
        State::Initializing,
        "the Server is not registered with its load balancers as declared",
    );
    decides(&here.clone().installed().registered(), State::Deploying, "the application is not deployed as declared");
    let deployed = here.installed().registered().deployed();
    decides(&deployed, State::Deploying, "health is not proven");
    decides(&deployed.healthy(), State::Ready, "environment, application and health are as declared");
}

#[test]
fn a_bare_server_needs_only_a_machine() {
    let bare = Fixture::bare();
    decides(&bare, State::Initializing, "there is no machine");
    decides(&bare.clone().running(), State::Initializing, "the environment is not as declared");
    decides(&bare.running().installed(), State::Ready, "environment, application and health are as declared");
}

#[test]
fn a_transition_records_states_time_reason_and_author() {
    let mut fixture = Fixture::registering();
    fixture.acknowledge();
    fixture.advance(5);
    fixture.declare(|spec| spec.offline = true);
    let author = controller(Executor::ReplicasetController).username;
    let (start, now, history) = (start(), fixture.now, &fixture.status().history);
    assert_eq!(history[0], format!("{start} -> Initializing ({author}): there is no machine"));
    assert_eq!(
        history[1..],
        [
            format!("{now} CreateMachine (task 1) Cancelled: the Server left Initializing"),
            format!("{now} InstallPackages (task 2) Cancelled: the Server left Initializing"),
            format!("{now} RegisterBackend (task 3) Cancelled: the Server left Initializing"),
            format!("{now} Initializing -> Offline ({author}): declared offline"),
        ]
    );
    assert_eq!(fixture.status().previous_state(), Some(State::Initializing));
    assert_eq!(fixture.status().state_since, Some(Time(fixture.now)));
}
