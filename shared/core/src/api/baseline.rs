//! The step of a roll-out that restarts Servers with the stable version, to compare the new one with.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A step in which Servers that have the stable version start it anew, so that both sides of a comparison are equally young.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BaselineStep {
    /// So many Servers (a number or a percentage of `replicas`, rounded down, but to at least 1). Where fewer have the stable version,
    /// all of those are restarted. Checks that compare versions compare the new one with these Servers alone from then on.
    #[schemars(schema_with = "super::replicaset::count_or_percent")]
    #[x_kube(validation = Rule::new("type(self) == int ? self >= 1 : self.matches('^(100|[1-9][0-9]?)%$')")
        .message("baseline.servers is a number of at least 1 or a percentage from 1% to 100%"))]
    pub servers: IntOrString,
}

/// The Servers that the roll-out has restarted to compare the new version with.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BaselineProgress {
    /// What these Servers have in `spec.app.baseline`. It is another one in each attempt.
    pub mark: String,
    /// When the first step of this kind began.
    pub since: Time,
    /// Why there was nothing to restart. Then the new version is compared with all other Servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub none: Option<String>,
}
