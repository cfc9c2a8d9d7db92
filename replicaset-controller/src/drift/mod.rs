//! Drift: packages on a machine, or the application, were changed after they were read back from it.
//!
//! The machine of every Server at rest is checked once per interval, with two short scripts. A check takes no lock of the
//! Server, and writes nothing while nothing differs. A difference is not written at once but kept in memory: the fact takes
//! the Server out of traffic, and a change of all machines of a set would so make all of it unavailable. The set's reconciler
//! enters the Server in the set's ledger, within the budget, and then has the drift reported; for that the machine is read
//! again. A drift that a restart forgets is found again by the next check.

mod detector;
mod drifted_servers;
mod reading;
mod report;
mod schedule;

pub use detector::{DriftDetector, MachineReader};
pub use reading::MachineReading;
pub use report::DriftReport;
