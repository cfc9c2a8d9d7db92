//! How the health of an application and the reachability of a machine are probed.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Probe that decides whether the application is healthy. Exactly one of `httpGet` and `tcpSocket` is set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.httpGet) != has(self.tcpSocket)").message("a health check is exactly one of httpGet or tcpSocket"))]
pub struct HealthCheck {
    /// Healthy when an HTTP GET request is answered with a status from 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGet>,
    /// Healthy when the port accepts a TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocket>,
    /// Seconds between two probes.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: i32,
    /// Seconds after which a probe without an answer has failed.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 300))]
    pub timeout_seconds: i32,
    /// Number of consecutive successes after which the application is healthy.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: i32,
    /// Number of consecutive failures after which the application is unhealthy.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: i32,
    /// Seconds within which the application must become healthy after a change. After that the Server is stalled and a
    /// person is needed.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 86400))]
    pub deadline_seconds: i32,
}

/// An HTTP probe of the application.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpGet {
    /// Port on the machine's address.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Path of the request.
    #[serde(default = "root")]
    #[schemars(length(max = 1024), regex(pattern = r"^/[^\s]*$"))]
    pub path: String,
}

/// A TCP probe of the application.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpSocket {
    /// Port on the machine's address.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// When a machine counts as unreachable. It is probed by connecting to its SSH port.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reachability {
    /// Seconds between two probes.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: i32,
    /// Seconds after which a probe without an answer has failed.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 300))]
    pub timeout_seconds: i32,
    /// Seconds of failed probes after which the machine counts as unreachable and the Server becomes Unknown.
    #[serde(default = "thirty")]
    #[schemars(range(min = 1, max = 86400))]
    pub unreachable_after_seconds: i32,
}

impl Default for Reachability {
    fn default() -> Self {
        Self { period_seconds: ten(), timeout_seconds: two(), unreachable_after_seconds: thirty() }
    }
}

fn root() -> String {
    "/".into()
}

fn one() -> i32 {
    1
}

fn two() -> i32 {
    2
}

fn three() -> i32 {
    3
}

fn ten() -> i32 {
    10
}

fn thirty() -> i32 {
    30
}

fn ten_minutes() -> i32 {
    600
}
