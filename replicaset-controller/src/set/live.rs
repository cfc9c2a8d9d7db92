//! A set and its Servers as the API server has them now, and the writes that depend on that.

use std::collections::{HashMap, HashSet};

use berth_core::api::{Server, VMDeployment, VMReplicaSet, VMReplicaSetStatus};
use berth_runtime::{CallError as Error, Context, resource_version, written};
use json_patch::{
    AddOperation, Patch as JsonPatch, PatchOperation, ReplaceOperation, TestOperation, jsonptr::PointerBuf,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::{PartialObjectMeta, Request},
};
use serde_json::{Value, json};

use super::{environment, members};

/// Objects per page of a list. Few, because a page is in memory as text and decoded beside what the cache has.
const PAGE: u32 = 100;

/// The form of an answer that has nothing but the object's metadata.
const METADATA: http::HeaderValue =
    http::HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// The API of one set.
pub(super) struct Live<'a> {
    ctx: &'a Context,
    deployments: Api<VMDeployment>,
    sets: Api<VMReplicaSet>,
    servers: Api<Server>,
}

/// A Server as the API server has it.
pub(super) enum Listed<'c> {
    /// As the cache has it.
    Cached(&'c Server),
    /// The cache has another version, or none.
    Newer(Box<Server>),
}

impl Listed<'_> {
    pub(super) fn server(&self) -> &Server {
        match self {
            Self::Cached(server) => server,
            Self::Newer(server) => server,
        }
    }
}

/// What came of a creation.
pub(super) enum Created {
    /// There is the set's Server of that name now, by whomever.
    Ours,
    /// The name belongs to somebody else's Server.
    Taken,
}

impl<'a> Live<'a> {
    pub(super) fn new(ctx: &'a Context, namespace: &str) -> Self {
        let client = ctx.client.clone();
        Self {
            ctx,
            deployments: Api::namespaced(client.clone(), namespace),
            sets: Api::namespaced(client.clone(), namespace),
            servers: Api::namespaced(client, namespace),
        }
    }

    /// The set as it is now; `None` when it is gone, going, or another one by that name.
    pub(super) async fn set(&self, known: &VMReplicaSet) -> Result<Option<VMReplicaSet>, Error> {
        let found = self.sets.get_opt(&known.name_any()).await.map_err(Error::call("read the VMReplicaSet"))?;
        Ok(found.filter(|s| s.metadata.uid == known.metadata.uid && s.metadata.deletion_timestamp.is_none()))
    }

    /// The names that the set gives to new Servers as it is now; none when it is gone.
    pub(super) async fn creating(&self, known: &VMReplicaSet) -> Result<HashSet<String>, Error> {
        let status = self.set(known).await?.and_then(|set| set.status);
        Ok(status.map(|status| status.creating).unwrap_or_default().into_iter().collect())
    }

