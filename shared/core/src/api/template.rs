//! The template of a set's Servers.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{App, Gate, HealthCheck, Machine, Monitoring, Package, Reachability, Traffic};

/// What the Servers of a set look like.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerTemplate {
    /// Labels and annotations of the Servers.
    #[serde(default)]
    pub metadata: TemplateMeta,
    /// Their declaration.
    pub spec: ServerTemplateSpec,
}

/// Labels and annotations of a template.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMeta {
    /// Labels; the selector must match them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The environment of a set's Servers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServerTemplateSpec {
    /// The machine.
    pub machine: Machine,
    /// The machine's packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub packages: Vec<Package>,
    /// Remove packages that Berth installed and that are no longer declared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prune_packages: bool,
    /// The application that a new Server is born with. VMDeployment maintains it; on existing Servers it changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<App>,
    /// How the application's health is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// When a machine counts as unreachable.
    #[serde(default)]
    pub reachability: Reachability,
    /// Which load balancers send traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// How the Servers are watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<Monitoring>,
    /// Where a person has to agree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["before".into()]))]
    pub gates: Vec<Gate>,
    /// Attempts after which a failing task waits for a person.
    #[serde(default = "task_attempts")]
    #[schemars(range(min = 1, max = 100))]
    pub task_attempts: i32,
}

fn task_attempts() -> i32 {
    5
}
