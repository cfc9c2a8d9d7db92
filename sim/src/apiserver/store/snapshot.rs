//! Saves of etcd, and going back to one.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{Key, Store};

/// By how much revisions are raised when a save is restored so that nobody takes old ones for new ones.
const BUMP: u64 = 1_000_000_000;

/// What was stored at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    revision: u64,
    pub(in crate::apiserver) objects: BTreeMap<Key, Arc<Value>>,
}

impl Store {
    pub(crate) fn save(&self) -> Snapshot {
        Snapshot { revision: self.revision, objects: self.objects.clone() }
    }

    /// Goes back to this save. Either revisions go on above all that were ever given, and all of the past is compacted (`etcdutl
    /// snapshot restore --bump-revision --mark-compacted`), or they go back, too, and are given a second time.
    pub(crate) fn restore(&mut self, saved: &Snapshot, bumps: bool) {
        self.objects = saved.objects.clone();
        self.revision = if bumps { self.revision + BUMP } else { saved.revision };
        self.compacted = self.revision;
        self.history.clear();
        self.changed.send_replace(self.revision);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Key {
        Key { resource: 0, namespace: String::new(), name: name.to_owned() }
    }

    #[test]
    fn what_was_written_since_the_save_is_forgotten() {
        for bumps in [true, false] {
            let mut store = Store::default();
            store.put(&key("a"), json!({"metadata": {}, "v": 1}));
            let (saved, before) = (store.save(), store.revision());
            store.put(&key("a"), json!({"metadata": {}, "v": 2}));
            store.put(&key("b"), json!({"metadata": {}}));
            let known = store.revision();
            store.restore(&saved, bumps);
            assert_eq!(store.get(&key("a")).unwrap()["v"], 1);
            assert!(store.get(&key("b")).is_none());
            assert_eq!(store.revision() == before, !bumps);
            assert_eq!(store.change_after(known).is_err(), bumps, "a watch is told to begin anew");
        }
    }
}
