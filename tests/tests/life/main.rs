//! The whole life of Servers on a real control plane, with real processes, machines and SSH, under the shipped RBAC.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail a test by panicking")]

mod alarms;
mod analysis;
mod balanced;
mod baseline;
mod bulk;
mod changes;
mod class_end;
mod classes;
mod deploy_house;
mod deployment_status;
mod envoy;
mod executor;
mod failover;
mod faults;
mod gateway;
mod gray;
mod health;
mod held;
mod kstatus;
mod namespaces;
mod panic_floor;
mod people;
mod prometheus;
mod retirement;
mod scale;
mod sets;
mod sight;
mod staging;
mod subsets;
mod traffic;
mod two_rollouts;
mod world;
mod writes;
mod zones;
