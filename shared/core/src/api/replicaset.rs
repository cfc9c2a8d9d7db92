//! VMReplicaSet: how many Servers, with which environment.

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, LabelSelector, Time},
    util::intstr::IntOrString,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ServerTemplate;

/// What a VMReplicaSet declares.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "VMReplicaSet",
    plural = "vmreplicasets",
    singular = "vmreplicaset",
    shortname = "vmrs",
    category = "berth",
    namespaced,
    status = "VMReplicaSetStatus",
    derive = "PartialEq",
    doc = "N Servers with one environment.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Current", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Updated", type_ = "integer", json_path = ".status.updatedReplicas"),
    printcolumn(name = "Waiting For", type_ = "string", json_path = ".status.waitingFor"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name: at most 52 characters, because Servers add an ordinal to it")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.selector.matchLabels) || (has(self.template.metadata) && has(self.template.metadata.labels) && self.selector.matchLabels.all(k, k in self.template.metadata.labels && self.template.metadata.labels[k] == self.selector.matchLabels[k]))")
    .message("spec.selector does not match spec.template.metadata.labels: every label of the selector must be in the template with the same value"))]
pub struct VMReplicaSetSpec {
    /// How many Servers.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10000))]
    pub replicas: i32,
    /// Which Servers are its own. Only `matchLabels`.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.selector is immutable").reason(Reason::FieldValueForbidden),
        validation = Rule::new("has(self.matchLabels) && self.matchLabels.size() > 0 && !has(self.matchExpressions)").message("spec.selector needs matchLabels, and only those"))]
    #[schemars(schema_with = "super::replicaset::selector_schema")]
    pub selector: LabelSelector,
    /// What the Servers look like.
    pub template: ServerTemplate,
    /// How a changed template reaches the Servers.
    #[serde(default)]
    pub update_strategy: UpdateStrategy,
    /// Seconds for which a Server must be Ready before it counts as available.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub min_ready_seconds: i32,
    /// Do not roll a changed template out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Which Servers go first when there are too many.
    #[serde(default)]
    pub scale_down: ScaleDown,
    /// What is done about Servers that cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
}

/// A label selector without expressions, with bounds that keep CEL's cost known.
pub(crate) fn selector_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": {"type": "string", "maxLength": 63},
                "description": "The labels that a Server must carry."
            },
            "matchExpressions": {"type": "array", "maxItems": 0, "items": {"type": "object"}, "description": "Not supported."}
        }
    })
}

fn one() -> i32 {
    1
}

/// How a changed template reaches the Servers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.type) || self.type != 'Replace' || !has(self.maxUnavailable) || !(type(self.maxUnavailable) == int ? self.maxUnavailable == 0 : self.maxUnavailable == '0%') || (has(self.maxSurge) && !(type(self.maxSurge) == int ? self.maxSurge == 0 : self.maxSurge == '0%'))")
    .message("updateStrategy: Replace needs room: with a maxUnavailable of 0, maxSurge must be at least 1"))]
pub struct UpdateStrategy {
    /// Whether machines may be replaced.
    #[serde(default, rename = "type")]
    pub type_: UpdateType,
    /// Servers (a number or a percentage, default 25%) that may be unavailable at once, through whatever cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::replicaset::count_or_percent")]
    #[x_kube(validation = percent_rule("maxUnavailable"))]
    pub max_unavailable: Option<IntOrString>,
    /// Machines (a number or a percentage, default 0) beyond `replicas` while machines are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::replicaset::count_or_percent")]
    #[x_kube(validation = percent_rule("maxSurge"))]
    pub max_surge: Option<IntOrString>,
    /// Seconds from the beginning of one change of a Ready Server to the next. Servers that are not Ready do not wait.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub interval_seconds: i32,
    /// How many Servers keep the old template.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10000))]
    pub partition: i32,
    /// The roll-out begins nothing more while more Servers than this are Stalled with the new template. Left out, there is
    /// no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub max_failed: Option<i32>,
}

pub(crate) fn count_or_percent(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}], "maxLength": 4})
}

/// The rule of a number that can also be a percentage.
pub(crate) fn percent_rule(field: &str) -> kube::core::Rule {
    kube::core::Rule::new("type(self) == int ? self >= 0 : self.matches('^(100|[1-9]?[0-9])%$')").message(
        kube::core::Message::Message(format!("{field} is a number of at least 0 or a percentage from 0% to 100%")),
    )
}

/// Whether machines may be replaced.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum UpdateType {
    /// The machines stay; a changed machine is refused.
    #[default]
    InPlace,
    /// Servers whose machine differs are replaced.
    Replace,
}

/// Which Servers go first when there are too many.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleDown {
    /// The order after named Servers, cost and readiness.
    #[serde(default)]
    pub policy: ScaleDownPolicy,
    /// Names of Servers that go first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 63)))]
    pub servers: Vec<String>,
}

/// An order of Servers.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum ScaleDownPolicy {
    /// The newest first.
    #[default]
    Newest,
    /// The oldest first.
    Oldest,
    /// None that can be foreseen, but the same for the same Servers.
    Random,
}

/// What is done about Servers that cannot be reached.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// Seconds for which a Server must be Unknown.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 0, max = 604_800))]
    pub wait_seconds: i32,
    /// Reboot the machine first, once each time that it is lost, and wait as long again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<RebootPolicy>,
    /// What is done then.
    #[serde(default)]
    pub action: FailoverAction,
    /// Servers replaced at once.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_in_flight: i32,
    /// Nothing is replaced while more Servers than this (a number or a percentage, default 40%) are Unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::replicaset::count_or_percent")]
    #[x_kube(validation = percent_rule("unhealthyLessThanOrEqualTo"))]
    pub unhealthy_less_than_or_equal_to: Option<IntOrString>,
    /// Keep failed machines for diagnosis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<Retain>,
}

fn five_minutes() -> i32 {
    300
}

/// When a machine is rebooted by failover.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RebootPolicy {
    /// Seconds after a reboot before which the machine is not rebooted another time.
    #[serde(default = "one_hour")]
    #[schemars(range(min = 0, max = 604_800))]
    pub cooldown_seconds: i32,
}

fn one_hour() -> i32 {
    3600
}

/// What failover does.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum FailoverAction {
    /// Ask a person.
    #[default]
    AskHuman,
    /// Retire the Server and create another.
    Replace,
    /// Retire the Server and lower `replicas`.
    Shrink,
}

/// Failed machines that are kept.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retain {
    /// How many.
    #[schemars(range(min = 0, max = 1000))]
    pub max: i32,
    /// For how many seconds.
    #[schemars(range(min = 0, max = 31_536_000))]
    pub expiry_seconds: i32,
}

/// What is true of a VMReplicaSet.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VMReplicaSetStatus {
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
    /// Servers with the current template.
    #[serde(default)]
    pub updated_replicas: i32,
    /// The selector, as text, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// What it waits for, and on whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Names given to Servers that are being created: entered before the creation, so that two controllers agree on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub creating: Vec<String>,
    /// Servers that Berth disturbs on purpose: the ledger of the budget, entered before the first touch. A line is
    /// `<server>/<what is being changed>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disturbed: Vec<String>,
    /// When the roll-out of the template last began to change a Server that was Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_disturbed_at: Option<Time>,
    /// Conditions: `Available`, `Progressing`, `Stalled`, and `FailoverHeld` once the brake of failover has held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
