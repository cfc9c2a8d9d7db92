//! Traffic and monitoring declarations.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which load balancers send traffic to a Server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// Kubernetes Services (without a selector) of the Server's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub services: Vec<ServiceBackend>,
    /// HAProxy backends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub haproxy: Vec<HaProxyBackend>,
    /// Seconds that open connections are given when traffic is taken away.
    #[serde(default = "drain")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: i32,
}

fn drain() -> i32 {
    10
}

/// A Service that sends traffic to the Server through an EndpointSlice.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceBackend {
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Port on the machine.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Name of the Service's port, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub port_name: Option<String>,
}

/// A backend of an HAProxy that lb-controller is configured with.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HaProxyBackend {
    /// Name of the backend in HAProxy's configuration.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9_.:-]+$"))]
    pub name: String,
    /// Port on the machine.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Share of the backend's traffic, relative to the other servers' weights.
    #[serde(default = "weight")]
    #[schemars(range(min = 0, max = 256))]
    pub weight: i32,
}

fn weight() -> i32 {
    100
}

/// How a Server is watched.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// Port of the metrics on the machine.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Path of the metrics.
    #[serde(default = "path")]
    #[schemars(length(max = 1024), regex(pattern = r"^/[^\s]*$"))]
    pub path: String,
    /// Labels of the target.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub labels: std::collections::BTreeMap<String, String>,
}

fn path() -> String {
    "/metrics".into()
}
