//! Carrying out tasks that need the Server's lock: claim, renew, work, report, release.

#[cfg(test)]
mod hand_over_tests;
mod held_lock;
mod keeper;
#[cfg(test)]
mod late_write_tests;
mod run;
mod runner;
#[cfg(test)]
mod tests;

pub use run::TaskRun;
pub use runner::TaskRunner;
