//! States and tasks: what a Server is doing.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GatePoint;

/// Where a Server is in its life.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
pub enum State {
    /// The environment is not as declared.
    Initializing,
    /// The environment is right; the code is not yet as declared, or not yet proven healthy.
    Deploying,
    /// Environment, code and health are right: it may take traffic.
    Ready,
    /// The machine cannot be reached.
    Unknown,
    /// It is being retired.
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

/// What a task does.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
pub enum TaskKind {
    /// Waits for a person (or a policy) to let the Server go on; see [`Task::gate`].
    Gate,
    /// Takes traffic away and waits until it has drained.
    HoldTraffic,
    /// Makes the machine exist and run.
    CreateMachine,
    /// Makes the machine's packages those that are declared.
    InstallPackages,
    /// Registers the Server with its load balancers, without traffic.
    RegisterBackend,
    /// Makes the deployed code that which is declared.
    DeployApp,
    /// Proves the application's health.
    CheckHealth,
    /// Lets traffic reach the Server.
    ReleaseTraffic,
    /// Makes the Server a monitoring target.
    BindMonitoring,
    /// Silences the Server's monitoring.
    PauseMonitoring,
    /// Reboots the machine.
    RebootMachine,
    /// Waits until the machine can be reached again.
    AwaitRecovery,
    /// Removes the Server from its load balancers.
    RemoveBackend,
    /// Removes the Server from monitoring.
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

    /// Who carries a task of this kind out.
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

    /// Whether the task touches the machine and so needs the Server's lock.
    #[must_use]
    pub fn needs_lock(self) -> bool {
        matches!(
            self,
            Self::CreateMachine | Self::InstallPackages | Self::DeployApp | Self::RebootMachine | Self::DestroyMachine
        )
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Who carries out a task.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Executor {
    /// Machines and packages.
    ReplicasetController,
    /// Code.
    DeploymentController,
    /// Traffic.
    LbController,
    /// Health and monitoring.
    MonitorController,
    /// A person, through an Approval.
    Person,
}

impl Executor {
    /// The controllers.
    pub const CONTROLLERS: [Self; 4] =
        [Self::ReplicasetController, Self::DeploymentController, Self::LbController, Self::MonitorController];

    /// Its name: that of the binary and of the ServiceAccount.
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

/// How far a task is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
pub enum TaskPhase {
    /// Not begun, or waiting for its next attempt.
    Pending,
    /// Being carried out.
    Running,
    /// Done.
    Succeeded,
    /// Failed beyond its retries, or refused; a person is needed.
    Failed,
    /// Given up, because it is no longer needed.
    Cancelled,
}

impl TaskPhase {
    /// Whether nothing more happens to a task in this phase.
    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// One step on the way to the declared state. Only the webhook writes tasks; executors claim and report
/// (`status.claim`, `status.report`).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Unique and rising within the Server.
    pub id: i64,
    /// What is to be done.
    pub kind: TaskKind,
    /// What a gate stands before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GatePoint>,
    /// All tasks of a step may run together; the next step opens when the step is done.
    pub step: i32,
    /// Who carries it out.
    pub executor: Executor,
    /// How far it is.
    pub phase: TaskPhase,
    /// Digest of the part of the declaration that it carries out: a failure or an approval counts only for that part.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Attempts begun.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: i32,
    /// Not to be begun before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// When the first attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// What there is to say about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}
