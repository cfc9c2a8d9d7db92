//! Trust in facts: which writes make them doubtful, and which prove them.

use berth_core::{
    CLOCK_MARGIN_SECONDS,
    api::{
        AppFact, EnvironmentFact, Executor, InstalledPackage, MachineFact, MachinePhase, Outcome, State, TaskKind,
        TaskPhase, TrafficPhase,
    },
};

use berth_testing::{
    Fixture, app, ended_tasks, entered_states, environment, full_spec, machine, machine_phase, unreachable,
};

fn ready() -> Fixture {
    let mut fixture = Fixture::registering().decided();
    fixture.perform_all();
    assert_eq!(fixture.state(), State::Ready);
    fixture
}

fn epoch(fixture: &Fixture) -> i64 {
    fixture.status().epoch.unwrap()
}

fn verified(fixture: &Fixture) -> (bool, bool) {
    let status = fixture.status();
    (status.environment.as_ref().unwrap().verified, status.app.as_ref().unwrap().verified)
}

#[test]
fn a_reboot_makes_all_facts_unverified() {
    let mut fixture = ready();
    let before = epoch(&fixture);
    fixture.write(Executor::ReplicasetController, |write| write.machine(Some(machine("m1", "another")))).unwrap();
    assert_eq!((epoch(&fixture), verified(&fixture)), (before + 1, (false, false)));
    assert_eq!((&fixture.status().health, fixture.state()), (&None, State::Initializing));
    assert_eq!(fixture.steps(), "HoldTraffic > InstallPackages");
    fixture.perform_all();
    assert_eq!((fixture.state(), verified(&fixture)), (State::Ready, (true, true)));
}

#[test]
fn other_changes_of_the_machine_fact_keep_facts_verified() {
    let mut fixture = ready();
    let before = epoch(&fixture);
    let known = fixture.status().machine.clone().unwrap();
    let news =
        MachineFact { created_at: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(fixture.now)), ..known };
    fixture.write(Executor::ReplicasetController, |write| write.machine(Some(news))).unwrap();
    assert_eq!((epoch(&fixture), verified(&fixture), fixture.state()), (before, (true, true), State::Ready));
}

#[test]
fn another_machine_clears_the_facts_about_it() {
    for other in [machine("m2", "b9"), machine_phase(MachinePhase::Gone)] {
        let mut fixture = ready();
        let before = epoch(&fixture);
        fixture.write(Executor::ReplicasetController, |write| write.machine(Some(other))).unwrap();
        let status = fixture.status();
        assert_eq!(
            (&status.environment, &status.app, &status.health, &status.reachability),
            (&None, &None, &None, &None)
        );
        assert_eq!((epoch(&fixture), fixture.state()), (before + 1, State::Initializing));
    }
}

#[test]
fn another_machine_is_not_unreachable_because_the_previous_one_was() {
    let mut fixture = ready();
    let fact = unreachable(60, fixture.now);
    fixture.write(Executor::MonitorController, |write| write.reachability(fact)).unwrap();
    assert_eq!(fixture.state(), State::Unknown);
    fixture.write(Executor::ReplicasetController, |write| write.machine(Some(machine("m2", "b9")))).unwrap();
    assert_eq!((fixture.state(), &fixture.status().reachability), (State::Initializing, &None));
}

#[test]
fn removing_the_fact_of_a_machine_that_is_gone_is_no_other_machine() {
    let mut gone = Fixture::registering().fact(|status| {
        status.machine = Some(MachineFact { phase: MachinePhase::Gone, ..machine("m1", "b1") });
    });
    gone.acknowledge();
    let before = gone.status().epoch;
    gone.write(Executor::ReplicasetController, |write| write.machine(None)).unwrap();
    assert_eq!(gone.status().epoch.unwrap_or(0), before.unwrap_or(0) + 1, "its boot is no longer known");
    gone = gone.fact(|status| {
        status.machine = Some(MachineFact { phase: MachinePhase::Gone, boot_id: None, ..machine("m1", "") });
    });
    let before = gone.status().epoch;
    gone.write(Executor::ReplicasetController, |write| write.machine(None)).unwrap();
    assert_eq!(gone.status().epoch, before);
}

