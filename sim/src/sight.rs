//! What can be seen of a world from outside, and done to it: for tests that tell a story.

use std::{collections::BTreeSet, sync::Arc};

use berth_core::api::VMDeployment;

use crate::{Finding, World, findings::reached, judges::machines_without_server};

impl World {
    /// The VMDeployments, as they are stored.
    #[must_use]
    pub fn deployments(&self) -> Vec<Arc<VMDeployment>> {
        self.api.decoded("vmdeployments")
    }

    /// The Servers that clients are sent to, as namespace/name.
    #[must_use]
    pub fn reached(&self) -> BTreeSet<String> {
        reached(&self.api)
    }

    /// The UIDs of the Servers that have a machine.
    #[must_use]
    pub fn owners_of_machines(&self) -> Vec<String> {
        self.simulation.owners()
    }

    /// The revision of the code that runs on the machine of the Server with this UID; none if nothing runs there.
    #[must_use]
    pub fn running_revision(&self, uid: &str) -> Option<String> {
        let state = self.machines.of_server(uid).state();
        state.apps.values().find(|app| app.running)?.revision.clone()
    }

    /// The version of a package that Berth has installed on the machine of the Server with this UID.
    #[must_use]
    pub fn installed_version(&self, uid: &str) -> Option<String> {
        self.machines.of_server(uid).state().managed.values().find_map(|package| package.version.clone())
    }

    /// From now on this revision of the code answers with errors: on the machine of the Server with this UID, or everywhere.
    pub fn spoil_code(&self, revision: &str, uid: Option<&str>) {
        self.troubles.spoil_code(revision, uid);
    }

    /// The copy that sends the write after so many others crashes: before it arrives, or when it has taken effect.
    pub fn crash_at_write(&self, after: u64, takes_effect: bool) {
        self.crash_point.set(after, takes_effect);
    }

    /// How many writes were answered with success, but for Leases and the mark that shows a restored etcd.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.api.writes()
    }

    /// What must hold at any time and does not.
    #[must_use]
    pub fn verdict(&self) -> Option<Finding> {
        self.finding().or_else(|| machines_without_server(self)).or_else(|| self.court.silent())
    }
}
