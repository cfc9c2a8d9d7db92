//! A machine that is a process: its own directory, loopback address and SSH server.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::Parser;
use local_machine::{MachineDir, MachineInfo, MachineSpec, boot, httpd, launch};

/// A machine that is a process, with its own folder, loopback address and SSH server.
#[derive(Parser)]
#[command(version)]
enum LocalMachineCommand {
    /// Run a machine in this process until SIGTERM or SIGINT.
    Run(SpecArgs),
    /// Start a machine in the background.
    Launch(SpecArgs),
    /// Print the running machine's description.
    Status(DirArgs),
    /// Cut the power: kill the machine and everything on it.
    Kill(DirArgs),
    /// Hang the machine: it keeps its address and no longer answers.
    Hang(DirArgs),
    /// Resume a hung machine.
    Resume(DirArgs),
    /// Reboot the machine hard: kill it and start it again.
    Reboot(DirArgs),
    /// Serve a folder's files over HTTP, as the program `berth-httpd` on the machine does.
    Httpd(httpd::HttpdOptions),
}

#[derive(clap::Args)]
struct DirArgs {
    /// The machine's folder.
    #[arg(long)]
    dir: PathBuf,
}

impl DirArgs {
    /// The folder, in which there has to be a machine: a person who mistypes it is told.
    fn machine(self) -> Result<MachineDir> {
        let dir = MachineDir::new(self.dir);
        dir.known().map(|_| dir)
    }
}

#[derive(clap::Args)]
struct SpecArgs {
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

impl SpecArgs {
    fn into_parts(self) -> (MachineDir, MachineSpec) {
        let name = self.name.unwrap_or_else(|| self.id.clone());
        let (address, port, authorized_keys) = (self.address, self.port, self.authorized_key);
        (MachineDir::new(self.dir), MachineSpec { id: self.id, name, address, port, authorized_keys })
    }
}

/// The command line of the program when it is called as `berth-httpd`.
#[derive(Parser)]
#[command(name = "berth-httpd", version, about = "Serves a folder's files over HTTP")]
struct HttpdCommand {
    #[command(flatten)]
    options: httpd::HttpdOptions,
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
        return block_on(httpd::serve(HttpdCommand::parse().options));
    }
    match LocalMachineCommand::parse() {
        LocalMachineCommand::Run(spec) => {
            let (dir, spec) = spec.into_parts();
            boot::enter(&spec)?;
            block_on(boot::run(&dir, spec))
        }
        LocalMachineCommand::Launch(spec) => {
            let (dir, spec) = spec.into_parts();
            launch(&dir, &spec)
        }
        LocalMachineCommand::Status(dir) => print(dir.machine()?.running()?.as_ref()),
        LocalMachineCommand::Kill(dir) => dir.machine()?.kill(),
        LocalMachineCommand::Hang(dir) => dir.machine()?.hang(),
        LocalMachineCommand::Resume(dir) => dir.machine()?.resume(),
        LocalMachineCommand::Reboot(dir) => print(Some(&dir.machine()?.reboot(&env::current_exe()?)?)),
        LocalMachineCommand::Httpd(options) => block_on(httpd::serve(options)),
    }
}

fn print(info: Option<&MachineInfo>) -> Result<()> {
    match info {
        Some(info) => println!("{}", serde_json::to_string_pretty(info)?),
        None => println!("the machine is not running"),
    }
    Ok(())
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}
