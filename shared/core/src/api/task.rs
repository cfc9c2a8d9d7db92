//! States of a Server, and the tasks that they need.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GatePoint;

/// State of a Server.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
pub enum State {
    /// Machine, packages or registration with the load balancers are not as declared yet.
    Initializing,
    /// The environment is as declared; the application is not deployed as declared yet, or not proven healthy.
    Deploying,
    /// Environment, application and health are as declared: the Server may receive traffic.
    Ready,
    /// The machine is unreachable, or retained for diagnosis.
    Unknown,
    /// The Server is being retired.
    Offline,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Initializing, Self::Deploying, Self::Ready, Self::Unknown, Self::Offline];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Kind of a task: what it does.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
pub enum TaskKind {
    /// Waits for a person to approve what comes next; see [`Task::gate`].
    Gate,
    /// Takes the Server out of traffic and waits until its connections have drained.
    HoldTraffic,
    /// Creates the machine, or starts an existing one.
    CreateMachine,
    /// Installs the declared packages, and removes others if they are to be pruned.
    InstallPackages,
    /// Registers the Server with its load balancers, without traffic.
    RegisterBackend,
    /// Deploys the declared application.
    DeployApp,
    /// Waits until the health check has proven the application healthy.
    CheckHealth,
    /// Lets the load balancers send traffic to the Server.
    ReleaseTraffic,
    /// Makes the Server a monitoring target.
    BindMonitoring,
    /// Silences the alarms of the Server's monitoring target.
    PauseMonitoring,
    /// Reboots the machine.
    RebootMachine,
    /// Waits until the machine is reachable again.
    AwaitRecovery,
    /// Removes the Server from its load balancers.
    RemoveBackend,
    /// Removes the Server's monitoring target.
    UnbindMonitoring,
    /// Destroys the machine.
    DestroyMachine,
}

impl TaskKind {
    /// Every kind of task.
    pub const ALL: [Self; 15] = [
        Self::Gate,
        Self::HoldTraffic,
        Self::CreateMachine,
        Self::InstallPackages,
        Self::RegisterBackend,
        Self::DeployApp,
        Self::CheckHealth,
        Self::ReleaseTraffic,
        Self::BindMonitoring,
        Self::PauseMonitoring,
        Self::RebootMachine,
        Self::AwaitRecovery,
        Self::RemoveBackend,
        Self::UnbindMonitoring,
        Self::DestroyMachine,
    ];

    /// Who carries out tasks of this kind.
    #[must_use]
    pub fn executor(self) -> Executor {
        match self {
            Self::Gate => Executor::Person,
            Self::CreateMachine | Self::InstallPackages | Self::RebootMachine | Self::DestroyMachine => {
                Executor::ReplicasetController
            }
            Self::DeployApp => Executor::DeploymentController,
            Self::HoldTraffic | Self::RegisterBackend | Self::ReleaseTraffic | Self::RemoveBackend => {
                Executor::LbController
            }
            Self::CheckHealth
            | Self::BindMonitoring
            | Self::PauseMonitoring
            | Self::AwaitRecovery
            | Self::UnbindMonitoring => Executor::MonitorController,
        }
    }

    /// Whether the task works on the machine, and therefore needs the Server's lock.
    #[must_use]
    pub fn needs_lock(self) -> bool {
        matches!(
            self,
            Self::CreateMachine | Self::InstallPackages | Self::DeployApp | Self::RebootMachine | Self::DestroyMachine
        )
    }
}

impl GatePoint {
    /// The task that the gate holds up.
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

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Who carries out a task: one of the controllers, or a person.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Executor {
    /// Carries out tasks on machines and packages.
    ReplicasetController,
    /// Deploys applications.
    DeploymentController,
    /// Carries out tasks on traffic.
    LbController,
    /// Carries out tasks on health and monitoring.
    MonitorController,
    /// A person, who decides by creating an Approval.
    Person,
}

impl Executor {
    /// The controllers.
    pub const CONTROLLERS: [Self; 4] =
        [Self::ReplicasetController, Self::DeploymentController, Self::LbController, Self::MonitorController];

    /// Name of the executor, which is the name of its binary and of its ServiceAccount.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ReplicasetController => "replicaset-controller",
            Self::DeploymentController => "deployment-controller",
            Self::LbController => "lb-controller",
            Self::MonitorController => "monitor-controller",
            Self::Person => "person",
        }
    }
}

impl fmt::Display for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Phase of a task.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
pub enum TaskPhase {
    /// Not begun, or waiting for its next attempt.
    Pending,
    /// An attempt is under way.
    Running,
    /// Done.
    Succeeded,
    /// All attempts failed, or a person refused it: nothing goes on until a person acts.
    Failed,
    /// Given up, because it is no longer needed.
    Cancelled,
}

impl TaskPhase {
    /// Whether the task ended: nothing more happens to it.
    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A piece of work that the Server's state needs. Only the webhook writes tasks; executors change them through
/// `status.claim` and `status.report`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Id of the task. Ids are unique within a Server and rise.
    pub id: i64,
    /// What the task does, and with that who carries it out: see `docs/protocol.md`.
    pub kind: TaskKind,
    /// For a gate: the task that it holds up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GatePoint>,
    /// Number of the step. Tasks of one step may run at the same time; the next step opens when all of them are
    /// finished.
    pub step: i32,
    /// Phase of the task: `Pending`, `Running`, `Succeeded`, `Failed` (nothing goes on until a person acts) or
    /// `Cancelled`.
    pub phase: TaskPhase,
    /// Digest of the part of the declaration that the task carries out. A failure or an approval counts only for that
    /// part.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Number of attempts that were begun.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: i32,
    /// Earliest time of the next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// When the first attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the task succeeded, failed or was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Human-readable message of the last report, or why the task was cancelled.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Task {
    /// Who carries out the task.
    #[must_use]
    pub fn executor(&self) -> Executor {
        self.kind.executor()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}
