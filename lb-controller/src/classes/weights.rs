//! The weights of Servers that are not those which they declare.

use std::{collections::BTreeMap, sync::Arc};

use berth_core::api::{Server, VMDeployment};
use berth_runtime::Cache;
use k8s_openapi::jiff::Timestamp;

use super::{driver::EntryKey, ramp, split};
use crate::subsets::Subsets;

/// The weights of entries that have another one than their Servers declare. Where a roll-out splits the traffic, its share counts exactly,
/// so that no Server of it begins with less.
pub(crate) fn weights(
    class: &str,
    servers: &[Arc<Server>],
    subsets: &Subsets,
    deployments: &Cache<VMDeployment>,
    now: Timestamp,
) -> BTreeMap<EntryKey, u16> {
    let find = |namespace: &str, name: &str| deployments.get(Some(namespace), name);
    let mut weights = ramp::weights(class, servers, subsets, now);
    weights.extend(split::weights(class, servers, subsets, find, now));
    weights
}
