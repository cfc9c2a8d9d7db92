//! Orphans: machines of this cluster that have no Server.
//!
//! They are rare, because a Server's object stays until its machine is gone. But a person can abandon a Server, and a provider
//! can carry out a creation long after its call has timed out and the Server is gone. So the machines of each MachineClass are
//! compared with the Servers from time to time. Several controllers may do that at once: destroying a machine that is gone
//! already succeeds.
//!
//! A machine is destroyed only if its class says so, if the API's history covers the time of its creation (`History`), and if
//! there are not too many orphans at once.

mod collector;
mod find;
mod history;
mod mark;
mod note;
#[cfg(test)]
mod sweep_tests;

pub use collector::OrphanCollector;
