//! What controllers write: patches that guard what they rely on, and the results of tasks.

mod guarded_patch;
mod result;
mod status_write;

pub use guarded_patch::GuardedPatch;
pub use result::{Fact, TaskResult};
pub use status_write::StatusWrite;
