//! The status of a Server. Controllers write facts, a claim or a report; the webhook writes everything else.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Backend, State, Task, Transition};

/// Observed state of a Server: its state, its tasks, and the facts that controllers report. The webhook writes every
/// field that does not name another owner.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// Generation of the declaration that the state was decided for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// State of the Server: `Initializing` (machine, packages or registration are not as declared yet), `Deploying`
    /// (the application is not deployed yet, or not proven healthy), `Ready`, `Unknown` (the machine is unreachable) or
    /// `Offline` (the Server is being retired).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// When the Server entered this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_since: Option<Time>,
    /// What the Server waits for, and who has to act. Absent when nothing is left to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Highest task id given out so far.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "lastTaskID")]
    pub last_task_id: Option<i64>,
    /// Lowest id of the tasks of the current state.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "firstTaskID")]
    pub first_task_id: Option<i64>,
    /// Tasks of the current state, and gates of earlier states. Other tasks of earlier states are in `history`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub tasks: Vec<Task>,
    /// Which controller instance may change the machine now. Absent when none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
    /// State before this one. Absent in the first state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_state: Option<State>,
    /// State from which the Server began its way to the next Ready: the newest one that it has left, other than
    /// `Initializing` and `Unknown`. Absent on the first way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came_from: Option<State>,
    /// The last twenty things that happened, newest last, each as a sentence for people: changes of state (with the
    /// user whose write led to it, and the reason), and tasks that ended, once their state was left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub history: Vec<String>,
    /// Changes of state that an earlier version of Berth stored. The next write turns them into `history`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub transitions: Vec<Transition>,
    /// Counter that rises whenever the health of the Server has to be proven again. A health fact counts only for the
    /// epoch that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Whether the force in `spec.force` is in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<ForceStatus>,
    /// Id of the last `spec.retry` that was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_retry: Option<String>,
    /// Id of the last `spec.reboot` that was carried out, or that had no effect because the machine was reachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_reboot: Option<String>,
    /// Fact: what is known about the machine. Written by replicaset-controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineFact>,
    /// Fact: which packages are installed. Written by replicaset-controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentFact>,
    /// Fact: which application is deployed. Written by deployment-controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppFact>,
    /// Fact: with which load balancers the Server is registered, and whether it receives traffic. Written by
    /// lb-controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficFact>,
    /// Fact: whether the machine is reachable. Written by monitor-controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachability: Option<ReachabilityFact>,
    /// Fact: whether the application is healthy. Written by monitor-controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthFact>,
    /// Fact: whether the Server is a monitoring target. Written by monitor-controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<MonitoringFact>,
    /// Conditions: `Ready`, and `Stalled` while it is true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub conditions: Vec<Condition>,
    /// A controller's request to take, renew or release the lock for a task. The webhook carries it out and removes it,
    /// so it is never stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// A controller's report on an attempt at a task. The webhook carries it out and removes it, so it is never stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

/// The right of one controller instance to work on the machine.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lock {
    /// Holder of the lock, as `<executor>/<instance>`.
    pub holder: String,
    /// Id of the task that the lock was claimed for.
    #[serde(rename = "taskID")]
    pub task_id: i64,
    /// When the lock was claimed, by the webhook's clock.
    pub acquired_at: Time,
    /// When the lock was last renewed, by the webhook's clock.
    pub renewed_at: Time,
    /// Seconds after `renewedAt` within which the holder renews the lock, or stops. Another holder may take the lock a
    /// minute later, because the clocks of the webhook's copies may differ.
    pub duration_seconds: i32,
}

/// What has become of a force.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForceStatus {
    /// Identifies the force: a digest of `spec.force`.
    pub id: String,
    /// Whether the force is in effect.
    pub active: bool,
    /// Why the force is no longer in effect.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What is known about the machine.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineFact {
    /// Phase of the machine: `Creating` (its creation has begun, so it may exist), `Running`, `Stopped` or `Gone` (it
    /// does not exist).
    pub phase: MachinePhase,
    /// Name of the provider that the machine is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Where the machine is at the provider, such as endpoint and project. It is looked for and destroyed only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Id of the machine at the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// IP address of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// How Berth logs in to the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshAccess>,
    /// Identifies the boot of the machine: another value means that it was rebooted.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "bootID")]
    pub boot_id: Option<String>,
    /// When the provider created the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
}

/// Phase of a machine.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum MachinePhase {
    /// Its creation has begun, so it may exist. Written by the webhook when CreateMachine is claimed.
    Creating,
    /// It runs.
    Running,
    /// It exists, but does not run.
    Stopped,
    /// It does not exist.
    Gone,
}

/// How Berth logs in to a machine.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SshAccess {
    /// Port of the machine's SSH server.
    pub port: i32,
    /// User that Berth logs in as.
    pub user: String,
    /// Host key of the machine, recorded at its creation, as an OpenSSH public key line. A machine with another key is
    /// not trusted.
    pub host_key: String,
    /// Folder on the machine in which Berth keeps packages, releases and services.
    pub root: String,
}

