//! Provider `local`: each machine is a process with its own folder, loopback address and SSH server.
//!
//! It is for trying Berth out and for tests, because it needs neither root nor a hypervisor. Its state is below one folder,
//! which several processes may share:
//!
//! - `<uid>/machine`: the machine's folder, see `local-machine`;
//! - `<uid>/owner.json`: the machine's owner and address. It is written before the machine starts for the first time, so
//!   that a machine is found again after a crash in between;
//! - `.addresses/<address>`: the UID that has the address. It is created as a hard link to a complete file, which only one
//!   process can do;
//! - `.locks/<uid>`: locked while the machine is being created, rebooted or destroyed.
//!
//! Image, flavor and the requested SSH port have no effect (the port is always 2222). Parameters are refused.

mod addresses;
mod file_error;
mod provider;
mod record;
mod store;

pub use local_machine::find_binary;
pub use provider::LocalProvider;
