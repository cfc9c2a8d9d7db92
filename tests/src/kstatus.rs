//! What tools that know nothing of Berth make of its objects.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::repository;

/// What kstatus says about an object.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Judgement {
    /// `InProgress`, `Current`, `Failed` or `Terminating`.
    pub status: String,
    /// Why.
    pub message: String,
}

/// Asks kstatus, as shipped in `sigs.k8s.io/cli-utils`, about an object as the API server shows it.
pub async fn judge(object: &impl Serialize) -> Result<Judgement> {
    let program = program().await?;
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("start kstatus")?;
    let mut line = serde_json::to_vec(object)?;
    line.push(b'\n');
    child.stdin.take().context("kstatus has no input")?.write_all(&line).await?;
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("read the answer of kstatus")
}

/// The path of the program, which is built once for all checkouts.
async fn program() -> Result<String> {
    let mut command = Command::new(repository().join("scripts/tools.sh"));
    let output = command.arg("kstatus").stdin(Stdio::null()).output().await.context("run scripts/tools.sh")?;
    ensure!(output.status.success(), "build kstatus: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
