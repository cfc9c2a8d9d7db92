//! An upgrade in which old and new copies run side by side: the API has a field that this build does not know, and a newer copy has
//! written it. This build has to leave it alone.

use std::{collections::BTreeSet, sync::Arc};

use berth_core::api::Server;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{ApiServer, Finding, Judge, apiserver::FIELD_FROM_THE_FUTURE};

/// The UIDs of the Servers that have the field. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct FutureFields(Arc<Mutex<BTreeSet<String>>>);

impl FutureFields {
    /// Writes the field of a Server, as a newer copy would.
    pub(crate) async fn write(self, client: Client, number: usize) {
        let servers: Api<Server> = Api::default_namespaced(client);
        let Ok(all) = servers.list(&ListParams::default()).await else { return };
        if all.items.is_empty() {
            return;
        }
        let server = &all.items[number % all.items.len()];
        let patch = json!({"metadata": {"uid": server.uid()}, "spec": {FIELD_FROM_THE_FUTURE: "kept"}});
        // A Server that has just gone gets no field.
        if servers.patch(&server.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await.is_ok() {
            self.0.lock().insert(server.uid().to_owned());
        }
    }

    /// The API server may have forgotten that it was written.
    pub(crate) fn forget(&self) {
        self.0.lock().clear();
    }

    /// Servers that have lost the field.
    pub(crate) fn lost(&self, api: &ApiServer) -> Option<Finding> {
        let (written, servers) = (self.0.lock().clone(), api.objects::<Value>("servers"));
        let has_lost = |server: &&Value| {
            let uid = server["metadata"]["uid"].as_str().unwrap_or_default();
            written.contains(uid) && server["spec"][FIELD_FROM_THE_FUTURE] != "kept"
        };
        let lost = servers.iter().find(has_lost)?;
        let name = lost["metadata"]["name"].as_str().unwrap_or_default();
        Some(Finding::new(Judge::Upgrade, format!("{name} has lost a field that a newer copy has written")))
    }
}
