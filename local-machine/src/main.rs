//! A machine that is a process: its own directory, loopback address and SSH server.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::Parser;
use local_machine::{MachineDir, MachineSpec, boot, httpd};

/// A machine that is a process, with its own folder, loopback address and SSH server.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Be a machine, until SIGTERM or SIGINT.
    Run(Spec),
    /// Start a machine in the background.
    Launch(Spec),
    /// Say whether the machine runs, and what it is.
    Status(Dir),
    /// Pull the plug: kill the machine and everything on it.
    Kill(Dir),
    /// Hang the machine: it keeps its address and does nothing more.
    Hang(Dir),
    /// Let a hung machine go on.
    Resume(Dir),
    /// Kill the machine and start it again.
    Reboot(Dir),
    /// Serve a folder's files over HTTP; also the program `berth-httpd` on the machine.
    Httpd(httpd::Options),
}

#[derive(clap::Args)]
struct Dir {
    /// The machine's folder.
    #[arg(long)]
    dir: PathBuf,
}

#[derive(clap::Args)]
struct Spec {
    /// The machine's folder.
    #[arg(long)]
    dir: PathBuf,
    /// Loopback address, such as 127.77.0.5.
    #[arg(long)]
    address: String,
    /// SSH port.
    #[arg(long, default_value_t = 2222)]
    port: u16,
    /// Unique id, such as the Server's UID.
    #[arg(long)]
    id: String,
    /// Name for people; the id if not given.
    #[arg(long)]
    name: Option<String>,
    /// OpenSSH public key line that may log in; can be repeated.
    #[arg(long, required = true)]
    authorized_key: Vec<String>,
}

impl Spec {
    fn split(self) -> (MachineDir, MachineSpec) {
        let name = self.name.unwrap_or_else(|| self.id.clone());
        let (address, port, authorized_keys) = (self.address, self.port, self.authorized_key);
        (MachineDir::new(self.dir), MachineSpec { id: self.id, name, address, port, authorized_keys })
    }
}

/// `berth-httpd` under its own name.
#[derive(Parser)]
#[command(name = "berth-httpd", version, about = "Serves a folder's files over HTTP")]
struct Httpd {
    #[command(flatten)]
    options: httpd::Options,
}

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing::Level::INFO.into())
                .from_env_lossy(),
        )
        .with_writer(std::io::stderr)
        .init();
    let called = env::args_os().next().unwrap_or_default();
    if Path::new(&called).file_name().is_some_and(|name| name == "berth-httpd") {
        return wait_for(httpd::serve(Httpd::parse().options));
    }
    match Command::parse() {
        Command::Run(spec) => {
            let (dir, spec) = spec.split();
            boot::enter(&spec)?;
            wait_for(boot::run(&dir, spec))
        }
        Command::Launch(spec) => {
            let (dir, spec) = spec.split();
            boot::launch(&dir, &spec)
        }
        Command::Status(Dir { dir }) => print(MachineDir::new(dir).running()?.as_ref()),
        Command::Kill(Dir { dir }) => MachineDir::new(dir).kill(),
        Command::Hang(Dir { dir }) => MachineDir::new(dir).hang(),
        Command::Resume(Dir { dir }) => MachineDir::new(dir).resume(),
        Command::Reboot(Dir { dir }) => print(Some(&MachineDir::new(dir).reboot(&env::current_exe()?)?)),
        Command::Httpd(options) => wait_for(httpd::serve(options)),
    }
}

fn print(info: Option<&local_machine::MachineInfo>) -> Result<()> {
    match info {
        Some(info) => println!("{}", serde_json::to_string_pretty(info)?),
        None => println!("the machine is not running"),
    }
    Ok(())
}

fn wait_for(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}
