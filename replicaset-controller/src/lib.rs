//! Reconciles VMReplicaSets and carries out machine and package tasks.

pub mod iaas;
pub mod server;
pub mod set;
pub mod work;
