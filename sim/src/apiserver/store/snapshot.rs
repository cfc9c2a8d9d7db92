//! Saves of etcd, and going back to one.

use std::{collections::BTreeMap, sync::Arc};

use super::{Key, Place, Store, Stored};

/// By how much revisions are raised when a save is restored so that nobody takes old ones for new ones.
const BUMP: u64 = 1_000_000_000;

/// What was stored at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    revision: u64,
    /// The objects of each kind.
    pub(in crate::apiserver) kinds: Vec<BTreeMap<Place, Arc<Stored>>>,
}

impl Store {
    pub(crate) fn save(&self) -> Snapshot {
        let kinds = self.kinds.iter().map(|kind| kind.objects.clone()).collect();
        Snapshot { revision: self.revision, kinds }
    }

    /// Goes back to this save. Either revisions go on above all that were ever given, and all of the past is compacted (`etcdutl
    /// snapshot restore --bump-revision --mark-compacted`), or they go back, too, and are given a second time.
    pub(crate) fn restore(&mut self, saved: &Snapshot, bumps: bool) {
        self.revision = if bumps { self.revision + BUMP } else { saved.revision };
        self.compacted = self.revision;
        self.dependents.begin_anew();
        for (resource, (kind, objects)) in self.kinds.iter_mut().zip(&saved.kinds).enumerate() {
            kind.objects = objects.clone();
            kind.history.clear();
            kind.dropped = self.revision;
            for (place, object) in objects {
                self.dependents.change(&Key { resource, place: place.clone() }, None, Some(object));
            }
            kind.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Key {
        Key { resource: 0, place: (String::new(), name.to_owned()) }
    }

    #[test]
    fn what_was_written_since_the_save_is_forgotten() {
        for bumps in [true, false] {
            let mut store = Store::new(1);
            store.put(&key("a"), json!({"metadata": {}, "v": 1}));
            let (saved, before) = (store.save(), store.revision());
            store.put(&key("a"), json!({"metadata": {}, "v": 2}));
            store.put(&key("b"), json!({"metadata": {}}));
            let known = store.revision();
            store.restore(&saved, bumps);
            assert_eq!(store.get(&key("a")).unwrap()["v"], 1);
            assert!(store.get(&key("b")).is_none());
            assert_eq!(store.revision() == before, !bumps);
            assert_eq!(store.change_after(0, known).is_err(), bumps, "a watch is told to begin anew");
        }
    }
}
