//! Objects as the webhook reads them: of `managedFields`, which can be larger than the rest, nothing but the names.

use berth_core::api::{Approval, ApprovalSpec, Executor, Server, ServerSpec, ServerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The metadata that the life cycle looks at. Everything else is skipped while reading and never part of a patch.
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
    managed_fields: Option<Vec<Managed>>,
}

/// Who has written fields of an object. Which fields is skipped while reading.
#[derive(Deserialize)]
struct Managed {
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

/// A Server as it is read.
#[derive(Deserialize)]
pub struct RawServer {
    metadata: Metadata,
    spec: ServerSpec,
    #[serde(default)]
    status: Option<ServerStatus>,
}

impl RawServer {
    /// Whether the API server keeps book of who wrote which of its fields, although only controllers of Berth have written
    /// any, and none of them by applying.
    #[must_use]
    pub fn is_tracked_in_vain(&self) -> bool {
        let ours = |entry: &Managed| {
            entry.operation == "Update" && Executor::CONTROLLERS.iter().any(|executor| executor.name() == entry.manager)
        };
        self.metadata.managed_fields.as_ref().is_some_and(|entries| !entries.is_empty() && entries.iter().all(ours))
    }
}

impl From<RawServer> for Server {
    fn from(RawServer { metadata, spec, status }: RawServer) -> Self {
        Self { metadata: metadata.into(), spec, status }
    }
}

/// The status of a Server; everything else is skipped while reading.
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

/// Why an object could not be decoded: the path of the field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Undecodable {
    /// The path of the field.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// Decodes a Server.
pub fn server(raw: &RawValue) -> Result<Server, Undecodable> {
    raw_server(raw).map(Into::into)
}

/// Decodes a Server, with who has written its fields.
pub fn raw_server(raw: &RawValue) -> Result<RawServer, Undecodable> {
    decode(raw)
}

/// Decodes the metadata of a Server and nothing else.
pub fn metadata(raw: &RawValue) -> Result<ObjectMeta, Undecodable> {
    decode::<RawMetadata>(raw).map(|raw| raw.metadata.into())
}

/// Decodes the status of a Server and nothing else.
pub fn status(raw: &RawValue) -> Result<Option<ServerStatus>, Undecodable> {
    decode::<RawStatus>(raw).map(|raw| raw.status)
}

/// Decodes an Approval.
pub fn approval(raw: &RawValue) -> Result<Approval, Undecodable> {
    let RawApproval { metadata, spec } = decode(raw)?;
    Ok(Approval { metadata: metadata.into(), spec })
}

fn decode<T: DeserializeOwned>(raw: &RawValue) -> Result<T, Undecodable> {
    // Following the path costs time, so it is followed only when there is something to say.
    serde_json::from_str(raw.get()).map_err(|error| explain::<T>(raw, &error))
}

fn explain<T: DeserializeOwned>(raw: &RawValue, error: &serde_json::Error) -> Undecodable {
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    let (field, message) = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(located) => (located.path().to_string(), located.inner().to_string()),
        Ok(_) => (".".to_owned(), error.to_string()),
    };
    let field = if field == "." { "object".to_owned() } else { field };
    // serde_json ends its messages with a position in a body that nobody sees.
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    Undecodable { field, message }
}