#[test]
fn changed_packages_or_application_require_a_new_proof_of_health() {
    let mut fixture = ready();
    let before = epoch(&fixture);
    let mut fact = environment(&fixture.server.spec);
    fact.packages.push(InstalledPackage { name: "more".into(), version: "1".into(), sha256: None });
    fixture.write(Executor::ReplicasetController, |write| write.environment(fact)).unwrap();
    assert_eq!((epoch(&fixture), verified(&fixture)), (before + 1, (true, true)));
    assert_eq!((&fixture.status().health, fixture.state()), (&None, State::Deploying));

    let mut fixture = ready();
    let fact =
        AppFact { revision: "r0".into(), digest: String::new(), verified: true, deployed_at: None, deploy_class: None };
    fixture.write(Executor::DeploymentController, |write| write.app(Some(fact))).unwrap();
    assert_eq!((epoch(&fixture), &fixture.status().health, fixture.state()), (before + 1, &None, State::Deploying));
    assert_eq!(verified(&fixture), (true, true));
}

/// A Server on which a task of this kind was begun for a newer declaration, which a person has then taken back.
fn begun_and_taken_back(kind: TaskKind) -> Fixture {
    let mut fixture = ready();
    let declared = fixture.server.spec.clone();
    fixture.declare(|spec| {
        spec.packages[0].version = if kind == TaskKind::InstallPackages { "1.1".into() } else { "1.0".into() };
        spec.app.as_mut().unwrap().revision = Some(if kind == TaskKind::DeployApp { "r2".into() } else { "r1".into() });
    });
    fixture.perform(TaskKind::HoldTraffic);
    fixture.claim(kind, "a").unwrap();
    fixture.declare(|spec| *spec = declared);
    fixture
}

#[test]
fn what_was_read_is_not_trusted_after_work_that_never_reported() {
    for kind in [TaskKind::InstallPackages, TaskKind::DeployApp] {
        let before = epoch(&ready());
        let working = begun_and_taken_back(kind);
        assert_ne!(working.state(), State::Ready, "{kind} may still take effect");
        assert!(epoch(&working) > before, "{kind}");
        // Its holder stops and releases the lock.
        let mut released = working.clone();
        released.claim_for(kind, "a", 0).unwrap();
        assert_ne!(released.state(), State::Ready, "{kind} may have taken effect");
        // Or its holder is gone, and the lock expires.
        let mut expired = working;
        expired.advance(i64::from(berth_testing::LOCK + CLOCK_MARGIN_SECONDS) + 1);
        expired.acknowledge();
        assert_ne!(expired.state(), State::Ready, "{kind} may have taken effect");
        for mut next in [released, expired] {
            // Whoever is next reads back, and health is proven again, before the Server is Ready.
            next.claim(kind, "b").unwrap();
            next.report_with(kind, "b", Outcome::Succeeded, |write| match kind {
                TaskKind::DeployApp => write.app(app(&full_spec())),
                _ => write.environment(environment(&full_spec())),
            })
            .unwrap();
            assert_eq!(
                (next.state(), next.steps().as_str(), verified(&next)),
                (State::Deploying, "CheckHealth", (true, true))
            );
            next.perform_all();
            assert_eq!(next.state(), State::Ready);
        }
    }
}

#[test]
fn when_the_packages_are_doubted_everything_is_read_back() {
    let mut fixture = ready();
    let doubted = EnvironmentFact { verified: false, ..environment(&fixture.server.spec) };
    let before = epoch(&fixture);
    fixture.write(Executor::ReplicasetController, |write| write.environment(doubted)).unwrap();
    assert_eq!(
        (verified(&fixture), epoch(&fixture), fixture.state()),
        ((false, false), before + 1, State::Initializing)
    );
    fixture.perform_all();
    assert_eq!((verified(&fixture), fixture.state()), ((true, true), State::Ready));
}

#[test]
fn writing_the_same_facts_again_keeps_them_verified() {
    let mut fixture = ready();
    let before = fixture.server.clone();
    let (environment, app) = (environment(&fixture.server.spec), app(&fixture.server.spec));
    fixture.write(Executor::ReplicasetController, |write| write.environment(environment)).unwrap();
    fixture.write(Executor::DeploymentController, |write| write.app(app)).unwrap();
    assert_eq!(fixture.server, before);
}

