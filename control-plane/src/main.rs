//! `berth-control-plane`: gets the programs of a control plane, or runs one on loopback.

use std::{fs, io, path::PathBuf, process::ExitCode};

use anyhow::Context;
use berth_control_plane::{
    ControlPlane, ControlPlaneOptions, WebhookEndpoint,
    acquire::{Settings, acquire},
};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A real Kubernetes control plane on loopback, for tests and demonstrations.
///
/// Runs etcd, kube-apiserver (with RBAC) and kube-controller-manager (garbage collector and namespaces). There is no
/// kubelet, so pods do not run.
#[derive(Parser)]
#[command(version, after_long_help = ENVIRONMENT)]
struct Args {
    #[command(subcommand)]
    command: ControlPlaneCommand,
}

const ENVIRONMENT: &str = "\
Environment:
  KUBEBUILDER_ASSETS         a folder with etcd, kube-apiserver, kube-controller-manager and kubectl
  BERTH_CACHE                folder that keeps downloaded and built programs [default: $XDG_CACHE_HOME/berth or ~/.cache/berth]
  BERTH_ENVTEST_INDEX        address of the index of the envtest releases
  BERTH_ENVTEST_RELEASES     base address of the envtest releases
  BERTH_KUBERNETES_RELEASES  base address of the Kubernetes releases
  BERTH_GO                   the Go command, to build programs where no release is reachable [default: go]
  RUST_LOG                   what to log to standard error [default: info]";

#[derive(Subcommand)]
enum ControlPlaneCommand {
    /// Gets the programs and prints their folder.
    ///
    /// The sources, in this order: the folder in KUBEBUILDER_ASSETS, the cache, the official releases (checksums verified), a build
    /// from the Go modules (about ten minutes, once). If the programs are in different folders, prints their four paths instead.
    Acquire,
    /// Starts a control plane, prints the path of a kubeconfig, and stays until Ctrl-C.
    ///
    /// The control plane ends together with this program, however that ends, and its folder is removed.
    Up(Up),
}

#[derive(clap::Args)]
struct Up {
    /// A folder of manifests to install, such as `deploy`; kinds that need a kubelet are skipped.
    #[arg(long, value_name = "DIR")]
    deploy: Option<PathBuf>,
    /// Address of the webhook of these manifests, such as `https://127.0.0.1:8443`; without it, webhook configurations are
    /// skipped.
    #[arg(long, value_name = "URL", requires_all = ["webhook_ca", "deploy"])]
    webhook_url: Option<String>,
    /// The certificate of the authority that signed the webhook's certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "webhook_url")]
    webhook_ca: Option<PathBuf>,
    /// Log every write to `audit.log` beside the kubeconfig.
    #[arg(long)]
    audit: bool,
    /// A further argument for kube-apiserver, such as `--apiserver-flag=--v=4`; may be repeated.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    apiserver_flag: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let result = match Args::parse().command {
        ControlPlaneCommand::Acquire => print_acquired().await,
        ControlPlaneCommand::Up(up) => up.run().await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn print_acquired() -> anyhow::Result<()> {
    let assets = acquire(&Settings::from_env()).await?;
    match assets.folder() {
        Some(folder) => println!("{}", folder.display()),
        None => assets.programs().iter().for_each(|program| println!("{}", program.display())),
    }
    Ok(())
}

impl Up {
    async fn run(self) -> anyhow::Result<()> {
        // Listens before it starts anything, so that it misses no signal.
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let serve = async {
            let control_plane = self.start().await?;
            println!("{}", control_plane.admin_kubeconfig().display());
            eprintln!("\nThe control plane is up at {}. Try:", control_plane.url());
            let kubectl = control_plane.assets().kubectl.display();
            eprintln!("  {kubectl} --kubeconfig {} get namespaces", control_plane.admin_kubeconfig().display());
            eprintln!("Ctrl-C ends it and removes {}.", control_plane.dir().display());
            anyhow::Ok(control_plane)
        };
        let control_plane = tokio::select! {
            started = serve => started?,
            _ = interrupt.recv() => return Ok(()), // dropping the control plane ends it
            _ = terminate.recv() => return Ok(()),
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(control_plane.stop().await?)
    }

    async fn start(&self) -> anyhow::Result<ControlPlane> {
        let webhook = match (&self.webhook_url, &self.webhook_ca) {
            (Some(url), Some(file)) => {
                let ca_pem = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
                Some(WebhookEndpoint { url_base: url.clone(), ca_pem })
            }
            _ => None,
        };
        let options = ControlPlaneOptions {
            audit: self.audit,
            apiserver_flags: self.apiserver_flag.clone(),
            ..ControlPlaneOptions::default()
        };
        let control_plane = ControlPlane::start(options).await?;
        if let Some(dir) = &self.deploy {
            let report = control_plane.install(dir, webhook.as_ref()).await?;
            for title in &report.skipped {
                tracing::info!(object = title, "skipped");
            }
            tracing::info!(objects = report.applied.len(), warnings = report.warnings.len(), "manifests installed");
        }
        Ok(control_plane)
    }
}
