//! A deterministic world for Berth's programs.
//!
//! Berth's shipped webhook and controllers run on one thread, under tokio's paused time, on an API server and on machines in
//! memory. They are the real programs: what differs is what they are given, a client, a clock and a way to machines. A
//! [`Schedule`] is drawn from a seed, and [`play`] plays it: people change a fleet while things go wrong, and judges watch. The same
//! schedule gives the same run, byte for byte.

#![allow(clippy::panic, reason = "a simulation that cannot go on says where: it is a tool for tests")]

pub mod apiserver;
mod clock;
mod dice;
mod faults;
mod findings;
mod hot_loop;
mod judges;
mod link;
mod lives;
mod machines;
mod meter;
mod mishaps;
mod network;
#[cfg(test)]
mod network_tests;
mod people;
mod ports;
mod programs;
mod randomness;
mod report;
mod schedule;
mod shrink;
mod story;
mod upgrade;
mod webhook_copies;
mod world;

pub use apiserver::ApiServer;
pub use clock::SimClock;
pub use dice::Dice;
pub use faults::Faults;
pub use findings::{Finding, Judge};
pub use lives::Lives;
pub use meter::Traffic;
pub use mishaps::Mishap;
pub use people::{Act, BadInput, Shape};
pub use programs::{Program, ProgramCopy};
pub use report::{Cost, Phase, Prices, cost};
pub use schedule::{Event, Happening, Schedule};
pub use shrink::shrink;
pub use story::{Outcome, play};
pub use world::World;
