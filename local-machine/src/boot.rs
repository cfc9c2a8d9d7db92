//! The machine itself: lock, host key, SSH server, services.

use std::{
    env, fs,
    io::Write as _,
    net::IpAddr,
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use russh::keys::{Algorithm, PrivateKey, PublicKey, key::safe_rng, ssh_key::LineEnding};
use tokio::net::TcpListener;

use crate::{
    command::CommandEnvironment,
    dir::{MachineDir, MachineInfo, MachineSpec},
    process::{self, ID_VARIABLE},
    ssh_server,
};

/// Limit for one service's start script at boot, and for ending all processes. Generous, because the host may be busy with
/// many machines.
const SERVICE_LIMIT: Duration = Duration::from_mins(1);

/// Gives this process a machine's environment from its first moment on, by executing the program again: `/proc` shows the
/// environment that a process started with, and no variable of the caller belongs on a machine.
pub fn enter(spec: &MachineSpec) -> Result<()> {
    const ENTERED: &str = "BERTH_MACHINE_ENTERED";
    if env::var_os(ENTERED).is_some() && env::var(ID_VARIABLE).is_ok_and(|id| id == spec.id) {
        return Ok(());
    }
    let kept = ["RUST_LOG", "PATH"].into_iter().filter_map(|name| Some((name, env::var_os(name)?)));
    let error = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env_clear()
        .envs(kept)
        .env(ID_VARIABLE, &spec.id)
        .env(ENTERED, "1")
        .exec();
    Err(error).context("cannot restart the machine's process with its own environment")
}

/// Runs the machine in this process until SIGTERM or SIGINT, which end everything on it.
pub async fn run(dir: &MachineDir, spec: MachineSpec) -> Result<()> {
    let address = loopback_address(&spec)?;
    // Fails for a process that already leads its group, as one does that was started in a terminal. That is fine.
    let _ = rustix::process::setsid();
    let dir = MachineDir::new(create_folders(dir)?);
    let _lock = lock(&dir)?;
    claim(&dir, &spec)?;
    let own = std::process::id();
    process::kill_all(&spec.id, Some(own), SERVICE_LIMIT).context("processes of the last boot are still running")?;

    let key = host_key(&dir.path().join("host_key"))?;
    let listener = TcpListener::bind((address, spec.port))
        .await
        .with_context(|| format!("cannot listen on {address}:{}", spec.port))?;
    let info = machine_info(&spec, listener.local_addr()?.port(), &key)?;
    let environment = Arc::new(CommandEnvironment::new(&dir, &info));
    let authorized = authorized_keys(&spec)?;
    dir.write_info(&info)?;
    tracing::info!(id = info.id, address = info.address, port = info.port, boot = info.boot_id, "the machine is up");

    let services = tokio::spawn(start_services(Arc::clone(&environment)));
    let served = tokio::select! {
        served = ssh_server::serve(key, authorized, environment, &listener) => served,
        signal = stop_signal() => signal,
    };
    services.abort();
    process::kill_all(&spec.id, Some(own), SERVICE_LIMIT)?;
    tracing::info!("the machine is down");
    served
}

fn loopback_address(spec: &MachineSpec) -> Result<IpAddr> {
    let address: IpAddr = spec.address.parse().with_context(|| format!("{:?} is not an IP address", spec.address))?;
    ensure!(
        address.is_loopback(),
        "{address} is not a loopback address: a local machine must not be reachable from other hosts"
    );
    Ok(address)
}

/// Takes the machine's lock, so that a folder never has two running machines. Dropping the file releases it.
fn lock(dir: &MachineDir) -> Result<fs::File> {
    let lock = fs::File::create(dir.path().join("lock")).context("cannot open the machine's lock")?;
    if lock.try_lock().is_err() {
        bail!("a machine already runs in {}", dir.path().display());
    }
    Ok(lock)
}

/// Writes the spec into the folder, unless the folder belongs to another machine.
fn claim(dir: &MachineDir, spec: &MachineSpec) -> Result<()> {
    if let Some(known) = dir.spec()? {
        ensure!(known.id == spec.id, "the folder {} belongs to the machine {}", dir.path().display(), known.id);
    }
    dir.write_spec(spec)
}

fn machine_info(spec: &MachineSpec, port: u16, key: &PrivateKey) -> Result<MachineInfo> {
    let own = std::process::id();
    Ok(MachineInfo {
        id: spec.id.clone(),
        name: spec.name.clone(),
        address: spec.address.clone(),
        port,
        host_key: key.public_key().to_openssh()?,
        pid: own,
        process_start: process::start_of(own).context("/proc does not show this process")?,
        boot_id: fs::read_to_string("/proc/sys/kernel/random/uuid").context("cannot read a UUID")?.trim().to_owned(),
        started_at: jiff::Timestamp::now().to_string(),
    })
}

fn authorized_keys(spec: &MachineSpec) -> Result<Vec<PublicKey>> {
    let parse = |line: &String| {
        PublicKey::from_openssh(line).with_context(|| format!("{line:?} is not an OpenSSH public key line"))
    };
    spec.authorized_keys.iter().map(parse).collect()
}

async fn stop_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// Creates the machine's folders and returns its absolute path.
fn create_folders(dir: &MachineDir) -> Result<PathBuf> {
    let create = |path: &Path| fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()));
    create(&dir.root())?;
    let bin = dir.path().join("bin");
    create(&bin)?;
    // At each boot, because the program may have moved since the last one.
    let (link, part) = (bin.join("berth-httpd"), bin.join(".berth-httpd.new"));
    let _ = fs::remove_file(&part);
    std::os::unix::fs::symlink(env::current_exe()?, &part).context("cannot link berth-httpd")?;
    fs::rename(&part, &link).context("cannot link berth-httpd")?;
    fs::canonicalize(dir.path()).with_context(|| format!("cannot resolve {}", dir.path().display()))
}

/// The host key, generated at the first boot.
fn host_key(path: &Path) -> Result<PrivateKey> {
    if let Ok(pem) = fs::read_to_string(path) {
        return PrivateKey::from_openssh(&pem).with_context(|| format!("{} is damaged", path.display()));
    }
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).context("cannot generate a host key")?;
    let part = path.with_extension("new");
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(key.to_openssh(LineEnding::LF)?.as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(key)
}

/// Starts the services that Berth installed on the machine: `opt/berth/services/*/start` in its root.
async fn start_services(environment: Arc<CommandEnvironment>) {
    let Ok(services) = fs::read_dir(environment.root().join("opt/berth/services")) else { return };
    for start in services.flatten().map(|service| service.path().join("start")).filter(|start| start.is_file()) {
        let mut command = environment.command("exec \"$0\"");
        command.arg(&start).stdin(Stdio::null()).kill_on_drop(true);
        match tokio::time::timeout(SERVICE_LIMIT, command.status()).await {
            Ok(Ok(status)) if status.success() => tracing::info!(service = %start.display(), "started"),
            outcome => tracing::error!(service = %start.display(), ?outcome, "a service did not start"),
        }
    }
}
