//! The programs of Berth, and how each is started.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use berth_control_plane::{ChildProcess, Launch, free_port};

use crate::{programs::program_in, serving_certificate::ServingCertificate};

/// A program of Berth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Decides, and guards the rules of the life cycle.
    Webhook,
    /// Machines and packages.
    ReplicasetController,
    /// Applications and their roll-outs.
    DeploymentController,
    /// Traffic.
    LbController,
    /// Health and monitoring.
    MonitorController,
}

impl Part {
    /// All programs, in the order in which they are started.
    pub const ALL: [Self; 5] = [
        Self::Webhook,
        Self::ReplicasetController,
        Self::DeploymentController,
        Self::LbController,
        Self::MonitorController,
    ];
    /// All but the webhook.
    pub const CONTROLLERS: [Self; 4] =
        [Self::ReplicasetController, Self::DeploymentController, Self::LbController, Self::MonitorController];

    /// The name of the program and of its ServiceAccount.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::ReplicasetController => "replicaset-controller",
            Self::DeploymentController => "deployment-controller",
            Self::LbController => "lb-controller",
            Self::MonitorController => "monitor-controller",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A process of a program: the first, or another copy.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The program.
    pub part: Part,
    /// 1 for the first process, 2 and so on for copies; also its `--instance`.
    pub number: usize,
    /// The address of its `/healthz`, `/readyz` and `/metrics`.
    pub http: SocketAddr,
    /// The process, which tests kill or suspend, and whose log they read.
    pub process: Arc<ChildProcess>,
}

/// What all programs are started with.
pub(crate) struct LaunchSettings<'a> {
    pub(crate) kubeconfig: &'a Path,
    pub(crate) serving: &'a ServingCertificate,
    pub(crate) webhook: SocketAddr,
    pub(crate) ssh_key: &'a Path,
    pub(crate) machines: &'a Path,
    /// The folder of the programs; none for those that were built with the running program.
    pub(crate) programs: Option<&'a Path>,
    /// The authority of the webhook's clients; none for all clients.
    pub(crate) client_ca: Option<PathBuf>,
    pub(crate) extra: &'a [String],
}

/// The command line of one process.
pub(crate) fn launch(part: Part, number: usize, http: SocketAddr, setting: &LaunchSettings<'_>) -> Result<Launch> {
    let name = if number == 1 { part.name().to_owned() } else { format!("{part}-{number}") };
    let mut launch = Launch::new(name, program_in(setting.programs, part.name())?)
        .arg("--kubeconfig")
        .arg(setting.kubeconfig)
        .args([
            "--http-address".to_owned(),
            http.to_string(),
            // A program that is killed leaves its lock to expire: a short one, so that tests wait less.
            "--lock-seconds".to_owned(),
            "10".to_owned(),
            "--instance".to_owned(),
            number.to_string(),
        ]);
    if part == Part::Webhook {
        launch = launch
            .args(["--bind".to_owned(), setting.webhook.to_string()])
            .arg("--tls-cert")
            .arg(&setting.serving.certificate)
            .arg("--tls-key")
            .arg(&setting.serving.key);
        if let Some(authority) = &setting.client_ca {
            launch = launch.arg("--client-ca").arg(authority);
        }
    }
    if part == Part::ReplicasetController {
        let machine = program_in(setting.programs, "berth-local-machine")?;
        launch = launch.arg("--local-dir").arg(setting.machines).arg("--local-machine-binary").arg(machine);
    }
    if matches!(part, Part::ReplicasetController | Part::DeploymentController) {
        launch = launch.arg("--ssh-key").arg(setting.ssh_key);
    }
    Ok(launch.args(setting.extra.iter().cloned()))
}

/// A free port of 127.0.0.1. It stays reserved while the program that listens on it restarts.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}
