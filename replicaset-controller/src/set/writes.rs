//! The writes of a set's reconcile: each is guarded by what it relies on, and none is tried on a newer object.

use std::collections::HashSet;

use berth_core::{
    api::{Server, VMDeployment, VMReplicaSet},
    protocol::GuardedPatch,
};
use berth_runtime::{ApiError, Context, SetApi, written};
use json_patch::Patch as JsonPatch;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api,
    api::{DeleteParams, Patch, PostParams, Preconditions},
    core::{PartialObjectMeta, Request},
};
use serde_json::{Value, json};

use super::{template, template_patch};

/// Asks for an answer that has nothing but the object's metadata: the rest of a created Server is known.
const METADATA: http::HeaderValue =
    http::HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// The API of the sets and Servers of one namespace.
pub(super) struct SetWrites<'a> {
    ctx: &'a Context,
    pub(super) api: SetApi<'a>,
    deployments: Api<VMDeployment>,
}

/// What came of a creation.
pub(super) enum Creation {
    /// The set has a Server of that name now, created by this or another copy.
    Created,
    /// The name belongs to a Server of somebody else.
    NameTaken,
}

impl<'a> SetWrites<'a> {
    pub(super) fn new(ctx: &'a Context, namespace: &str) -> Self {
        let deployments = Api::namespaced(ctx.client.clone(), namespace);
        Self { ctx, api: SetApi::new(ctx, namespace), deployments }
    }

    /// The names of Servers that the set is about to create, as it is now; none when it is gone.
    pub(super) async fn pending(&self, set: &VMReplicaSet) -> Result<HashSet<String>, ApiError> {
        let status = self.api.get_again(set).await?.and_then(|set| set.status);
        Ok(status.map(|status| status.creating).unwrap_or_default().into_iter().map(|p| p.server).collect())
    }

    /// Creates a Server of the set. Its machine is in this zone, unless the template says another one.
    pub(super) async fn create(
        &self,
        set: &VMReplicaSet,
        name: &str,
        zone: Option<&str>,
    ) -> Result<Creation, ApiError> {
        match self.post(&template::new_server_in(set, name, zone)).await {
            Ok(_) => return Ok(Creation::Created),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(ApiError::doing(format!("create Server {name}"))(error)),
        }
        let found = self.api.servers().get_opt(name).await;
        let found = found.map_err(ApiError::doing(format!("read Server {name}")))?;
        // If it is gone again in the meantime, the next reconcile decides anew.
        let is_own = found.is_none_or(|server| set.owns(&server));
        Ok(if is_own { Creation::Created } else { Creation::NameTaken })
    }

    async fn post(&self, server: &Server) -> kube::Result<PartialObjectMeta<Server>> {
        let params = PostParams { field_manager: self.ctx.patch_params().field_manager, dry_run: false };
        let mut body = serde_json::to_value(server).map_err(kube::Error::SerdeError)?;
        body["spec"] = server.spec.without_defaults();
        let body = serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?;
        let request = Request::new(self.api.servers().resource_url()).create(&params, body);
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert(http::header::ACCEPT, METADATA);
        self.ctx.client.request(request).await
    }

    /// Deletes this very Server; one that is gone is as good. It is left alone if it has changed since it was read: a request that
    /// arrives late, when its sender has given up and planned anew, must not remove a Server that serves by then.
    pub(super) async fn delete(&self, server: &Server) -> Result<(), ApiError> {
        let resource_version = server.metadata.resource_version.clone();
        let preconditions = Some(Preconditions { uid: server.metadata.uid.clone(), resource_version });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        let result = self.api.servers().delete(server.name(), &params).await;
        written(result.map_err(ApiError::doing(format!("delete Server {}", server.name())))).map(drop)
    }

    /// Gives this very Server the template's environment. It is left alone if it was out of service when it was read, and may serve
    /// by now.
    pub(super) async fn update(&self, set: &VMReplicaSet, server: &Server) -> Result<(), ApiError> {
        let patch = template_patch::patch(set, server);
        self.patch(server, patch, "update the environment of").await.map(drop)
    }

    /// Requests a reboot of this very Server's machine, if nothing has changed since it was read. Says whether it did.
    pub(super) async fn request_reboot(&self, server: &Server, id: &str) -> Result<bool, ApiError> {
        let request = json!({"id": id, "reason": "failover"});
        self.declare(server, "reboot", &request, "request a reboot of").await
    }

    /// Retains this very Server's machine for diagnosis, if nothing has changed since it was read. Says whether it did.
    pub(super) async fn retain(&self, server: &Server, until: Timestamp, reason: &str) -> Result<bool, ApiError> {
        let retention = json!({"until": Time(until), "reason": reason});
        self.declare(server, "retain", &retention, "retain the machine of").await
    }

    async fn declare(&self, server: &Server, field: &str, value: &Value, action: &str) -> Result<bool, ApiError> {
        let patch = GuardedPatch::of_version(&server.metadata).add(&["spec", field], value).build();
        self.patch(server, patch, action).await
    }

    async fn patch(&self, server: &Server, patch: JsonPatch, action: &str) -> Result<bool, ApiError> {
        let patch = Patch::Json::<()>(patch);
        let result = self.api.servers().patch(server.name(), &self.ctx.patch_params(), &patch).await;
        written(result.map_err(ApiError::doing(format!("{action} Server {}", server.name()))))
    }

    /// Lowers the number of Servers where it is declared: in the set, or in the VMDeployment that controls it. Says whether it
    /// did: not if the number there is no longer, or not yet, the set's.
    pub(super) async fn lower_replicas(&self, set: &VMReplicaSet, by: i32) -> Result<bool, ApiError> {
        let (name, uid) = match set.deployment() {
            Some(owner) => (owner.name.as_str(), owner.uid.as_str()),
            None => (set.name(), set.uid()),
        };
        let patch = GuardedPatch::default()
            .test(&["metadata", "uid"], uid)
            .test(&["spec", "replicas"], &set.spec.replicas)
            .replace(&["spec", "replicas"], &(set.spec.replicas - by));
        let (params, patch) = (self.ctx.patch_params(), Patch::Json::<()>(patch.build()));
        let result = match set.deployment() {
            Some(_) => self.deployments.patch_scale(name, &params, &patch).await,
            None => self.api.sets().patch_scale(name, &params, &patch).await,
        };
        written(result.map_err(ApiError::doing(format!("lower the replicas of {name}"))))
    }
}
