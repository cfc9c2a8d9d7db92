//! Access to a machine over SSH with a pinned host key, and the steps Berth runs on it.
//!
//! [`Machine`] is the one thing the steps need: run a shell script with a time limit. [`ssh::SshMachine`] is the real
//! one; `fake::FakeMachine` (feature `fake`) keeps its state in memory and fails on demand.
//!
//! The steps are [`ping`], packages ([`inventory`] reads them all; [`apt`], [`dnf`], [`archive`] and [`scripted`] change
//! them) and [`app`] (the application's code). Each is an idempotent POSIX shell script that looks at what is true first,
//! acts only on a difference and reports facts, which are parsed strictly.

pub mod app;
pub mod apt;
pub mod archive;
pub mod dnf;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
#[cfg(any(test, feature = "fake"))]
pub mod fleet;
pub mod inventory;
mod machine;
pub mod managed;
pub mod ping;
mod script;
pub mod scripted;
pub mod ssh;
mod validate;

pub use error::{Error, Phase};
pub use machine::{Machine, OUTPUT_LIMIT, Output};

/// The result of everything that happens on a machine.
pub type Result<T, E = Error> = std::result::Result<T, E>;
