//! Saves of the whole API server, as administrators make them of its etcd.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    ApiServer,
    metadata::text,
    store::{Stored, snapshot::Snapshot},
};

impl ApiServer {
    /// Saves all objects.
    pub(crate) fn save(&self) -> Snapshot {
        self.0.store.lock().save()
    }

    /// Goes back to this save. Returns the UIDs of the objects of the kind with this plural name that are forgotten by that. `bumps`
    /// says whether revisions go on, and not back.
    pub(crate) fn restore(&self, saved: &Snapshot, bumps: bool, plural: &str) -> BTreeSet<String> {
        let mut store = self.0.store.lock();
        let uids = |save: &Snapshot| -> BTreeSet<String> {
            let objects = self.position(plural).and_then(|resource| save.kinds.get(resource)).into_iter().flatten();
            objects.filter_map(|(_, object)| Some(text(object, "uid")?.to_owned())).collect()
        };
        let forgotten = uids(&store.save()).difference(&uids(saved)).cloned().collect();
        store.restore(saved, bumps);
        forgotten
    }

    /// The stored objects of the kind with this plural name, each with its namespace and name.
    pub(crate) fn all_stored(&self, plural: &str) -> Vec<((String, String), Arc<Stored>)> {
        let kinds = self.save().kinds;
        self.position(plural).and_then(|resource| kinds.into_iter().nth(resource)).into_iter().flatten().collect()
    }

    /// Writes into the log what is stored of the kinds with these plural names.
    pub(crate) fn note_stored(&self, plurals: &[&str]) {
        for plural in plurals {
            for ((namespace, name), object) in self.all_stored(plural) {
                self.note(&format!("{plural} {namespace}/{name}: {}", String::from_utf8_lossy(object.text())));
            }
        }
    }
}
