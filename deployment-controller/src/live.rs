//! A VMDeployment's objects as the API server has them now, and the writes that depend on that.

use berth_core::api::{App, Server, VMDeployment, VMDeploymentStatus, VMReplicaSet};
use berth_runtime::{CallError as Error, Context, written};
use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde::Serialize;

use crate::{desired, rollout};

/// Objects per page of a list.
const PAGE: u32 = 500;

/// The API of one VMDeployment.
pub(crate) struct Live<'a> {
    ctx: &'a Context,
    deployments: Api<VMDeployment>,
    sets: Api<VMReplicaSet>,
    servers: Api<Server>,
}

impl<'a> Live<'a> {
    pub(crate) fn new(ctx: &'a Context, namespace: &str) -> Self {
        let client = ctx.client.clone();
        Self {
            ctx,
            deployments: Api::namespaced(client.clone(), namespace),
            sets: Api::namespaced(client.clone(), namespace),
            servers: Api::namespaced(client, namespace),
        }
    }

    /// The set as it is now, if the VMDeployment controls it.
    pub(crate) async fn set(&self, deployment: &VMDeployment) -> Result<Option<VMReplicaSet>, Error> {
        let found = self.sets.get_opt(&deployment.name_any()).await.map_err(Error::call("read the VMReplicaSet"))?;
        Ok(found.filter(|set| desired::is_own(deployment, set) && set.metadata.deletion_timestamp.is_none()))
    }

    /// The set's Servers, as they are now and not as some cache has them.
    pub(crate) async fn servers(&self, set: &VMReplicaSet) -> Result<Vec<Server>, Error> {
        let labels = set.spec.selector.match_labels.iter().flatten();
        let selector = labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
        let mut params = ListParams::default().labels(&selector).limit(PAGE);
        let mut servers = Vec::new();
        loop {
            let page = self.servers.list(&params).await.map_err(Error::call("list the VMReplicaSet's Servers"))?;
            servers.extend(page.items.into_iter().filter(|server| desired::has(set, server)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(servers),
            }
        }
    }

    /// Brings the set to what is desired. Its fields belong to this controller; those that others have added stay.
    pub(crate) async fn apply(&self, desired: &VMReplicaSet) -> Result<(), Error> {
        let name = desired.name_any();
        let params = PatchParams::apply(self.ctx.executor.name()).force();
        let result = self.sets.patch(&name, &params, &Patch::Apply(desired)).await;
        result.map(drop).map_err(Error::call(format!("apply the VMReplicaSet {name}")))
    }

    /// Writes the set's ledger, if the set is still the one that was read. Says whether it was.
    pub(crate) async fn swap(&self, read: &VMReplicaSet, ledger: &[String]) -> Result<bool, Error> {
        let status = berth_core::api::VMReplicaSetStatus {
            disturbed: ledger.to_vec(),
            ..read.status.clone().unwrap_or_default()
        };
        let result = self.sets.patch_status(&read.name_any(), &self.manager(), &guarded(read, &status)).await;
        written(result.map_err(Error::call("write the VMReplicaSet's ledger")))
    }

    /// Declares the application on this very Server.
    pub(crate) async fn touch(&self, server: &Server, app: &App) -> Result<(), Error> {
        let name = server.name_any();
        let patch = Patch::Json::<()>(rollout::patch(server, app));
        let result = self.servers.patch(&name, &self.manager(), &patch).await;
        written(result.map_err(Error::call(format!("declare the application of the Server {name}")))).map(drop)
    }

    /// Writes the status, if the VMDeployment is still the one that was read. Says whether it was.
    pub(crate) async fn write_status(&self, read: &VMDeployment, status: &VMDeploymentStatus) -> Result<bool, Error> {
        let result = self.deployments.patch_status(&read.name_any(), &self.manager(), &guarded(read, status)).await;
        written(result.map_err(Error::call("write the VMDeployment's status")))
    }

    fn manager(&self) -> PatchParams {
        PatchParams { field_manager: Some(self.ctx.executor.name().to_owned()), ..PatchParams::default() }
    }
}

/// A new status for the object as it was read.
fn guarded<K: kube::ResourceExt>(read: &K, status: &impl Serialize) -> Patch<()> {
    Patch::Json(JsonPatch(vec![
        PatchOperation::Test(TestOperation {
            path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
            value: read.resource_version().into(),
        }),
        PatchOperation::Add(AddOperation {
            path: PointerBuf::from_tokens(["status"]),
            value: serde_json::to_value(status).unwrap_or_default(),
        }),
    ]))
}
