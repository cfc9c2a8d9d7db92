//! Reconciles VMDeployments and carries out code tasks.
