//! VMDeployment: one VMReplicaSet and one application.

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, LabelSelector},
    util::intstr::IntOrString,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{App, Failover, ScaleDown, ServerTemplate, UpdateStrategy, replicaset::percent_rule};

/// What a VMDeployment declares.
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
    doc = "One VMReplicaSet and one application, rolled out in place.",
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
    /// How many Servers.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10000))]
    pub replicas: i32,
    /// Which Servers are its own. Only `matchLabels`.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.selector is immutable").reason(Reason::FieldValueForbidden),
        validation = Rule::new("has(self.matchLabels) && self.matchLabels.size() > 0 && !has(self.matchExpressions)").message("spec.selector needs matchLabels, and only those"))]
    #[schemars(schema_with = "super::replicaset::selector_schema")]
    pub selector: LabelSelector,
    /// The environment of the Servers.
    pub template: ServerTemplate,
    /// The application.
    pub app: App,
    /// How a changed application reaches the Servers.
    #[serde(default)]
    pub rollout: Rollout,
    /// How a changed environment reaches the Servers; its `maxUnavailable` is the budget of both.
    #[serde(default)]
    pub update_strategy: UpdateStrategy,
    /// Seconds for which a Server must be Ready before it counts as available.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub min_ready_seconds: i32,
    /// Do not roll anything out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Which Servers go first when there are too many.
    #[serde(default)]
    pub scale_down: ScaleDown,
    /// What is done about Servers that cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
    /// How many old revisions are kept for roll-back.
    #[serde(default = "ten")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history_limit: i32,
}

fn one() -> i32 {
    1
}

fn ten() -> i32 {
    10
}

/// How a changed application reaches the Servers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Which Servers come first.
    #[serde(default)]
    pub order: RolloutOrder,
    /// How many Servers keep the old revision.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10000))]
    pub partition: i32,
    /// Seconds without progress after which the roll-out has failed.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 604_800))]
    pub progress_deadline_seconds: i32,
    /// Steps on the way; without any the roll-out goes straight through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub steps: Vec<RolloutStep>,
    /// What a failed roll-out does.
    #[serde(default)]
    pub on_failure: FailurePolicy,
    /// Failed Servers after which the roll-out has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub max_failed: Option<i32>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            order: RolloutOrder::default(),
            partition: 0,
            progress_deadline_seconds: ten_minutes(),
            steps: Vec::new(),
            on_failure: FailurePolicy::default(),
            max_failed: None,
        }
    }
}

fn ten_minutes() -> i32 {
    600
}

/// Which Servers come first.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum RolloutOrder {
    /// The oldest.
    #[default]
    OldestFirst,
    /// Those with the highest annotation `berth.dev/rollout-priority`.
    Priority,
}

/// What a failed roll-out does.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum FailurePolicy {
    /// It stops and says so.
    #[default]
    Pause,
    /// The Servers go back to the revision before.
    Rollback,
}

/// A step of a roll-out. Exactly one of its fields.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.servers), has(self.pause), has(self.weight), has(self.analysis)].filter(x, x).size() == 1")
    .message("a step is exactly one of servers, pause, weight or analysis"))]
pub struct RolloutStep {
    /// Servers (a number or a percentage) that are to have the new revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::replicaset::count_or_percent")]
    #[x_kube(validation = percent_rule("servers"))]
    pub servers: Option<IntOrString>,
    /// Wait until a person goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "empty")]
    pub pause: Option<serde_json::Map<String, serde_json::Value>>,
    /// Percent of the traffic that the new revision is to get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub weight: Option<i32>,
    /// Go on only while a query agrees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisStep>,
}

fn empty(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object"})
}

/// A query that a roll-out waits for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisStep {
    /// The query.
    #[schemars(length(min = 1, max = 2048))]
    pub promql: String,
    /// The value, as a decimal number, that the query's value must not exceed.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub threshold: String,
    /// Seconds for which it must hold.
    #[schemars(range(min = 0, max = 86400))]
    pub for_seconds: i32,
}

/// What is true of a VMDeployment.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VMDeploymentStatus {
    /// The generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Servers that are not being retired.
    #[serde(default)]
    pub replicas: i32,
    /// Of these, Ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Of these, Ready for `minReadySeconds`.
    #[serde(default)]
    pub available_replicas: i32,
    /// Of these, with the current revision deployed.
    #[serde(default)]
    pub updated_replicas: i32,
    /// The revision that is being rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The last revision that was rolled out completely: new Servers get it while another is on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_revision: Option<String>,
    /// The step of the roll-out, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_step: Option<i32>,
    /// The selector, as text, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// What it waits for, and on whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Conditions: `Available`, `Progressing` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
