//! Reconciles VMDeployments and carries out code tasks.

fn main() {}
