//! Servers: what replicaset-controller does about each of them.
//!
//! `plan` says what to do next about a Server. [`ServerReconciler::reconcile`] does what takes one short write;
//! [`ServerReconciler::run_tasks`] carries out [`tasks`] on the machine.

pub mod approvals_of_set;
mod class_limits;
mod object;
mod plan;
#[cfg(test)]
mod plan_tests;
mod reconcile;
mod reconciler;
mod retry;
mod run_tasks;
pub mod tasks;

pub(crate) use class_limits::TOO_MANY_MACHINES;
pub use reconciler::ServerReconciler;
