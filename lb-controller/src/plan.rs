//! What the load balancers are to show of a Server, and which task that carries out. Pure.

use berth_core::{
    api::{
        Executor, HaProxyBackend, Outcome, Server, ServerStatus, ServiceBackend, State, Task, TaskKind, Traffic,
        TrafficFact, TrafficPhase,
    },
    lifecycle,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Seconds to drain where the declaration that said so is gone: the default of `spec.traffic.drainSeconds`.
const DRAIN_SECONDS: i32 = 10;

/// How the load balancers are to know a Server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Which traffic it gets.
    pub phase: TrafficPhase,
    /// The Services that it belongs to.
    pub services: Vec<ServiceBackend>,
    /// The HAProxy backends that it belongs to.
    pub haproxy: Vec<HaProxyBackend>,
    /// The machine's address.
    pub address: String,
}

/// When a step's report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// When the load balancers show it: the report says what is.
    AfterTraffic,
    /// Before the load balancers show it: from the report on the Server counts as taking traffic, and so is drained
    /// before anything is done to it.
    BeforeTraffic,
}

/// What becomes of the fact about traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// It stays as it is.
    Unchanged,
    /// The load balancers know the Server like this.
    Known(TrafficFact),
    /// No load balancer knows the Server.
    Unknown,
}

/// What is to be reported on a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The task.
    pub task: i64,
    /// Its kind.
    pub kind: TaskKind,
    /// What becomes of it.
    pub outcome: Outcome,
    /// In words.
    pub message: String,
    /// The fact that goes with it.
    pub fact: Fact,
    /// When to report.
    pub order: Order,
}

/// What to do about a Server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What the load balancers are to show; nothing when they are not to know it.
    pub target: Option<Registration>,
    /// The report that is due.
    pub step: Option<Step>,
    /// When to look again though nothing changes.
    pub again: Option<Timestamp>,
}

/// What is to be done about the Server. Without an open task it says what the facts promise, so that whatever else
/// the load balancers show is a fault to repair.
#[must_use]
pub fn plan(server: &Server, now: Timestamp) -> Plan {
    let Some(status) = &server.status else { return Plan::default() };
    let at_rest = Plan { target: by_the_fact(server, status), ..Plan::default() };
    let Some(task) = lifecycle::open_tasks(server, Executor::LbController).min_by_key(|task| task.step) else {
        return at_rest;
    };
    if let Some(begin) = lifecycle::not_before(task).filter(|begin| *begin > now) {
        return Plan { again: Some(begin), ..at_rest };
    }
    match task.kind {
        TaskKind::HoldTraffic => hold(server, status, task, now),
        TaskKind::RegisterBackend => register(server, status, task).unwrap_or(at_rest),
        TaskKind::ReleaseTraffic => release(server, status, task).unwrap_or(at_rest),
        TaskKind::RemoveBackend => remove(task),
        _ => at_rest,
    }
}

/// What the fact promises, and never traffic to a Server that must not get any.
fn by_the_fact(server: &Server, status: &ServerStatus) -> Option<Registration> {
    let fact = status.traffic.as_ref()?;
    let phase = match fact.phase {
        TrafficPhase::Serving if may_serve(server, status) => TrafficPhase::Serving,
        TrafficPhase::Serving | TrafficPhase::Draining if status.state == Some(State::Unknown) => TrafficPhase::Held,
        TrafficPhase::Serving => TrafficPhase::Draining,
        other => other,
    };
    registration(fact, phase)
}

/// A Server takes traffic while it is Ready. In another state only while a gate keeps its HoldTraffic from beginning,
/// because until a person agrees to its retirement everything stays as it is.
fn may_serve(server: &Server, status: &ServerStatus) -> bool {
    let kept_by_a_gate = || {
        status.state == Some(State::Offline)
            && lifecycle::current_tasks(status).any(|task| {
                task.kind == TaskKind::HoldTraffic && !task.phase.is_finished() && !lifecycle::is_open(server, task)
            })
    };
    status.state == Some(State::Ready) || kept_by_a_gate()
}

fn registration(fact: &TrafficFact, phase: TrafficPhase) -> Option<Registration> {
    Some(Registration {
        phase,
        services: fact.services.clone(),
        haproxy: fact.haproxy.clone(),
        address: fact.address.clone()?,
    })
}

