//! Calls to the API server. Every write is guarded: it succeeds only on the version of the slice that it was made from.

use std::{collections::BTreeMap, sync::Arc};

use berth_core::api::Server;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
    core::Status,
};

use super::{
    keys::ServiceKey,
    next_writes::SliceWrite,
    slice_cache::SliceCache,
    slice_group::{MANAGED_BY, MANAGER, SERVICE_NAME},
};
use crate::{balancer::BalancerError, member::ServerRef};

/// Slices in one page of a list: a full slice has up to 40 KB, so a page has up to 2 MB.
const PAGE_SIZE: u32 = 50;

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WriteResult {
    /// It is stored.
    Written,
    /// The slice has changed since it was read.
    Stale,
    /// A slice of this name exists, but was not known to be the Service's.
    NameTaken(String),
}

/// The part of the API server that EndpointSlices need.
#[derive(Clone)]
pub(crate) struct SliceApi {
    client: Client,
}

impl SliceApi {
    /// The client limits the time of each call.
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn slices(&self, namespace: &str) -> Api<EndpointSlice> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Carries out a write, and records it in the cache.
    pub(crate) async fn write(
        &self,
        namespace: &str,
        write: SliceWrite,
        cache: &SliceCache,
    ) -> Result<WriteResult, BalancerError> {
        let api = self.slices(namespace);
        let name = write.name().to_owned();
        let action = |verb: &str| format!("{verb} EndpointSlice {namespace}/{name}");
        match write {
            SliceWrite::Create(slice) => match api.create(&PostParams::default(), &slice).await {
                Ok(stored) => cache.record_write(stored),
                Err(kube::Error::Api(status)) if status.is_already_exists() => return Ok(WriteResult::NameTaken(name)),
                Err(error) => return Err(failure(action("create"), error)),
            },
            SliceWrite::Replace(slice) => match api.replace(&name, &PostParams::default(), &slice).await {
                Ok(stored) => cache.record_write(stored),
                Err(error) => return stale_or_failure(action("write"), error),
            },
            SliceWrite::Delete(slice) => match api.delete(&name, &only_this_version(&slice)).await {
                Ok(_) => cache.record_deletion(&slice),
                Err(error) => return stale_or_failure(action("delete"), error),
            },
        }
        Ok(WriteResult::Written)
    }

    /// All slices of a Service that this program manages, as the API server has them now.
    pub(crate) async fn list(&self, service: &ServiceKey) -> Result<Vec<EndpointSlice>, BalancerError> {
        let ServiceKey { namespace, name } = service;
        let labels = format!("{SERVICE_NAME}={name},{MANAGED_BY}={MANAGER}");
        let mut params = ListParams::default().labels(&labels).limit(PAGE_SIZE);
        let mut slices = Vec::new();
        loop {
            let page = self.slices(namespace).list(&params).await;
            let page =
                page.map_err(|error| failure(format!("list the EndpointSlices of Service {namespace}/{name}"), error))?;
            slices.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(slices),
            }
        }
    }

    /// One slice, whatever its labels.
    pub(crate) async fn get(&self, namespace: &str, name: &str) -> Result<Option<EndpointSlice>, BalancerError> {
        let slice = self.slices(namespace).get_opt(name).await;
        slice.map_err(|error| failure(format!("read EndpointSlice {namespace}/{name}"), error))
    }

    /// The Server of this name as it is now.
    pub(crate) async fn server(&self, server: &ServerRef) -> Result<Option<Server>, BalancerError> {
        let ServerRef { namespace, name, .. } = server;
        let api = Api::<Server>::namespaced(self.client.clone(), namespace);
        api.get_opt(name).await.map_err(|error| failure(format!("read Server {namespace}/{name}"), error))
    }

    /// The annotations of the Service; none when it does not exist.
    pub(crate) async fn service_annotations(
        &self,
        service: &ServiceKey,
    ) -> Result<Option<BTreeMap<String, String>>, BalancerError> {
        let ServiceKey { namespace, name } = service;
        let api = Api::<Service>::namespaced(self.client.clone(), namespace);
        let found = api.get_metadata_opt(name).await;
        let found = found.map_err(|error| failure(format!("read Service {namespace}/{name}"), error))?;
        Ok(found.map(|service| service.metadata.annotations.unwrap_or_default()))
    }
}

fn only_this_version(slice: &Arc<EndpointSlice>) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: slice.metadata.uid.clone(),
            resource_version: slice.metadata.resource_version.clone(),
        }),
        ..DeleteParams::default()
    }
}

/// The cause that the API server gives for refusing every creation in a namespace that is being deleted.
const NAMESPACE_ENDING: &str = "NamespaceTerminating";

fn is_namespace_ending(status: &Status) -> bool {
    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == NAMESPACE_ENDING)
}

/// 400, 403 and 422 say that the request itself is not acceptable; any other failure may pass.
fn failure(action: String, error: kube::Error) -> BalancerError {
    match error {
        kube::Error::Api(status) if is_namespace_ending(&status) => {
            BalancerError::NamespaceEnding { action, reason: status.message.clone() }
        }
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
            BalancerError::Refused { action, reason: status.message.clone() }
        }
        kube::Error::Api(status) => BalancerError::Unavailable { action, reason: status.message.clone() },
        other => BalancerError::Unavailable { action, reason: other.to_string() },
    }
}

fn stale_or_failure(action: String, error: kube::Error) -> Result<WriteResult, BalancerError> {
    match error {
        kube::Error::Api(status) if status.is_conflict() || status.is_not_found() => Ok(WriteResult::Stale),
        error => Err(failure(action, error)),
    }
}
