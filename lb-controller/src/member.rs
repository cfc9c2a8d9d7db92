//! A Server as load balancers know it.

use berth_core::{
    api::{Backend, Server, Subset, Traffic, TrafficPhase},
    lifecycle::HoldCause,
};

use crate::subsets::Belongs;

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

/// A Service that a Server belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceBackend {
    /// Its name.
    pub name: String,
    /// The ports of the machine.
    pub ports: Vec<ServicePort>,
    /// The subset that the Service is for; none if it is for all Servers.
    pub subset: Option<Subset>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// Its name; empty if the Service has one port without a name.
    pub name: String,
    /// The port of the machine.
    pub port: i32,
}

/// A backend of a load balancer outside of the cluster that a Server belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassBackend {
    /// The BalancerClass.
    pub class: String,
    /// The backend's name.
    pub name: String,
    /// The port of the machine.
    pub port: u16,
    /// The Server's share of the backend's traffic, relative to the others.
    pub weight: u16,
    /// The subset that the backend is for; none if it is for all Servers.
    pub subset: Option<Subset>,
}

/// How load balancers should show a Server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The traffic that it receives.
    pub phase: TrafficPhase,
    /// The Services that it belongs to.
    pub services: Vec<ServiceBackend>,
    /// The backends of load balancers outside of the cluster that it belongs to.
    pub classes: Vec<ClassBackend>,
    /// Those that are for a subset which the Server is not in. If they know it, they send it no traffic.
    pub left: Vec<ClassBackend>,
    /// The address of its machine.
    pub address: String,
}

/// The weight of a Server that declares none.
const DEFAULT_WEIGHT: i32 = 100;

impl Registration {
    /// The registration with these backends. The weights are those that are declared now, because they are no part of what was
    /// registered. What is for a subset that the Server does not belong to is left out.
    #[must_use]
    pub fn new(
        phase: TrafficPhase,
        address: String,
        registered: &[Backend],
        declared: Option<&Traffic>,
        belongs: Belongs,
    ) -> Self {
        let weight = |backend: &Backend| {
            let same = declared.and_then(|traffic| {
                traffic.backends.iter().find(|declared| declared.without_weight() == backend.without_weight())
            });
            same.and_then(|declared| declared.weight).unwrap_or(DEFAULT_WEIGHT)
        };
        let class = |backend: &Backend| {
            Some(ClassBackend {
                class: backend.class.clone()?,
                name: backend.name.clone()?,
                port: u16::try_from(backend.port).ok()?,
                weight: u16::try_from(weight(backend)).ok()?,
                subset: backend.subset,
            })
        };
        let (within, without): (Vec<&Backend>, Vec<&Backend>) =
            registered.iter().partition(|backend| belongs.to(backend.subset));
        let classes = within.iter().copied().filter_map(class).collect();
        let left = without.into_iter().filter_map(class).collect();
        Self { phase, services: services(within), classes, left, address }
    }

    /// Whether the backend of this class is for a subset.
    #[must_use]
    pub fn subset_of(&self, class: &str, name: &str) -> Option<Subset> {
        self.classes.iter().find(|backend| backend.class == class && backend.name == name)?.subset
    }
}

/// Whether a backend has a panic floor. One for the newest version has none: a canary that is sick has to go, and then all Servers are in
/// that backend.
#[must_use]
pub fn has_panic_floor(subset: Option<Subset>) -> bool {
    subset != Some(Subset::Updated)
}

/// The Services among the backends, each with all of its ports.
fn services(backends: Vec<&Backend>) -> Vec<ServiceBackend> {
    let mut services: Vec<ServiceBackend> = Vec::new();
    for backend in backends {
        let Some(name) = &backend.service else { continue };
        let port = ServicePort { name: backend.port_name.clone().unwrap_or_default(), port: backend.port };
        match services.iter_mut().find(|service| service.name == *name) {
            Some(service) if service.ports.contains(&port) => {}
            Some(service) => service.ports.push(port),
            None => {
                services.push(ServiceBackend { name: name.clone(), ports: vec![port], subset: backend.subset });
            }
        }
    }
    for service in &mut services {
        service.ports.sort();
    }
    services
}

/// What load balancers should show of a Server, and which version of the Server that was decided on.
#[derive(Clone, Debug)]
pub struct Member {
    /// The Server.
    pub server: ServerRef,
    /// The `resourceVersion` of the Server that was decided on, as a number, or a later revision of the API server up to which there is
    /// no newer version.
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
