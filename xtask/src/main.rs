//! Chores of the repository: generated files and checks.

mod crds;
mod generate;
mod reference;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Chores of the repository.
#[derive(Parser)]
#[command(name = "xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the generated files: the CRDs in `deploy/crds` and the API reference in `docs/api.md`.
    Generate {
        /// Change nothing; fail when a file is not what would be written.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    match Args::parse().command {
        Command::Generate { check } => generate::generate(&root, check),
    }
}
