//! The panic floor of a Service: reads its Servers from the EndpointSlices and the cache, and decides which holds are withheld.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use berth_core::{
    api::{Server, TrafficPhase},
    lifecycle::HoldCause,
};
use berth_runtime::Cache;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::{
    endpoint, keys::ServiceKey, next_writes::DesiredEndpoint, service_lookup::ServiceLookup, slice_api::SliceApi,
};
use crate::{
    balancer::Problem,
    kept::{Kept, KeptServers},
    member::ServerRef,
    panic_floor::{FloorMember, PANIC_THRESHOLD, PanicThreshold, withheld},
};

/// What panic floors are made from.
pub struct PanicFloor {
    /// The threshold of Services that declare none.
    pub default: PanicThreshold,
    /// The Servers.
    pub servers: Cache<Server>,
    /// The Servers that are kept in traffic.
    pub kept: Arc<KeptServers>,
}

/// The name of a Service in messages.
pub(crate) fn backend(service: &ServiceKey) -> String {
    format!("Service {}", service.name)
}

impl PanicFloor {
    /// Which of the desired changes are withheld, by UID. The Service's own threshold needs the API server; without an answer the
    /// default holds, because other changes must not wait for it.
    pub(crate) async fn withheld(
        &self,
        service: &ServiceKey,
        slices: &[Arc<EndpointSlice>],
        desired: &[DesiredEndpoint],
        (services, api): (&ServiceLookup, &SliceApi),
    ) -> BTreeMap<String, Kept> {
        if desired.iter().all(|desired| desired.held_for.is_none()) {
            return BTreeMap::new();
        }
        let holds = holds(slices, desired);
        let found = services.find(api, service).await.unwrap_or_else(|error| {
            tracing::warn!(%error, threshold = %self.default, "the default panic threshold is used");
            None
        });
        let annotation = found.and_then(|found| found.panic_threshold);
        let kept = withheld(self.threshold(annotation.as_deref()), &self.members(slices), &holds);
        let described = kept.into_iter().filter_map(|(uid, counts)| {
            let cause = *holds.get(&uid)?;
            Some((uid, Kept { backend: backend(service), counts, cause }))
        });
        described.collect()
    }

    /// The Servers that the Service's floor keeps, if there may be room for one of them now: since that was decided, another
    /// Server serves, or there is one less.
    pub(crate) fn kept_with_room(&self, service: &ServiceKey, slices: &[Arc<EndpointSlice>]) -> Vec<ServerRef> {
        let kept = self.kept.of(&service.namespace, &backend(service));
        if kept.is_empty() {
            return Vec::new();
        }
        let members = self.members(slices);
        let serving = members.values().filter(|member| member.serves).count();
        let has_room = |kept: &Kept| serving > kept.counts.serving || members.len() < kept.counts.registered;
        kept.into_iter().filter(|(_, kept)| has_room(kept)).map(|(server, _)| server).collect()
    }

    /// What is wrong with the annotation of a Service.
    pub(crate) fn problem(&self, service: &ServiceKey, annotation: Option<&str>) -> Option<Problem> {
        let error = annotation?.parse::<PanicThreshold>().err()?;
        let message = format!(
            "Service {:?}: the annotation {PANIC_THRESHOLD} {error}: {} is used instead until it is repaired",
            service.name, self.default
        );
        Some(Problem { reason: "PanicThresholdInvalid", message })
    }

    fn threshold(&self, annotation: Option<&str>) -> PanicThreshold {
        annotation.and_then(|text| text.parse().ok()).unwrap_or(self.default)
    }

    /// The Servers that the slices show, by UID, without those that are being retired.
    fn members(&self, slices: &[Arc<EndpointSlice>]) -> BTreeMap<String, FloorMember> {
        let (mut members, mut retiring) = (BTreeMap::<String, FloorMember>::new(), BTreeSet::new());
        for endpoint in slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()) {
            let Some(uid) = endpoint::uid(endpoint) else { continue };
            let server = self.server(endpoint, uid);
            if server.as_ref().is_some_and(|server| server.must_retire()) {
                retiring.insert(uid);
                continue;
            }
            let is_coming_back = server.is_some_and(|server| server.is_coming_back());
            let member = members.entry(uid.to_owned()).or_insert(FloorMember { serves: false, is_coming_back });
            member.serves |= endpoint::is_ready(endpoint);
        }
        members
    }

    /// The Server of an endpoint, as the cache has it.
    pub(crate) fn server(&self, endpoint: &Endpoint, uid: &str) -> Option<Arc<Server>> {
        let target = endpoint.target_ref.as_ref()?;
        let server = self.servers.get(target.namespace.as_deref(), target.name.as_deref()?)?;
        (server.uid() == uid).then_some(server)
    }
}

/// What the changes hold traffic for, by UID: those that a newer decision does not supersede anyway.
fn holds(slices: &[Arc<EndpointSlice>], desired: &[DesiredEndpoint]) -> BTreeMap<String, HoldCause> {
    let mut recorded = BTreeMap::<&str, u64>::new();
    for endpoint in slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()) {
        let version = recorded.entry(endpoint::uid(endpoint).unwrap_or_default()).or_default();
        *version = endpoint::version(endpoint).max(*version);
    }
    let takes_traffic = |desired: &&DesiredEndpoint| {
        let serves = desired.endpoint.as_ref().is_some_and(|spec| spec.phase == TrafficPhase::Serving);
        !serves && recorded.get(desired.server.uid.as_str()).is_some_and(|version| *version <= desired.version)
    };
    let cause = |desired: &DesiredEndpoint| desired.held_for.unwrap_or(HoldCause::Deliberate);
    desired.iter().filter(takes_traffic).map(|desired| (desired.server.uid.clone(), cause(desired))).collect()
}
