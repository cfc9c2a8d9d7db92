//! What tests of several crates share. Only `[dev-dependencies]` name this crate.
//!
//! - [`server`], [`replica_set`], [`deployment`], [`machine_class`] and [`approval`] build objects; a test writes only what it
//!   is about. [`manifest`] gives the document itself, for tests that send it.
//! - [`Fixture`] is a Server that lives: its writes go through the rules of the webhook.
//! - `FakeApi` (feature `fake-api`) is an API server in memory, whose network can fail.
//! - `FakeDeploySystem` (feature `deploy-system`) is a deploy system on loopback, which keeps to the contract or breaks it.
//! - `FakeMachine` (feature `fake-machine`) is a machine in memory.
//!
//! The unit tests of a crate on which this one depends (berth-core, berth-machine) cannot use what is made of that crate's
//! types: cargo compiles such a crate twice then, and the types differ.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking, and that includes what it is made of"
)]
#![allow(
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    clippy::new_without_default,
    reason = "these lints help callers who do not know the code; a test fails when a result is forgotten"
)]

mod admission;
mod clock;
#[cfg(feature = "deploy-system")]
mod deploy_system;
mod facts;
#[cfg(feature = "fake-api")]
mod fake_api;
mod fixture;
mod history;
mod objects;

#[cfg(feature = "fake-machine")]
pub use berth_machine::fake::{FakeArchive, FakeMachine, FakePackage, FakeState, MachineFault};

#[cfg(feature = "deploy-system")]
pub use self::deploy_system::{DeployFault, DeployState, FakeDeploySystem, executor_contract};
#[cfg(feature = "fake-api")]
pub use self::fake_api::{ApiFault, FakeApi, FakeApiState};
pub use self::{
    admission::{Denied, controller, created, holder, person, reason, refusal, stored, write_spec, write_status},
    clock::{LOCK, start},
    facts::{app, environment, facts_of, machine, machine_phase, report, traffic, unreachable},
    fixture::{Fixture, register_first},
    history::{ended_tasks, entered_states},
    objects::{approval, deployment, full_spec, machine_class, manifest, replica_set, server},
};
