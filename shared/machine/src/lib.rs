//! Access to a machine over SSH with a pinned host key, and the operations that Berth runs on it.
//!
//! [`Machine`] is all that the operations need: run a shell script with a time limit. [`ssh::SshMachine`] is the real one;
//! `fake::FakeMachine` (feature `fake`) keeps its state in memory and fails on demand. A [`Connector`] finds the machine
//! of a Server.
//!
//! The operations are [`ping`], packages ([`inventory`] reads all of them; [`apt`], [`dnf`], [`archive`] and
//! [`script_package`] change them) [`app`] (the application's code), and [`staging`], which brings that code ahead. Each is an idempotent POSIX shell script: it first
//! reads what is there, acts only on a difference and reports what is true afterwards. The report is parsed strictly.

pub mod app;
mod app_file;
pub mod apt;
pub mod archive;
mod authorization;
mod change;
mod connect;
pub mod dnf;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod hidden;
pub mod inventory;
mod limits;
mod machine;
mod operation;
pub mod package_manager;
pub mod ping;
pub mod script_package;
pub mod settle;
mod shell;
pub mod ssh;
pub mod staging;
mod stop;
mod task_result;
mod validate;

pub use change::{MachineChange, Removal};
pub use connect::{Connector, MachineConnection, NotConnectable, SshConnector};
pub use error::{EarlierRelease, MachineError, Result, SshPhase};
pub use machine::{Machine, OUTPUT_LIMIT, Output};
pub use stop::unless_cancelled;
