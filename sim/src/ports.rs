//! The ports of machines.

/// The port on which applications listen; any other one is that of SSH.
pub(crate) const APP_PORT: u16 = 80;
