//! IaaS: where machines come from.
//!
//! A [`Driver`] makes a [`Provider`] for a MachineClass. A [`Provider`] knows machines by the UID of their Server, so
//! that a machine is found again, whatever crashed when. [`Classes`] connects a cluster's MachineClasses to their
//! providers. Every provider passes the contract in `tests/provider_contract`; `docs/howto/provider.md` says how to add
//! one.

mod bulkhead;
mod bulkheads;
mod check;
mod class_readings;
mod class_status;
mod classes;
mod connections;
mod driver;
mod drivers;
mod error;
pub mod in_use;
pub mod incus;
#[cfg(feature = "local")]
pub mod local;
mod metered;
mod place;
mod provider;
mod secrets;
#[cfg(feature = "simulated")]
pub mod simulated;
mod task_result;
mod unusable;

pub use bulkhead::{ProviderCapacity, Slot};
pub use classes::Classes;
pub use connections::ProviderConnection;
pub use driver::{Driver, SecretData, refuse_unknown_parameters};
pub use drivers::Drivers;
pub use error::{ProviderError, Result};
pub use metered::CallLimits;
pub use place::Place;
pub use provider::{MachineOwner, MachineRequest, Provider, ProviderMachine, ProviderMachinePhase};
pub use secrets::Secrets;
pub use unusable::UnusableClass;
