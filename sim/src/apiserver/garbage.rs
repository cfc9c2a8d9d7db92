//! The garbage collector of kube-controller-manager: an object whose owners are all gone is deleted.

use super::{
    ApiServer,
    dependents::Key,
    metadata::{self, has_finalizers, is_being_deleted},
};

impl ApiServer {
    /// What the garbage collector of kube-controller-manager does: deletes objects whose owners are all gone. Runs until it is
    /// dropped.
    pub async fn collect_garbage(&self) {
        let suspected = self.0.store.lock().dependents().suspected();
        loop {
            let suspects = self.0.store.lock().dependents().take_suspects();
            for key in suspects {
                delete_orphan(self, &key);
            }
            suspected.notified().await;
        }
    }
}

fn delete_orphan(api: &ApiServer, key: &Key) {
    let (now, mut store) = (api.now(), api.0.store.lock());
    store.set_author("");
    let Some(object) = store.get(key) else { return };
    if is_being_deleted(&object) || !store.dependents().is_orphan(&object) {
        return;
    }
    if has_finalizers(&object) {
        let mut object = (**object).clone();
        metadata::request_deletion(&api.0.resources[key.resource], &mut object, now);
        store.put(key, object);
    } else {
        store.remove(key);
    }
}
