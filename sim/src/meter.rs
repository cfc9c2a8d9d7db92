//! What the programs ask of the API server, counted.

use std::{collections::BTreeMap, ops::Sub, sync::Arc};

use http::{Method, request::Parts};
use parking_lot::Mutex;

use crate::requests::{RequestCounts, RequestKind};

/// What was asked of the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that change something.
    pub writes: u64,
    /// Requests for one object.
    pub reads: u64,
    /// Requests for many objects, without watches.
    pub lists: u64,
    /// Bytes of requests.
    pub sent: u64,
    /// Bytes of answers, without those of watches.
    pub received: u64,
    /// Events of watches.
    pub events: u64,
    /// Bytes of events of watches.
    pub watched: u64,
}

impl Traffic {
    /// The sum of these.
    #[must_use]
    pub fn sum<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        all.fold(Self::default(), |sum, each| Self {
            writes: sum.writes + each.writes,
            reads: sum.reads + each.reads,
            lists: sum.lists + each.lists,
            sent: sum.sent + each.sent,
            received: sum.received + each.received,
            events: sum.events + each.events,
            watched: sum.watched + each.watched,
        })
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            writes: self.writes - before.writes,
            reads: self.reads - before.reads,
            lists: self.lists - before.lists,
            sent: self.sent - before.sent,
            received: self.received - before.received,
            events: self.events - before.events,
            watched: self.watched - before.watched,
        }
    }
}

/// Counts what each program asks. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Meter(Arc<Inner>);

#[derive(Default)]
struct Inner {
    traffic: Mutex<BTreeMap<Arc<str>, Traffic>>,
    /// Counted only if somebody wants to know: patches have to be read for it.
    kinds: Mutex<Option<RequestCounts>>,
}

impl Meter {
    pub(crate) fn read(&self) -> BTreeMap<Arc<str>, Traffic> {
        self.0.traffic.lock().clone()
    }

    /// From now on, it is also counted which kinds of requests there are.
    pub(crate) fn count_kinds(&self) {
        self.0.kinds.lock().get_or_insert_default();
    }

    /// How many requests of each kind there were; nothing if they are not counted.
    pub(crate) fn kinds(&self) -> RequestCounts {
        self.0.kinds.lock().clone().unwrap_or_default()
    }

    pub(crate) fn count_kind(&self, user: &str, request: &Parts, body: &[u8], code: u16) {
        if let Some(kinds) = &mut *self.0.kinds.lock() {
            *kinds.entry(RequestKind::of(user, request, body, code)).or_default() += 1;
        }
    }

    pub(crate) fn count_request(&self, user: &Arc<str>, request: &Parts, sent: usize) {
        let mut all = self.0.traffic.lock();
        let traffic = all.entry(user.clone()).or_default();
        traffic.sent += bytes(sent);
        match (&request.method, is_watch(request)) {
            (&Method::GET, true) => {}
            (&Method::GET, false) if names_one_object(request.uri.path()) => traffic.reads += 1,
            (&Method::GET, false) => traffic.lists += 1,
            _ => traffic.writes += 1,
        }
    }

    pub(crate) fn count_answer(&self, user: &Arc<str>, received: u64) {
        self.0.traffic.lock().entry(user.clone()).or_default().received += received;
    }

    pub(crate) fn count_event(&self, user: &Arc<str>, received: usize) {
        let mut all = self.0.traffic.lock();
        let traffic = all.entry(user.clone()).or_default();
        traffic.events += 1;
        traffic.watched += bytes(received);
    }
}

fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Whether this is a request for a watch.
pub(crate) fn is_watch(request: &Parts) -> bool {
    request.uri.query().is_some_and(|query| query.contains("watch=true"))
}

/// Whether a path ends with the name of an object, or something below it.
fn names_one_object(path: &str) -> bool {
    let mut parts = path.trim_matches('/').split('/');
    // The group is left out for kinds of the core.
    let skipped = usize::from(parts.next() != Some("api"));
    let rest: Vec<&str> = parts.skip(1 + skipped).collect();
    match rest.as_slice() {
        ["namespaces", _] | ["namespaces", _, _, _, ..] => true,
        ["namespaces", ..] => false,
        [_, _, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_for_one_object_or_for_many() {
        for (path, is_one) in [
            ("/api/v1/services", false),
            ("/api/v1/namespaces/default", true),
            ("/api/v1/namespaces/default/services", false),
            ("/api/v1/namespaces/default/services/web", true),
            ("/apis/berth.dev/v1alpha1/servers", false),
            ("/apis/berth.dev/v1alpha1/machineclasses/small", true),
            ("/apis/berth.dev/v1alpha1/namespaces/default/servers", false),
            ("/apis/berth.dev/v1alpha1/namespaces/default/servers/web-0/status", true),
        ] {
            assert_eq!(names_one_object(path), is_one, "{path}");
        }
    }
}
