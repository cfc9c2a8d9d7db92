//! Methods of VMReplicaSets and VMDeployments: ownership, selector and size.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};

use crate::{
    api::{Server, VMDeployment, VMReplicaSet},
    object::{controlling_owner, is_controlled_by},
};

impl VMReplicaSet {
    /// Whether the set controls this Server.
    #[must_use]
    pub fn owns(&self, server: &Server) -> bool {
        is_controlled_by::<Self>(&server.metadata, &self.metadata)
    }

    /// The VMDeployment that controls this set.
    #[must_use]
    pub fn deployment(&self) -> Option<&OwnerReference> {
        controlling_owner::<VMDeployment>(&self.metadata)
    }

    /// The selector as text, as list calls and the scale subresource need it.
    #[must_use]
    pub fn selector_text(&self) -> String {
        selector_text(&self.spec.selector)
    }

    /// `spec.replicas` as a count.
    #[must_use]
    pub fn replicas(&self) -> usize {
        usize::try_from(self.spec.replicas).unwrap_or(0)
    }
}

impl VMDeployment {
    /// Whether the VMDeployment controls this set.
    #[must_use]
    pub fn owns(&self, set: &VMReplicaSet) -> bool {
        is_controlled_by::<Self>(&set.metadata, &self.metadata)
    }

    /// The selector as text, as the scale subresource needs it.
    #[must_use]
    pub fn selector_text(&self) -> String {
        selector_text(&self.spec.selector)
    }
}

fn selector_text(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten();
    labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
