//! Reconciles VMReplicaSets and carries out machine and package tasks.

pub mod iaas;
