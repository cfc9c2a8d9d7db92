//! A machine that is a process: its own directory, loopback address and SSH server.
//!
//! It needs neither root nor a hypervisor, and behaves as a machine does: it can be killed, hung, resumed and
//! rebooted, takes everything that runs on it along, and brings its services back at boot. [`MachineDir`] drives one
//! from outside; [`boot::run`] is the machine itself.

pub mod boot;
mod control;
mod dir;
pub mod httpd;
mod process;
mod session;
mod ssh;

pub use control::find_binary;
pub use dir::{MachineDir, MachineInfo, MachineSpec};
