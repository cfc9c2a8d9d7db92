//! What judges find, and what a client of the load balancer sees.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;

use crate::ApiServer;

/// What was found to be wrong, in the order in which it happened.
#[derive(Clone, Default)]
pub(crate) struct Findings(Arc<Mutex<Vec<String>>>);

impl Findings {
    pub(crate) fn report(&self, finding: String) {
        self.0.lock().push(finding);
    }

    /// The first finding.
    pub(crate) fn first(&self) -> Option<String> {
        self.0.lock().first().cloned()
    }
}

/// The names of the Servers that a client of the load balancer reaches.
pub(crate) fn reached(api: &ApiServer) -> BTreeSet<String> {
    let slices: Vec<EndpointSlice> = api.objects("endpointslices");
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let ready = endpoints.filter(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true));
    ready.filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.clone()).collect()
}
