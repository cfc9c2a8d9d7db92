//! VMReplicaSet: a number of Servers that are created from one template.

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, LabelSelector, Time},
    util::intstr::IntOrString,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LedgerEntry, PendingServer, ServerTemplate};

/// Declaration of a VMReplicaSet: how many Servers there are, and what they look like.
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
    doc = "A number of Servers that are created from one template.",
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
    /// Desired number of Servers.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10000))]
    pub replicas: i32,
    /// Labels by which the set finds its Servers; the template must carry them. Only `matchLabels` is supported.
    /// Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.selector is immutable").reason(Reason::FieldValueForbidden),
        validation = Rule::new("has(self.matchLabels) && self.matchLabels.size() > 0 && !has(self.matchExpressions)").message("spec.selector needs matchLabels, and only those"))]
    #[schemars(schema_with = "super::replicaset::selector_schema")]
    pub selector: LabelSelector,
    /// Template from which the set creates its Servers.
    pub template: ServerTemplate,
    /// How a changed template is rolled out to the Servers.
    #[serde(default)]
    pub update_strategy: UpdateStrategy,
    /// How many seconds a Server must have been Ready to count as available.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub min_ready_seconds: i32,
    /// Stops the roll-out of a changed template. Servers that are being changed are finished.
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

/// The schema of a label selector without expressions. The bounds keep the cost of the CEL rules known.
pub(crate) fn selector_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": {"type": "string", "maxLength": 63},
                "description": "Labels that a Server must carry."
            },
            "matchExpressions": {"type": "array", "maxItems": 0, "items": {"type": "object"}, "description": "Not supported."}
        }
    })
}

fn one() -> i32 {
    1
}

/// How a changed template is rolled out to the Servers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.type) || self.type != 'Replace' || !has(self.maxUnavailable) || !(type(self.maxUnavailable) == int ? self.maxUnavailable == 0 : self.maxUnavailable == '0%') || (has(self.maxSurge) && !(type(self.maxSurge) == int ? self.maxSurge == 0 : self.maxSurge == '0%'))")
    .message("updateStrategy: with type Replace and a maxUnavailable of 0, maxSurge must be at least 1: otherwise nothing can be replaced"))]
pub struct UpdateStrategy {
    /// What happens when the template declares another machine (class, image or flavor): `InPlace` keeps the machines
    /// and reports the change as `Stalled`, `Replace` replaces the Servers whose machine differs.
    #[serde(default, rename = "type")]
    pub type_: UpdateType,
    /// How many Servers (a number or a percentage, default 25%) may be unavailable at once, through whatever cause. A
    /// percentage is rounded down, but to at least 1; 0 means that no Ready Server is disturbed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::replicaset::count_or_percent")]
    #[x_kube(validation = percent_rule("maxUnavailable"))]
    pub max_unavailable: Option<IntOrString>,
    /// How many Servers (a number or a percentage, default 0) may exist beyond `replicas` while machines are replaced.
    /// A percentage is rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::replicaset::count_or_percent")]
    #[x_kube(validation = percent_rule("maxSurge"))]
    pub max_surge: Option<IntOrString>,
    /// Least number of seconds between the beginnings of two changes of Ready Servers. Servers that are not Ready are
    /// changed without waiting.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub interval_seconds: i32,
    /// How many Servers keep the old template. 0 updates all of them.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10000))]
    pub partition: i32,
    /// How many Servers may be Stalled with the new template before no further Server is changed. The roll-out goes on
    /// when they are repaired or the template changes. Without it there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub max_failed: Option<i32>,
}

/// The schema of a number or a percentage.
pub(crate) fn count_or_percent(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}], "maxLength": 4})
}

/// The validation rule of a field that is a number or a percentage.
pub(crate) fn percent_rule(field: &str) -> kube::core::Rule {
    kube::core::Rule::new("type(self) == int ? self >= 0 : self.matches('^(100|[1-9]?[0-9])%$')").message(
        kube::core::Message::Message(format!("{field} is a number of at least 0 or a percentage from 0% to 100%")),
    )
}

/// What happens when the template declares another machine.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum UpdateType {
    /// The machines stay; another machine is reported as `Stalled`.
    #[default]
    InPlace,
    /// Servers whose machine differs are replaced.
    Replace,
}

