//! Reconciles VMReplicaSets and carries out machine and package tasks.
//!
//! [`run`] watches; [`set`] decides about the Servers of a VMReplicaSet, [`server`] about the next step of each Server,
//! [`work`] carries tasks out on machines, which come from [`iaas`].

mod args;
mod controller;
pub mod drift;
pub mod iaas;
pub mod orphans;
pub mod server;
pub mod set;
mod setup;
pub mod work;

pub use args::Args;
pub use controller::run;
