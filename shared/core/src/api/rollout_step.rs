//! The steps of a gradual roll-out.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AnalysisStep, BaselineStep, replicaset::percent_rule};

/// One step of a gradual roll-out. Exactly one field is set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.servers), has(self.pause), has(self.weight), has(self.analysis), has(self.bake), has(self.approve), has(self.baseline)].filter(x, x).size() == 1")
    .message("a step is exactly one of servers, pause, weight, analysis, bake, approve or baseline"))]
pub struct RolloutStep {
    /// Goes on when so many Servers (a number or a percentage of `replicas`) have the new version in good health. A
    /// percentage is rounded down, but to at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::replicaset::count_or_percent")]
    #[x_kube(validation = percent_rule("servers"))]
    pub servers: Option<IntOrString>,
    /// Waits, as long as it says or until a person promotes the roll-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseStep>,
    /// Percentage of the traffic that load balancers of BalancerClasses, and the routes of `httpRoutes`, give the new version. The step is
    /// done when it is set, and the routes follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub weight: Option<i32>,
    /// Goes on when checks have passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisStep>,
    /// Watches the Servers that have the new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<BakeStep>,
    /// Waits until a person approves, by the request `Promote`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approve: Option<ApproveStep>,
    /// Restarts Servers that have the stable version, and has checks compare the new one with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineStep>,
}

/// A step in which nothing is updated.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PauseStep {
    /// After so many seconds the roll-out goes on. Without it, it waits until a person promotes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub seconds: Option<i32>,
}

/// A step in which nothing is updated, and the Servers that have the new version are watched. It ends after its time, and not before they
/// are well: none is being deployed or has yet to prove its health, and no more are unavailable than the budget allows.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BakeStep {
    /// For so many seconds they are watched.
    #[schemars(range(min = 1, max = 2_592_000))]
    pub seconds: i32,
}

/// A step that a person ends, and what the person is shown for it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApproveStep {
    /// Names of checks whose latest values stand in the status beside the wait. They decide nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 63)))]
    pub evidence: Vec<String>,
    /// Seconds from one look at the evidence to the next. The first look is that long after the beginning of the step.
    #[serde(default = "one_minute")]
    #[schemars(range(min = 1, max = 86400))]
    pub interval_seconds: i32,
}

fn one_minute() -> i32 {
    60
}
