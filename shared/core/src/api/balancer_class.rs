//! BalancerClass: a load balancer outside of the cluster, and which namespaces may use it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Credentials, allowed_namespaces};

/// Declaration of a BalancerClass: a load balancer outside of the cluster, and which namespaces may use it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "BalancerClass",
    plural = "balancerclasses",
    shortname = "bcl",
    category = "berth",
    status = "BalancerClassStatus",
    derive = "PartialEq",
    doc = "A load balancer outside of the cluster, and which namespaces may use it.",
    printcolumn(name = "Driver", type_ = "string", json_path = ".spec.driver"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Processes", type_ = "integer", json_path = ".status.processes"),
    printcolumn(name = "Servers", type_ = "integer", json_path = ".status.servers"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.driver != 'HAProxy' || has(self.haproxy)").message("spec.haproxy: the driver HAProxy needs to know where its processes are"))]
#[x_kube(validation = Rule::new("self.driver != 'Envoy' || has(self.envoy)").message("spec.envoy: the driver Envoy needs this section; it may be empty: {}"))]
pub struct BalancerClassSpec {
    /// What kind of load balancer it is.
    pub driver: BalancerDriver,
    /// Where the processes of an HAProxy are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub haproxy: Option<HaProxyAccess>,
    /// The proxies of an Envoy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy: Option<EnvoyProxies>,
    /// What happens when a process of the load balancer does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<UnreachablePolicy>,
    /// Share of a backend's Servers that stays in traffic although probes say that they are sick or silent, such as `50%`; without it
    /// what lb-controller is started with. `0%` turns the floor off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^(100|[1-9]?[0-9])%$"))]
    pub panic_threshold: Option<String>,
    /// Namespaces whose Servers may use this load balancer; without it, all of them. Registrations that exist stay until their Server
    /// is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 63)))]
    pub allowed_namespaces: Option<Vec<String>>,
}

impl BalancerClassSpec {
    /// Whether Servers of this namespace may use the load balancer.
    #[must_use]
    pub fn allows(&self, namespace: &str) -> bool {
        allowed_namespaces::allows(self.allowed_namespaces.as_ref(), namespace)
    }

    /// What happens when a process of the load balancer does not answer.
    #[must_use]
    pub fn unreachable(&self) -> UnreachablePolicy {
        self.unreachable.unwrap_or_default()
    }
}

/// A kind of load balancer.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum BalancerDriver {
    /// HAProxy 2.6 or newer, by its runtime API.
    #[serde(rename = "HAProxy")]
    HaProxy,
    /// Envoy, which asks lb-controller for its endpoints: EDS by REST.
    Envoy,
}

/// Where the processes of an HAProxy are. Each of them has the same backends, and all get the same servers.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HaProxyAccess {
    /// The sockets of the runtime API: `unix:/run/haproxy/master.sock` on the machine of lb-controller, or `10.0.0.7:9999`.
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 3, max = 256), regex(pattern = r"^(unix:/[^\s]+|[^\s/]+:[0-9]{1,5})$"))
    )]
    pub addresses: Vec<String>,
    /// Which socket it is. Only the master's socket (`haproxy -W -S ...`) shows the requests that old workers still have after a
    /// reload.
    #[serde(default)]
    pub socket: HaProxySocket,
    /// Secret with `tls.crt`, `tls.key` and `ca.crt`: lb-controller shows the certificate to the process, and checks that of the
    /// process. Without it TCP is not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Credentials>,
}

/// A socket of HAProxy's runtime API.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum HaProxySocket {
    /// That of the master process, which reaches all workers.
    #[default]
    Master,
    /// That of a worker (`stats socket ... level admin`).
    Worker,
}

/// The proxies of an Envoy. They ask lb-controller for the endpoints of `CLASS/BACKEND`, so their addresses need not be known.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxies {
    /// The admin interfaces of all proxies, such as `10.0.0.7:9901`: they tell which requests are under way. Without them, or with
    /// fewer than there are proxies, draining always takes its full time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(length(min = 3, max = 64), regex(pattern = r"^([0-9.]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$"))
    )]
    pub admins: Vec<String>,
    /// How many proxies there are. Nothing counts as changed until so many have changed it. Without it, those that ask within ten
    /// seconds after a start of lb-controller are all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub proxies: Option<i32>,
}

/// What happens when a process of a load balancer does not answer.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnreachablePolicy {
    /// Seconds after which it counts as gone.
    #[serde(default = "unreachable_after")]
    #[schemars(range(min = 1, max = 86_400))]
    pub after_seconds: i32,
    /// What then happens to tasks that need it.
    #[serde(default)]
    pub then: WhenUnreachable,
}

impl Default for UnreachablePolicy {
    fn default() -> Self {
        Self { after_seconds: unreachable_after(), then: WhenUnreachable::default() }
    }
}

fn unreachable_after() -> i32 {
    30
}

/// What happens to tasks that need a load balancer which does not answer.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum WhenUnreachable {
    /// They wait: the process may still send traffic to the Server.
    #[default]
    Block,
    /// They go on without it: whoever administers the load balancer knows that a process which does not answer sends no traffic.
    Proceed,
}

/// What lb-controller has found about the load balancer.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BalancerClassStatus {
    /// Processes that answer.
    #[serde(default)]
    pub processes: i32,
    /// Servers that are registered.
    #[serde(default)]
    pub servers: i32,
    /// `Ready`: all processes answer, and show what they should.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub conditions: Vec<Condition>,
}
