//! Provider `incus`: machines are instances (system containers or virtual machines) of Incus 6, by its REST API over a
//! unix socket, or over HTTPS with a client certificate.
//!
//! The provider keeps no state: it reads everything from Incus. An instance's name is derived from the cluster and the
//! Server's UID, so that two creations of one machine find each other. Its tags (`user.berth.*`) name its owner, and an
//! instance without this cluster's tags is never touched.
//!
//! An image must have an SSH server with its public host key in one of `hostKeyFiles`, and either cloud-init or the user
//! of `spec.access`. Virtual machines also need the Incus agent, which gives access to their files.

mod access;
mod check;
mod client;
mod credentials;
mod driver;
mod fault;
mod image;
mod instance;
mod lifecycle;
mod parameters;
mod provider;

pub use driver::IncusDriver;
