//! What this controller reads and writes about one VMDeployment on the API server.

use berth_core::{
    api::{App, Server, VMDeployment, VMDeploymentStatus, VMReplicaSet, VMReplicaSetStatus},
    ledger::Ledger,
    protocol::GuardedPatch,
};
use berth_runtime::{ApiError, Context, SetApi, written};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch},
};

use crate::history::{self, Changes, Revision};

/// The VMDeployments of one namespace, with their sets and Servers, as the API server has them now.
pub(crate) struct DeploymentApi<'a> {
    ctx: &'a Context,
    deployments: Api<VMDeployment>,
    revisions: Api<ControllerRevision>,
    /// The sets and their Servers.
    pub(crate) sets: SetApi<'a>,
}

impl<'a> DeploymentApi<'a> {
    /// The API of this namespace.
    pub(crate) fn new(ctx: &'a Context, namespace: &str) -> Self {
        let deployments = Api::namespaced(ctx.client.clone(), namespace);
        let revisions = Api::namespaced(ctx.client.clone(), namespace);
        Self { ctx, deployments, revisions, sets: SetApi::new(ctx, namespace) }
    }

    /// The versions of the VMDeployment's application that are kept.
    pub(crate) async fn history(&self, deployment: &VMDeployment) -> Result<Vec<Revision>, ApiError> {
        let params = ListParams::default().labels(&format!("{}={}", history::DEPLOYMENT, deployment.name()));
        let found = self.revisions.list(&params).await;
        let found = found.map_err(ApiError::doing(format!("list the revisions of {}", deployment.name())))?;
        Ok(found.items.into_iter().filter_map(|object| Revision::of(deployment, object)).collect())
    }

    /// Writes what has changed in the history.
    pub(crate) async fn change_history(&self, deployment: &VMDeployment, changes: &Changes) -> Result<(), ApiError> {
        let params = self.ctx.patch_params().force();
        for revision in &changes.apply {
            let applied =
                self.revisions.patch(&revision.name, &params, &Patch::Apply(revision.object(deployment))).await;
            applied.map_err(ApiError::doing(format!("apply ControllerRevision {}", revision.name)))?;
        }
        for name in &changes.delete {
            let deleted = self.revisions.delete(name, &DeleteParams::default()).await;
            written(deleted.map_err(ApiError::doing(format!("delete ControllerRevision {name}"))))?;
        }
        Ok(())
    }

    /// The VMDeployment as it is now; none when it is gone, is being deleted, or another one has its name.
    pub(crate) async fn again(&self, known: &VMDeployment) -> Result<Option<VMDeployment>, ApiError> {
        let found = self.deployments.get_opt(known.name()).await;
        let found = found.map_err(ApiError::doing(format!("read VMDeployment {}", known.name())))?;
        let is_same = |found: &VMDeployment| {
            found.metadata.uid == known.metadata.uid && found.metadata.deletion_timestamp.is_none()
        };
        Ok(found.filter(is_same))
    }

    /// Another VMDeployment; none when there is none of this name.
    pub(crate) async fn other(&self, namespace: &str, name: &str) -> Result<Option<VMDeployment>, ApiError> {
        let found = Api::<VMDeployment>::namespaced(self.ctx.client.clone(), namespace).get_opt(name).await;
        found.map_err(ApiError::doing(format!("read VMDeployment {namespace}/{name}")))
    }

    /// The VMDeployment's set as it is now; none when there is none, something else controls it, or its deletion was
    /// requested.
    pub(crate) async fn own_set(&self, deployment: &VMDeployment) -> Result<Option<VMReplicaSet>, ApiError> {
        Ok(self.sets.get(deployment.name()).await?.filter(|set| deployment.owns(set)))
    }

    /// The set of this name as it is now, whoever controls it; none when there is none.
    pub(crate) async fn set_of_any(&self, name: &str) -> Result<Option<VMReplicaSet>, ApiError> {
        let found = self.sets.sets().get_opt(name).await;
        found.map_err(ApiError::doing(format!("read VMReplicaSet {name}")))
    }

    /// Applies the set, server-side, unless it has changed since it was read, or is gone. The fields that it names belong to this
    /// controller; fields that others have added stay. `read`: the set before; none creates it.
    pub(crate) async fn apply_set(
        &self,
        desired: &VMReplicaSet,
        read: Option<&VMReplicaSet>,
    ) -> Result<bool, ApiError> {
        let (name, params) = (desired.name(), self.ctx.patch_params().force());
        let mut document = desired.clone();
        document.metadata.resource_version = read.and_then(|read| read.metadata.resource_version.clone());
        let applied = self.sets.sets().patch(name, &params, &Patch::Apply(document)).await;
        written(applied.map_err(ApiError::doing(format!("apply VMReplicaSet {name}"))))
    }

