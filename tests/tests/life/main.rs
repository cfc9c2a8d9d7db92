//! A Server's whole life on a real control plane, with real processes, machines and SSH, under the RBAC that is shipped.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail a test by panicking")]

mod changes;
mod classes;
mod faults;
mod health;
mod lost;
mod people;
mod retirement;
mod scale;
mod sets;
mod world;
mod writes;
