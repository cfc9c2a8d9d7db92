//! `berth-sim`: plays runs of the simulated world, and shows one that went wrong.

use std::{fs, io, path::PathBuf, process::ExitCode, time::Instant};

use berth_sim::{Outcome, play};
use clap::{Parser, Subcommand};

/// How often progress is shown, in seconds.
const PROGRESS: u64 = 5;

/// Plays Berth's programs in a simulated world in which people are nasty and everything fails.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plays many runs, each of another seed, and stops at the first that goes wrong
    Run {
        /// The first seed
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many runs
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// Seconds after which no other run begins
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u64>,
    },
    /// Plays the run of one seed, and writes everything that happened in it
    Replay {
        /// The seed
        seed: u64,
        /// File for what happened; by default standard output
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Run { from, seeds, seconds } => Ok(run(from, seeds, seconds)),
        Command::Replay { seed, log } => replay(seed, log),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether everything went well.
fn run(from: u64, seeds: u64, seconds: Option<u64>) -> bool {
    let (begun, mut shown, mut lived) = (Instant::now(), 0, 0);
    for seed in from..from.saturating_add(seeds) {
        let elapsed = begun.elapsed().as_secs();
        if seconds.is_some_and(|most| elapsed >= most) {
            println!("stopped after {elapsed} s, before seed {seed}");
            break;
        }
        let outcome = play(seed);
        lived += outcome.elapsed.as_secs();
        if let Some(finding) = outcome.finding {
            println!("seed {seed} went wrong: {finding}\nberth-sim replay {seed} shows everything that happened");
            return false;
        }
        if begun.elapsed().as_secs() >= shown + PROGRESS {
            shown = begun.elapsed().as_secs();
            println!("{shown} s: seeds {from} to {seed} went well; {} h lived", lived / 3_600);
        }
    }
    println!("all went well: {} h lived in {} s", lived / 3_600, begun.elapsed().as_secs());
    true
}

fn replay(seed: u64, log: Option<PathBuf>) -> io::Result<bool> {
    let Outcome { finding, log: lines, .. } = play(seed);
    let text = lines.join("\n") + "\n";
    match log {
        Some(file) => fs::write(file, text)?,
        None => print!("{text}"),
    }
    match &finding {
        Some(finding) => println!("seed {seed} went wrong: {finding}"),
        None => println!("seed {seed} went well"),
    }
    Ok(finding.is_none())
}