/// What is installed on the machine.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentFact {
    /// Whether the packages were read back since the machine was last unreachable. The webhook sets it to false when
    /// the machine may have changed.
    #[serde(default)]
    pub verified: bool,
    /// Packages that Berth manages, as they are installed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub packages: Vec<InstalledPackage>,
}

/// An installed package.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstalledPackage {
    /// Name of the package.
    pub name: String,
    /// Installed version.
    pub version: String,
    /// SHA-256 of the archive that it was installed from, for packages of type `archive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// The application that is deployed on the machine.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppFact {
    /// Revision of the deployed application.
    pub revision: String,
    /// Digest of what makes the running application: its archive, command, environment and port. An application with
    /// another digest is deployed again, even under the same revision.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Whether the application was read back since the machine was last unreachable. The webhook sets it to false when the
    /// machine may have changed.
    #[serde(default)]
    pub verified: bool,
    /// When it was deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed_at: Option<Time>,
    /// DeployClass whose deploy system has deployed it; none if Berth did so by SSH. What a deploy system has deployed is not looked
    /// for on the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy_class: Option<String>,
}

/// Which load balancers know the Server, and whether they send it traffic.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TrafficFact {
    /// Whether the Server receives traffic: `Held` (registered, but no traffic), `Serving`, or `Draining` (no new
    /// connections; open ones may finish).
    pub phase: TrafficPhase,
    /// The backends that the Server is registered with. Weights are not part of a registration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub backends: Vec<Backend>,
    /// Address that the Server is registered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Whether a registered Server receives traffic.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum TrafficPhase {
    /// Registered, but it receives no traffic.
    Held,
    /// It receives traffic.
    Serving,
    /// It receives no new connections; open ones may finish.
    Draining,
}

/// Whether the machine answers on its SSH port.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReachabilityFact {
    /// Whether the machine answers.
    pub reachable: bool,
    /// When the machine began to answer, or stopped answering, by monitor-controller's clock.
    pub since: Time,
    /// When monitor-controller reported this, by the same clock. It is not updated while nothing else changes.
    pub observed_at: Time,
    /// Result of the last probe.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Whether the application is healthy.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthFact {
    /// Verdict of the health check.
    pub state: HealthState,
    /// Epoch of the Server in which the verdict was reached.
    pub epoch: i64,
    /// When the verdict was reached.
    pub since: Time,
    /// Result of the last probe.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Verdict of a health check.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum HealthState {
    /// `successThreshold` consecutive probes succeeded.
    Healthy,
    /// `failureThreshold` consecutive probes failed.
    Unhealthy,
}

/// The Server's monitoring target.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringFact {
    /// Whether alarms of the target are delivered: `Bound` (yes) or `Paused` (they are silenced).
    pub phase: MonitoringPhase,
    /// Digest of the declaration and the address from which the target was made. A target with another digest is out of
    /// date.
    pub digest: String,
}

/// Phase of a monitoring target. A Server without a target has no monitoring fact.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum MonitoringPhase {
    /// It is a monitoring target.
    Bound,
    /// It is a monitoring target whose alarms are silenced.
    Paused,
}

/// A request to take, renew or release the lock for a task.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Id of the task. Claiming the task that the holder has already claimed renews the lock.
    #[serde(rename = "taskID")]
    pub task_id: i64,
    /// Controller instance that claims, as `<executor>/<instance>`.
    pub holder: String,
    /// Seconds after which the lock expires unless it is renewed; 0 releases it.
    pub duration_seconds: i32,
    /// Begins another attempt under the lock that the holder has for this task already: `acquiredAt` of the lock changes, so that
    /// what was sent for the attempt before does not fit this one when it arrives late.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// A report on an attempt at a task.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Id of the task.
    #[serde(rename = "taskID")]
    pub task_id: i64,
    /// Controller instance that reports, as `<executor>/<instance>`. For a task that needs the lock it must be the
    /// lock's holder.
    pub holder: String,
    /// Outcome of the attempt: `Running` (it is under way), `Waiting` (it cannot begin yet), `Succeeded`, `Retry` (it
    /// failed, another attempt may succeed) or `Failed` (another attempt would fail, too).
    pub outcome: Outcome,
    /// Human-readable explanation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For the outcomes `Retry` and `Waiting`: seconds to wait before the next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<i32>,
    /// For the outcome `Succeeded`: controller instances that may go on with the next task, as `<executor>/<instance>`, one for
    /// each controller. The instance of the next task's executor gets the lock, without a claim of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub successors: Vec<String>,
}

/// Outcome of an attempt at a task.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
pub enum Outcome {
    /// The attempt is under way: a task without a lock has begun, or there is news of one that runs.
    Running,
    /// Nothing was done, because the task cannot begin yet; the message says why. The attempt does not count.
    Waiting,
    /// The task is done; the same write carries the facts that show it.
    Succeeded,
    /// The attempt failed; another one may succeed.
    Retry,
    /// The attempt failed, and another one would fail, too.
    Failed,
}
