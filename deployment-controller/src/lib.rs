//! Reconciles VMDeployments and carries out DeployApp tasks.
//!
//! [`run`] starts two controllers on the same cache of Servers. [`Deployments`] maintains the VMReplicaSet of each
//! VMDeployment, rolls its application out and writes its status; `tasks` deploys the application on machines, or has it
//! deployed by a deploy system (`external`). `content` tells what the application's
//! ConfigMaps and Secrets contain, as a digest.

mod after;
mod alarms;
mod analysis;
mod approval;
mod args;
mod assessment;
mod background;
mod bake;
mod baseline;
mod choice;
mod class_access;
mod content;
mod content_look;
mod controller;
mod count;
mod deploy_app;
mod deployment_api;
mod external;
mod held;
mod history;
mod hold;
mod look;
mod observed;
mod order;
pub mod plan;
mod progress;
mod proven;
mod reconcile;
mod references;
mod replica_set;
mod restart;
#[cfg(test)]
mod restart_tests;
mod rollout;
#[cfg(test)]
mod rollout_invariants;
#[cfg(test)]
mod rollout_properties;
mod rollout_record;
mod split;
mod stable;
mod staging;
mod stall;
mod status;
mod steps;
#[cfg(test)]
mod story;
mod tasks;
#[cfg(test)]
mod testing;
mod undo;
mod wait;
mod watch;
mod zones;

pub use args::Args;
pub use content::ContentKey;
pub use controller::{run, run_with};
pub use reconcile::Deployments;
