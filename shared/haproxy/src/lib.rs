//! A typed client of [HAProxy's runtime API](https://docs.haproxy.org/2.6/management.html#9.3), and the `server` lines of its
//! configuration. Nothing in this crate knows about Berth.
//!
//! [`Haproxy`] reads the servers of a process ([`Haproxy::state`]), counts the requests in flight in all its workers
//! ([`Haproxy::in_flight`]) and changes servers ([`Haproxy::apply`]). Each call opens its own connection, because a connection
//! stays with the worker that accepted it, and after a reload that is no longer the worker that takes new requests.
//!
//! HAProxy answers in free text, to success and to failure. [`ServerChange`] knows the texts that mean success, and
//! [`RefusalKind`] names the known refusals. Every other answer is an error that carries HAProxy's own words.
//!
//! What this client cannot see: at a worker's own socket, the workers that left with the last reload and still serve requests.
//! Only the master's socket ([`Socket::Master`]) reaches them.
//!
//! [`config`] renders servers as lines of HAProxy's configuration, so that a reload or restart keeps them.

mod address;
mod answer;
mod capabilities;
mod change;
mod client;
pub mod config;
mod connection;
mod error;
mod in_flight;
mod process;
mod server;
mod stat;
mod table;
mod word;

pub use address::{Address, ClientTls, ClientTlsError, Socket};
pub use capabilities::Capabilities;
pub use change::{AdminState, CheckOptions, NewServer, ServerChange, ServerId};
pub use client::{Haproxy, ProxyState};
pub use error::{HaproxyError, Problem, RefusalKind, Result};
pub use in_flight::InFlightTable;
pub use process::{ProcessId, ProcessInfo, Worker, Workers};
pub use server::{CheckState, Operational, ServerState};
pub use stat::InFlight;
