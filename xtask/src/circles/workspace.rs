//! The crates of the workspace.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The part of the output of `cargo metadata` that is needed here.
#[derive(Deserialize)]
struct CargoMetadata {
    packages: Vec<CargoPackage>,
}

#[derive(Deserialize)]
struct CargoPackage {
    targets: Vec<CargoTarget>,
}

#[derive(Deserialize)]
struct CargoTarget {
    kind: Vec<String>,
    src_path: PathBuf,
}

/// The root file of every library and every binary; tests, benches and examples are left out.
pub(crate) fn crate_roots(root: &Path) -> Result<Vec<PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("run `cargo metadata`")?;
    ensure!(output.status.success(), "`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: CargoMetadata =
        serde_json::from_slice(&output.stdout).context("read the output of `cargo metadata`")?;
    let targets = metadata.packages.into_iter().flat_map(|package| package.targets);
    let is_program = |target: &CargoTarget| target.kind.iter().any(|kind| kind == "lib" || kind == "bin");
    Ok(targets.filter(is_program).map(|target| target.src_path).collect())
}
