//! Approval: a person's yes or no to a gate.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GatePoint;

/// A person's decision. It cannot be changed; another decision is another Approval.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "Approval",
    plural = "approvals",
    shortname = "apv",
    category = "berth",
    namespaced,
    derive = "PartialEq",
    doc = "A person's yes or no to a gate.",
    selectable = ".spec.target.name",
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.target.name"),
    printcolumn(name = "Decision", type_ = "string", json_path = ".spec.decision"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.approver.username"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec == oldSelf.spec").message("an Approval is immutable: create another one")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.target.kind != 'Server' || has(self.taskID)").message("spec.taskID is required for a Server: it names the gate task that is decided"),
    validation = Rule::new("self.target.kind != 'VMReplicaSet' || (has(self.target.generation) && has(self.gate))").message("spec.target.generation and spec.gate are required for a VMReplicaSet: they say which declaration and which gates are decided"))]
pub struct ApprovalSpec {
    /// What is decided about.
    pub target: ApprovalTarget,
    /// The gate task of a Server.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "taskID")]
    #[schemars(range(min = 1))]
    pub task_id: Option<i64>,
    /// For a set: which gates of its Servers are decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GatePoint>,
    /// Yes or no.
    pub decision: ApprovalDecision,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Who and when; stamped at admission, whatever was written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approver: Option<Approver>,
}

/// What an Approval is about.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalTarget {
    /// Kind of the object.
    pub kind: TargetKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its UID, where a later object of the same name must not be meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
    /// For a set: the generation that is decided about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
}

/// Kinds that have gates.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum TargetKind {
    /// One Server.
    Server,
    /// The Servers of a set.
    VMReplicaSet,
}

/// Yes or no.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum ApprovalDecision {
    /// Yes.
    Approve,
    /// No.
    Refuse,
}

/// Who decided, and when.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approver {
    /// The authenticated user.
    #[schemars(length(max = 1024))]
    pub username: String,
    /// When.
    pub at: Time,
}
