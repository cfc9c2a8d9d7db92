//! A machine in memory, for tests and simulations.
//!
//! It understands the operations of this crate and nothing else, keeps what they change in [`FakeState`], and fails on
//! demand. Its downloads always succeed and have the declared digest, unless a fault says otherwise.

mod machine;
mod packages;
mod parameters;
mod state;

pub use self::{
    machine::{FakeMachine, MachineFault},
    state::{FakeArchive, FakePackage, FakeState},
};
