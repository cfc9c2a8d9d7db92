//! Server: one machine and the application on it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{App, Gate, HealthCheck, Machine, Monitoring, Package, Reachability, ServerStatus, State, Traffic};

/// Declaration of a Server. Each field has one owner and is applied as a whole: replicaset-controller writes the
/// machine, packages, traffic and monitoring (and for failover `reboot` and `retain`), deployment-controller writes
/// `app`, people write the other fields.
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
    doc = "A machine and the application on it.",
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
    /// The machine. Immutable: another machine needs another Server.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.machine is immutable: another machine needs another Server").reason(Reason::FieldValueForbidden), merge_strategy = MapMerge::Atomic)]
    pub machine: Machine,
    /// Packages that are installed on the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), transform = applied_as_wholes)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub packages: Vec<Package>,
    /// Removes packages that Berth installed and that are no longer declared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prune_packages: bool,
    /// The application. Without one nothing is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub app: Option<App>,
    /// How the health of the application is probed. Without it a deployed application counts as healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub health_check: Option<HealthCheck>,
    /// When the machine counts as unreachable.
    #[serde(default)]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub reachability: Reachability,
    /// Load balancers that send traffic to the Server while it is Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub traffic: Option<Traffic>,
    /// Where Prometheus scrapes the metrics of the Server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub monitoring: Option<Monitoring>,
    /// Points of the life cycle at which a person has to agree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["before".into()]))]
    pub gates: Vec<Gate>,
    /// How often a task is attempted before it has failed and waits for a person.
    #[serde(default = "task_attempts")]
    #[schemars(range(min = 1, max = 100))]
    pub task_attempts: i32,
    /// Retires the Server: takes it out of traffic and monitoring, destroys its machine and deletes the object.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub offline: bool,
    /// Puts the Server into a state, whatever the facts say. Only people may set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<Force>,
    /// Asks for another attempt at the failed tasks of the current state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Request>,
    /// Asks for a reboot of an unreachable machine. Has no effect while the machine is reachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<Request>,
    /// Keeps a failed machine for diagnosis, without traffic and not counted by its set. Removing this field returns
    /// the Server to its set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<Retention>,
}

impl ServerSpec {
    /// The port that the application gets as `PORT`, unless its own environment sets another: the port of its health check, else
    /// the first port that receives traffic.
    #[must_use]
    pub fn app_port(&self) -> u16 {
        let health = self.health_check.as_ref();
        let probed = health.and_then(|h| h.http_get.as_ref().map(|g| g.port).or(h.tcp_socket.as_ref().map(|t| t.port)));
        let traffic = self.traffic.as_ref();
        let balanced = traffic.and_then(|traffic| traffic.backends.first()).map(|backend| backend.port);
        probed.or(balanced).and_then(|port| u16::try_from(port).ok()).unwrap_or(0)
    }

    /// Digest of what makes the declared application differ while it runs; none when no application is declared.
    #[must_use]
    pub fn app_digest(&self) -> Option<String> {
        self.app.as_ref().map(|app| app.digest(self.app_port()))
    }
}

/// Makes server-side apply treat each element of a list as a whole.
fn applied_as_wholes(list: &mut schemars::Schema) {
    if let Some(element) = list.get_mut("items").and_then(|items| items.as_object_mut()) {
        element.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
}

fn task_attempts() -> i32 {
    5
}

/// A person puts a Server into a state. The force ends when a person removes it, the declaration changes, or the facts
/// lead to the same state.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Force {
    /// State that the Server is put into.
    pub state: State,
    /// Why the state is forced.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// User who set the force. Set at admission; a value sent by the client is overwritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When the force was set. Set at admission; a value sent by the client is overwritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Digest of the declaration that the force was meant for. Set at admission; a value sent by the client is
    /// overwritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declaration: Option<String>,
}

/// A request for something that is done once.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Any value that was not used before: a new value is a new request.
    #[schemars(length(min = 1, max = 63))]
    pub id: String,
    /// Why it is requested.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// User who made the request. Set at admission; a value sent by the client is overwritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When the request was made. Set at admission; a value sent by the client is overwritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// How long a machine is kept for diagnosis, and why.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// When the Server's set retires the Server.
    pub until: Time,
    /// Why the machine is kept.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
}
