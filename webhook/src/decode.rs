//! Decodes the objects of a review. Of `managedFields`, which can be larger than the rest, it keeps only manager and
//! operation.

use berth_core::api::{Approval, ApprovalSpec, Executor, RolloutRequest, Server, ServerSpec, ServerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The metadata that the life cycle reads. Everything else is skipped while decoding and never part of a patch.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    generate_name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    generation: Option<i64>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    managed_fields: Option<Vec<ManagedFieldsEntry>>,
}

/// One entry of `managedFields`, without the list of its fields.
#[derive(Deserialize)]
struct ManagedFieldsEntry {
    #[serde(default)]
    manager: String,
    #[serde(default)]
    operation: String,
}

impl From<Metadata> for ObjectMeta {
    fn from(m: Metadata) -> Self {
        Self {
            name: m.name,
            generate_name: m.generate_name,
            namespace: m.namespace,
            uid: m.uid,
            generation: m.generation,
            resource_version: m.resource_version,
            creation_timestamp: m.creation_timestamp,
            deletion_timestamp: m.deletion_timestamp,
            finalizers: m.finalizers,
            owner_references: m.owner_references,
            labels: m.labels,
            annotations: m.annotations,
            ..Self::default()
        }
    }
}

/// A Server together with the managers of its fields.
#[derive(Deserialize)]
pub struct RawServer {
    metadata: Metadata,
    spec: ServerSpec,
    #[serde(default)]
    status: Option<ServerStatus>,
}

impl RawServer {
    /// Whether it has `managedFields` that serve no purpose: only Berth's controllers are in it, and none of them by
    /// server-side apply.
    #[must_use]
    pub fn has_needless_managed_fields(&self) -> bool {
        let is_needless = |entry: &ManagedFieldsEntry| {
            entry.operation == "Update" && Executor::CONTROLLERS.iter().any(|executor| executor.name() == entry.manager)
        };
        let entries = self.metadata.managed_fields.as_deref().unwrap_or_default();
        !entries.is_empty() && entries.iter().all(is_needless)
    }
}

impl From<RawServer> for Server {
    fn from(RawServer { metadata, spec, status }: RawServer) -> Self {
        Self { metadata: metadata.into(), spec, status }
    }
}

/// A Server from which only the status is decoded.
#[derive(Deserialize)]
pub struct RawStatus {
    /// The status.
    #[serde(default)]
    pub status: Option<ServerStatus>,
}

#[derive(Deserialize)]
struct RawMetadata {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct RawApproval {
    metadata: Metadata,
    spec: ApprovalSpec,
}

/// A VMDeployment, as far as the webhook decides on it.
#[derive(Deserialize)]
struct RawDeployment {
    spec: RawDeploymentSpec,
}

#[derive(Deserialize)]
struct RawDeploymentSpec {
    #[serde(default)]
    rollout: RawRollout,
}

#[derive(Default, Deserialize)]
struct RawRollout {
    request: Option<RolloutRequest>,
}

/// Why an object does not decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct DecodeError {
    /// Path of the field, such as `spec.packages[0].archive`; `object` where the object as a whole is wrong.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// Decodes a Server.
pub fn server(raw: &RawValue) -> Result<Server, DecodeError> {
    raw_server(raw).map(Into::into)
}

/// Decodes a Server together with the managers of its fields.
pub fn raw_server(raw: &RawValue) -> Result<RawServer, DecodeError> {
    decode(raw)
}

/// Decodes the metadata of a Server and nothing else.
pub fn metadata(raw: &RawValue) -> Result<ObjectMeta, DecodeError> {
    decode::<RawMetadata>(raw).map(|raw| raw.metadata.into())
}

/// Decodes the status of a Server and nothing else.
pub fn status(raw: &RawValue) -> Result<Option<ServerStatus>, DecodeError> {
    decode::<RawStatus>(raw).map(|raw| raw.status)
}

/// Decodes an Approval.
pub fn approval(raw: &RawValue) -> Result<Approval, DecodeError> {
    let RawApproval { metadata, spec } = decode(raw)?;
    Ok(Approval { metadata: metadata.into(), spec, status: None })
}

/// Decodes the request about the roll-out of a VMDeployment, and nothing else.
pub fn rollout_request(raw: &RawValue) -> Result<Option<RolloutRequest>, DecodeError> {
    decode::<RawDeployment>(raw).map(|raw| raw.spec.rollout.request)
}

fn decode<T: DeserializeOwned>(raw: &RawValue) -> Result<T, DecodeError> {
    // Tracking the path costs time, so only an object that does not decode is decoded again with the path.
    serde_json::from_str(raw.get()).map_err(|error| locate::<T>(raw, &error))
}

fn locate<T: DeserializeOwned>(raw: &RawValue, error: &serde_json::Error) -> DecodeError {
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    let (field, message) = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(located) => (located.path().to_string(), located.inner().to_string()),
        Ok(_) => (".".to_owned(), error.to_string()),
    };
    let field = if field == "." { "object".to_owned() } else { field };
    // serde_json ends its messages with a position in the body of the review, which the user never sees.
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    DecodeError { field, message }
}
