//! Carrying out tasks that need the Server's lock: claim, renew, work, report, release.

mod held_lock;
mod keeper;
mod run;
mod runner;
#[cfg(test)]
mod tests;

pub use run::TaskRun;
pub use runner::TaskRunner;
