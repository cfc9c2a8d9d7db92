//! The next writes that bring a Service's EndpointSlices closer to what they should show. Pure.
//!
//! One round of writes may not be enough: no round takes a Server out of one slice and puts it into another, and no round uses
//! a slice below one that it closes. The next round is computed from the outcome. When there is nothing left to write, the
//! slices show everything as desired.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use berth_core::{api::TrafficPhase, lifecycle::HoldCause};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::{
    endpoint,
    slice_group::{self, MAX_ENDPOINTS, SliceGroup},
};
use crate::member::{ServerRef, ServiceBackend};

/// What a Service should show of a Server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DesiredEndpoint {
    /// The Server.
    pub(crate) server: ServerRef,
    /// The `resourceVersion` of the Server that was decided on.
    pub(crate) version: u64,
    /// Its endpoint; none when it should have none.
    pub(crate) endpoint: Option<EndpointSpec>,
    /// Whether the endpoint must record the version even when nothing else changes: see `Member::must_record_version`.
    pub(crate) must_record_version: bool,
    /// What traffic is held for, if a panic floor may withhold that.
    pub(crate) held_for: Option<HoldCause>,
}

/// The endpoint that a Server should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointSpec {
    /// The Service and its ports.
    pub(crate) backend: ServiceBackend,
    /// The address of the machine.
    pub(crate) address: String,
    /// The traffic that the Server receives.
    pub(crate) phase: TrafficPhase,
}

impl DesiredEndpoint {
    /// Whether the Server should get traffic.
    pub(crate) fn is_serving(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.phase == TrafficPhase::Serving)
    }

    /// Whether the Server should have an endpoint without traffic.
    pub(crate) fn is_held(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.phase == TrafficPhase::Held)
    }

    fn build(&self) -> Option<Endpoint> {
        let spec = self.endpoint.as_ref()?;
        Some(endpoint::build(&self.server, self.version, &spec.address, spec.phase))
    }

    fn group(&self) -> Option<SliceGroup> {
        self.endpoint.as_ref().map(|spec| SliceGroup::new(&spec.backend, &spec.address))
    }
}

/// A guarded write of one slice: it succeeds only if the slice has not changed since it was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SliceWrite {
    /// Creates a slice that does not exist yet.
    Create(EndpointSlice),
    /// Replaces the version that the slice carries.
    Replace(EndpointSlice),
    /// Deletes this version of the slice.
    Delete(Arc<EndpointSlice>),
}

impl SliceWrite {
    /// The name of the slice.
    pub(crate) fn name(&self) -> &str {
        let slice = match self {
            Self::Create(slice) | Self::Replace(slice) => slice,
            Self::Delete(slice) => slice.as_ref(),
        };
        slice.metadata.name.as_deref().unwrap_or_default()
    }
}

/// The writes of the next round, and what they mean for Servers.
#[derive(Debug, Default)]
pub(crate) struct NextWrites {
    /// The writes.
    pub(crate) writes: Vec<SliceWrite>,
    /// UIDs of the Servers that get an endpoint which they did not have.
    pub(crate) added: BTreeSet<String>,
    /// UIDs of the Servers whose endpoint was decided on a newer version, and differs from the desired one.
    pub(crate) superseded: BTreeSet<String>,
}

/// The writes of the next round. `slices` are the slices of the Service that this program manages.
pub(crate) fn next_writes<'a>(
    namespace: &str,
    slices: &[Arc<EndpointSlice>],
    desired: impl IntoIterator<Item = &'a DesiredEndpoint>,
) -> NextWrites {
    let desired: Vec<&DesiredEndpoint> = desired.into_iter().collect();
    let mut draft = Draft::new(namespace, slices, &desired);
    let mut next = NextWrites::default();
    for desired in desired {
        draft.bring_closer(desired, &mut next);
    }
    draft.drop_foreign_endpoints();
    next.writes = draft.into_writes();
    next
}

