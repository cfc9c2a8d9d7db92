//! Reconciles VMDeployments and carries out code tasks.

pub mod desired;
pub mod rollout;
pub mod status;
#[cfg(test)]
mod testing;
pub mod work;
