//! Chores of the repository: generated files and checks.

mod circles;
mod crds;
mod generate;
mod mends;
mod metrics;
mod reference;

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Chores of the repository.
#[derive(Parser)]
#[command(name = "xtask")]
struct Args {
    #[command(subcommand)]
    command: XtaskCommand,
}

#[derive(Subcommand)]
enum XtaskCommand {
    /// Fail when files of a crate import each other in a circle.
    Circles,
    /// Write the generated files: the CRDs in `deploy/crds`, the API reference in `docs/api.md` and the list of metrics in
    /// `docs/metrics.md`.
    Generate {
        /// Write nothing; fail when a file differs.
        #[arg(long)]
        check: bool,
    },
    /// Take mends out of the shipped programs, one after the other, and fail when the simulated world does not notice.
    Mends(mends::Options),
}

fn main() -> ExitCode {
    match run(&Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &XtaskCommand) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    match command {
        XtaskCommand::Circles => circles::check(&root),
        XtaskCommand::Generate { check } => generate::generate(&root, *check),
        XtaskCommand::Mends(options) => mends::check(&root, options),
    }
}
