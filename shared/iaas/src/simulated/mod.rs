//! Provider `simulated`: machines that only exist in the memory of this process, for tests of scale and of faults.
//!
//! Its machines have addresses (127.128.0.1 and on) on which nothing listens. A [`SimulatedConnector`] connects to
//! [`SimulatedMachines`] instead, which end with the process. The parameters of a MachineClass, all optional:
//!
//! | parameter | meaning |
//! | --- | --- |
//! | `seed` | a number: equal seeds give equal random events |
//! | `account` | a name: classes of the same account see the same machines and share the capacity |
//! | `capacity` | quota of the account, in machines |
//! | `latency` | how long calls take: a duration for each of `check`, `create`, `get`, `reboot`, `delete`, `list`, `default` |
//! | `boot` | a duration: how long a machine boots |
//! | `lifetime` | a duration: how long a machine runs until it stops by itself |
//! | `failureRate` | share of calls (0 to 1) that fail without any effect |
//! | `lostAnswerRate` | share of calls that succeed, but whose answer is lost |
//! | `repeatRate` | share of calls that arrive twice |
//! | `hang` | a list of calls that never answer |
//! | `broken` | the error of the check: `Configuration`, `Credentials` or `Unavailable` |
//!
//! A duration is one of `{fixedMs: 5}`, `{uniformMs: [5, 20]}`, `{exponentialMs: 5}` (the mean) and `{logNormalMs:
//! {median: 5, p99: 200}}`. The image `missing` does not exist.

mod cloud;
mod connector;
mod index;
mod machines;
mod parameters;
mod provider;
mod random;
mod simulation;

pub use connector::SimulatedConnector;
pub use machines::{PROVIDER, SimulatedMachines};
pub use simulation::Simulation;
