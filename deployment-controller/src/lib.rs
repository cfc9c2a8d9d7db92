//! Reconciles VMDeployments and carries out code tasks.
//!
//! [`run`] watches; [`reconcile`] maintains the VMReplicaSet and moves the roll-out on, [`server`] and [`work`] deploy.

mod args;
mod controller;
pub mod desired;
mod live;
pub mod reconcile;
pub mod rollout;
pub mod server;
pub mod status;
#[cfg(test)]
mod testing;
pub mod work;

pub use args::Args;
pub use controller::run;
