//! The keys of Services and EndpointSlices.

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::slice_group::SERVICE_NAME;

/// The key of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServiceKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ServiceKey {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The Service that a slice belongs to, by its label.
    pub(crate) fn of_slice(slice: &EndpointSlice) -> Self {
        let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        Self {
            namespace: slice.metadata.namespace.clone().unwrap_or_default(),
            name: service.cloned().unwrap_or_default(),
        }
    }
}

/// The key of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SliceKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl SliceKey {
    pub(crate) fn of(slice: &EndpointSlice) -> Self {
        Self {
            namespace: slice.metadata.namespace.clone().unwrap_or_default(),
            name: slice.metadata.name.clone().unwrap_or_default(),
        }
    }
}
