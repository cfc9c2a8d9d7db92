//! A Server as load balancers know it.

use berth_core::{
    api::{HaProxyBackend, Server, ServiceBackend, TrafficPhase},
    lifecycle::HoldCause,
};

/// The identity of a Server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, which tells it from an earlier or later Server of the same name.
    pub uid: String,
}

impl ServerRef {
    /// The identity of this Server.
    #[must_use]
    pub fn of(server: &Server) -> Self {
        Self { namespace: server.namespace().to_owned(), name: server.name().to_owned(), uid: server.uid().to_owned() }
    }
}

/// How load balancers should show a Server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The traffic that it receives.
    pub phase: TrafficPhase,
    /// The Services that it belongs to.
    pub services: Vec<ServiceBackend>,
    /// The HAProxy backends that it belongs to.
    pub haproxy: Vec<HaProxyBackend>,
    /// The address of its machine.
    pub address: String,
}

/// What load balancers should show of a Server, and which version of the Server that was decided on.
#[derive(Clone, Debug)]
pub struct Member {
    /// The Server.
    pub server: ServerRef,
    /// The `resourceVersion` of the Server that was decided on, as a number.
    pub version: u64,
    /// How it should be shown; none when no load balancer should know it.
    pub desired: Option<Registration>,
    /// Whether the load balancer must record `version` even when nothing else changes. It is set when traffic is taken away:
    /// afterwards every decision on an older version is superseded, also one that is being carried out at this moment.
    pub must_record_version: bool,
    /// What traffic is held for, if the panic floor of a load balancer may withhold that.
    pub held_for: Option<HoldCause>,
}

impl Member {
    /// The traffic that the Server should receive; none when no load balancer should know it.
    #[must_use]
    pub fn phase(&self) -> Option<TrafficPhase> {
        self.desired.as_ref().map(|desired| desired.phase)
    }
}
