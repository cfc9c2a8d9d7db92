//! What the workers of all classes share.

use std::{collections::BTreeMap, sync::Arc};

use berth_core::api::{BalancerClass, Server, VMDeployment};
use berth_runtime::{Cache, Context, Leader};
use k8s_openapi::jiff::Timestamp;

use super::{driver::EntryKey, metrics::Metrics, weights::weights};
use crate::{balancer::Observer, kept::KeptServers, panic_floor::PanicThreshold, subsets::Subsets};

/// What all workers share.
pub(super) struct Shared {
    pub(super) ctx: Context,
    pub(super) classes: Cache<BalancerClass>,
    pub(super) servers: Cache<Server>,
    pub(super) deployments: Cache<VMDeployment>,
    pub(super) subsets: Subsets,
    pub(super) kept: Arc<KeptServers>,
    pub(super) default_threshold: PanicThreshold,
    pub(super) leader: Leader,
    pub(super) observer: Observer,
    pub(super) metrics: Metrics,
}

impl Shared {
    /// See [`weights`].
    pub(super) fn weights(&self, class: &str, servers: &[Arc<Server>], now: Timestamp) -> BTreeMap<EntryKey, u16> {
        weights(class, servers, &self.subsets, &self.deployments, now)
    }
}
