//! A machine in memory, for tests and simulations.
//!
//! It understands the operations of this crate and nothing else, keeps what they change in [`FakeState`], and fails on
//! demand. Its scripts take no time, unless they are begun with a [`ScriptCourse`]. Its downloads always succeed and have the declared digest, unless a fault says otherwise.

mod kernel;
mod machine;
mod packages;
mod parameters;
mod process;
mod state;

pub use self::{
    machine::{FakeMachine, MachineFault},
    process::{ChangeMoment, FakeProcess, LONGEST_DYING, ScriptCourse, ScriptPace, ScriptWork},
    state::{FakeArchive, FakePackage, FakeState},
};
