//! Approval: a person's decision on a gate.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GatePoint;

/// A person's decision on a gate. It cannot be changed: create another Approval to decide again. Of several decisions on the
/// same gate the newest counts.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "Approval",
    plural = "approvals",
    shortname = "apv",
    category = "berth",
    namespaced,
    status = "ApprovalStatus",
    derive = "PartialEq",
    doc = "A person's decision on a gate.",
    selectable = ".spec.target.name",
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.target.name"),
    printcolumn(name = "Decision", type_ = "string", json_path = ".spec.decision"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.approver.username"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec == oldSelf.spec").message("an Approval is immutable: create another one")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.target.kind != 'Server' || has(self.taskID)").message("spec.taskID is required for a Server: it names the gate task that is decided"),
    validation = Rule::new("self.target.kind != 'VMReplicaSet' || (has(self.target.generation) && has(self.gate))").message("spec.target.generation and spec.gate are required for a VMReplicaSet: they say which declaration and which gates are decided"),
    validation = Rule::new("!has(self.servers) && !has(self.maxServers) || self.target.kind == 'VMReplicaSet'").message("spec.servers and spec.maxServers are allowed only for a VMReplicaSet: they say which of its Servers are decided"),
    validation = Rule::new("!has(self.servers) || !has(self.maxServers)").message("spec.servers or spec.maxServers, not both"),
    validation = Rule::new("!has(self.gate) || self.gate != 'DestroyMachine' || self.target.kind != 'VMReplicaSet' || self.decision != 'Approve' || has(self.servers) || has(self.maxServers)").message("spec.servers or spec.maxServers is required to approve DestroyMachine for a VMReplicaSet: otherwise every later Server would be destroyed unasked"))]
pub struct ApprovalSpec {
    /// The object whose gate is decided.
    pub target: ApprovalTarget,
    /// Id of the gate task that is decided. Required for a Server.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "taskID")]
    #[schemars(range(min = 1))]
    pub task_id: Option<i64>,
    /// Which gate of the set's Servers is decided. Required for a VMReplicaSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GatePoint>,
    /// Names of the set's Servers that are decided; without it, all of them. Each name counts for one Server: not for a
    /// later one of the same name. Only for a VMReplicaSet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 63)))]
    pub servers: Vec<String>,
    /// How many of the set's Servers an approval covers, whichever come first. Only for a VMReplicaSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_servers: Option<i32>,
    /// Until when the decision counts for gates that are not settled yet. An approval for a VMReplicaSet without it counts
    /// for 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// `Approve` lets the gated task begin. `Refuse` fails the gate: the Server is stalled until a later Approval
    /// revises the refusal, a person asks for a retry, or the declaration changes.
    pub decision: ApprovalDecision,
    /// Why it was decided so, for people who read it later.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Who created the Approval, and when. Set at admission; a value sent by the client is overwritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approver: Option<Approver>,
}

/// The object that an Approval is about.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalTarget {
    /// Kind of the object.
    pub kind: TargetKind,
    /// Name of the object, in the namespace of the Approval.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// UID of the object. When set, the Approval does not apply to a later object of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
    /// Generation of the set that is decided on. Required for a VMReplicaSet; ignored for a Server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
}

/// Kinds whose gates can be decided.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum TargetKind {
    /// A single Server.
    Server,
    /// All Servers of a set.
    VMReplicaSet,
}

/// A decision on a gate.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum ApprovalDecision {
    /// The gated task may begin.
    Approve,
    /// The gated task must not begin.
    Refuse,
}

/// Who decided, and when.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approver {
    /// Name of the authenticated user who created the Approval.
    #[schemars(length(max = 1024))]
    pub username: String,
    /// When the Approval was created.
    pub at: Time,
}

/// What has become of an Approval.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalStatus {
    /// Servers whose gate it has settled. Recorded for approvals that are limited to some Servers of a set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10000))]
    pub servers: Vec<ApprovedServer>,
}

/// A Server whose gate an Approval has settled.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovedServer {
    /// Name of the Server.
    #[schemars(length(max = 253))]
    pub name: String,
    /// UID of the Server.
    #[schemars(length(max = 64))]
    pub uid: String,
}
