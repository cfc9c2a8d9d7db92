//! Probes the health of machines and applications, and carries out monitoring tasks.
//!
//! The [`prober`] probes every Server at the times of its `schedule`, and records the results with the Server's probes
//! (`server_probes`), where a `verdict` is reached. A `plan` says which facts and reports follow from that, and `reconcile`
//! writes them. `discovery` gives Prometheus its targets.
//!
//! Every copy of this program probes every Server and judges by its own results. That is safe: two copies write the same
//! facts, the webhook counts a report once, and a copy that finds a fact in its cache does not write it again. A copy that loses
//! many machines at once asks the others (`sight`, `sight_keeper`), and writes nothing bad about them until they agree. A copy
//! that loses few of them, and is contradicted by another one (`known_facts`), says so again ever more rarely.

mod args;
mod controller;
mod discovery;
mod grid;
mod known_facts;
pub mod metrics;
mod observation;
mod plan;
pub mod probe;
mod probe_id;
mod probe_state;
pub mod prober;
mod reconcile;
mod schedule;
mod server_probes;
mod sight;
mod sight_keeper;
mod survey;
#[cfg(test)]
mod two_copies_tests;
mod verdict;

pub use args::Args;
pub use controller::{run, run_with};
