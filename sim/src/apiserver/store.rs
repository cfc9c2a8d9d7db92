//! The stored objects, each change of them in order, and the watches that follow the changes.

pub(crate) mod snapshot;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;
use tokio::sync::watch;

use super::failure::Failure;

/// Changes that are kept for watches and lists that are behind. Whoever is further behind is told to begin anew (410).
const HISTORY: usize = 10_000;

/// An object's place in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Position of the kind in the API server's list.
    pub(crate) resource: usize,
    /// Empty for kinds without namespaces.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// A change of one object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    /// The object before; none when it was created.
    pub(crate) before: Option<Arc<Value>>,
    /// The object after; none when it was deleted.
    pub(crate) after: Option<Arc<Value>>,
}

/// Sees each change as it happens, with the user who made it.
pub(crate) type Witness = Box<dyn FnMut(&Change, &str) + Send>;

/// The stored objects.
pub(crate) struct Store {
    revision: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    /// The last revision that is no longer in the history.
    compacted: u64,
    changed: watch::Sender<u64>,
    /// Who makes the next changes; empty for the API server itself.
    author: String,
    witness: Option<Witness>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            revision: 1,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            compacted: 1,
            changed: watch::Sender::new(1),
            author: String::new(),
            witness: None,
        }
    }
}

impl Store {
    /// The revision of the last change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Shows the revision of the last change, now and whenever there is another.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
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

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).cloned()
    }

    /// All objects.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// Stores the object in a new version, and returns it as stored. Nothing is written when nothing changed.
    pub(crate) fn put(&mut self, key: &Key, mut object: Value) -> Arc<Value> {
        let before = self.objects.get(key).cloned();
        if before.as_deref() == Some(&object) {
            return before.unwrap_or_default();
        }
        object["metadata"]["resourceVersion"] = (self.revision + 1).to_string().into();
        let object = Arc::new(object);
        self.objects.insert(key.clone(), object.clone());
        self.record(key, before, Some(object.clone()));
        object
    }

    /// Removes the object.
    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(before) = self.objects.remove(key) {
            self.record(key, Some(before), None);
        }
    }

    /// Removes the object, whose last state this is. Returns that state, with the revision of its end.
    pub(crate) fn remove_as(&mut self, key: &Key, mut last: Value) -> Value {
        self.objects.remove(key);
        self.record(key, Some(Arc::new(last.clone())), None);
        last["metadata"]["resourceVersion"] = self.revision.to_string().into();
        last
    }

    fn record(&mut self, key: &Key, before: Option<Arc<Value>>, after: Option<Arc<Value>>) {
        self.revision += 1;
        let change = Change { revision: self.revision, key: key.clone(), before, after };
        if let Some(witness) = &mut self.witness {
            witness(&change, &self.author);
        }
        self.history.push_back(change);
        if self.history.len() > HISTORY {
            self.compact(self.history[self.history.len() - HISTORY].revision - 1);
        }
        self.changed.send_replace(self.revision);
    }

    /// Forgets the changes up to this revision, as etcd does from time to time.
    pub(crate) fn compact(&mut self, revision: u64) {
        while self.history.front().is_some_and(|change| change.revision <= revision) {
            self.history.pop_front();
        }
        self.compacted = self.compacted.max(revision.min(self.revision));
    }

    /// The next change after this revision. The error says that it is no longer known.
    pub(crate) fn change_after(&self, revision: u64) -> Result<Option<&Change>, Failure> {
        if revision < self.compacted {
            return Err(Failure::expired(format!("too old resource version: {revision} ({})", self.compacted)));
        }
        let position = self.history.partition_point(|change| change.revision <= revision);
        Ok(self.history.get(position))
    }

    /// The objects of one kind as they were at this revision, in the order of their keys.
    pub(crate) fn snapshot(&self, resource: usize, revision: u64) -> Result<BTreeMap<&Key, &Arc<Value>>, Failure> {
        if revision < self.compacted {
            let message = "The provided continue parameter is too old to display a consistent list result. \
                           You must start a new list without the continue parameter.";
            return Err(Failure::expired(message));
        }
        let first = Key { resource, namespace: String::new(), name: String::new() };
        let mut objects: BTreeMap<&Key, &Arc<Value>> =
            self.objects.range(first..).take_while(|(key, _)| key.resource == resource).collect();
        let later = self.history.iter().rev().take_while(|change| change.revision > revision);
        for change in later.filter(|change| change.key.resource == resource) {
            match &change.before {
                Some(before) => objects.insert(&change.key, before),
                None => objects.remove(&change.key),
            };
        }
        Ok(objects)
    }
}
