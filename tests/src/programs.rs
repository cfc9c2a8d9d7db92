//! Paths of the programs under test and of the repository.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// The path of a program of the workspace, built in the same profile as the running one: beside it, or one folder up, because
/// tests run in `target/<profile>/deps`.
///
/// # Errors
/// When it does not exist: cargo does not build the programs of other packages for a test, so they must be built before.
pub fn program(name: &str) -> Result<PathBuf> {
    program_in(None, name)
}

/// The path of a program in this folder; without one, that of [`program`].
pub(crate) fn program_in(folder: Option<&Path>, name: &str) -> Result<PathBuf> {
    if let Some(folder) = folder {
        let program = folder.join(name);
        ensure!(
            program.is_file(),
            "{} is missing: build that version with `cargo build --workspace --bins`",
            program.display()
        );
        return Ok(program);
    }
    let own = env::current_exe().context("find the running program")?;
    let own = own.parent().context("find the folder of the running program")?;
    let folder = if own.ends_with("deps") || own.ends_with("examples") { own.parent().unwrap_or(own) } else { own };
    let program = folder.join(name);
    let profile = if folder.ends_with("release") { " --release" } else { "" };
    ensure!(
        program.is_file(),
        "{} is missing: run `cargo build --workspace --bins{profile}` before",
        program.display()
    );
    Ok(program)
}

/// The root of the repository that this program was built from.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_the_command_that_builds_it() {
        let error = program("no-such-program").unwrap_err().to_string();
        assert!(error.contains("no-such-program is missing") && error.contains("cargo build --workspace"), "{error}");
    }

    #[test]
    fn the_repository_holds_the_manifests() {
        assert!(repository().join("deploy/base").is_dir());
    }
}
