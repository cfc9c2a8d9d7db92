//! What the facts say about a declaration.

use crate::{
    api::{
        EnvironmentFact, HealthState, MachinePhase, MonitoringPhase, Package, Server, ServerStatus, Traffic,
        TrafficFact, TrafficPhase,
    },
    digest,
};

static NOTHING_KNOWN: ServerStatus = ServerStatus {
    observed_generation: None,
    state: None,
    state_since: None,
    waiting_for: None,
    last_task_id: None,
    first_task_id: None,
    tasks: Vec::new(),
    lock: None,
    transitions: Vec::new(),
    epoch: None,
    force: None,
    observed_retry: None,
    observed_reboot: None,
    machine: None,
    environment: None,
    app: None,
    traffic: None,
    reachability: None,
    health: None,
    monitoring: None,
    conditions: Vec::new(),
    claim: None,
    report: None,
};

/// The status, or that of a Server about which nothing is known.
pub(super) fn status(server: &Server) -> &ServerStatus {
    server.status.as_ref().unwrap_or(&NOTHING_KNOWN)
}

/// Whether a machine may exist.
pub(super) fn machine_may_exist(status: &ServerStatus) -> bool {
    status.machine.as_ref().is_some_and(|m| m.phase != MachinePhase::Gone)
}

/// Whether the machine runs.
pub(super) fn machine_runs(status: &ServerStatus) -> bool {
    status.machine.as_ref().is_some_and(|m| m.phase == MachinePhase::Running)
}

/// Whether the machine was out of reach for at least its threshold when this was last observed.
pub(super) fn unreachable(server: &Server) -> bool {
    let status = status(server);
    if !machine_may_exist(status) {
        return false;
    }
    status.reachability.as_ref().is_some_and(|fact| {
        let threshold = i64::from(server.spec.reachability.unreachable_after_seconds);
        !fact.reachable && fact.observed_at.0.as_second() - fact.since.0.as_second() >= threshold
    })
}

/// Whether the machine's packages are those that are declared, as read back since it was last out of sight.
pub(super) fn environment_right(server: &Server) -> bool {
    status(server).environment.as_ref().is_some_and(|fact| {
        fact.verified
            && server.spec.packages.iter().all(|package| installed(fact, package))
            && (!server.spec.prune_packages || fact.packages.len() == server.spec.packages.len())
    })
}

fn installed(fact: &EnvironmentFact, package: &Package) -> bool {
    fact.packages.iter().any(|found| {
        found.name == package.name
            && found.version == package.version
            && package.sha256().is_none_or(|sha256| found.sha256.as_deref() == Some(sha256))
    })
}

/// Whether the load balancers know the Server as declared.
pub(super) fn registered(server: &Server) -> bool {
    let status = status(server);
    match (declared_traffic(server), &status.traffic) {
        (None, None) => true,
        (None, Some(fact)) => !has_backends(fact),
        (Some(_), None) => false,
        (Some(declared), Some(fact)) => {
            fact.services == declared.services
                && fact.haproxy == declared.haproxy
                && fact.address == status.machine.as_ref().and_then(|m| m.address.clone())
        }
    }
}

fn has_backends(fact: &TrafficFact) -> bool {
    !fact.services.is_empty() || !fact.haproxy.is_empty()
}

/// The traffic declaration, if it names a load balancer.
pub(super) fn declared_traffic(server: &Server) -> Option<&Traffic> {
    server.spec.traffic.as_ref().filter(|t| !t.services.is_empty() || !t.haproxy.is_empty())
}

/// Whether a connection may still reach the Server through a load balancer.
pub(super) fn takes_traffic(status: &ServerStatus) -> bool {
    status.traffic.as_ref().is_some_and(|t| matches!(t.phase, TrafficPhase::Serving | TrafficPhase::Draining))
}

/// Whether the Server gets its traffic.
pub(super) fn serves(status: &ServerStatus) -> bool {
    status.traffic.as_ref().is_some_and(|t| t.phase == TrafficPhase::Serving)
}

/// Whether the Server gets its traffic, if it declares any.
#[must_use]
pub fn gets_its_traffic(server: &Server) -> bool {
    declared_traffic(server).is_none() || serves(status(server))
}

/// Whether the deployed code is that which is declared, as read back since the machine was last out of sight.
pub(super) fn app_right(server: &Server) -> bool {
    server.spec.app.as_ref().is_none_or(|app| {
        status(server).app.as_ref().is_some_and(|fact| fact.verified && fact.revision == app.effective_revision())
    })
}

/// Whether health was proven since the last change.
pub(super) fn health_proven(server: &Server) -> bool {
    let status = status(server);
    server.spec.health_check.is_none()
        || status
            .health
            .as_ref()
            .is_some_and(|fact| fact.state == HealthState::Healthy && fact.epoch == status.epoch.unwrap_or_default())
}

/// What the Server's monitoring target is made from: a fact with another digest is out of date. Nothing when the
/// Server declares no monitoring.
#[must_use]
pub fn monitoring_digest(server: &Server) -> Option<String> {
    let declared = server.spec.monitoring.as_ref()?;
    let address = status(server).machine.as_ref().and_then(|m| m.address.as_deref());
    Some(digest::short(&(declared, address)))
}

/// Whether monitoring is bound as declared.
pub(super) fn monitored(server: &Server) -> bool {
    match (monitoring_digest(server), &status(server).monitoring) {
        (None, fact) => fact.is_none(),
        (Some(digest), Some(fact)) => fact.phase == MonitoringPhase::Bound && fact.digest == digest,
        (Some(_), None) => false,
    }
}

/// Whether a reboot was asked for that was not seen to yet.
pub(super) fn reboot_asked_for(server: &Server) -> bool {
    server.spec.reboot.as_ref().is_some_and(|asked| status(server).observed_reboot.as_ref() != Some(&asked.id))
}

/// What a retired Server still has: traffic, monitoring, machine.
#[must_use]
pub fn leftovers(server: &Server) -> Vec<&'static str> {
    let status = status(server);
    [
        (status.traffic.is_some(), "traffic"),
        (status.monitoring.is_some(), "monitoring"),
        (machine_may_exist(status), "machine"),
    ]
    .into_iter()
    .filter_map(|(left, name)| left.then_some(name))
    .collect()
}

/// Whether nothing is left of the Server but the object.
#[must_use]
pub fn is_retired(server: &Server) -> bool {
    leftovers(server).is_empty()
}
