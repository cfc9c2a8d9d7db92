//! What is true of a Server. Controllers write facts, a claim or a report; everything else is the webhook's.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HaProxyBackend, ServiceBackend, State, Task};

/// State, tasks and facts of a Server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// The generation of the declaration that the state was decided for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the Server is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_since: Option<Time>,
    /// What it waits for, and on whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// The highest task id given so far.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "lastTaskID")]
    pub last_task_id: Option<i64>,
    /// The lowest task id of the current state.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "firstTaskID")]
    pub first_task_id: Option<i64>,
    /// The current state's tasks and a few finished ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub tasks: Vec<Task>,
    /// Who has the machine in hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
    /// The last ten changes of state, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transitions: Vec<Transition>,
    /// Raised by whatever calls health in question: facts about health count only for the epoch that they name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// The force that is in effect, or was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<ForceStatus>,
    /// The id of the last retry that was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_retry: Option<String>,
    /// The id of the last request for a reboot that was carried out, or came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_reboot: Option<String>,
    /// Fact of replicaset-controller: the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineFact>,
    /// Fact of replicaset-controller: what is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentFact>,
    /// Fact of deployment-controller: what is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppFact>,
    /// Fact of lb-controller: which traffic it gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficFact>,
    /// Fact of monitor-controller: whether it can be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachability: Option<ReachabilityFact>,
    /// Fact of monitor-controller: whether the application is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthFact>,
    /// Fact of monitor-controller: whether it is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<MonitoringFact>,
    /// Conditions: `Ready` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// A controller's claim of a task, the renewal or the release of its lock. The webhook carries it out and
    /// removes it: it is never stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// A controller's report on a task. The webhook carries it out and removes it: it is never stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

/// Who has the machine in hand.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lock {
    /// `<executor>/<instance>`.
    pub holder: String,
    /// The task that it was taken for.
    #[serde(rename = "taskID")]
    pub task_id: i64,
    /// When it was taken, by the webhook's clock.
    pub acquired_at: Time,
    /// When it was last renewed, by the webhook's clock.
    pub renewed_at: Time,
    /// Seconds after the renewal at which it expires.
    pub duration_seconds: i32,
}

/// A change of state.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// The state before; none at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<State>,
    /// The state after.
    pub to: State,
    /// When.
    pub at: Time,
    /// Why.
    pub reason: String,
    /// The user whose write brought it about.
    pub author: String,
}

/// What became of a force.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForceStatus {
    /// Identifies the force: digest of its state, reason, author and time.
    pub id: String,
    /// Whether it is in effect.
    pub active: bool,
    /// Why it is no longer in effect.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What is known of the machine.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineFact {
    /// How far it is.
    pub phase: MachinePhase,
    /// The provider's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// How Berth logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshAccess>,
    /// Differs after each boot.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "bootID")]
    pub boot_id: Option<String>,
    /// When the provider created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
}

/// How far a machine is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum MachinePhase {
    /// Its creation has begun, so it may exist. Written by the webhook when CreateMachine is claimed.
    Creating,
    /// It runs.
    Running,
    /// It exists and does not run.
    Stopped,
    /// It does not exist.
    Gone,
}

/// How Berth logs in to a machine.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SshAccess {
    /// Port of the SSH server.
    pub port: i32,
    /// User.
    pub user: String,
    /// The host key, pinned at the machine's creation, as an OpenSSH public key line.
    pub host_key: String,
    /// Folder on the machine that Berth keeps its things in.
    pub root: String,
}

/// What is installed on the machine.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentFact {
    /// Read back from the machine since it was last out of sight. Only the webhook takes this back.
    #[serde(default)]
    pub verified: bool,
    /// The packages that Berth manages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub packages: Vec<InstalledPackage>,
}

/// An installed package.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstalledPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its digest, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What is deployed on the machine.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppFact {
    /// The revision that runs.
    pub revision: String,
    /// Read back from the machine since it was last out of sight. Only the webhook takes this back.
    #[serde(default)]
    pub verified: bool,
    /// When it was deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed_at: Option<Time>,
}

/// Which traffic the Server gets.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TrafficFact {
    /// How far it is.
    pub phase: TrafficPhase,
    /// The Services it is registered with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceBackend>,
    /// The HAProxy backends it is registered with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub haproxy: Vec<HaProxyBackend>,
    /// The address it is registered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// How far traffic is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum TrafficPhase {
    /// Registered, without traffic.
    Held,
    /// It takes traffic.
    Serving,
    /// It gets no new connections; open ones may finish.
    Draining,
}

/// Whether the machine can be reached.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReachabilityFact {
    /// Whether it can.
    pub reachable: bool,
    /// Since when, by monitor-controller's clock.
    pub since: Time,
    /// When this was observed, by the same clock. Kept as it is while nothing else changes.
    pub observed_at: Time,
    /// What the probe said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Whether the application is well.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthFact {
    /// The verdict.
    pub state: HealthState,
    /// The epoch that it was reached in.
    pub epoch: i64,
    /// Since when.
    pub since: Time,
    /// What the probe said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A verdict on health.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum HealthState {
    /// As many successes in a row as the threshold asks for.
    Healthy,
    /// As many failures in a row as the threshold allows.
    Unhealthy,
}

/// Whether the Server is watched.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringFact {
    /// How far it is.
    pub phase: MonitoringPhase,
    /// Digest of the declaration and the address that the target was made from.
    pub digest: String,
}

/// How far monitoring is. A Server that is not watched has no monitoring fact.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum MonitoringPhase {
    /// It is a target.
    Bound,
    /// It is a target whose alarms are silenced.
    Paused,
}

/// A claim of a task that touches the machine.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The task. The claim of the task that the holder has already claimed renews the lock.
    #[serde(rename = "taskID")]
    pub task_id: i64,
    /// `<executor>/<instance>`.
    pub holder: String,
    /// Seconds for which the lock is taken; 0 releases it.
    pub duration_seconds: i32,
}

/// A report on a task.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The task.
    #[serde(rename = "taskID")]
    pub task_id: i64,
    /// `<executor>/<instance>`; for a task that needs the lock it must be the holder's.
    pub holder: String,
    /// What became of it.
    pub outcome: Outcome,
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For `Retry`: seconds to wait before the next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<i32>,
}

/// What became of an attempt.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum Outcome {
    /// It is under way (for tasks without a lock), or there is news of it.
    Running,
    /// Done; the facts are in the same write.
    Succeeded,
    /// This attempt failed; another may help.
    Retry,
    /// It failed, and another attempt would fail too.
    Failed,
}
