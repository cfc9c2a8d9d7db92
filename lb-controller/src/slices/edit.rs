//! The writes that bring a Service's slices closer to what is wanted. Pure.
//!
//! One round of writes may not suffice, because no round both takes a Server out of one slice and puts it into
//! another, or uses a slice below one that it closes: the next round is planned on the outcome. When nothing is left to write,
//! every want is met.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use berth_core::api::{ServiceBackend, TrafficPhase};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::{
    endpoint::{self, Who},
    layout::{self, Group, MAX_ENDPOINTS},
};

/// What a Service is to show of a Server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// The Server.
    pub(crate) who: Who,
    /// Its endpoint; nothing when it is to have none.
    pub(crate) show: Option<Show>,
    /// Leave a trace of the Server's version even where nothing else changes, so that whatever was decided on an
    /// older version and is still under way cannot come after.
    pub(crate) fence: bool,
}

/// The endpoint that a Server is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Show {
    /// The Service and its port.
    pub(crate) backend: ServiceBackend,
    /// The machine's address.
    pub(crate) address: String,
    /// Which traffic it gets.
    pub(crate) phase: TrafficPhase,
}

/// A write of one slice, which succeeds only if the slice has not changed since it was looked at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    /// It does not exist yet.
    Create(EndpointSlice),
    /// Replaces the version that it carries.
    Replace(EndpointSlice),
    /// Deletes this version of it.
    Delete(Arc<EndpointSlice>),
}

/// What comes next.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// The writes of this round.
    pub(crate) writes: Vec<Write>,
    /// UIDs of the Servers that get an endpoint which they did not have.
    pub(crate) added: BTreeSet<String>,
    /// UIDs of the Servers whose endpoint was decided on a newer version: the want is out of date.
    pub(crate) superseded: BTreeSet<String>,
}

/// The next writes. `view` is every slice of the Service that is ours.
pub(crate) fn round(namespace: &str, view: &[Arc<EndpointSlice>], wants: &[Want]) -> Round {
    let mut draft = Draft::new(namespace, view);
    let mut out = Round::default();
    for want in wants {
        draft.meet(want, &mut out);
    }
    draft.drop_strangers();
    out.writes = draft.into_writes();
    out
}

