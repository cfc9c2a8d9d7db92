//! The demonstration: a whole Berth on this machine, from nothing to Ready.

mod examples;
mod guide;
mod progress;

use std::{
    pin::pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use berth_control_plane::acquire;
use berth_core::api::{Server, VMDeployment};
use berth_tests::{Artifacts, Berth, Options, repository};
use clap::Parser;
use futures::TryStreamExt;
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use progress::{Board, Servers};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How often a terminal is redrawn without events, so that the seconds advance.
const REDRAW: Duration = Duration::from_millis(250);

/// Shows a whole Berth on this machine: a real Kubernetes control plane, the webhook, the four controllers, and three
/// small web servers on machines that are processes. Needs no root privileges; everything runs on loopback addresses and is
/// removed when this program ends, however it ends.
#[derive(Parser)]
#[command(name = "berth-demo", version)]
struct Args {
    /// Exit with status 0 as soon as all servers are Ready and have answered.
    #[arg(long)]
    exit_when_ready: bool,
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
    let manifest = repository().join("examples/web.yaml");
    examples::apply(&berth.control_plane().assets().kubectl, &kubeconfig, &manifest).await?;
    stage("applied examples/web.yaml: a VMDeployment of three servers with two packages, and a Service");

    let outcome = follow(args, &berth, begin, &kubeconfig).await;
    if outcome.is_err() {
        eprintln!("{}", log_tails(&berth));
    }
    let stopped = berth.stop().await;
    outcome.and(stopped)
}

/// Shows the Servers until all are Ready, requests a page of each, and then shows changes.
async fn follow(args: &Args, berth: &Berth, begin: Instant, kubeconfig: &std::path::Path) -> Result<()> {
    let api = berth.servers("default");
    let deployments: Api<VMDeployment> = Api::default_namespaced(berth.client());
    let replicas = usize::try_from(deployments.get("web").await?.spec.replicas)?;
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    let (mut servers, mut board) = (Servers::default(), Board::new());
    let mut redraw = tokio::time::interval(REDRAW);
    // Not since the start of the program, because on a fresh machine the control plane was built first.
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    while !servers.all_serve(replicas) {
        tokio::select! {
            event = events.try_next() => servers.observe(event?.context("the watch of Servers ended")?),
            _ = redraw.tick() => {}
        }
        board.show(&servers);
        if Instant::now() > deadline {
            bail!("not all servers were Ready within {} s", args.timeout);
        }
    }
    println!("[{:5.1} s] all {replicas} servers are Ready and take traffic", begin.elapsed().as_secs_f32());
    let list: Vec<Server> = servers.iter().cloned().collect();
    request_pages(&list).await?;
    if args.exit_when_ready {
        return Ok(());
    }
    println!("\n{}", guide::text(berth, kubeconfig, &list)?);
    board.only_changes(&servers);
    // Ctrl-C ends this.
    loop {
        servers.observe(events.try_next().await?.context("the watch of Servers ended")?);
        board.show(&servers);
    }
}

/// Requests the pages `/` and `/whoami` of every server, and prints the responses.
async fn request_pages(servers: &[Server]) -> Result<()> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    for server in servers {
        let machine = server.status.as_ref().and_then(|status| status.machine.as_ref());
        let address = machine.and_then(|machine| machine.address.as_deref());
        let address = address.with_context(|| format!("{} has no address", server.name_any()))?;
        let mut answers = Vec::new();
        for path in ["", "whoami"] {
            let url = format!("http://{address}:8080/{path}");
            let answer = http.get(&url).send().await.and_then(reqwest::Response::error_for_status);
            answers.push(answer.with_context(|| format!("ask {url}"))?.text().await?);
        }
        let page = answers[0].lines().find(|line| line.starts_with("<h1>")).unwrap_or_default();
        println!("  GET http://{address}:8080/  {page}  [{}]", answers[1].trim());
    }
    Ok(())
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