#[test]
fn only_a_report_of_success_verifies_a_fact() {
    let mut fixture = ready();
    fixture.write(Executor::ReplicasetController, |write| write.machine(Some(machine("m1", "another")))).unwrap();
    let (fact, code) = (environment(&fixture.server.spec), app(&fixture.server.spec));
    // A fact without a report, even if it says that it is verified.
    fixture.write(Executor::ReplicasetController, |write| write.environment(fact.clone())).unwrap();
    fixture.write(Executor::DeploymentController, |write| write.app(code.clone())).unwrap();
    assert_eq!((verified(&fixture), fixture.state()), ((false, false), State::Initializing));
    fixture.perform(TaskKind::HoldTraffic);
    // A report on an attempt that did not succeed.
    for outcome in [Outcome::Running, Outcome::Retry] {
        fixture.claim(TaskKind::InstallPackages, "a").unwrap();
        fixture.report_with(TaskKind::InstallPackages, "a", outcome, |write| write.environment(fact.clone())).unwrap();
        assert_eq!(verified(&fixture), (false, false), "{outcome:?}");
    }
    fixture.claim(TaskKind::InstallPackages, "a").unwrap();
    fixture.report_with(TaskKind::InstallPackages, "a", Outcome::Succeeded, |write| write.environment(fact)).unwrap();
    assert_eq!((verified(&fixture), fixture.state()), ((true, false), State::Deploying));
    fixture.claim(TaskKind::DeployApp, "a").unwrap();
    fixture.report_with(TaskKind::DeployApp, "a", Outcome::Retry, |write| write.app(code.clone())).unwrap();
    assert_eq!(verified(&fixture), (true, false));
    fixture.claim(TaskKind::DeployApp, "a").unwrap();
    fixture.report_with(TaskKind::DeployApp, "a", Outcome::Succeeded, |write| write.app(code)).unwrap();
    assert_eq!(verified(&fixture), (true, true));
    assert_eq!(fixture.steps(), "CheckHealth");
}

#[test]
fn the_success_of_another_task_verifies_nothing() {
    let mut fixture = Fixture::registering().running().decided();
    let (fact, code) = (environment(&fixture.server.spec), app(&fixture.server.spec));
    fixture = fixture.fact(|status| {
        status.environment = Some(EnvironmentFact { verified: false, ..fact.clone() });
        status.app = code.clone().map(|code| AppFact { verified: false, ..code });
    });
    let traffic = berth_testing::traffic(&fixture.server, TrafficPhase::Held);
    fixture.report_with(TaskKind::RegisterBackend, "a", Outcome::Succeeded, |write| write.traffic(traffic)).unwrap();
    assert_eq!(verified(&fixture), (false, false));
    fixture.claim(TaskKind::InstallPackages, "a").unwrap();
    fixture.report_with(TaskKind::InstallPackages, "a", Outcome::Succeeded, |write| write.environment(fact)).unwrap();
    assert_eq!(verified(&fixture), (true, false));
}

#[test]
fn a_server_that_leaves_unknown_is_verified_again() {
    let mut fixture = ready();
    let before = epoch(&fixture);
    let fact = unreachable(60, fixture.now);
    fixture.write(Executor::MonitorController, |write| write.reachability(fact)).unwrap();
    assert_eq!((fixture.state(), epoch(&fixture), verified(&fixture)), (State::Unknown, before, (true, true)));
    fixture.perform(TaskKind::HoldTraffic);
    fixture.perform(TaskKind::PauseMonitoring);
    fixture.perform(TaskKind::AwaitRecovery);
    assert_eq!(
        (fixture.state(), epoch(&fixture), verified(&fixture)),
        (State::Initializing, before + 1, (false, false))
    );
    assert_eq!((&fixture.status().health, fixture.steps().as_str()), (&None, "InstallPackages"));
    fixture.perform_all();
    let states = entered_states(fixture.status());
    assert!(states.ends_with(&[State::Unknown, State::Initializing, State::Deploying, State::Ready]), "{states:?}");
    assert_eq!(ended_tasks(fixture.status(), TaskKind::AwaitRecovery, TaskPhase::Succeeded), 1);
}

#[test]
fn health_of_an_earlier_epoch_does_not_count() {
    let mut fixture = ready();
    let old = fixture.status().health.clone();
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r2".into()));
    fixture.perform(TaskKind::HoldTraffic);
    fixture.perform(TaskKind::DeployApp);
    assert_eq!(fixture.state(), State::Deploying);
    let late = fixture.report_with(TaskKind::CheckHealth, "a", Outcome::Succeeded, |write| write.health(old.unwrap()));
    assert_eq!(late, Err(berth_testing::Denied::Stale));
    fixture.perform(TaskKind::CheckHealth);
    assert_eq!(fixture.state(), State::Ready);
}

/// The claim begins a new epoch; a task that proves health in the epoch before would be replaced only by the next write.
#[test]
fn the_claim_of_a_deployment_asks_for_health_in_its_own_epoch() {
    let mut fixture = ready();
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r2".into()));
    fixture.perform(TaskKind::HoldTraffic);
    let before = epoch(&fixture);
    fixture.claim(TaskKind::DeployApp, "a").unwrap();
    assert_eq!(epoch(&fixture), before + 1);
    let claimed = fixture.status().tasks.clone();
    fixture.write(Executor::MonitorController, |write| write).unwrap();
    assert_eq!(fixture.status().tasks, claimed, "the next decision finds nothing to change");
}
