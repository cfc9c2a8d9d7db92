//! The machine itself: lock, host key, SSH server, services.

use std::{
    env,
    ffi::OsString,
    fs,
    io::Write as _,
    net::IpAddr,
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use russh::keys::{Algorithm, PrivateKey, PublicKey, key::safe_rng, ssh_key::LineEnding};
use tokio::net::TcpListener;

use crate::{
    control::append,
    dir::{MachineDir, MachineInfo, MachineSpec},
    process::{self, ID_VARIABLE},
    session::Environment,
    ssh,
};

/// Limit for one service's start script at boot.
const SERVICE_LIMIT: Duration = Duration::from_mins(1);

/// The command line of `run` and `launch` for a machine.
pub(crate) fn arguments(dir: &MachineDir, spec: &MachineSpec) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--dir".into(), dir.path().into()];
    let port = spec.port.to_string();
    for (flag, value) in [("--address", &spec.address), ("--port", &port), ("--id", &spec.id), ("--name", &spec.name)] {
        arguments.extend([flag.into(), value.into()]);
    }
    for key in &spec.authorized_keys {
        arguments.extend(["--authorized-key".into(), key.into()]);
    }
    arguments
}

/// Starts `run` in the background, with its output in the machine's `console.log`, and returns at once.
pub fn launch(dir: &MachineDir, spec: &MachineSpec) -> Result<()> {
    fs::create_dir_all(dir.path()).with_context(|| format!("cannot make {}", dir.path().display()))?;
    let console = append(&dir.path().join("console.log"))?;
    Command::new(env::current_exe()?)
        .arg("run")
        .args(arguments(dir, spec))
        .env(ID_VARIABLE, &spec.id)
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console)
        .spawn()
        .context("cannot start the machine")?;
    Ok(())
}

/// Gives the process a machine's environment from its first moment on, by starting the same program anew: what stands
/// in the environment at the start is what `/proc` shows, and nothing of the caller's environment belongs on a machine.
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
    Err(error).context("cannot start the machine anew with its own environment")
}

/// Is the machine, until SIGTERM or SIGINT; then everything on it ends too.
pub async fn run(dir: &MachineDir, spec: MachineSpec) -> Result<()> {
    let address: IpAddr = spec.address.parse().with_context(|| format!("{:?} is no IP address", spec.address))?;
    ensure!(
        address.is_loopback(),
        "{address} is no loopback address: a local machine must not be reachable from others"
    );
    // Fails for a process that leads its group already, started by hand in a terminal: then that is wanted.
    let _ = rustix::process::setsid();
    let dir = MachineDir::new(prepare(dir)?);
    let lock = fs::File::create(dir.path().join("lock")).context("cannot open the machine's lock")?;
    if lock.try_lock().is_err() {
        bail!("a machine already runs in {}", dir.path().display());
    }
    if let Some(known) = dir.spec()? {
        ensure!(known.id == spec.id, "the folder {} belongs to the machine {}", dir.path().display(), known.id);
    }
    dir.write_spec(&spec)?;
    let own = std::process::id();
    process::kill_all(&spec.id, Some(own), SERVICE_LIMIT).context("the last boot's processes are still there")?;

    let key = host_key(&dir.path().join("host_key"))?;
    let listener = TcpListener::bind((address, spec.port))
        .await
        .with_context(|| format!("cannot listen on {address}:{}", spec.port))?;
    let info = MachineInfo {
        id: spec.id.clone(),
        name: spec.name.clone(),
        address: spec.address.clone(),
        port: listener.local_addr()?.port(),
        host_key: key.public_key().to_openssh()?,
        pid: own,
        process_start: process::start_of(own).context("/proc does not show this process")?,
        boot_id: fs::read_to_string("/proc/sys/kernel/random/uuid").context("no random id")?.trim().to_owned(),
        started_at: jiff::Timestamp::now().to_string(),
    };
    let environment = Arc::new(Environment::new(&dir, &info));
    let authorized = spec
        .authorized_keys
        .iter()
        .map(|line| PublicKey::from_openssh(line).with_context(|| format!("{line:?} is no OpenSSH public key line")))
        .collect::<Result<Vec<_>>>()?;
    dir.write_info(&info)?;
    tracing::info!(id = info.id, address = info.address, port = info.port, boot = info.boot_id, "the machine is up");

    let services = tokio::spawn(start_services(Arc::clone(&environment)));
    let served = tokio::select! {
        served = ssh::serve(key, authorized, environment, &listener) => served,
        signal = stop_signal() => signal,
    };
    services.abort();
    process::kill_all(&spec.id, Some(own), SERVICE_LIMIT)?;
    tracing::info!("the machine is down");
    served
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

/// Makes the machine's folders and returns the absolute path.
fn prepare(dir: &MachineDir) -> Result<std::path::PathBuf> {
    let make = |path: &Path| fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()));
    make(&dir.root())?;
    let bin = dir.path().join("bin");
    make(&bin)?;
    // Anew at each boot: the program may have moved.
    let (link, part) = (bin.join("berth-httpd"), bin.join(".berth-httpd.new"));
    let _ = fs::remove_file(&part);
    std::os::unix::fs::symlink(env::current_exe()?, &part).context("cannot link berth-httpd")?;
    fs::rename(&part, &link).context("cannot link berth-httpd")?;
    fs::canonicalize(dir.path()).with_context(|| format!("cannot resolve {}", dir.path().display()))
}

/// The host key, made at the first boot.
fn host_key(path: &Path) -> Result<PrivateKey> {
    if let Ok(pem) = fs::read_to_string(path) {
        return PrivateKey::from_openssh(&pem).with_context(|| format!("{} is damaged", path.display()));
    }
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).context("cannot make a host key")?;
    let part = path.with_extension("new");
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(key.to_openssh(LineEnding::LF)?.as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(key)
}

/// Starts what was running on the machine: `opt/berth/services/*/start` in its root.
async fn start_services(environment: Arc<Environment>) {
    let Ok(services) = fs::read_dir(environment.root().join("opt/berth/services")) else { return };
    for start in services.flatten().map(|service| service.path().join("start")).filter(|start| start.is_file()) {
        let mut command = environment.command("exec \"$0\"");
        command.arg(&start).stdin(Stdio::null());
        match tokio::time::timeout(SERVICE_LIMIT, command.status()).await {
            Ok(Ok(status)) if status.success() => tracing::info!(service = %start.display(), "started"),
            outcome => tracing::error!(service = %start.display(), ?outcome, "a service did not start"),
        }
    }
}
