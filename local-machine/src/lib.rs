//! A machine that is a process: its own directory, loopback address and SSH server.
//!
//! It needs neither root nor a hypervisor, and behaves as a machine does: it can be killed, hung, resumed and rebooted,
//! everything that runs on it ends with it, and it starts its services at boot. [`MachineDir`] controls a machine from
//! outside; [`boot::run`] is the machine itself.

pub mod boot;
mod command;
mod control;
mod dir;
pub mod httpd;
mod launch;
mod process;
mod ssh_server;

pub use control::find_binary;
pub use dir::{MachineDir, MachineInfo, MachineSpec};
pub use launch::launch;
