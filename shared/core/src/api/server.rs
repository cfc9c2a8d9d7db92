//! Server: one machine and the application on it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{App, HealthCheck, Machine, Monitoring, Package, Reachability, ServerStatus, State, TaskKind, Traffic};

/// What a Server declares. Each field has one owner: replicaset-controller writes machine, packages, traffic and
/// monitoring (and `reboot` and `retain`, for failover), deployment-controller writes `app`, people write the rest. So a
/// field is applied as a whole.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "Server",
    plural = "servers",
    shortname = "srv",
    category = "berth",
    namespaced,
    status = "ServerStatus",
    derive = "PartialEq",
    doc = "One machine and the application on it.",
    selectable = ".status.state",
    selectable = ".spec.machine.className",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Waiting For", type_ = "string", json_path = ".status.waitingFor"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.machine.address"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.app.revision"),
    printcolumn(name = "Traffic", type_ = "string", json_path = ".status.traffic.phase", priority = 1),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.stateSince", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name: at most 63 characters, because it names the machine")
)]
#[serde(rename_all = "camelCase")]
pub struct ServerSpec {
    /// The machine. Another machine is another Server.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.machine is immutable: another machine needs another Server").reason(Reason::FieldValueForbidden), merge_strategy = MapMerge::Atomic)]
    pub machine: Machine,
    /// The machine's packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), transform = applied_as_wholes)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub packages: Vec<Package>,
    /// Remove packages that Berth installed and that are no longer declared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prune_packages: bool,
    /// The application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub app: Option<App>,
    /// How the application's health is judged; without one a running application counts as healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub health_check: Option<HealthCheck>,
    /// When the machine counts as unreachable.
    #[serde(default)]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub reachability: Reachability,
    /// Which load balancers send it traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub traffic: Option<Traffic>,
    /// How it is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
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
    /// Retire this Server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub offline: bool,
    /// Put the Server into a state, whatever the facts say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<Force>,
    /// Try the failed tasks of the current state again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Request>,
    /// Reboot the machine, which cannot be reached. Asked for at any other time it comes to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<Request>,
    /// Keep the machine as it is, for diagnosis: without traffic, and outside of its set's count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<Retention>,
}

/// Of the elements of a list each is applied as a whole.
fn applied_as_wholes(list: &mut schemars::Schema) {
    if let Some(element) = list.get_mut("items").and_then(|items| items.as_object_mut()) {
        element.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
}

fn task_attempts() -> i32 {
    5
}

/// A point of the life cycle that a person guards.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// What must not begin before the gate is passed.
    pub before: GatePoint,
    /// What settles the gate without a person; without a policy only an Approval does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<GatePolicy>,
}

/// What a gate can stand before.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
pub enum GatePoint {
    /// Creating the machine.
    CreateMachine,
    /// Changing its packages.
    InstallPackages,
    /// Deploying code.
    DeployApp,
    /// Sending it traffic.
    ReleaseTraffic,
    /// Retiring it: traffic, monitoring and machine stay until the gate is passed.
    DestroyMachine,
}

impl GatePoint {
    /// Every point.
    pub const ALL: [Self; 5] =
        [Self::CreateMachine, Self::InstallPackages, Self::DeployApp, Self::ReleaseTraffic, Self::DestroyMachine];

    /// The task that waits behind the gate.
    #[must_use]
    pub fn task(self) -> TaskKind {
        match self {
            Self::CreateMachine => TaskKind::CreateMachine,
            Self::InstallPackages => TaskKind::InstallPackages,
            Self::DeployApp => TaskKind::DeployApp,
            Self::ReleaseTraffic => TaskKind::ReleaseTraffic,
            Self::DestroyMachine => TaskKind::DestroyMachine,
        }
    }
}

impl std::fmt::Display for GatePoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// What settles a gate without a person.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.query) || has(self.window)").message("a gate's policy needs a query or a window"))]
pub struct GatePolicy {
    /// Passed when the query's value meets its threshold for long enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<GateQuery>,
    /// Refused outside of this time window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<GateWindow>,
}

/// A PromQL query that settles a gate.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateQuery {
    /// The query; it passes while it returns at least one sample.
    #[schemars(length(min = 1, max = 2048))]
    pub promql: String,
    /// Seconds for which it must pass.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub for_seconds: i32,
}

/// A daily time window in UTC.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateWindow {
    /// Start, `HH:MM`.
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub start: String,
    /// End, `HH:MM`; earlier than the start it is on the next day.
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub end: String,
}

/// A person puts a Server into a state. It is kept until a person clears it, the declaration changes, or the facts agree.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Force {
    /// The state.
    pub state: State,
    /// Why.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Who; stamped at admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When; stamped at admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Digest of the declaration that the force was meant for; stamped at admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declaration: Option<String>,
}

/// Something that is asked for once.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Any value that was not used before; a new value is a new request.
    #[schemars(length(min = 1, max = 63))]
    pub id: String,
    /// Why, for those who read it later.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Who; stamped at admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When; stamped at admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// A machine is kept for diagnosis.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Until when; then the Server's set retires it.
    pub until: Time,
    /// Why.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
}
