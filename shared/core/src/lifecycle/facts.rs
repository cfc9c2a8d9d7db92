//! What the facts of a Server say about its declaration.

use super::declared;
use crate::{
    api::{
        EnvironmentFact, HealthState, MachinePhase, MonitoringPhase, Package, Server, ServerStatus, Traffic,
        TrafficFact, TrafficPhase,
    },
    digest,
};

/// The status of a Server about which nothing is known.
static NOTHING_KNOWN: ServerStatus = ServerStatus {
    observed_generation: None,
    state: None,
    state_since: None,
    waiting_for: None,
    last_task_id: None,
    first_task_id: None,
    tasks: Vec::new(),
    lock: None,
    previous_state: None,
    came_from: None,
    history: Vec::new(),
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

/// A Server without a status is one about which nothing is known.
impl Server {
    /// The status; that of a Server about which nothing is known if there is none.
    pub(crate) fn known_status(&self) -> &ServerStatus {
        self.status.as_ref().unwrap_or(&NOTHING_KNOWN)
    }

    /// Whether a machine may exist.
    pub(crate) fn machine_may_exist(&self) -> bool {
        self.known_status().machine_may_exist()
    }

    /// Whether the machine runs, as far as is known.
    pub(crate) fn machine_runs(&self) -> bool {
        self.machine().is_some_and(|machine| machine.phase == MachinePhase::Running)
    }

    /// Whether the machine had not answered for at least its threshold when it was last observed.
    pub(crate) fn machine_unreachable(&self) -> bool {
        if !self.machine_may_exist() {
            return false;
        }
        self.known_status().reachability.as_ref().is_some_and(|fact| {
            let threshold = i64::from(self.spec.reachability.unreachable_after_seconds);
            !fact.reachable && fact.observed_at.0.as_second() - fact.since.0.as_second() >= threshold
        })
    }

    /// Whether the declared packages are installed, as read back since the machine was last unreachable.
    pub(crate) fn environment_matches(&self) -> bool {
        self.known_status().environment.as_ref().is_some_and(|fact| fact.verified) && self.environment_matched()
    }

    /// Whether the declared packages were installed when the machine was last read, be that verified or not.
    pub(crate) fn environment_matched(&self) -> bool {
        self.known_status().environment.as_ref().is_some_and(|fact| {
            self.spec.packages.iter().all(|package| is_installed(fact, package))
                && (!self.spec.prune_packages || fact.packages.len() == self.spec.packages.len())
        })
    }

    /// Whether the load balancers know the Server as declared, or are told with the release of its traffic: as long as it
    /// receives none, a load balancer that needs no registration before may know it otherwise.
    pub(crate) fn is_registered(&self) -> bool {
        match (self.declared_traffic(), &self.known_status().traffic) {
            (None, None) => true,
            (None, Some(fact)) => fact.backends.is_empty(),
            (Some(declared), None) => !declared.registers_first(),
            (Some(declared), Some(fact)) => {
                let is_told_later = !declared.registers_first() && fact.phase == TrafficPhase::Held;
                is_told_later || self.is_registered_as(declared, fact)
            }
        }
    }

    /// Whether the load balancers have to be told before the Server is Ready: about one that registers it first, or to forget it.
    pub(crate) fn needs_registration(&self) -> bool {
        !self.is_registered() && self.declared_traffic().is_none_or(Traffic::registers_first)
    }

    /// Whether the fact is what the declaration says, at the address of the machine.
    #[must_use]
    pub fn is_registered_as(&self, declared: &Traffic, fact: &TrafficFact) -> bool {
        fact.backends == declared.registered_backends() && fact.address.as_deref() == self.address()
    }

    /// The traffic declaration, if it names a load balancer.
    #[must_use]
    pub fn declared_traffic(&self) -> Option<&Traffic> {
        self.spec.traffic.as_ref().filter(|traffic| !traffic.backends.is_empty())
    }

    /// Whether load balancers may still have connections to the Server.
    pub(crate) fn may_receive_traffic(&self) -> bool {
        let phase = self.known_status().traffic.as_ref().map(|fact| fact.phase);
        matches!(phase, Some(TrafficPhase::Serving | TrafficPhase::Draining))
    }

    /// Whether the load balancers send the Server traffic.
    pub(crate) fn is_serving(&self) -> bool {
        self.known_status().traffic.as_ref().is_some_and(|fact| fact.phase == TrafficPhase::Serving)
    }

    /// Whether the Server receives traffic, if it declares any.
    #[must_use]
    pub fn receives_declared_traffic(&self) -> bool {
        self.declared_traffic().is_none() || self.is_serving()
    }

    /// Whether the declared application is deployed: revision, code and the way it runs, as read back since the machine was last
    /// unreachable and since the last deployment began.
    pub(crate) fn app_matches(&self) -> bool {
        self.spec.app.is_none()
            || self.known_status().app.as_ref().is_some_and(|fact| fact.verified) && self.app_matched()
    }

    /// Whether the declared application was deployed when the machine was last read, be that verified or not.
    pub(crate) fn app_matched(&self) -> bool {
        self.spec.app.as_ref().is_none_or(|app| {
            self.known_status().app.as_ref().is_some_and(|fact| {
                fact.revision == app.effective_revision() && Some(&fact.digest) == self.spec.app_digest().as_ref()
            })
        })
    }

    /// Whether health was proven since the last change.
    pub(crate) fn health_is_proven(&self) -> bool {
        let status = self.known_status();
        let epoch = status.epoch.unwrap_or_default();
        self.spec.health_check.is_none()
            || status.health.as_ref().is_some_and(|fact| fact.state == HealthState::Healthy && fact.epoch == epoch)
    }

    /// Digest of the declaration and address that make the Server's monitoring target: a fact with another digest is out of date.
    /// None when the Server declares no monitoring.
    #[must_use]
    pub fn monitoring_digest(&self) -> Option<String> {
        let declared = self.spec.monitoring.as_ref()?;
        Some(digest::short(&(declared::field("monitoring", declared), self.address())))
    }

    /// Whether monitoring is bound as declared.
    pub(crate) fn monitoring_matches(&self) -> bool {
        match (self.monitoring_digest(), &self.known_status().monitoring) {
            (None, fact) => fact.is_none(),
            (Some(digest), Some(fact)) => fact.phase == MonitoringPhase::Bound && fact.digest == digest,
            (Some(_), None) => false,
        }
    }

    /// Whether a reboot was requested that has not been carried out yet.
    pub(crate) fn reboot_is_requested(&self) -> bool {
        let observed = self.known_status().observed_reboot.as_ref();
        self.spec.reboot.as_ref().is_some_and(|request| observed != Some(&request.id))
    }

    /// Which of traffic, monitoring and machine the Server still has.
    #[must_use]
    pub fn leftovers(&self) -> Vec<&'static str> {
        let status = self.known_status();
        let leftovers = [
            (status.traffic.is_some(), "traffic"),
            (status.monitoring.is_some(), "monitoring"),
            (status.machine_may_exist(), "machine"),
        ];
        leftovers.into_iter().filter_map(|(is_left, name)| is_left.then_some(name)).collect()
    }

    /// Whether nothing is left of the Server but the object.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.leftovers().is_empty()
    }
}

impl ServerStatus {
    /// Whether a machine may exist.
    pub(crate) fn machine_may_exist(&self) -> bool {
        self.machine.as_ref().is_some_and(|machine| machine.phase != MachinePhase::Gone)
    }
}

fn is_installed(fact: &EnvironmentFact, package: &Package) -> bool {
    fact.packages.iter().any(|found| {
        found.name == package.name
            && found.version == package.version
            && package.sha256().is_none_or(|sha256| found.sha256.as_deref() == Some(sha256))
    })
}
