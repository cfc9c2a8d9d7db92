//! The stored objects of each kind, and each change of them in order.

pub(crate) mod snapshot;

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    ops::{Bound, Deref},
    sync::{Arc, OnceLock},
};

use axum::body::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Notify;

use super::{
    dependents::{Dependents, Key},
    failure::Failure,
};

/// Changes of each kind that are kept for watches and lists that are behind. Whoever is further behind is told to begin anew (410).
const HISTORY: usize = 10_000;

/// An object's place among those of its kind: its namespace, empty for kinds without, and its name.
pub(crate) type Place = (String, String);

/// A version of an object. Its text is written once, for all who read it, and it is decoded once for the judges.
#[derive(Debug)]
pub(crate) struct Stored {
    object: Value,
    text: OnceLock<Bytes>,
    decoded: OnceLock<Option<Arc<dyn Any + Send + Sync>>>,
}

impl Stored {
    pub(crate) fn new(object: Value) -> Arc<Self> {
        Arc::new(Self { object, text: OnceLock::new(), decoded: OnceLock::new() })
    }

    /// The object as its type, of which each kind has one; none when it is something else.
    pub(crate) fn decoded<K: DeserializeOwned + Send + Sync + 'static>(&self) -> Option<Arc<K>> {
        let decode = || K::deserialize(&self.object).ok().map(|object| Arc::new(object) as Arc<dyn Any + Send + Sync>);
        self.decoded.get_or_init(decode).clone()?.downcast().ok()
    }

    /// The object as JSON.
    pub(crate) fn text(&self) -> &Bytes {
        self.text.get_or_init(|| self.object.to_string().into())
    }
}

impl Deref for Stored {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.object
    }
}

/// A change of one object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    /// The object before; none when it was created.
    pub(crate) before: Option<Arc<Stored>>,
    /// The object after; none when it was deleted.
    pub(crate) after: Option<Arc<Stored>>,
}

/// Sees each change as it happens, with the user who made it.
pub(crate) type Witness = Box<dyn FnMut(&Change, &str) + Send>;

/// Sees each accepted claim of a lock, with its holder. A renewal may leave the object as it is.
pub(crate) type ClaimWitness = Box<dyn FnMut(&Place, &str) + Send>;

/// The stored objects.
pub(crate) struct Store {
    revision: u64,
    /// The last revision that was forgotten on purpose.
    compacted: u64,
    kinds: Vec<Collection>,
    dependents: Dependents,
    /// Who makes the next changes; empty for the API server itself.
    author: String,
    witness: Option<Witness>,
    claim_witness: Option<ClaimWitness>,
}

/// The objects of one kind.
#[derive(Default)]
struct Collection {
    objects: BTreeMap<Place, Arc<Stored>>,
    history: VecDeque<Change>,
    /// The revision of the last change that is no longer in the history.
    dropped: u64,
    /// Wakes the watches when there is another change, in the order in which they wait.
    changed: Arc<Notify>,
}

impl Store {
    /// Holds so many kinds, and no object yet.
    pub(crate) fn new(kinds: usize) -> Self {
        let kinds = (0..kinds).map(|_| Collection::default()).collect();
        Self {
            revision: 1,
            compacted: 1,
            kinds,
            dependents: Dependents::default(),
            author: String::new(),
            witness: None,
            claim_witness: None,
        }
    }

    /// The revision of the last change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Tells of changes of this kind.
    pub(crate) fn changed(&self, resource: usize) -> Arc<Notify> {
        self.kinds[resource].changed.clone()
    }

    /// Says who makes the changes from now on.
    pub(crate) fn set_author(&mut self, author: &str) {
        if self.author != author {
            author.clone_into(&mut self.author);
        }
    }

    /// Lets this see each change from now on.
    pub(crate) fn set_witness(&mut self, witness: Witness) {
        self.witness = Some(witness);
    }

    /// Lets this see each accepted claim from now on.
    pub(crate) fn set_claim_witness(&mut self, witness: ClaimWitness) {
        self.claim_witness = Some(witness);
    }

    /// The lock of this Server was claimed, and the API server says so.
    pub(crate) fn claimed(&mut self, key: &Key, holder: &str) {
        if let Some(witness) = &mut self.claim_witness {
            witness(&key.place, holder);
        }
    }

    /// Which objects depend on others.
    pub(crate) fn dependents(&mut self) -> &mut Dependents {
        &mut self.dependents
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.kinds[key.resource].objects.get(&key.place).cloned()
    }

