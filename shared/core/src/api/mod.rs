//! The kinds of the group `berth.dev/v1alpha1`.
#![expect(clippy::duplicated_attributes, reason = "each printer column names its own type")]
#![expect(unreachable_pub, reason = "KubeSchema derives a twin of each type inside its module")]

mod after;
mod alarms;
mod allowed_namespaces;
mod analysis;
mod app;
mod app_executor;
mod app_file;
mod approval;
mod artifact;
mod balancer_class;
mod baseline;
mod deploy_class;
mod deployment;
mod gate;
mod health;
mod hooks;
mod http_route;
mod key_ref;
mod ledger;
mod machine;
mod machine_class;
mod monitoring_class;
mod on_failure;
mod package;
mod replicaset;
mod rollout;
mod rollout_step;
mod server;
mod server_status;
mod spread;
mod task;
mod template;
mod traffic;
mod transition;

pub use after::{After, Followed};
pub use alarms::{AlarmProgress, Alarms, AlreadyFiring, FiredAlarms};
pub use analysis::{
    AnalysisProgress, AnalysisStep, Background, Check, CheckProgress, CheckVerdict, NoData, Proportion, Shift,
};
pub use app::{App, EnvVar, EnvVarSource};
pub use app_executor::{AppExecutor, AppExecutorType};
pub use app_file::AppFile;
pub use approval::{
    Approval, ApprovalDecision, ApprovalSpec, ApprovalStatus, ApprovalTarget, ApprovedServer, Approver, TargetKind,
};
pub use artifact::{Artifact, ArtifactFormat, ArtifactSecret};
pub use balancer_class::{
    BalancerClass, BalancerClassSpec, BalancerClassStatus, BalancerDriver, HaProxyAccess, HaProxySocket,
    UnreachablePolicy, WhenUnreachable,
};
pub use baseline::{BaselineProgress, BaselineStep};
pub use deploy_class::{DeployClass, DeployClassSpec};
pub use deployment::{RevisionCount, VMDeployment, VMDeploymentSpec, VMDeploymentStatus};
pub use gate::{Gate, GatePoint};
pub use health::{HealthCheck, HttpGet, Reachability, TcpSocket};
pub use hooks::{Hook, Hooks};
pub use http_route::{HttpRoute, HttpRouteStatus};
pub use key_ref::{ConfigMapKeyRef, SecretKeyRef};
pub use ledger::{Axis, LedgerEntry, PendingServer};
pub use machine::Machine;
pub use machine_class::{Credentials, MachineAccess, MachineClass, MachineClassSpec, OrphanPolicy};
pub use monitoring_class::{MonitoringClass, MonitoringClassSpec, Tenant};
pub use on_failure::OnFailure;
pub use package::{Apt, Archive, Dnf, Package, PackageSource, Script};
pub use replicaset::{
    Failover, FailoverAction, RebootPolicy, Retain, ScaleDown, ScaleDownPolicy, UpdateStrategy, UpdateType,
    VMReplicaSet, VMReplicaSetSpec, VMReplicaSetStatus,
};
pub use rollout::{Abort, Restart, Rollout, RolloutAction, RolloutOrder, RolloutProgress, RolloutRequest, Undone};
pub use rollout_step::{ApproveStep, BakeStep, PauseStep, RolloutStep};
pub use server::{Force, Request, Retention, Server, ServerSpec};
pub use server_status::{
    AppFact, Claim, EnvironmentFact, ForceStatus, HealthFact, HealthState, InstalledPackage, Lock, MachineFact,
    MachinePhase, MonitoringFact, MonitoringPhase, Outcome, ReachabilityFact, Report, ServerStatus, SshAccess,
    TrafficFact, TrafficPhase,
};
pub use spread::{Spread, SpreadMode};
pub use task::{Executor, State, Task, TaskKind, TaskPhase};
pub use template::{ServerTemplate, TemplateMeta};
pub use traffic::{Backend, Drain, Monitoring, Ramp, Subset, Traffic};
pub use transition::Transition;
