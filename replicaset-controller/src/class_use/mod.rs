//! MachineClasses that are in use: they stay, at their place, until no Server names them any more, and give no more machines than
//! they allow.

mod reconciler;
mod room;

pub use reconciler::ClassReconciler;
pub(crate) use reconciler::run;
pub use room::ClassRooms;
