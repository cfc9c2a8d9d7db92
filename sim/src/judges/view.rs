//! What judges know of the objects: as the API server stores them, and as a client of the load balancer sees them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use serde_json::Value;

use crate::{ApiServer, SimClock, apiserver::Stored};

/// The kinds of objects that judges look at.
pub(super) const MATTERS: [&str; 5] = ["servers", "vmreplicasets", "vmdeployments", "approvals", "endpointslices"];

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Place {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Another object in the same namespace.
    pub(crate) fn beside(&self, name: &str) -> Self {
        Self::new(&self.namespace, name)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The objects, and since when what matters of them is as it is.
#[derive(Default)]
pub(crate) struct View {
    objects: BTreeMap<&'static str, BTreeMap<Place, Arc<Stored>>>,
    /// The ready endpoints of each EndpointSlice.
    ready: BTreeMap<Place, BTreeSet<String>>,
    /// In how many of these each Server is.
    reached: BTreeMap<Place, usize>,
    /// When each object was changed last.
    changed: BTreeMap<&'static str, BTreeMap<Place, Duration>>,
    /// Servers whose removal a person, or the garbage collector in consequence, has requested.
    removed: BTreeSet<Place>,
    /// Since when sets are paused.
    paused: BTreeMap<Place, Duration>,
    /// Since when the roll-outs of code of VMDeployments are paused.
    code_paused: BTreeMap<Place, Duration>,
    /// When the locks of Servers were written or renewed last. What they say of it depends on the clock of a copy of the webhook.
    renewed: BTreeMap<Place, Duration>,
    /// When the present attempts under the locks of Servers began.
    begun: BTreeMap<Place, Duration>,
    /// Since when Servers are forced as they are now.
    forced: BTreeMap<Place, Duration>,
    /// Servers whose lock its holder has claimed or renewed. Another lock was handed over by who had it before.
    claimed: BTreeSet<Place>,
}

impl View {
    /// Takes over a change.
    pub(super) fn apply(
        &mut self,
        plural: &str,
        place: Place,
        after: Option<Arc<Stored>>,
        author: &str,
        now: Duration,
    ) {
        let Some(plural) = MATTERS.into_iter().find(|other| *other == plural) else { return };
        if plural == "endpointslices" {
            let ready = after.as_deref().map(|slice| ready_endpoints(slice)).unwrap_or_default();
            self.take_ready(place, ready);
            return;
        }
        self.note_pause(plural, &place, after.as_ref(), now);
        let objects = self.objects.entry(plural).or_default();
        let is_removed = |object: Option<&Arc<Stored>>| {
            object.is_some_and(|object| is_being_deleted(object) || object["spec"]["offline"] == true)
        };
        if plural == "servers" {
            let lock = |object: Option<&Arc<Stored>>| object.map(|object| object["status"]["lock"].clone());
            let (is, was) = (lock(after.as_ref()), lock(objects.get(&place)));
            if is != was {
                self.renewed.insert(place.clone(), now);
            }
            let attempt =
                |lock: &Option<Value>| lock.as_ref().map(|lock| (lock["holder"].clone(), lock["taskID"].clone()));
            if attempt(&is) != attempt(&was) {
                self.claimed.remove(&place);
            }
            let acquired_at = |lock: &Option<Value>| lock.as_ref().map(|lock| lock["acquiredAt"].clone());
            if attempt(&is) != attempt(&was) || acquired_at(&is) != acquired_at(&was) {
                self.begun.insert(place.clone(), now);
            }
            if force_in_effect(after.as_ref()) != force_in_effect(objects.get(&place)) {
                self.forced.insert(place.clone(), now);
            }
            if after.is_none() {
                self.removed.remove(&place);
            } else if !is_berth(author) && is_removed(after.as_ref()) && !is_removed(objects.get(&place)) {
                self.removed.insert(place.clone());
            }
        }
        self.changed.entry(plural).or_default().insert(place.clone(), now);
        match after {
            Some(object) => drop(objects.insert(place, object)),
            None => drop(objects.remove(&place)),
        }
    }

    /// Notes whether a set, or the code of a VMDeployment, is paused.
    fn note_pause(&mut self, plural: &str, place: &Place, after: Option<&Arc<Stored>>, now: Duration) {
        let is_paused = |spec: &Value| spec["paused"] == true;
        let (paused, is_held) = match plural {
            "vmreplicasets" => (&mut self.paused, after.is_some_and(|set| is_paused(&set["spec"]))),
            "vmdeployments" => {
                let is_held =
                    |object: &Arc<Stored>| is_paused(&object["spec"]) || is_paused(&object["spec"]["rollout"]);
                (&mut self.code_paused, after.is_some_and(is_held))
            }
            _ => return,
        };
        if is_held {
            paused.entry(place.clone()).or_insert(now);
        } else {
            paused.remove(place);
        }
    }

    /// Takes over all objects as they are after a restore of etcd.
    pub(super) fn restore(&mut self, api: &ApiServer, now: Duration) {
        for plural in MATTERS {
            let stored = api.all_stored(plural).into_iter();
            let mut stored: BTreeMap<Place, _> =
                stored.map(|((namespace, name), object)| (Place { namespace, name }, object)).collect();
            let known: Vec<Place> = match plural {
                "endpointslices" => self.ready.keys().cloned().collect(),
                _ => self.objects.get(plural).into_iter().flat_map(BTreeMap::keys).cloned().collect(),
            };
            for place in known {
                let after = stored.remove(&place);
                self.apply(plural, place, after, "", now);
            }
            for (place, object) in stored {
                self.apply(plural, place, Some(object), "", now);
            }
        }
    }

    /// When the object was changed last.
    pub(crate) fn changed_at(&self, plural: &str, place: &Place) -> Option<Duration> {
        self.changed.get(plural)?.get(place).copied()
    }

    /// The holder of the Server's lock has renewed it. That may leave the lock as it is: when another copy of the webhook, whose
    /// clock is ahead, has written it before.
    pub(super) fn note_claim(&mut self, server: Place, holder: &str, now: Duration) {
        if self.get("servers", &server).is_some_and(|stored| text(stored, "/status/lock/holder") == holder) {
            self.renewed.insert(server.clone(), now);
            self.claimed.insert(server);
        }
    }

    /// Whether the Server's lock was handed over, and its holder has not renewed it yet.
    pub(super) fn is_handed_over(&self, server: &Place) -> bool {
        !self.claimed.contains(server)
    }

    /// When the Server's lock was written or renewed last.
    pub(crate) fn renewed_at(&self, server: &Place) -> Option<Duration> {
        self.renewed.get(server).copied()
    }

    /// When the present attempt under the Server's lock began.
    pub(crate) fn begun_at(&self, server: &Place) -> Option<Duration> {
        self.begun.get(server).copied()
    }

    /// Since when the force of this Server, as it is now, is in effect.
    pub(crate) fn forced_since(&self, server: &Place) -> Option<Duration> {
        self.forced.get(server).copied()
    }

    /// Since when the set is paused; none when it is not.
    pub(crate) fn paused_since(&self, set: &Place) -> Option<Duration> {
        self.paused.get(set).copied()
    }

    /// Since when the roll-out of code of this VMDeployment is paused; none when it is not.
    pub(crate) fn code_paused_since(&self, deployment: &Place) -> Option<Duration> {
        self.code_paused.get(deployment).copied()
    }

    /// Whether somebody who is not one of Berth's programs has requested the Server's removal.
    pub(crate) fn is_removed_by_person(&self, server: &Place) -> bool {
        self.removed.contains(server)
    }

    /// The Servers that this set controls.
    pub(crate) fn servers_of<'a>(
        &'a self,
        set: &'a Place,
        of: &'a Value,
    ) -> impl Iterator<Item = (&'a Place, &'a Value)> {
        let uid = text(of, "/metadata/uid");
        self.all("servers").filter(move |(place, server)| {
            place.namespace == set.namespace && owner(server).is_some_and(|owner| text(owner, "/uid") == uid)
        })
    }

    /// All objects of a kind.
    pub(crate) fn all(&self, plural: &str) -> impl Iterator<Item = (&Place, &Value)> {
        self.objects.get(plural).into_iter().flatten().map(|(place, object)| (place, &***object))
    }

    pub(crate) fn get(&self, plural: &str, place: &Place) -> Option<&Value> {
        self.objects.get(plural)?.get(place).map(|object| &***object)
    }

    /// The slice has these ready endpoints now.
    fn take_ready(&mut self, slice: Place, ready: BTreeSet<String>) {
        for name in &ready {
            *self.reached.entry(slice.beside(name)).or_default() += 1;
        }
        for name in self.ready.get(&slice).into_iter().flatten() {
            let place = slice.beside(name);
            let left = self.reached.get(&place).map_or(0, |count| count - 1);
            if left == 0 {
                self.reached.remove(&place);
            } else {
                self.reached.insert(place, left);
            }
        }
        self.ready.insert(slice, ready);
    }

    /// Whether clients of the load balancer are sent to this Server.
    pub(crate) fn reaches(&self, server: &Place) -> bool {
        self.reached.contains_key(server)
    }

    /// Whether clients are sent to this Server by another slice than this one.
    pub(crate) fn reaches_beside(&self, slice: &Place, server: &Place) -> bool {
        let is_here = slice.namespace == server.namespace
            && self.ready.get(slice).is_some_and(|ready| ready.contains(&server.name));
        self.reached.get(server).is_some_and(|count| *count > usize::from(is_here))
    }

    /// The set that controls this Server.
    pub(crate) fn set_of(&self, place: &Place, server: &Value) -> Option<(Place, &Value)> {
        let owner = owner(server)?;
        let place = place.beside(text(owner, "/name"));
        let set = self.get("vmreplicasets", &place)?;
        (text(set, "/metadata/uid") == text(owner, "/uid")).then_some((place, set))
    }
}

/// The force of the Server, if it is in effect.
fn force_in_effect(server: Option<&Arc<Stored>>) -> Option<&Value> {
    server.filter(|server| server["status"]["force"]["active"] == true).map(|server| &server["spec"]["force"])
}

/// The names of the Servers that this slice sends clients to.
pub(super) fn ready_endpoints(slice: &Value) -> BTreeSet<String> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    ready.map(|endpoint| text(endpoint, "/targetRef/name").to_owned()).collect()
}

/// The owner that controls the object.
pub(super) fn owner(object: &Value) -> Option<&Value> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)
}

/// A text of an object; empty when there is none. The pointer names fields only: `Value::pointer` allocates for each name.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    let value = pointer.split('/').skip(1).try_fold(object, |value, name| value.get(name));
    value.and_then(Value::as_str).unwrap_or_default()
}

/// Whether this user is one of Berth's programs.
pub(super) fn is_berth(user: &str) -> bool {
    user.starts_with("system:serviceaccount:berth-system:")
}

/// Whether the deletion of the object was requested.
pub(super) fn is_being_deleted(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// A time in an object, as the age of the world; none when there is none.
pub(super) fn time(object: &Value, pointer: &str) -> Option<Duration> {
    let time: k8s_openapi::jiff::Timestamp = text(object, pointer).parse().ok()?;
    Some(SimClock::age_at(time))
}
