//! Arbitrary declarations, facts and events.

use berth_core::api::{
    AppFact, Approval, EnvironmentFact, Executor, Gate, GatePoint, HealthFact, HealthState, InstalledPackage,
    MachineFact, MachinePhase, MonitoringFact, MonitoringPhase, Outcome, ReachabilityFact, ServerSpec, State, TaskKind,
    TrafficFact, TrafficPhase,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::json;

use berth_testing::{full_spec, machine, start};

pub(crate) fn state() -> impl Strategy<Value = State> {
    select(State::ALL.to_vec())
}

pub(crate) fn executor() -> impl Strategy<Value = Executor> {
    select(Executor::CONTROLLERS.to_vec())
}

pub(crate) fn kind() -> impl Strategy<Value = TaskKind> {
    select(TaskKind::ALL.to_vec())
}

fn outcome() -> impl Strategy<Value = Outcome> {
    select(vec![
        Outcome::Running,
        Outcome::Succeeded,
        Outcome::Succeeded,
        Outcome::Retry,
        Outcome::Failed,
        Outcome::Waiting,
    ])
}

fn version() -> impl Strategy<Value = String> {
    select(vec!["1.0".to_owned(), "1.1".to_owned()])
}

fn revision() -> impl Strategy<Value = String> {
    select(vec!["r1".to_owned(), "r2".to_owned()])
}

/// A change of the declaration. Any sequence of them leads from any declaration to any other.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Package(Option<String>),
    Prune(bool),
    App(Option<String>),
    Health(bool),
    Traffic(bool, bool),
    Monitoring(Option<i32>),
    Gates(Vec<GatePoint>),
    Reboot(u8),
    Retain(bool),
    Attempts(i32),
    Offline(bool),
    Force(Option<State>),
    Retry(u8),
    Flavor(bool),
}

pub(crate) fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        option::of(version()).prop_map(Change::Package),
        any::<bool>().prop_map(Change::Prune),
        option::of(revision()).prop_map(Change::App),
        any::<bool>().prop_map(Change::Health),
        any::<(bool, bool)>().prop_map(|(service, class)| Change::Traffic(service, class)),
        option::of(9100..9102).prop_map(Change::Monitoring),
        vec(select(GatePoint::ALL.to_vec()), 0..3).prop_map(Change::Gates),
        (0..3u8).prop_map(Change::Reboot),
        any::<bool>().prop_map(Change::Retain),
        (1..4).prop_map(Change::Attempts),
        any::<bool>().prop_map(Change::Offline),
        option::of(state()).prop_map(Change::Force),
        (0..3u8).prop_map(Change::Retry),
        any::<bool>().prop_map(Change::Flavor),
    ]
}

impl Change {
    pub(crate) fn apply(&self, spec: &mut ServerSpec) {
        let full = full_spec();
        match self.clone() {
            Self::Package(version) => {
                spec.packages = version.map_or_else(Vec::new, |version| {
                    full.packages
                        .into_iter()
                        .map(|p| berth_core::api::Package { version: version.clone(), ..p })
                        .collect()
                });
            }
            Self::Prune(prune) => spec.prune_packages = prune,
            Self::App(revision) => {
                spec.app = revision.map(|r| berth_core::api::App { revision: Some(r), ..full.app.unwrap() });
            }
            Self::Health(checked) => spec.health_check = full.health_check.filter(|_| checked),
            Self::Traffic(service, class) => {
                spec.traffic = full.traffic.filter(|_| service || class);
                if let Some(traffic) = &mut spec.traffic {
                    traffic.backends.retain(|_| service);
                    let edge = json!({"class": "edge", "name": "web", "port": 80});
                    traffic.backends.extend(class.then(|| serde_json::from_value(edge).unwrap()));
                }
            }
            Self::Monitoring(port) => {
                spec.monitoring = port.map(|port| serde_json::from_value(json!({"port": port})).unwrap());
            }
            Self::Gates(mut points) => {
                points.sort();
                points.dedup();
                spec.gates = points.into_iter().map(|before| Gate { before }).collect();
            }
            Self::Reboot(id) => spec.reboot = Some(request(id)),
            Self::Retain(kept) => {
                spec.retain = kept.then(|| berth_core::api::Retention { until: Time(start()), reason: "why".into() });
            }
            Self::Attempts(attempts) => spec.task_attempts = attempts,
            Self::Offline(offline) => spec.offline = offline,
            Self::Force(state) => {
                spec.force = state.map(|state| berth_core::api::Force {
                    state,
                    reason: "by hand".into(),
                    by: None,
                    at: None,
                    declaration: None,
                });
            }
            Self::Retry(id) => spec.retry = Some(request(id)),
            Self::Flavor(large) => spec.machine.flavor = large.then(|| "large".into()),
        }
    }
}

