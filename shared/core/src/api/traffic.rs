//! Declarations of traffic and monitoring.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Load balancers that send traffic to a Server while it is Ready.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.ramp) || (has(self.backends) && self.backends.exists(backend, has(backend.class)))")
    .message("ramp needs a backend of a class: a Service knows no weights"))]
pub struct Traffic {
    /// Where the Server receives traffic from. A Service that is named several times has several ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.all(backend, has(backend.service) ? !has(backend.class) && !has(backend.name) && !has(backend.weight) : has(backend.class) && has(backend.name) && !has(backend.portName))")
        .message("a backend is either a service, with port and portName, or the name of a backend of a class, with port and weight"))]
    pub backends: Vec<Backend>,
    /// How long open connections may take when the Server is taken out of traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// How a Server that begins to receive traffic comes to its full share. Without it, it has its share at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
}

impl Traffic {
    /// Whether a load balancer gets to know the Server before it receives any traffic, by a task of its own. A proxy checks a
    /// server that it does not use yet. For a Service, an endpoint without traffic is of no use: it is added with the release.
    #[must_use]
    pub fn registers_first(&self) -> bool {
        self.backends.iter().any(|backend| backend.class.is_some())
    }

    /// What a Server that is registered as declared is registered with: the backends without their weights, which may change
    /// at any time without the Server being drained.
    #[must_use]
    pub fn registered_backends(&self) -> Vec<Backend> {
        self.backends.iter().map(Backend::without_weight).collect()
    }
}

/// How long open connections may take. Load balancers that can count their requests end draining early.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Most seconds for which open connections may finish.
    #[serde(default = "drain_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub seconds: i32,
    /// Least seconds of draining, even when every load balancer says that no request is under way. It covers what is not counted:
    /// a client that has just chosen the Server.
    #[serde(default = "drain_min_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub min_seconds: i32,
}

/// Slow start: a Server whose application has just started gets less than its share of the traffic, until its caches are warm.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ramp {
    /// Seconds from a tenth of the weight to all of it, in ten steps of the same length.
    #[schemars(range(min = 1, max = 3600))]
    pub seconds: i32,
}

impl Default for Drain {
    fn default() -> Self {
        Self { seconds: drain_seconds(), min_seconds: drain_min_seconds() }
    }
}

fn drain_seconds() -> i32 {
    10
}

fn drain_min_seconds() -> i32 {
    1
}

/// A backend that sends traffic to the Server: a Service, or a backend of a load balancer outside of the cluster.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Service without a selector, in the namespace of the Server, whose EndpointSlices contain the Server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub service: Option<String>,
    /// Name of the Service's port, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub port_name: Option<String>,
    /// BalancerClass: a load balancer outside of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub class: Option<String>,
    /// Name of the backend in the configuration of the class's load balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9_.:-]+$"))]
    pub name: Option<String>,
    /// Port on the machine.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Share of the backend's traffic, relative to the weights of its other servers; 100 by default. A changed weight takes effect
    /// at once and drains nothing. 0 sends no new clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 256))]
    pub weight: Option<i32>,
    /// Only the Servers with this version of the application are in the backend; without it, all of them. A Server that leaves the
    /// backend gets no new requests there, and stays registered elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<Subset>,
}

/// Servers of a VMDeployment, by the version of the application that they run. A subset is never empty: where no Server with its version
/// receives traffic, all Servers are in it.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Subset {
    /// Those with the version that is being rolled out, or was rolled out last.
    Updated,
    /// The others, as long as there are so many of them that none gets more than `rollout.maxLoadFactor` times its even share. While a
    /// weight splits the traffic, they alone, however few they are.
    Stable,
}

impl Backend {
    /// The same registration: what remains when the weight changes.
    #[must_use]
    pub fn without_weight(&self) -> Self {
        Self { weight: None, ..self.clone() }
    }
}

/// Where Prometheus scrapes the metrics of a Server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// Port on the machine that serves metrics.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// HTTP path of the metrics.
    #[serde(default = "path")]
    #[schemars(length(max = 1024), regex(pattern = r"^/[^\s]*$"))]
    pub path: String,
    /// Labels of the monitoring target, at most 16. A name consists of letters, digits and underscores, and begins with
    /// neither a digit nor two underscores. The names `job`, `instance`, `namespace`, `server` and `berth_paused` are
    /// reserved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "target_labels_schema")]
    #[x_kube(validation = Rule::new(format!("self.all(name, name.matches('{LABEL_NAME}') && !name.startsWith('__'))"))
            .message("monitoring.labels: a name consists of 1 to 128 letters, digits and underscores, and begins with neither a digit nor two underscores"),
        validation = Rule::new(format!("self.all(name, !(name in {RESERVED_LABELS:?}))"))
            .message("monitoring.labels: the names job, instance, namespace, server and berth_paused are reserved for Prometheus and Berth"))]
    pub labels: BTreeMap<String, String>,
}

/// Names of Prometheus labels. Another one makes Prometheus reject the whole list of targets.
const LABEL_NAME: &str = "^[a-zA-Z_][a-zA-Z0-9_]{0,127}$";

/// Labels that Prometheus or monitor-controller sets: with them, a Server could pass for another one.
const RESERVED_LABELS: [&str; 5] = ["job", "instance", "namespace", "server", "berth_paused"];

/// Most labels of one target: Prometheus stores each with every series of the target.
const MAX_TARGET_LABELS: usize = 16;

/// Longest value of a label in bytes, for the same reason.
const MAX_TARGET_LABEL_BYTES: usize = 256;

impl Monitoring {
    /// The declared labels that a target may have. Admission refuses all others; these checks are for Servers that were
    /// stored before, or without it.
    pub fn target_labels(&self) -> impl Iterator<Item = (&String, &String)> {
        let valid = |(name, value): &(&String, &String)| {
            is_label_name(name)
                && !name.starts_with("__")
                && !RESERVED_LABELS.contains(&name.as_str())
                && value.len() <= MAX_TARGET_LABEL_BYTES
        };
        self.labels.iter().filter(valid).take(MAX_TARGET_LABELS)
    }
}

/// What [`LABEL_NAME`] matches.
fn is_label_name(name: &str) -> bool {
    let allowed = name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
    allowed && (1..=128).contains(&name.len()) && !name.starts_with(|first: char| first.is_ascii_digit())
}

fn target_labels_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let value = schemars::json_schema!({"type": "string", "maxLength": MAX_TARGET_LABEL_BYTES});
    schemars::json_schema!({"type": "object", "maxProperties": MAX_TARGET_LABELS, "additionalProperties": value})
}

fn path() -> String {
    "/metrics".into()
}