    /// Makes sure that the set holds this ledger. Says whether it does: not if the set has changed since it was read.
    ///
    /// A ledger that stays as it was is not written, but the set is read again. Otherwise nothing would show that the ledger
    /// was still this one when the Servers were listed.
    pub(crate) async fn commit_ledger(&self, read: &VMReplicaSet, ledger: &Ledger) -> Result<bool, ApiError> {
        if *ledger == Ledger::of(read) {
            return self.sets.is_unchanged(read).await;
        }
        let status = VMReplicaSetStatus { disturbed: ledger.to_status(), ..read.status.clone().unwrap_or_default() };
        self.sets.swap_status(read, &status).await
    }

    /// Declares the application on this very Server. Says whether it did: not if the Server is gone, or if its declaration has
    /// changed since it was read.
    pub(crate) async fn declare_app(&self, server: &Server, app: &App) -> Result<bool, ApiError> {
        let patch = Patch::Json::<()>(app_patch(server, app).build());
        let result = self.sets.servers().patch(server.name(), &self.ctx.patch_params(), &patch).await;
        let action = format!("declare the application of Server {}", server.name());
        written(result.map_err(ApiError::doing(action)))
    }

    /// Writes the status, if nothing about the VMDeployment has changed since it was read. Says whether it was written.
    pub(crate) async fn write_status(
        &self,
        read: &VMDeployment,
        status: &VMDeploymentStatus,
    ) -> Result<bool, ApiError> {
        let patch = Patch::Json::<()>(GuardedPatch::of_version(&read.metadata).add(&["status"], status).build());
        let result = self.deployments.patch_status(read.name(), &self.ctx.patch_params(), &patch).await;
        written(result.map_err(ApiError::doing(format!("write the status of VMDeployment {}", read.name()))))
    }
}

/// Replaces the whole field: if it were merged, environment variables that left the application would stay on the Server.
fn app_patch(server: &Server, app: &App) -> GuardedPatch {
    // A request may arrive after its sender has given up, and another copy has declared a newer application.
    GuardedPatch::of(&server.metadata)
        .test(&["metadata", "generation"], &server.metadata.generation)
        .if_still_out_of_service(server)
        .add(&["spec", "app"], &app.without_defaults())
}

#[cfg(test)]
mod tests {
    use berth_core::api::EnvVar;

    use super::*;
    use crate::{
        replica_set::newest_app,
        testing::{deployment, server},
    };

    #[test]
    fn the_patch_replaces_the_whole_application_of_this_very_server() {
        let mut old = server("web-0", "v1", "Ready", 5);
        old.spec.app.as_mut().unwrap().env.push(EnvVar { name: "A".into(), value: "1".into(), value_from: None });
        let app = newest_app(&deployment("v2", |_| {}));
        let patch = app_patch(&old, &app).build();
        let mut value = serde_json::to_value(&old).unwrap();
        json_patch::patch(&mut value, &patch).unwrap();
        let new: Server = serde_json::from_value(value).unwrap();
        assert_eq!(new.spec.app, Some(app));
        let mut other = serde_json::to_value(server("web-0", "v1", "Ready", 5)).unwrap();
        other["metadata"]["uid"] = "another".into();
        json_patch::patch(&mut other, &patch).unwrap_err();
    }

    /// It was free to change, and is not any more.
    #[test]
    fn a_server_that_may_serve_by_now_is_left_alone() {
        let read = server("web-0", "v1", "Deploying", 5);
        let patch = app_patch(&read, &newest_app(&deployment("v2", |_| {}))).build();
        json_patch::patch(&mut serde_json::to_value(&read).unwrap(), &patch).unwrap();
        let ready = server("web-0", "v1", "Ready", 5);
        json_patch::patch(&mut serde_json::to_value(&ready).unwrap(), &patch).unwrap_err();
    }

    #[test]
    fn a_patch_that_arrives_late_does_not_undo_a_newer_application() {
        let read = server("web-0", "v1", "Ready", 5);
        let late = app_patch(&read, &newest_app(&deployment("v2", |_| {}))).build();
        let mut newer = server("web-0", "v3", "Ready", 5);
        newer.metadata.generation = read.metadata.generation.map(|generation| generation + 1);
        assert!(newer.metadata.generation.is_some());
        json_patch::patch(&mut serde_json::to_value(&newer).unwrap(), &late).unwrap_err();
    }
}