    /// The objects of one kind, in the order of their places.
    pub(crate) fn of_kind(&self, resource: usize) -> impl Iterator<Item = (&Place, &Arc<Stored>)> {
        self.kinds[resource].objects.iter()
    }

    /// Stores the object in a new version, and returns it as stored. Nothing is written when nothing changed.
    pub(crate) fn put(&mut self, key: &Key, mut object: Value) -> Arc<Stored> {
        let before = self.get(key);
        if let Some(before) = before.as_ref().filter(|before| before.object == object) {
            return before.clone();
        }
        object["metadata"]["resourceVersion"] = (self.revision + 1).to_string().into();
        let object = Stored::new(object);
        self.kinds[key.resource].objects.insert(key.place.clone(), object.clone());
        self.record(key, before, Some(object.clone()));
        object
    }

    /// Removes the object.
    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(before) = self.kinds[key.resource].objects.remove(&key.place) {
            self.record(key, Some(before), None);
        }
    }

    /// Removes the object, whose last state this is. Returns that state, with the revision of its end.
    pub(crate) fn remove_as(&mut self, key: &Key, mut last: Value) -> Arc<Stored> {
        self.kinds[key.resource].objects.remove(&key.place);
        self.record(key, Some(Stored::new(last.clone())), None);
        last["metadata"]["resourceVersion"] = self.revision.to_string().into();
        Stored::new(last)
    }

    fn record(&mut self, key: &Key, before: Option<Arc<Stored>>, after: Option<Arc<Stored>>) {
        self.revision += 1;
        let (old, new) = (before.as_ref().map(|old| &old.object), after.as_ref().map(|new| &new.object));
        self.dependents.change(key, old, new);
        let change = Change { revision: self.revision, key: key.clone(), before, after };
        if let Some(witness) = &mut self.witness {
            witness(&change, &self.author);
        }
        let kind = &mut self.kinds[key.resource];
        kind.history.push_back(change);
        if kind.history.len() > HISTORY {
            kind.forget_first();
        }
        kind.changed.notify_waiters();
    }

    /// Forgets all changes up to now, as etcd does from time to time.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.revision;
        for kind in &mut self.kinds {
            while !kind.history.is_empty() {
                kind.forget_first();
            }
        }
    }

    /// Refuses a watch that begins after a revision that is no longer known.
    pub(crate) fn check_known(&self, resource: usize, revision: u64) -> Result<(), Failure> {
        let oldest = self.oldest(resource);
        let expired = || Failure::expired(format!("too old resource version: {revision} ({oldest})"));
        if revision < oldest { Err(expired()) } else { Ok(()) }
    }

    /// The next change of this kind after this revision, up to which a watch knows everything. The error says that it is no longer
    /// known.
    pub(crate) fn change_after(&self, resource: usize, revision: u64) -> Result<Option<&Change>, Failure> {
        let Collection { history, dropped, .. } = &self.kinds[resource];
        if revision < *dropped {
            return Err(Failure::expired(format!("too old resource version: {revision} ({dropped})")));
        }
        if history.back().is_none_or(|last| last.revision <= revision) {
            return Ok(None);
        }
        let position = history.partition_point(|change| change.revision <= revision);
        Ok(history.get(position))
    }

    fn oldest(&self, resource: usize) -> u64 {
        self.compacted.max(self.kinds[resource].dropped)
    }

    /// The objects of one kind behind this place as they were at this revision, in the order of their places.
    pub(crate) fn snapshot(
        &self,
        resource: usize,
        after: Option<&Place>,
        revision: u64,
    ) -> Result<BTreeMap<&Place, &Arc<Stored>>, Failure> {
        if revision < self.oldest(resource) {
            let message = "The provided continue parameter is too old to display a consistent list result. \
                           You must start a new list without the continue parameter.";
            return Err(Failure::expired(message));
        }
        let Collection { objects, history, .. } = &self.kinds[resource];
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut objects: BTreeMap<&Place, &Arc<Stored>> = objects.range((start, Bound::Unbounded)).collect();
        let later = history.iter().rev().take_while(|change| change.revision > revision);
        for change in later.filter(|change| after.is_none_or(|after| change.key.place > *after)) {
            match &change.before {
                Some(before) => objects.insert(&change.key.place, before),
                None => objects.remove(&change.key.place),
            };
        }
        Ok(objects)
    }
}

impl Collection {
    fn forget_first(&mut self) {
        if let Some(change) = self.history.pop_front() {
            self.dropped = change.revision;
        }
    }
}
