//! SSH with pinned host keys and a small pool of connections.

mod config;
mod exec;
mod key;
mod login;
mod machine;
mod pool;
mod target;

pub use self::{config::PoolConfig, key::ClientKey, machine::SshMachine, pool::SshPool, target::SshTarget};
