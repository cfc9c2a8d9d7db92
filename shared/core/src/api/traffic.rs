//! Declarations of traffic and monitoring.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Load balancers that send traffic to a Server while it is Ready.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// Services without a selector, in the namespace of the Server, whose EndpointSlices contain the Server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub services: Vec<ServiceBackend>,
    /// HAProxy backends. Not supported yet: a Server that declares any is not registered, and its task says why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub haproxy: Vec<HaProxyBackend>,
    /// Seconds for which open connections may finish when the Server is taken out of traffic.
    #[serde(default = "drain")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: i32,
}

fn drain() -> i32 {
    10
}

/// A Service that sends traffic to the Server.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceBackend {
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Port on the machine.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Name of the Service's port, if it has one.
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
    /// Share of the backend's traffic, relative to the weights of its other servers.
    #[serde(default = "weight")]
    #[schemars(range(min = 0, max = 256))]
    pub weight: i32,
}

fn weight() -> i32 {
    100
}

/// Where Prometheus scrapes the metrics of a Server.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// Port on the machine that serves metrics.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// HTTP path of the metrics.
    #[serde(default = "path")]
    #[schemars(length(max = 1024), regex(pattern = r"^/[^\s]*$"))]
    pub path: String,
    /// Labels of the monitoring target.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub labels: std::collections::BTreeMap<String, String>,
}

fn path() -> String {
    "/metrics".into()
}
