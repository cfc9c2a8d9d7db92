//! What a plan is made from.

use std::collections::BTreeSet;

use berth_core::api::{Server, VMReplicaSet};
use k8s_openapi::jiff::Timestamp;

use crate::set::{drift_repair::DriftView, finding::MachineAnswers, machines::NoMachines, zone::FailureDomains};

/// Everything that a plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'i, 'a> {
    /// The set.
    pub set: &'i VMReplicaSet,
    /// All Servers that it controls, also those that are being removed.
    pub servers: &'i [&'a Server],
    /// The time.
    pub now: Timestamp,
    /// Limits that hold for every set.
    pub limits: SetLimits,
    /// Names that look like the set's own and belong to Servers of somebody else.
    pub foreign_names: &'i BTreeSet<String>,
    /// Why no machines can be created, if so.
    pub no_machines: Option<&'i NoMachines>,
    /// Which Servers have drifted.
    pub drift: &'i DriftView,
    /// What is known about the machines of unreachable Servers.
    pub answers: &'i MachineAnswers,
    /// How many Servers are unreachable where the set's Servers are, counted over all sets.
    pub domains: &'i FailureDomains,
}

/// Limits of the controller that hold for every set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetLimits {
    /// Creation calls in flight for one set.
    pub creating: usize,
    /// Servers beyond which none is created, whatever `replicas` says.
    pub replicas: usize,
    /// Unreachable Servers of one class and zone above which failover does nothing about any of them, in percent.
    pub zone_brake: usize,
}