fn hold(server: &Server, status: &ServerStatus, task: &Task, now: Timestamp) -> Plan {
    let Some(fact) = &status.traffic else {
        return Plan { step: Some(done(task, "no load balancer knows it", Fact::Unchanged)), ..Plan::default() };
    };
    let end = match drain_end(server, status, fact, task) {
        Drain::Over => None,
        Drain::Until(end) => Some(end).filter(|end| *end > now),
        Drain::NotBegun(seconds) => {
            let message = format!("draining for {seconds} s");
            let step = Step { outcome: Outcome::Running, ..with_fact(task, &message, fact, TrafficPhase::Draining) };
            return Plan { target: registration(fact, TrafficPhase::Draining), step: Some(step), again: None };
        }
    };
    match end {
        Some(end) => Plan { target: registration(fact, TrafficPhase::Draining), step: None, again: Some(end) },
        // It is not going to come back: one write instead of two.
        None if status.state == Some(State::Offline) => {
            Plan { step: Some(done(task, "drained, and no load balancer knows it", Fact::Unknown)), ..Plan::default() }
        }
        None => Plan {
            target: registration(fact, TrafficPhase::Held),
            step: Some(with_fact(task, "no traffic reaches it", fact, TrafficPhase::Held)),
            again: None,
        },
    }
}

enum Drain {
    NotBegun(i32),
    Until(Timestamp),
    Over,
}

/// Nobody waits for the connections of a machine that cannot be reached.
fn drain_end(server: &Server, status: &ServerStatus, fact: &TrafficFact, task: &Task) -> Drain {
    let seconds = server.spec.traffic.as_ref().map_or(DRAIN_SECONDS, |traffic| traffic.drain_seconds);
    if status.state == Some(State::Unknown) || fact.phase == TrafficPhase::Held || seconds <= 0 {
        return Drain::Over;
    }
    match (fact.phase, &task.started_at) {
        (TrafficPhase::Draining, Some(started)) => {
            started.0.checked_add(SignedDuration::from_secs(i64::from(seconds))).map_or(Drain::Over, Drain::Until)
        }
        _ => Drain::NotBegun(seconds),
    }
}

/// Nothing, while the machine has no address yet.
fn register(server: &Server, status: &ServerStatus, task: &Task) -> Option<Plan> {
    let Some(traffic) = declared(server) else {
        return Some(Plan { step: Some(done(task, "no load balancer is declared", Fact::Unknown)), ..Plan::default() });
    };
    if let Some(refused) = refuse(status, traffic, task) {
        return Some(refused);
    }
    let address = status.machine.as_ref()?.address.clone()?;
    let fact = fact_of(traffic, &address, TrafficPhase::Held);
    Some(Plan {
        target: registration(&fact, TrafficPhase::Held),
        step: Some(with_fact(task, "registered, without traffic", &fact, TrafficPhase::Held)),
        again: None,
    })
}

/// Nothing, when the Server is not Ready: then the task is about to be cancelled.
fn release(server: &Server, status: &ServerStatus, task: &Task) -> Option<Plan> {
    if status.state != Some(State::Ready) {
        return None;
    }
    let traffic = declared(server)?;
    if let Some(refused) = refuse(status, traffic, task) {
        return Some(refused);
    }
    let address = status.machine.as_ref()?.address.clone()?;
    let fact = fact_of(traffic, &address, TrafficPhase::Serving);
    let step = with_fact(task, "traffic may reach it", &fact, TrafficPhase::Serving);
    Some(Plan {
        target: by_the_fact(server, status),
        step: Some(Step { order: Order::BeforeTraffic, ..step }),
        again: None,
    })
}

fn remove(task: &Task) -> Plan {
    Plan { step: Some(done(task, "no load balancer knows it", Fact::Unknown)), ..Plan::default() }
}

fn declared(server: &Server) -> Option<&Traffic> {
    server.spec.traffic.as_ref().filter(|traffic| !traffic.services.is_empty() || !traffic.haproxy.is_empty())
}

/// What cannot be done is said at once: another attempt would not help.
fn refuse(status: &ServerStatus, traffic: &Traffic, task: &Task) -> Option<Plan> {
    let backend = traffic.haproxy.first()?;
    let message = format!(
        "spec.traffic.haproxy names the backend {:?}, but lb-controller is configured with no HAProxy: remove it, or \
         use spec.traffic.services",
        backend.name
    );
    let target = status.traffic.as_ref().and_then(|fact| registration(fact, TrafficPhase::Held));
    Some(Plan {
        target,
        step: Some(Step { outcome: Outcome::Failed, ..done(task, &message, Fact::Unchanged) }),
        again: None,
    })
}

fn fact_of(traffic: &Traffic, address: &str, phase: TrafficPhase) -> TrafficFact {
    TrafficFact {
        phase,
        services: traffic.services.clone(),
        haproxy: traffic.haproxy.clone(),
        address: Some(address.to_owned()),
    }
}

fn done(task: &Task, message: &str, fact: Fact) -> Step {
    Step {
        task: task.id,
        kind: task.kind,
        outcome: Outcome::Succeeded,
        message: message.to_owned(),
        fact,
        order: Order::AfterTraffic,
    }
}

fn with_fact(task: &Task, message: &str, fact: &TrafficFact, phase: TrafficPhase) -> Step {
    done(task, message, Fact::Known(TrafficFact { phase, ..fact.clone() }))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
