//! The second opinion on machines that monitor-controller has lost: this program reaches machines over SSH, and tells sets
//! whose monitor is blind.

mod blind_sets;
mod look;

pub use blind_sets::BlindMonitors;
pub(crate) use look::look;