struct Draft<'a> {
    namespace: &'a str,
    stored: BTreeMap<&'a str, &'a Arc<EndpointSlice>>,
    changed: BTreeMap<String, EndpointSlice>,
    /// Where the endpoints are as stored: UID to slice names.
    places: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Draft<'a> {
    fn new(namespace: &'a str, view: &'a [Arc<EndpointSlice>]) -> Self {
        let mut stored = BTreeMap::new();
        let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for slice in view {
            let Some(name) = slice.metadata.name.as_deref() else { continue };
            stored.insert(name, slice);
            for uid in slice.endpoints.iter().flatten().filter_map(endpoint::uid) {
                places.entry(uid).or_default().push(name);
            }
        }
        Self { namespace, stored, changed: BTreeMap::new(), places }
    }

    fn meet(&mut self, want: &Want, out: &mut Round) {
        let places = self.places.get(want.who.uid.as_str()).cloned().unwrap_or_default();
        let endpoint = want.show.as_ref().map(|show| endpoint::build(&want.who, &show.address, show.phase));
        let newest = places.iter().filter_map(|place| self.find(place, &want.who.uid)).map(endpoint::version).max();
        if newest.is_some_and(|newest| newest > want.who.version) {
            if !self.is_met(want, endpoint.as_ref(), &places) {
                out.superseded.insert(want.who.uid.clone());
            }
            return;
        }
        let group = want.show.as_ref().map(|show| Group::new(&show.backend, &show.address));
        let home = group.as_ref().and_then(|group| home(group, &want.who.uid, &places));
        let elsewhere = places.len() > usize::from(home.is_some());
        if elsewhere {
            self.remove(&want.who.uid, &places, home.as_deref());
        }
        let (Some(group), Some(endpoint)) = (group, endpoint) else { return };
        match home {
            Some(home) => self.update(&group, &home, &endpoint, want.fence),
            None if elsewhere => {}
            None => {
                if self.add(&group, endpoint, &want.who.uid) {
                    out.added.insert(want.who.uid.clone());
                }
            }
        }
    }

    fn find(&self, slice: &str, uid: &str) -> Option<&Endpoint> {
        let slice = self.stored.get(slice)?;
        slice.endpoints.iter().flatten().find(|endpoint| endpoint::uid(endpoint) == Some(uid))
    }

    fn is_met(&self, want: &Want, endpoint: Option<&Endpoint>, places: &[&str]) -> bool {
        match (endpoint, places) {
            (None, []) => true,
            (Some(endpoint), [place]) => {
                let on_the_way = want.show.as_ref().is_some_and(|show| {
                    Group::new(&show.backend, &show.address).way(&want.who.uid).any(|name| name == *place)
                });
                on_the_way && self.find(place, &want.who.uid).is_some_and(|found| endpoint::same(found, endpoint))
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

    /// Takes the Server's endpoints out everywhere but, once, at home.
    fn remove(&mut self, uid: &str, places: &[&str], home: Option<&str>) {
        for place in places {
            let mut keep = usize::from(home == Some(*place));
            if let Some(endpoints) = self.slice(place).and_then(|slice| slice.endpoints.as_mut()) {
                endpoints.retain(|endpoint| {
                    let ours = endpoint::uid(endpoint) == Some(uid);
                    let stays = !ours || keep > 0;
                    keep -= usize::from(ours && keep > 0);
                    stays
                });
            }
        }
    }

    fn update(&mut self, group: &Group, home: &str, endpoint: &Endpoint, fence: bool) {
        let uid = endpoint::uid(endpoint).unwrap_or_default().to_owned();
        if self.stored.get(home).is_some_and(|slice| !group.is_normal(slice))
            && let Some(slice) = self.slice(home)
        {
            group.normalise(slice);
        }
        let Some(found) = self.find(home, &uid) else { return };
        if endpoint::same(found, endpoint) && !(fence && endpoint::version(found) < endpoint::version(endpoint)) {
            return;
        }
        let endpoints = self.slice(home).and_then(|slice| slice.endpoints.as_mut());
        if let Some(found) = endpoints.into_iter().flatten().find(|found| endpoint::uid(found) == Some(&uid)) {
            endpoint.clone_into(found);
        }
    }

    /// Adds the endpoint to the first slice on its way that is not closed. Says no where that has to wait for the
    /// next round, because the slice is full and has to be closed first, or is being closed in this round.
    fn add(&mut self, group: &Group, endpoint: Endpoint, uid: &str) -> bool {
        let Some(name) =
            group.way(uid).find(|name| self.stored.get(name.as_str()).is_none_or(|s| !layout::is_closed(s)))
        else {
            return false;
        };
        if !self.stored.contains_key(name.as_str()) && !self.changed.contains_key(&name) {
            self.changed.insert(name.clone(), group.empty_slice(self.namespace, &name));
        }
        let Some(slice) = self.slice(&name) else { return false };
        group.normalise(slice);
        if layout::is_closed(slice) {
            return false;
        }
        let endpoints = slice.endpoints.get_or_insert_default();
        let fits = endpoints.len() < MAX_ENDPOINTS;
        if fits {
            endpoints.push(endpoint);
        }
        if endpoints.len() >= MAX_ENDPOINTS {
            layout::close(slice);
        }
        fits
    }

    /// Endpoints that somebody else has put into our slices.
    fn drop_strangers(&mut self) {
        let strange = |slice: &EndpointSlice| slice.endpoints.iter().flatten().any(|e| endpoint::uid(e).is_none());
        let names: Vec<&str> = self.stored.iter().filter(|(_, slice)| strange(slice)).map(|(name, _)| *name).collect();
        for name in names {
            if let Some(endpoints) = self.slice(name).and_then(|slice| slice.endpoints.as_mut()) {
                endpoints.retain(|endpoint| endpoint::uid(endpoint).is_some());
            }
        }
    }

    /// A slice that is left empty is deleted; an empty closed one stays, as the sign that points to those below it.
    fn into_writes(self) -> Vec<Write> {
        let Self { stored, changed, .. } = self;
        let useless =
            |slice: &EndpointSlice| slice.endpoints.as_ref().is_none_or(Vec::is_empty) && !layout::is_closed(slice);
        let mut writes = Vec::new();
        for (name, slice) in &stored {
            match changed.get(*name) {
                Some(after) if useless(after) => writes.push(Write::Delete(Arc::clone(slice))),
                Some(after) if after != slice.as_ref() => writes.push(Write::Replace(after.clone())),
                None if useless(slice) => writes.push(Write::Delete(Arc::clone(slice))),
                _ => {}
            }
        }
        let created =
            changed.into_iter().filter(|(name, slice)| !stored.contains_key(name.as_str()) && !useless(slice));
        writes.extend(created.map(|(_, slice)| Write::Create(slice)));
        writes
    }
}

/// The one slice that the Server stays in: the first on its way that has it.
fn home(group: &Group, uid: &str, places: &[&str]) -> Option<String> {
    if places.is_empty() {
        return None;
    }
    group.way(uid).find(|name| places.contains(&name.as_str()))
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