fn request(id: u8) -> berth_core::api::Request {
    berth_core::api::Request { id: id.to_string(), reason: String::new(), by: None, at: None }
}

/// A fact, which may be true or not.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    Machine(Option<MachineFact>),
    Environment(EnvironmentFact),
    App(Option<AppFact>),
    Traffic(Option<TrafficFact>),
    Reachability(ReachabilityFact),
    Health(HealthFact),
    Monitoring(Option<MonitoringFact>),
}

pub(crate) fn fact() -> impl Strategy<Value = Fact> {
    let phase = select(vec![MachinePhase::Creating, MachinePhase::Running, MachinePhase::Stopped, MachinePhase::Gone]);
    let id = select(vec!["m1", "m2"]);
    let boot = select(vec!["b1", "b2"]);
    let machine = (phase, id, boot).prop_map(|(phase, id, boot)| MachineFact { phase, ..machine(id, boot) });
    let environment = (any::<bool>(), vec(version(), 0..2)).prop_map(|(verified, versions)| EnvironmentFact {
        verified,
        packages: versions
            .into_iter()
            .map(|version| InstalledPackage { name: "runtime".into(), version, sha256: Some("a".repeat(64)) })
            .collect(),
    });
    let digest = prop_oneof![3 => Just(full_spec().app_digest().unwrap()), 1 => Just("another".to_owned())];
    let app = (revision(), digest, any::<bool>()).prop_map(|(revision, digest, verified)| AppFact {
        revision,
        digest,
        verified,
        deployed_at: None,
        deploy_class: None,
    });
    let phase = select(vec![TrafficPhase::Held, TrafficPhase::Serving, TrafficPhase::Draining]);
    let traffic = (phase, any::<bool>()).prop_map(|(phase, known)| TrafficFact {
        phase,
        backends: full_spec().traffic.filter(|_| known).map(|traffic| traffic.backends).unwrap_or_default(),
        address: Some("127.1.0.1".into()),
    });
    let reachability = (any::<bool>(), 0..90i64).prop_map(|(reachable, seconds)| ReachabilityFact {
        reachable,
        since: Time(start() - SignedDuration::from_secs(seconds)),
        observed_at: Time(start()),
        message: String::new(),
    });
    let health = (any::<bool>(), 0..6i64).prop_map(|(healthy, epoch)| HealthFact {
        state: if healthy { HealthState::Healthy } else { HealthState::Unhealthy },
        epoch,
        since: Time(start()),
        message: String::new(),
    });
    let monitoring = any::<bool>().prop_map(|bound| MonitoringFact {
        phase: if bound { MonitoringPhase::Bound } else { MonitoringPhase::Paused },
        digest: "0123456789".into(),
    });
    prop_oneof![
        option::of(machine).prop_map(Fact::Machine),
        environment.prop_map(Fact::Environment),
        option::of(app).prop_map(Fact::App),
        option::of(traffic).prop_map(Fact::Traffic),
        reachability.prop_map(Fact::Reachability),
        health.prop_map(Fact::Health),
        option::of(monitoring).prop_map(Fact::Monitoring),
    ]
}

/// Something that happens to a Server.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a test has few of them")]
pub(crate) enum Event {
    Person(Change),
    Fact(Executor, Fact),
    /// By a controller and an instance of it, for the n-th task, for so many seconds.
    Claim(Executor, bool, usize, i32),
    Report(Executor, bool, usize, Outcome, i32),
    /// An open task is carried out as it should be.
    Work(usize),
    Advance(i64),
    Delete,
    Acknowledge,
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => change().prop_map(Event::Person),
        2 => (executor(), fact()).prop_map(|(executor, fact)| Event::Fact(executor, fact)),
        3 => (executor(), any::<bool>(), 0..20usize, select(vec![-1, 0, 30, 30, 30]))
            .prop_map(|(executor, a, n, seconds)| Event::Claim(executor, a, n, seconds)),
        3 => (executor(), any::<bool>(), 0..20usize, outcome(), -1..40)
            .prop_map(|(executor, a, n, outcome, wait)| Event::Report(executor, a, n, outcome, wait)),
        6 => (0..20usize).prop_map(Event::Work),
        1 => (0..60i64).prop_map(Event::Advance),
        1 => select(vec![Event::Acknowledge, Event::Acknowledge, Event::Acknowledge, Event::Delete]),
    ]
}

/// An Approval.
pub(crate) fn approval() -> impl Strategy<Value = Approval> {
    (any::<bool>(), option::of(1..99i64), option::of(select(GatePoint::ALL.to_vec())), "[a-z]{0,8}").prop_map(
        |(yes, task_id, gate, reason)| {
            let decision = if yes { "Approve" } else { "Refuse" };
            berth_testing::approval(json!({
                "spec": {"taskID": task_id, "gate": gate, "decision": decision, "reason": reason}
            }))
        },
    )
}
