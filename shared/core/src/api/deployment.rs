//! VMDeployment: a set of Servers and the application on them.

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, LabelSelector, Time},
    util::intstr::IntOrString,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{App, Failover, ScaleDown, ServerTemplate, UpdateStrategy, replicaset::percent_rule};

/// Declaration of a VMDeployment: one set of Servers and the application that runs on them.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "VMDeployment",
    plural = "vmdeployments",
    singular = "vmdeployment",
    shortname = "vmd",
    category = "berth",
    namespaced,
    status = "VMDeploymentStatus",
    derive = "PartialEq",
    doc = "A set of Servers and the application on them, which is rolled out in place.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Updated", type_ = "integer", json_path = ".status.updatedReplicas"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision"),
    printcolumn(name = "Waiting For", type_ = "string", json_path = ".status.waitingFor"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name: at most 52 characters, because Servers add an ordinal to it")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.selector.matchLabels) || (has(self.template.metadata) && has(self.template.metadata.labels) && self.selector.matchLabels.all(k, k in self.template.metadata.labels && self.template.metadata.labels[k] == self.selector.matchLabels[k]))")
    .message("spec.selector does not match spec.template.metadata.labels: every label of the selector must be in the template with the same value"),
  validation = Rule::new("!has(self.template.spec.app)").message("spec.template.spec.app: a VMDeployment declares the application in spec.app"))]
pub struct VMDeploymentSpec {
    /// Desired number of Servers.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10000))]
    pub replicas: i32,
    /// Labels by which the VMDeployment finds its Servers; the template must carry them. Only `matchLabels` is
    /// supported. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.selector is immutable").reason(Reason::FieldValueForbidden),
        validation = Rule::new("has(self.matchLabels) && self.matchLabels.size() > 0 && !has(self.matchExpressions)").message("spec.selector needs matchLabels, and only those"))]
    #[schemars(schema_with = "super::replicaset::selector_schema")]
    pub selector: LabelSelector,
    /// Labels, machine and environment of the Servers. The application is declared in `app`, not here.
    pub template: ServerTemplate,
    /// The application that runs on every Server.
    pub app: App,
    /// How a new version of the application is rolled out to the Servers.
    #[serde(default)]
    pub rollout: Rollout,
    /// How a changed template is rolled out to the Servers. Its `maxUnavailable` is the budget for template and
    /// application together.
    #[serde(default)]
    pub update_strategy: UpdateStrategy,
    /// How many seconds a Server must have been Ready to count as available.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub min_ready_seconds: i32,
    /// Stops all roll-outs, of the template and of the application. Servers that are being changed are finished.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Which Servers are removed first when there are too many.
    #[serde(default)]
    pub scale_down: ScaleDown,
    /// What is done about Servers whose machines are unreachable. Without it they stay Unknown until they are reachable
    /// again or a person acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
}

fn one() -> i32 {
    1
}

/// How a new version of the application is rolled out.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Which Servers are updated first: `OldestFirst`, or `Priority`, which updates Servers with a higher value in the
    /// annotation `berth.dev/rollout-priority` first. Servers that are not Ready always come before the others.
    #[serde(default)]
    pub order: RolloutOrder,
    /// How many Servers keep the old version. 0 updates all of them.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10000))]
    pub partition: i32,
    /// How many Servers (a number or a percentage of `replicas`) may have failed with the new version before no further
    /// Server is touched: its deployment failed, or it was not healthy in time. A percentage is rounded down, but to at
    /// least 1. The roll-out goes on with a new version, when the Servers are repaired or retried, or when this is raised.
    /// Without it only the budget (`updateStrategy.maxUnavailable`) limits failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::replicaset::count_or_percent")]
    #[x_kube(validation = percent_rule("maxFailed"))]
    pub max_failed: Option<IntOrString>,
    /// Seconds without progress, beyond `minReadySeconds`, after which the VMDeployment is reported as `Stalled`. Progress
    /// is that more Servers than ever before run the new version in good health. The roll-out goes on when it can.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 604_800))]
    pub progress_deadline_seconds: i32,
    /// Steps of a gradual roll-out. Not supported yet: while there are any, nothing is rolled out and the VMDeployment
    /// is `Stalled` with reason `NotSupported`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.filter(step, has(step.weight)).map(step, step.weight).isSorted()")
        .message("rollout.steps: no weight may be lower than that of an earlier step"))]
    pub steps: Vec<RolloutStep>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            order: RolloutOrder::default(),
            partition: 0,
            max_failed: None,
            progress_deadline_seconds: ten_minutes(),
            steps: Vec::new(),
        }
    }
}

fn ten_minutes() -> i32 {
    600
}

/// In which order Servers are updated.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum RolloutOrder {
    /// The oldest Servers first.
    #[default]
    OldestFirst,
    /// Servers with a higher value in the annotation `berth.dev/rollout-priority` first.
    Priority,
}

/// One step of a gradual roll-out. Exactly one field is set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.servers), has(self.pause), has(self.weight), has(self.analysis)].filter(x, x).size() == 1")
    .message("a step is exactly one of servers, pause, weight or analysis"))]
pub struct RolloutStep {
    /// Goes on when so many Servers (a number or a percentage) have the new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::replicaset::count_or_percent")]
    #[x_kube(validation = percent_rule("servers"))]
    pub servers: Option<IntOrString>,
    /// Waits until a person continues the roll-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "empty")]
    pub pause: Option<serde_json::Map<String, serde_json::Value>>,
    /// Percentage of the traffic that goes to the new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub weight: Option<i32>,
    /// Goes on only while a Prometheus query stays within its threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisStep>,
}

fn empty(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object"})
}

/// A Prometheus query that decides whether a roll-out goes on.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisStep {
    /// The query, in PromQL.
    #[schemars(length(min = 1, max = 2048))]
    pub promql: String,
    /// Decimal number that the result of the query must not exceed.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub threshold: String,
    /// For how many seconds the result must stay within the threshold.
    #[schemars(range(min = 0, max = 86400))]
    pub for_seconds: i32,
}

/// Observed state of a VMDeployment.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VMDeploymentStatus {
    /// Generation of the declaration that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of Servers, not counting those that are being retired or retained for diagnosis.
    #[serde(default)]
    pub replicas: i32,
    /// Number of these Servers that are Ready with their newest declaration.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Number of these Servers that have been Ready for `minReadySeconds` and receive the traffic that they declare.
    #[serde(default)]
    pub available_replicas: i32,
    /// Number of these Servers on which the newest version of the application is deployed.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Revision that is being rolled out, or that was rolled out last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Revision that was last rolled out: every Server that the roll-out may touch runs it in good health, except as many
    /// as the budget allows. New Servers start with it while another one is being rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_revision: Option<String>,
    /// The application of `stableRevision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_app: Option<App>,
    /// How far the roll-out of the declared application has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutProgress>,
    /// The selector as text, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// What the VMDeployment waits for, and who has to act. Absent when nothing is left to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Conditions: `Available`, `Progressing` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// How far a roll-out has come.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutProgress {
    /// Digest of the application that is being rolled out.
    pub digest: String,
    /// Most Servers so far that ran it in good health at once.
    pub healthy_replicas: i32,
    /// When that number last rose, or the roll-out began or was resumed. Absent while it is held, and when it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progressed_at: Option<Time>,
}
