//! Free ports on loopback.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
};

use parking_lot::Mutex;
use rand::RngExt;

use crate::error::{ControlPlaneError, Result};

/// Ports to choose from. They lie below the range from which Linux serves outgoing connections (32768 and up), so that no
/// connection takes a port while the program that listens on it restarts.
const PORTS: Range<u16> = 20_000..32_000;
/// Random ports to try: enough to find a free one even when nine of ten are taken.
const ATTEMPTS: usize = 1000;

/// The ports of one control plane. Its components keep them across restarts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) apiserver: u16,
    pub(crate) controller_manager: u16,
}

impl Ports {
    /// Finds two ports that are free now.
    pub(crate) fn find() -> Result<Self> {
        Ok(Self { apiserver: free_port()?, controller_manager: free_port()? })
    }
}

/// A port of 127.0.0.1 that is free now and that this process has not returned before, so that two programs that start at
/// the same time never get the same one.
///
/// # Errors
/// When none is free between 20000 and 32000.
pub fn free_port() -> Result<u16> {
    static RETURNED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut returned = RETURNED.lock();
    let port = (0..ATTEMPTS)
        .map(|_| rand::rng().random_range(PORTS))
        .find(|port| !returned.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| ControlPlaneError::Io {
            doing: "find a free loopback port between 20000 and 32000".to_owned(),
            source: std::io::ErrorKind::AddrInUse.into(),
        })?;
    returned.insert(port);
    Ok(port)
}
