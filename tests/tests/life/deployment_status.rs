//! Waiting for the status of the VMDeployment.

use berth_core::api::{Server, VMDeployment, VMDeploymentStatus};
use berth_tests::eventually;

use crate::world::{LONG, World};

/// Waits until this holds for the status of the VMDeployment.
pub(crate) async fn status(
    world: &World,
    what: &str,
    holds: impl Fn(&VMDeploymentStatus) -> bool,
) -> VMDeploymentStatus {
    let found = eventually(what.to_owned(), LONG, async || {
        let deployment: VMDeployment = world.deployments().get("web").await.map_err(|error| error.to_string())?;
        let status = deployment.status.unwrap_or_default();
        if holds(&status) { Ok(status) } else { Err(format!("{status:?}")) }
    });
    found.await.unwrap_or_else(|error| panic!("{error}\n{}", world.logs()))
}

/// Whether the VMDeployment says that it waits for this.
pub(crate) fn waits_for(words: &str) -> impl Fn(&VMDeploymentStatus) -> bool {
    move |status| status.waiting_for.as_ref().is_some_and(|text| text.contains(words))
}

/// Whether the application of this revision runs on the Server, as far as is known.
pub(crate) fn runs(server: &Server, revision: &str) -> bool {
    server.status.as_ref().and_then(|s| s.app.as_ref()).is_some_and(|app| app.revision == revision)
}
