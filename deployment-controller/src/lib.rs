//! Reconciles VMDeployments and carries out DeployApp tasks.
//!
//! [`run`] starts two controllers on the same cache of Servers. [`Deployments`] maintains the VMReplicaSet of each
//! VMDeployment, rolls its application out and writes its status; `tasks` deploys the application on machines.

mod args;
mod controller;
mod deploy_app;
mod deployment_api;
mod observed;
mod reconcile;
mod replica_set;
mod rollout;
mod stall;
mod status;
mod tasks;
#[cfg(test)]
mod testing;

pub use args::Args;
pub use controller::run;
pub use reconcile::Deployments;
