//! MachineClass: which provider creates machines, and how.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declaration of a MachineClass: which provider creates machines, with which parameters and credentials.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "MachineClass",
    plural = "machineclasses",
    shortname = "mcl",
    category = "berth",
    derive = "PartialEq",
    doc = "Which provider creates machines, with which parameters and credentials.",
    selectable = ".spec.provider",
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image"),
    printcolumn(name = "Flavor", type_ = "string", json_path = ".spec.flavor"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MachineClassSpec {
    /// Name of the provider that creates the machines, for example `incus`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub provider: String,
    /// Image of the machines. A Server may name another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Flavor (size) of the machines. A Server may name another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub flavor: Option<String>,
    /// Parameters of the provider. Each provider documents its own and refuses unknown ones.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schemars(schema_with = "any_object")]
    pub parameters: serde_json::Map<String, serde_json::Value>,
    /// Secret with the credentials for the provider's API. Not needed by every provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// How Berth logs in to the machines.
    #[serde(default)]
    pub access: MachineAccess,
    /// What is done about machines of this class that belong to no Server: `Report` only reports them, `Delete` destroys
    /// them after the grace period.
    #[serde(default)]
    pub orphan_policy: OrphanPolicy,
    /// Seconds after its creation during which a machine without a Server does not count as an orphan.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub orphan_grace_seconds: i32,
    /// Most machines without a Server that are destroyed at once with `orphanPolicy: Delete`. When there are more, none of
    /// them is destroyed until a person has raised this limit. Defaults to 5, or to a tenth of the class's machines if that
    /// is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub orphan_limit: Option<i32>,
    /// Namespaces whose Servers may get machines of this class; without it, all of them. Machines that exist stay, whatever
    /// this and the following fields say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 63)))]
    pub allowed_namespaces: Option<Vec<String>>,
    /// Images that a Server may name; without it, any. The class's own is always allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 512)))]
    pub allowed_images: Option<Vec<String>>,
    /// Flavors that a Server may name; without it, any. The class's own is always allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub allowed_flavors: Option<Vec<String>>,
    /// Most machines of this class, in all namespaces together; without it, any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_machines: Option<i32>,
}

fn ten_minutes() -> i32 {
    600
}

/// What is done about machines that belong to no Server.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum OrphanPolicy {
    /// Reports them and leaves them alone.
    #[default]
    Report,
    /// Destroys them after the grace period.
    Delete,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Reference to a Secret with credentials.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Namespace of the Secret.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How Berth logs in to the machines of a class.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineAccess {
    /// User that Berth logs in as by SSH.
    #[serde(default = "user")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z_][a-z0-9_-]*$"))]
    pub user: String,
    /// Port of the machine's SSH server.
    #[serde(default = "port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Folder on the machine in which Berth keeps packages, releases and services.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^/?[a-zA-Z0-9._/-]+$"))]
    pub root: String,
}

impl Default for MachineAccess {
    fn default() -> Self {
        Self { user: user(), port: port(), root: root() }
    }
}

fn user() -> String {
    "root".into()
}

fn port() -> i32 {
    22
}

fn root() -> String {
    "/opt/berth".into()
}