/// Which Servers are removed first when there are too many. Servers that failover gives up come first, then those in
/// `servers`, those with a lower annotation `berth.dev/deletion-cost`, those that are not Ready, and then `policy`
/// decides.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleDown {
    /// Which of otherwise equal Servers are removed first: the `Newest`, the `Oldest`, or `Random` ones (the same ones
    /// each time it is asked).
    #[serde(default)]
    pub policy: ScaleDownPolicy,
    /// Names of Servers to remove before others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 63)))]
    pub servers: Vec<String>,
}

/// In which order otherwise equal Servers are removed.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum ScaleDownPolicy {
    /// The newest first.
    #[default]
    Newest,
    /// The oldest first.
    Oldest,
    /// In an arbitrary order, which is always the same for the same Servers.
    Random,
}

/// What is done about Servers whose machines are unreachable.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// Seconds for which a Server must have been Unknown before anything is done about it.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 0, max = 604_800))]
    pub wait_seconds: i32,
    /// Reboots the machine before anything else is done, once each time that it becomes unreachable, and then waits for
    /// `waitSeconds` again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<RebootPolicy>,
    /// What is done about a Server that stays unreachable: `AskHuman` only reports it, `Replace` retires it and creates
    /// another one, `Shrink` retires it and lowers `replicas`.
    #[serde(default)]
    pub action: FailoverAction,
    /// How many Servers may be rebooted or replaced at once.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_in_flight: i32,
    /// The brake: no machine is rebooted or replaced while more Servers than this (a number or a percentage, default
    /// 40%) are Unknown, because a network fault must not destroy a fleet. A percentage is rounded down, but to at
    /// least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::replicaset::count_or_percent")]
    #[x_kube(validation = percent_rule("unhealthyLessThanOrEqualTo"))]
    pub unhealthy_less_than_or_equal_to: Option<IntOrString>,
    /// Keeps failed machines for diagnosis instead of destroying them at once. Without it none is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<Retain>,
}

fn five_minutes() -> i32 {
    300
}

/// When failover reboots a machine.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RebootPolicy {
    /// Seconds after a reboot during which the machine is not rebooted again: if it becomes unreachable in this time,
    /// `action` follows directly.
    #[serde(default = "one_hour")]
    #[schemars(range(min = 0, max = 604_800))]
    pub cooldown_seconds: i32,
}

fn one_hour() -> i32 {
    3600
}

/// What is done about a Server that stays unreachable.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum FailoverAction {
    /// Reports it and waits for a person.
    #[default]
    AskHuman,
    /// Retires the Server and creates another one.
    Replace,
    /// Retires the Server and lowers `replicas`.
    Shrink,
}

/// How many failed machines are kept for diagnosis, and for how long.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retain {
    /// How many failed machines are kept at once.
    #[schemars(range(min = 0, max = 1000))]
    pub max: i32,
    /// Seconds for which a machine is kept before it is destroyed.
    #[schemars(range(min = 0, max = 31_536_000))]
    pub expiry_seconds: i32,
}

/// Observed state of a VMReplicaSet.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VMReplicaSetStatus {
    /// Generation of the declaration that this status describes; -1 before there is any.
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
    /// Number of these Servers that are as the current template declares.
    #[serde(default)]
    pub updated_replicas: i32,
    /// The selector as text, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// What the set waits for, and who has to act. Absent when nothing is left to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Servers that are about to be created. They are entered before they are created, so that two controllers agree on
    /// their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["server".into()]))]
    pub creating: Vec<PendingServer>,
    /// The ledger of the budget: Servers that Berth itself disturbs, and what is being changed on each. A Server is
    /// entered before it is changed, and removed when it is Ready again or gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["server".into(), "axis".into()]))]
    pub disturbed: Vec<LedgerEntry>,
    /// When the roll-out of the template last began to change a Ready Server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_disturbed_at: Option<Time>,
    /// Conditions: `Ready`, `Reconciling`, `Stalled` (exactly one of these three is True), `Available`, `Progressing`, `FailoverHeld` once the brake of failover has held, and `MonitorBlind` once
    /// a copy of monitor-controller was blind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
