//! The demonstration: a whole Berth on this machine, from nothing to Ready.

mod balancer;
mod examples;
mod guide;
mod pages;
mod progress;
mod rollouts;
mod screen;
mod traffic;

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use berth_control_plane::acquire;
use berth_tests::{Artifacts, Berth, HaProxy, Options};
use clap::Parser;
use screen::Screen;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use traffic::Traffic;

/// Shows a whole Berth on this machine: a real Kubernetes control plane, the webhook, the four controllers, and three
/// small web servers on machines that are processes. Then new code goes out in steps, and a bad version is rolled back. Where
/// HAProxy is installed, it balances requests all the while, and a machine is killed. Needs no root privileges; everything runs on
/// loopback addresses and is removed when this program ends, however it ends.
#[derive(Parser)]
#[command(name = "berth-demo", version)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct Args {
    /// Exit with status 0 as soon as all servers are Ready and have answered.
    #[arg(long)]
    exit_when_ready: bool,
    /// Exit as soon as everything has been shown: with status 0 if no request to the load balancer failed.
    #[arg(long)]
    exit_when_shown: bool,
    /// Do as if HAProxy were not installed.
    #[arg(long)]
    without_haproxy: bool,
    /// Time limit for all servers to become Ready, in seconds since they were declared.
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    timeout: u64,
    /// Print the SHA-256 digests of the example artifacts, which the manifests in examples/ must contain, and exit.
    #[arg(long)]
    print_digests: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match interruptible(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn interruptible(args: &Args) -> Result<()> {
    if args.print_digests {
        examples::serve(&Artifacts::start(0).await?)?.iter().for_each(|line| println!("{line}"));
        return Ok(());
    }
    // Installed before anything is started, so that no signal is missed.
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        result = demonstrate(args) => result,
        // The other future is dropped here, which ends everything that was started.
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }?;
    println!("Everything is ended and removed.");
    Ok(())
}

async fn demonstrate(args: &Args) -> Result<()> {
    let begin = Instant::now();
    let stage = |text: &str| println!("[{:5.1} s] {text}", begin.elapsed().as_secs_f32());
    // First, because on a fresh machine this takes minutes and prints its progress.
    let assets = acquire::acquire(&acquire::Settings::from_env()).await?;
    stage("starting a control plane, the webhook and four controllers, each with its own rights");
    let control_plane = berth_control_plane::ControlPlaneOptions { assets: Some(assets), ..Default::default() };
    let options = Options { control_plane, artifacts_port: examples::PORT, ..Options::default() };
    let berth = Berth::start(options).await?;
    let kubeconfig = berth.control_plane().user_kubeconfig("you", &["system:masters"])?;
    stage(&format!("up: {}", berth.control_plane().url()));
    let served = examples::serve(berth.artifacts())?;
    stage(&format!("serving {} example artifacts from 127.0.0.1:{}", served.len(), examples::PORT));
    let haproxy = if args.without_haproxy || HaProxy::installed().is_none() {
        stage(balancer::INSTALL);
        None
    } else {
        let haproxy = balancer::start(&berth).await?;
        stage(&format!("HAProxy listens at {}; Berth knows it as the BalancerClass edge", traffic::url(&haproxy)));
        Some(haproxy)
    };
    let manifest = balancer::manifest(haproxy.is_some(), berth.control_plane().dir())?;
    examples::apply(&berth.control_plane().assets().kubectl, &kubeconfig, &manifest).await?;
    stage("applied examples/web.yaml: a VMDeployment of three servers with two packages, and a Service");

    let outcome = follow(args, &berth, begin, &kubeconfig, haproxy.as_ref()).await;
    if outcome.is_err() {
        eprintln!("{}", log_tails(&berth));
    }
    let stopped = berth.stop().await;
    outcome.and(stopped)
}

/// Shows the Servers until all are Ready, requests a page of each, shows two roll-outs and a dead machine, and then shows changes.
async fn follow(
    args: &Args,
    berth: &Berth,
    begin: Instant,
    kubeconfig: &Path,
    haproxy: Option<&HaProxy>,
) -> Result<()> {
    let mut screen = Screen::new(berth, begin);
    let replicas = screen.replicas().await?;
    // Not since the start of the program, because on a fresh machine the control plane was built first.
    let limit = Duration::from_secs(args.timeout);
    screen.until("all servers Ready", limit, |servers, _| servers.all_serve(replicas)).await?;
    screen.stage(&format!("all {replicas} servers are Ready and take traffic"));
    pages::request(&screen.list()).await?;
    if args.exit_when_ready {
        return Ok(());
    }
    let traffic = haproxy.map(Traffic::start);
    rollouts::show(&mut screen, berth, kubeconfig, replicas, traffic.as_ref()).await?;
    let outcome = match traffic {
        Some(traffic) => {
            traffic.kill_machine(&mut screen, berth, replicas).await?;
            traffic.end(&screen).await
        }
        None => Ok(()),
    };
    if args.exit_when_shown {
        return outcome;
    }
    if let Err(error) = outcome {
        eprintln!("error: {error:#}");
    }
    println!("\n{}", guide::text(berth, kubeconfig, &screen.list(), haproxy)?);
    // Ctrl-C ends this.
    screen.show_changes().await
}

/// The ends of all logs, for finding out why the demonstration failed.
fn log_tails(berth: &Berth) -> String {
    let tails = berth.instances().into_iter().map(|instance| {
        let tail = instance.process.log_tail();
        let lines: Vec<_> = tail.lines().rev().take(10).collect();
        let lines: Vec<_> = lines.into_iter().rev().collect();
        format!("--- {}\n{}\n", instance.process.name(), lines.join("\n"))
    });
    tails.collect()
}
