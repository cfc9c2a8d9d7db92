//! Reconciles VMReplicaSets and carries out machine and package tasks.
//!
//! [`run`] starts the caches and controllers. [`set`] decides about the Servers of a VMReplicaSet, [`server`] about the next
//! action of each Server, whose tasks run on machines from the providers of [`berth_iaas`]. [`drift`] checks those machines for
//! changes, [`orphans`] finds machines without a Server, and [`sight`] gives monitor-controller a second opinion.

mod args;
pub mod class_use;
pub mod cluster;
mod controller;
pub mod drift;
mod in_progress;
pub mod orphans;
pub mod server;
pub mod set;
mod setup;
pub mod sight;
mod triggers;

pub use args::Args;
pub use controller::{run, run_with};
