//! Reading a set and its Servers from the API server, and writing what depends on them.
//!
//! A plan that spends budget must be made from the set as read first and its Servers as read after that, never from a cache,
//! and be entered by a write that tests the set's `resourceVersion`.

use std::collections::HashMap;

use berth_core::{
    api::{Server, VMReplicaSet, VMReplicaSetStatus},
    protocol::GuardedPatch,
};
use kube::{
    Api,
    api::{ListParams, Patch},
};

use crate::{ApiError, Context, resource_version, written};

/// Objects per page of a list. Few, because a page is in memory as text and decoded beside the cache's objects.
const PAGE: u32 = 100;

/// The sets and Servers of one namespace, as the API server has them now.
pub struct SetApi<'a> {
    ctx: &'a Context,
    sets: Api<VMReplicaSet>,
    servers: Api<Server>,
}

/// A Server as the API server has it now.
pub enum ListedServer<'c> {
    /// The cache has the same version: a large set need not be in memory twice.
    Cached(&'c Server),
    /// The cache has another version, or none.
    Newer(Box<Server>),
}

impl ListedServer<'_> {
    /// The Server.
    #[must_use]
    pub fn server(&self) -> &Server {
        match self {
            Self::Cached(server) => server,
            Self::Newer(server) => server,
        }
    }
}

impl<'a> SetApi<'a> {
    /// The API of this namespace.
    #[must_use]
    pub fn new(ctx: &'a Context, namespace: &str) -> Self {
        let client = ctx.client.clone();
        Self { ctx, sets: Api::namespaced(client.clone(), namespace), servers: Api::namespaced(client, namespace) }
    }

    /// The sets of the namespace.
    #[must_use]
    pub fn sets(&self) -> &Api<VMReplicaSet> {
        &self.sets
    }

    /// The Servers of the namespace.
    #[must_use]
    pub fn servers(&self) -> &Api<Server> {
        &self.servers
    }

    /// The set of this name as it is now; none when there is none, or its deletion was requested.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn get(&self, name: &str) -> Result<Option<VMReplicaSet>, ApiError> {
        let found = self.sets.get_opt(name).await.map_err(ApiError::doing(format!("read VMReplicaSet {name}")))?;
        Ok(found.filter(|set| set.metadata.deletion_timestamp.is_none()))
    }

    /// The same set as it is now; none when it is gone, or its deletion was requested.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn get_again(&self, read: &VMReplicaSet) -> Result<Option<VMReplicaSet>, ApiError> {
        Ok(self.get(read.name()).await?.filter(|set| set.metadata.uid == read.metadata.uid))
    }

    /// Whether nothing at all about the set has changed since it was read.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn is_unchanged(&self, read: &VMReplicaSet) -> Result<bool, ApiError> {
        let now = self.get_again(read).await?;
        Ok(now.is_some_and(|set| set.metadata.resource_version == read.metadata.resource_version))
    }

    /// All Servers that the set controls by their owner references, page by page. Of a Server that has not changed since
    /// `cached_servers` were read the cached copy is given.
    ///
    /// The API server selects by labels and not by owners. So a Server of the set whose labels somebody has changed is found
    /// through `cached_servers`, and read by its name.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn list_servers<'c>(
        &self,
        set: &VMReplicaSet,
        cached_servers: &[&'c Server],
    ) -> Result<Vec<ListedServer<'c>>, ApiError> {
        let cached: HashMap<_, &'c Server> =
            cached_servers.iter().map(|server| (&server.metadata.uid, *server)).collect();
        let listed = |server: Server| match cached.get(&server.metadata.uid) {
            Some(same) if resource_version(*same) == resource_version(&server) => ListedServer::Cached(same),
            _ => ListedServer::Newer(Box::new(server)),
        };
        let mut unlisted: HashMap<&str, &'c Server> = cached_servers.iter().map(|s| (s.name(), *s)).collect();
        let mut params = ListParams::default().labels(&set.selector_text()).limit(PAGE);
        let mut servers = Vec::new();
        loop {
            let page = self.servers.list(&params).await;
            let page = page.map_err(|error| ApiError::doing(format!("list the Servers of {}", set.name()))(error))?;
            for server in &page.items {
                unlisted.remove(server.name());
            }
            servers.extend(page.items.into_iter().filter(|server| set.owns(server)).map(listed));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        for name in unlisted.into_keys() {
            let found = self.servers.get_opt(name).await;
            let found = found.map_err(|error| ApiError::doing(format!("read Server {name}"))(error))?;
            servers.extend(found.filter(|server| set.owns(server)).map(listed));
        }
        Ok(servers)
    }

    /// Writes the set's status, and with it the ledger, if nothing about the set has changed since it was read. Says whether
    /// it was written.
    ///
    /// # Errors
    /// When the call fails for another reason.
    pub async fn swap_status(&self, read: &VMReplicaSet, status: &VMReplicaSetStatus) -> Result<bool, ApiError> {
        let patch = GuardedPatch::of_version(&read.metadata).add(&["status"], status).build();
        let result = self.sets.patch_status(read.name(), &self.ctx.patch_params(), &Patch::Json::<()>(patch)).await;
        written(result.map_err(ApiError::doing(format!("write the status of VMReplicaSet {}", read.name()))))
    }
}