    /// The Servers that the set controls, as they are now and not as some cache has them. Of those that have not changed
    /// since the cache saw them the cache's copy is given: a large set need not be in memory twice.
    pub(super) async fn servers<'c>(
        &self,
        set: &VMReplicaSet,
        cached: &[&'c Server],
    ) -> Result<Vec<Listed<'c>>, Error> {
        let cached: HashMap<_, &'c Server> = cached.iter().map(|server| (&server.metadata.uid, *server)).collect();
        let listed = |server: Server| match cached.get(&server.metadata.uid) {
            Some(same) if resource_version(*same) == resource_version(&server) => Listed::Cached(same),
            _ => Listed::Newer(Box::new(server)),
        };
        let mut params = ListParams::default().labels(&members::selector(set)).limit(PAGE);
        let mut servers = Vec::new();
        loop {
            let page = self.servers.list(&params).await.map_err(Error::call("list the VMReplicaSet's Servers"))?;
            servers.extend(page.items.into_iter().filter(|server| members::is_own(set, server)).map(listed));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(servers),
            }
        }
    }

    /// Writes the status, if the set is still the one that was read. Says whether it was.
    pub(super) async fn write_status(&self, read: &VMReplicaSet, status: &VMReplicaSetStatus) -> Result<bool, Error> {
        let version = read.metadata.resource_version.clone();
        let patch = JsonPatch(vec![
            test(&["metadata", "resourceVersion"], version.into()),
            PatchOperation::Add(AddOperation {
                path: PointerBuf::from_tokens(["status"]),
                value: serde_json::to_value(status).unwrap_or_default(),
            }),
        ]);
        let patch = Patch::Json::<()>(patch);
        let result = self.sets.patch_status(&read.name_any(), &self.manager(), &patch).await;
        written(result.map_err(Error::call("write the VMReplicaSet's status")))
    }

    pub(super) async fn create(&self, set: &VMReplicaSet, name: &str) -> Result<Created, Error> {
        match self.post(&members::new_server(set, name)).await {
            Ok(_) => return Ok(Created::Ours),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(Error::call(format!("create the Server {name}"))(error)),
        }
        let found = self.servers.get_opt(name).await.map_err(Error::call(format!("read the Server {name}")))?;
        // Gone again in the meantime: the next look at the set decides anew.
        Ok(if found.is_none_or(|server| members::is_own(set, &server)) { Created::Ours } else { Created::Taken })
    }

    /// Creates the Server. Of what it has become no more than the metadata is asked for: it is known what it is.
    async fn post(&self, server: &Server) -> kube::Result<PartialObjectMeta<Server>> {
        let params = PostParams { field_manager: Some(self.ctx.executor.name().to_owned()), dry_run: false };
        let body = serde_json::to_vec(server).map_err(kube::Error::SerdeError)?;
        let request = Request::new(self.servers.resource_url()).create(&params, body);
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert(http::header::ACCEPT, METADATA);
        self.ctx.client.request(request).await
    }

    /// Deletes this very Server. One that is gone is as good. With `unchanged` it is left alone if it has changed.
    pub(super) async fn delete(&self, server: &Server, unchanged: bool) -> Result<(), Error> {
        let name = server.name_any();
        let resource_version = server.resource_version().filter(|_| unchanged);
        let preconditions = Some(Preconditions { uid: server.uid(), resource_version });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        let result = self.servers.delete(&name, &params).await;
        written(result.map_err(Error::call(format!("delete the Server {name}")))).map(drop)
    }

    /// Gives this very Server the template's environment. With `in_state` it is left alone if its state has changed.
    pub(super) async fn touch(&self, set: &VMReplicaSet, server: &Server, in_state: bool) -> Result<(), Error> {
        let name = server.name_any();
        let patch = Patch::Json::<()>(environment::patch(set, server, in_state));
        let result = self.servers.patch(&name, &self.manager(), &patch).await;
        written(result.map_err(Error::call(format!("change the environment of the Server {name}")))).map(drop)
    }

    /// Asks for a reboot of this very Server's machine, if nothing has changed. Says whether it did.
    pub(super) async fn ask_reboot(&self, server: &Server, id: &str) -> Result<bool, Error> {
        let request = json!({"id": id, "reason": "failover"});
        self.declare(server, "reboot", request, "ask for a reboot of").await
    }

    /// Keeps this very Server's machine for diagnosis, if nothing has changed. Says whether it did.
    pub(super) async fn retain(&self, server: &Server, until: Timestamp, reason: &str) -> Result<bool, Error> {
        let retention = json!({"until": Time(until), "reason": reason});
        self.declare(server, "retain", retention, "keep the machine of").await
    }

    async fn declare(&self, server: &Server, field: &str, value: Value, what: &str) -> Result<bool, Error> {
        let name = server.name_any();
        let patch = Patch::Json::<()>(JsonPatch(vec![
            test(&["metadata", "resourceVersion"], server.metadata.resource_version.clone().into()),
            PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(["spec", field]), value }),
        ]));
        let result = self.servers.patch(&name, &self.manager(), &patch).await;
        written(result.map_err(Error::call(format!("{what} the Server {name}"))))
    }

    /// Lowers the number of Servers where it is declared: in the set, or in the VMDeployment that controls it. Says
    /// whether it did: not if the number there is no longer, or not yet, the set's.
    pub(super) async fn shrink(&self, set: &VMReplicaSet, by: i32) -> Result<bool, Error> {
        let owners = set.metadata.owner_references.iter().flatten();
        let owner = owners.into_iter().find(|o| o.controller == Some(true) && o.kind == VMDeployment::kind(&()));
        let (name, uid) = match owner {
            Some(owner) => (owner.name.clone(), Some(owner.uid.clone())),
            None => (set.name_any(), set.uid()),
        };
        let replicas = PointerBuf::from_tokens(["spec", "replicas"]);
        let patch = Patch::Json::<()>(JsonPatch(vec![
            test(&["metadata", "uid"], uid.into()),
            test(&["spec", "replicas"], set.spec.replicas.into()),
            PatchOperation::Replace(ReplaceOperation { path: replicas, value: (set.spec.replicas - by).into() }),
        ]));
        let result = match owner {
            Some(_) => self.deployments.patch_scale(&name, &self.manager(), &patch).await,
            None => self.sets.patch_scale(&name, &self.manager(), &patch).await,
        };
        written(result.map_err(Error::call(format!("lower the replicas of {name}"))))
    }

    fn manager(&self) -> PatchParams {
        PatchParams { field_manager: Some(self.ctx.executor.name().to_owned()), ..PatchParams::default() }
    }
}

fn test(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Test(TestOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}
