//! Starting a machine's process in the background.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{
    dir::{MachineDir, MachineSpec},
    process::ID_VARIABLE,
};

/// The arguments of the subcommands `run` and `launch` for a machine.
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

/// The file that a machine's output goes to.
pub(crate) fn console_path(dir: &MachineDir) -> PathBuf {
    dir.path().join("console.log")
}

/// Creates the machine's folder, and opens its console log for appending.
pub(crate) fn open_console(dir: &MachineDir) -> Result<File> {
    fs::create_dir_all(dir.path()).with_context(|| format!("cannot create {}", dir.path().display()))?;
    let path = console_path(dir);
    OpenOptions::new().create(true).append(true).open(&path).with_context(|| format!("cannot open {}", path.display()))
}

/// Starts the subcommand `run` of this program in the background, with its output in the machine's console log, and returns
/// at once.
pub fn launch(dir: &MachineDir, spec: &MachineSpec) -> Result<()> {
    let console = open_console(dir)?;
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
