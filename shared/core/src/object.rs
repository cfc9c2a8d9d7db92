//! Identity and ownership of objects of any kind.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use crate::api::{
    Approval, BalancerClass, DeployClass, MachineClass, MonitoringClass, Server, VMDeployment, VMReplicaSet,
};

/// The identity of an object, borrowed. Every stored object has a name and a UID, and a namespace unless its kind is
/// cluster-scoped. A missing value (in an object that was never stored) is the empty string.
macro_rules! identity {
    ($($kind:ty),+) => {$(
        impl $kind {
            /// The name.
            #[must_use]
            pub fn name(&self) -> &str {
                self.metadata.name.as_deref().unwrap_or_default()
            }

            /// The namespace; empty for a cluster-scoped object.
            #[must_use]
            pub fn namespace(&self) -> &str {
                self.metadata.namespace.as_deref().unwrap_or_default()
            }

            /// The UID, which distinguishes the object from earlier and later ones of the same name.
            #[must_use]
            pub fn uid(&self) -> &str {
                self.metadata.uid.as_deref().unwrap_or_default()
            }
        }
    )+};
}

identity!(Approval, BalancerClass, DeployClass, MachineClass, MonitoringClass, Server, VMDeployment, VMReplicaSet);

/// The owner of kind `K` that controls the object. Only owner references decide who owns an object, never its labels.
#[must_use]
pub fn controlling_owner<K: Resource<DynamicType = ()>>(object: &ObjectMeta) -> Option<&OwnerReference> {
    let mut owners = object.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true) && owner.kind == K::kind(&()))
}

/// Whether the object with the metadata `owner`, which is of kind `K`, controls `object`.
#[must_use]
pub fn is_controlled_by<K: Resource<DynamicType = ()>>(object: &ObjectMeta, owner: &ObjectMeta) -> bool {
    owner.uid.as_deref().is_some_and(|uid| controlling_owner::<K>(object).is_some_and(|found| found.uid == uid))
}
