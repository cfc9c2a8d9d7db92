//! Guarded calls to the API server: a write succeeds only on the version that it was made from.

use std::{sync::Arc, time::Duration};

use berth_core::api::Server;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
    core::Status,
};

use super::{
    edit::Write,
    layout,
    view::{ServiceKey, View},
};
use crate::balancer::BalancerError;

/// After this long a call has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Slices in one page of a list: each may be 40 KB.
const PAGE: u32 = 50;

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is stored.
    Done,
    /// The slice has changed since it was looked at.
    Changed,
    /// A slice of this name exists, but is not among the Service's.
    Exists(String),
}

/// The API server's side of EndpointSlices.
#[derive(Clone)]
pub(crate) struct Store {
    client: Client,
}

impl Store {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn slices(&self, namespace: &str) -> Api<EndpointSlice> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Carries a write out and lets the view know.
    pub(crate) async fn write(&self, namespace: &str, write: Write, view: &View) -> Result<Written, BalancerError> {
        let api = self.slices(namespace);
        match write {
            Write::Create(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                let what = format!("creating EndpointSlice {namespace}/{name}");
                match call(api.create(&PostParams::default(), &slice)).await {
                    Ok(stored) => view.wrote(stored),
                    Err(Failure::Api(status)) if status.is_already_exists() => return Ok(Written::Exists(name)),
                    Err(failure) => return Err(failure.of(what)),
                }
            }
            Write::Replace(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                let what = format!("writing EndpointSlice {namespace}/{name}");
                match call(api.replace(&name, &PostParams::default(), &slice)).await {
                    Ok(stored) => view.wrote(stored),
                    Err(failure) => return failure.changed_or(what),
                }
            }
            Write::Delete(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                let what = format!("deleting EndpointSlice {namespace}/{name}");
                match call(api.delete(&name, &this_version(&slice))).await {
                    Ok(_) => view.deleted(&slice),
                    Err(failure) => return failure.changed_or(what),
                }
            }
        }
        Ok(Written::Done)
    }

    /// Every slice of a Service that is ours, as the API server has it now.
    pub(crate) async fn list(&self, key: &ServiceKey) -> Result<Vec<EndpointSlice>, BalancerError> {
        let (namespace, service) = key;
        let what = || format!("listing EndpointSlices of Service {namespace}/{service}");
        let labels = format!("{}={service},{}={}", layout::SERVICE_NAME, layout::MANAGED_BY, layout::MANAGER);
        let mut params = ListParams::default().labels(&labels).limit(PAGE);
        let mut slices = Vec::new();
        loop {
            let page = call(self.slices(namespace).list(&params)).await.map_err(|failure| failure.of(what()))?;
            slices.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(slices),
            }
        }
    }

    /// One slice, whatever its labels.
    pub(crate) async fn get(&self, namespace: &str, name: &str) -> Result<Option<EndpointSlice>, BalancerError> {
        let what = format!("reading EndpointSlice {namespace}/{name}");
        call(self.slices(namespace).get_opt(name)).await.map_err(|failure| failure.of(what))
    }

    /// The Server as it is now.
    pub(crate) async fn server(&self, namespace: &str, name: &str) -> Result<Option<Server>, BalancerError> {
        let what = format!("reading Server {namespace}/{name}");
        let api: Api<Server> = Api::namespaced(self.client.clone(), namespace);
        call(api.get_opt(name)).await.map_err(|failure| failure.of(what))
    }

    /// Whether the Service exists.
    pub(crate) async fn service_exists(&self, namespace: &str, name: &str) -> Result<bool, BalancerError> {
        let what = format!("reading Service {namespace}/{name}");
        let api: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        Ok(call(api.get_metadata_opt(name)).await.map_err(|failure| failure.of(what))?.is_some())
    }
}

fn this_version(slice: &Arc<EndpointSlice>) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: slice.metadata.uid.clone(),
            resource_version: slice.metadata.resource_version.clone(),
        }),
        ..DeleteParams::default()
    }
}

enum Failure {
    Api(Box<Status>),
    Other(kube::Error),
    Timeout,
}

async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match tokio::time::timeout(CALL_TIMEOUT, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) => Err(Failure::Api(status)),
        Ok(Err(other)) => Err(Failure::Other(other)),
        Err(_) => Err(Failure::Timeout),
    }
}

impl Failure {
    /// 400, 403 and 422 say that the request itself is not acceptable; everything else may pass.
    fn of(self, what: String) -> BalancerError {
        match self {
            Self::Api(status) if matches!(status.code, 400 | 403 | 422) => {
                BalancerError::Refused { what, why: status.message }
            }
            Self::Api(status) => BalancerError::Unavailable { what, why: status.message },
            Self::Other(error) => BalancerError::Unavailable { what, why: error.to_string() },
            Self::Timeout => {
                BalancerError::Unavailable { what, why: format!("no answer within {} s", CALL_TIMEOUT.as_secs()) }
            }
        }
    }

    fn changed_or(self, what: String) -> Result<Written, BalancerError> {
        match self {
            Self::Api(status) if status.is_conflict() || status.is_not_found() => Ok(Written::Changed),
            failure => Err(failure.of(what)),
        }
    }
}
