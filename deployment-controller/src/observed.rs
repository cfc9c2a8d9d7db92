//! What one reconcile of a VMDeployment knows.

use berth_core::api::{Server, VMDeployment, VMReplicaSet};
use k8s_openapi::jiff::Timestamp;

use crate::{after::Other, alarms::AlarmLook, analysis::Look};

/// A VMDeployment with its set and its Servers, as the cache shows them at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ObservedDeployment<'a> {
    /// The VMDeployment, with the content that its application has now.
    pub(crate) deployment: &'a VMDeployment,
    /// The VMReplicaSet of the VMDeployment's name, even if something else controls it.
    pub(crate) set: Option<&'a VMReplicaSet>,
    /// The Servers that the set controls. A Server is missing until it has a state.
    pub(crate) servers: &'a [&'a Server],
    /// What is missing of the ConfigMaps and Secrets that the application needs; none while no Server is left to be updated.
    pub(crate) missing_content: Option<&'a str>,
    /// What checks have shown that were looked at now.
    pub(crate) looks: &'a [Look],
    /// What was seen of the alarms; none if they were not looked at.
    pub(crate) alarm_look: Option<&'a AlarmLook>,
    /// What is known of the VMDeployments that the roll-out waits for; empty if it waits for none.
    pub(crate) others: &'a [Other],
    /// Sorted names of the Servers that have to wait, because the new version's artifact is still being brought to them.
    pub(crate) awaited: &'a [String],
    /// When this was observed.
    pub(crate) now: Timestamp,
}

impl<'a> ObservedDeployment<'a> {
    /// The set, if the VMDeployment controls it.
    pub(crate) fn own_set(&self) -> Option<&'a VMReplicaSet> {
        self.set.filter(|set| self.deployment.owns(set))
    }

    /// The set of the VMDeployment's name, if the VMDeployment does not control it.
    pub(crate) fn foreign_set(&self) -> Option<&'a VMReplicaSet> {
        self.set.filter(|set| !self.deployment.owns(set))
    }

    /// What the set waits for, by its status.
    pub(crate) fn set_waiting_for(&self) -> Option<&'a str> {
        self.set?.status.as_ref()?.waiting_for.as_deref()
    }

    /// The Servers that count for the set.
    pub(crate) fn active(&self) -> impl Iterator<Item = &'a Server> {
        self.servers.iter().copied().filter(|server| server.is_active())
    }
}
