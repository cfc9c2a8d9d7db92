//! A deterministic world for Berth's programs.
//!
//! Berth's shipped webhook and controllers run on one thread, under tokio's paused time, on an API server and on machines in
//! memory. They are the real programs: what differs is what they are given, a client, a clock and a way to machines. A
//! [`Schedule`] is drawn from a seed, and [`play`] plays it: people change a fleet while things go wrong, and judges watch. The same
//! schedule gives the same run, byte for byte.

#![allow(clippy::panic, reason = "a simulation that cannot go on says where: it is a tool for tests")]

pub mod apiserver;
mod clock;
mod coverage;
mod crash_point;
mod dice;
mod faults;
mod findings;
mod hot_loop;
mod judges;
mod link;
mod lives;
mod machine_faults;
mod machine_mishaps;
mod machines;
mod meter;
mod mishaps;
mod network;
#[cfg(test)]
mod network_tests;
mod people;
mod ports;
mod program;
mod programs;
mod provider;
mod randomness;
mod report;
mod requests;
mod schedule;
mod scripts;
mod shrink;
mod sight;
mod story;
mod troubles;
mod upgrade;
mod way;
mod webhook_copies;
mod world;

pub use apiserver::ApiServer;
pub use clock::SimClock;
pub use coverage::Coverage;
pub use dice::Dice;
pub use faults::Faults;
pub use findings::{Finding, Judge};
pub use lives::Lives;
pub use machine_faults::MachineFaults;
pub use machine_mishaps::{HandMade, MachineMishap};
pub use meter::Traffic;
pub use mishaps::Mishap;
pub use people::{Act, BadInput, Shape};
pub use program::Program;
pub use programs::ProgramCopy;
pub use report::{Cost, Phase, Prices, cost};
pub use requests::{RequestCounts, RequestKind, since};
pub use schedule::{Event, Happening, Schedule};
pub use shrink::shrink;
pub use story::{Outcome, play};
pub use world::World;
