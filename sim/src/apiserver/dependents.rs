//! Which objects depend on which owners, so that the garbage collector need not search.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;
use tokio::sync::Notify;

use super::metadata::text;

/// An object's place in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Position of the kind in the API server's list.
    pub(crate) resource: usize,
    /// Its namespace, empty for kinds without, and its name.
    pub(crate) place: (String, String),
}

/// The dependents of each owner, and who of them may have lost theirs.
#[derive(Default)]
pub(crate) struct Dependents {
    /// The UIDs of all objects that exist.
    living: BTreeSet<String>,
    /// The objects that name an owner, by its UID.
    of: BTreeMap<String, BTreeSet<Key>>,
    /// The objects whose owners may all be gone.
    suspects: BTreeSet<Key>,
    suspected: Arc<Notify>,
}

impl Dependents {
    /// Forgets everything: all objects are told anew.
    pub(super) fn begin_anew(&mut self) {
        self.living.clear();
        self.of.clear();
        self.suspects.clear();
    }

    /// Notes a change of an object.
    pub(super) fn change(&mut self, key: &Key, before: Option<&Value>, after: Option<&Value>) {
        let uid = |object: Option<&Value>| object.and_then(|object| text(object, "uid").map(str::to_owned));
        let (old, new) = (uid(before), uid(after));
        if old != new {
            self.suspects.extend(old.iter().filter_map(|uid| self.of.get(uid)).flatten().cloned());
            old.map(|uid| self.living.remove(&uid));
            self.living.extend(new);
        }
        let owners = |object| owners(object).collect::<BTreeSet<_>>();
        let (lost, won): (BTreeSet<&str>, BTreeSet<&str>) = (owners(before), owners(after));
        if lost != won {
            for owner in lost {
                self.remove(owner, key);
            }
            for owner in won {
                self.of.entry(owner.to_owned()).or_default().insert(key.clone());
            }
            self.suspects.insert(key.clone());
        }
        if !self.suspects.is_empty() {
            self.suspected.notify_one();
        }
    }

    fn remove(&mut self, owner: &str, key: &Key) {
        let Some(dependents) = self.of.get_mut(owner) else { return };
        dependents.remove(key);
        if dependents.is_empty() {
            self.of.remove(owner);
        }
    }

    /// Takes the objects whose owners may all be gone.
    pub(crate) fn take_suspects(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.suspects)
    }

    /// Tells when there are objects whose owners may all be gone.
    pub(crate) fn suspected(&self) -> Arc<Notify> {
        self.suspected.clone()
    }

    /// Whether the object has owners, none of which exists.
    pub(crate) fn is_orphan(&self, object: &Value) -> bool {
        let mut owners = owners(Some(object)).peekable();
        owners.peek().is_some() && !owners.any(|owner| self.living.contains(owner))
    }
}

/// The UIDs of the object's owners.
fn owners(object: Option<&Value>) -> impl Iterator<Item = &str> {
    let owners = object.and_then(|object| object["metadata"]["ownerReferences"].as_array()).into_iter().flatten();
    owners.map(|owner| owner["uid"].as_str().unwrap_or_default())
}
