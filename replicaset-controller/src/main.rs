//! Reconciles VMReplicaSets and carries out machine and package tasks.

fn main() {}