/// The slices of a Service, as stored and as they will be written.
struct Draft<'a> {
    namespace: &'a str,
    stored: BTreeMap<&'a str, &'a Arc<EndpointSlice>>,
    changed: BTreeMap<String, EndpointSlice>,
    /// The names of the stored slices that have endpoints of a Server that is asked about, by its UID.
    slices_with: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Draft<'a> {
    fn new(namespace: &'a str, slices: &'a [Arc<EndpointSlice>], desired: &[&'a DesiredEndpoint]) -> Self {
        let mut stored = BTreeMap::new();
        let mut slices_with: BTreeMap<&str, Vec<&str>> =
            desired.iter().map(|desired| (desired.server.uid.as_str(), Vec::new())).collect();
        for slice in slices {
            let Some(name) = slice.metadata.name.as_deref() else { continue };
            stored.insert(name, slice);
            for uid in slice.endpoints.iter().flatten().filter_map(endpoint::uid) {
                if let Some(slices) = slices_with.get_mut(uid) {
                    slices.push(name);
                }
            }
        }
        Self { namespace, stored, changed: BTreeMap::new(), slices_with }
    }

    /// Changes the slices in so far as one round may.
    fn bring_closer(&mut self, desired: &DesiredEndpoint, next: &mut NextWrites) {
        let uid = &desired.server.uid;
        let present_in = self.slices_with.get(uid.as_str()).cloned().unwrap_or_default();
        let recorded = present_in.iter().filter_map(|slice| self.find(slice, uid)).map(endpoint::version).max();
        if recorded.is_some_and(|recorded| recorded > desired.version) {
            if !self.is_shown(desired, &present_in) {
                next.superseded.insert(uid.clone());
            }
            return;
        }
        let group = desired.group();
        let stays_in = group.as_ref().and_then(|group| first_on_path(group, uid, &present_in));
        let must_leave = present_in.len() > usize::from(stays_in.is_some());
        if must_leave {
            self.remove(uid, &present_in, stays_in.as_deref());
        }
        let (Some(group), Some(endpoint)) = (group, desired.build()) else { return };
        match stays_in {
            Some(slice) => self.update(&group, &slice, &endpoint, desired.must_record_version),
            None if must_leave => {}
            None => {
                if self.add(&group, endpoint, uid) {
                    next.added.insert(uid.clone());
                }
            }
        }
    }

    fn find(&self, slice: &str, uid: &str) -> Option<&Endpoint> {
        let slice = self.stored.get(slice)?;
        slice.endpoints.iter().flatten().find(|endpoint| endpoint::uid(endpoint) == Some(uid))
    }

    /// Whether the stored slices show the Server as desired already.
    fn is_shown(&self, desired: &DesiredEndpoint, present_in: &[&str]) -> bool {
        let uid = &desired.server.uid;
        match (desired.build(), desired.group(), present_in) {
            (None, _, []) => true,
            (Some(endpoint), Some(group), [slice]) => {
                group.path(uid).any(|name| name == *slice)
                    && self.find(slice, uid).is_some_and(|found| endpoint::is_same(found, &endpoint))
            }
            _ => false,
        }
    }

    fn slice(&mut self, name: &str) -> Option<&mut EndpointSlice> {
        if !self.changed.contains_key(name) {
            let stored = EndpointSlice::clone(self.stored.get(name)?);
            self.changed.insert(name.to_owned(), stored);
        }
        self.changed.get_mut(name)
    }

    fn endpoints(&mut self, slice: &str) -> Option<&mut Vec<Endpoint>> {
        self.slice(slice)?.endpoints.as_mut()
    }

    /// Removes all endpoints of the Server but one in the slice where it stays.
    fn remove(&mut self, uid: &str, present_in: &[&str], stays_in: Option<&str>) {
        for slice in present_in {
            let mut keep = usize::from(stays_in == Some(*slice));
            let Some(endpoints) = self.endpoints(slice) else { continue };
            endpoints.retain(|endpoint| {
                let is_the_servers = endpoint::uid(endpoint) == Some(uid);
                let stays = !is_the_servers || keep > 0;
                keep -= usize::from(is_the_servers && keep > 0);
                stays
            });
        }
    }

    fn update(&mut self, group: &SliceGroup, slice: &str, endpoint: &Endpoint, must_record_version: bool) {
        let uid = endpoint::uid(endpoint).unwrap_or_default().to_owned();
        if self.stored.get(slice).is_some_and(|stored| !group.is_normal(stored))
            && let Some(slice) = self.slice(slice)
        {
            group.normalise(slice);
        }
        let Some(found) = self.find(slice, &uid) else { return };
        let records_version = !must_record_version || endpoint::version(found) >= endpoint::version(endpoint);
        if endpoint::is_same(found, endpoint) && records_version {
            return;
        }
        let mut endpoints = self.endpoints(slice).into_iter().flatten();
        if let Some(found) = endpoints.find(|found| endpoint::uid(found) == Some(&uid)) {
            endpoint.clone_into(found);
        }
    }

    /// Adds the endpoint to the first slice on its path that is not closed. Returns `false` when that has to wait for the next
    /// round, because the slice is full and has to be closed first, or is closed in this round.
    fn add(&mut self, group: &SliceGroup, endpoint: Endpoint, uid: &str) -> bool {
        let is_open = |name: &String| self.stored.get(name.as_str()).is_none_or(|s| !slice_group::is_closed(s));
        let Some(name) = group.path(uid).find(is_open) else { return false };
        if !self.stored.contains_key(name.as_str()) && !self.changed.contains_key(&name) {
            self.changed.insert(name.clone(), group.empty_slice(self.namespace, &name));
        }
        let Some(slice) = self.slice(&name) else { return false };
        group.normalise(slice);
        if slice_group::is_closed(slice) {
            return false;
        }
        let endpoints = slice.endpoints.get_or_insert_default();
        let fits = endpoints.len() < MAX_ENDPOINTS;
        if fits {
            endpoints.push(endpoint);
        }
        if endpoints.len() >= MAX_ENDPOINTS {
            slice_group::close(slice);
        }
        fits
    }

    /// Removes the endpoints that another program has put into the slices of this one.
    fn drop_foreign_endpoints(&mut self) {
        let is_foreign = |endpoint: &Endpoint| endpoint::uid(endpoint).is_none();
        let has_foreign = |slice: &EndpointSlice| slice.endpoints.iter().flatten().any(is_foreign);
        let names: Vec<_> = self.stored.iter().filter(|(_, slice)| has_foreign(slice)).map(|(name, _)| *name).collect();
        for name in names {
            if let Some(endpoints) = self.endpoints(name) {
                endpoints.retain(|endpoint| !is_foreign(endpoint));
            }
        }
    }

    /// A slice that is left empty is deleted. A closed one stays although it is empty: it shows that the slices below it are
    /// in use.
    fn into_writes(self) -> Vec<SliceWrite> {
        let Self { stored, mut changed, .. } = self;
        let is_unneeded = |slice: &EndpointSlice| {
            slice.endpoints.as_ref().is_none_or(Vec::is_empty) && !slice_group::is_closed(slice)
        };
        let mut writes = Vec::new();
        for (name, slice) in &stored {
            match changed.remove(*name) {
                Some(after) if is_unneeded(&after) => writes.push(SliceWrite::Delete(Arc::clone(slice))),
                Some(after) if after != ***slice => writes.push(SliceWrite::Replace(after)),
                None if is_unneeded(slice) => writes.push(SliceWrite::Delete(Arc::clone(slice))),
                _ => {}
            }
        }
        // Only those that are not stored are left.
        let created = changed.into_values().filter(|slice| !is_unneeded(slice));
        writes.extend(created.map(SliceWrite::Create));
        writes
    }
}

/// The one slice that the Server stays in: the first on its path, from the root, that has it.
fn first_on_path(group: &SliceGroup, uid: &str, present_in: &[&str]) -> Option<String> {
    if present_in.is_empty() {
        return None;
    }
    group.path(uid).find(|name| present_in.contains(&name.as_str()))
}

#[cfg(test)]
#[path = "next_writes_tests.rs"]
mod tests;
