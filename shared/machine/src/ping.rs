//! Whether the machine answers, and which boot it is in. The cheapest operation.

use std::{sync::LazyLock, time::Duration};

use crate::{
    error::Result,
    machine::Machine,
    operation::{MachineOperation, ScriptAnswer},
};

/// Reports the boot id and the uptime.
pub(crate) const BOOT: &str = include_str!("scripts/boot.sh");

pub(crate) static SCRIPT: LazyLock<String> =
    LazyLock::new(|| MachineOperation::script(&[BOOT, include_str!("scripts/ping.sh")]));

/// The boot that a machine is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootInfo {
    /// Differs after every boot.
    pub boot_id: String,
    /// Time since the boot, where the machine knows it.
    pub uptime: Option<Duration>,
}

/// Asks the machine for its boot id: `BERTH_BOOT_ID` of its sessions where that is set, else the kernel's boot id
/// together with the start time of the first process, which differs between containers on one kernel.
pub async fn ping(machine: &dyn Machine, timeout: Duration) -> Result<BootInfo> {
    BootInfo::read(&MachineOperation::new(&SCRIPT).run(machine, "", timeout).await?)
}

impl BootInfo {
    pub(crate) fn read(answer: &ScriptAnswer) -> Result<Self> {
        let uptime = answer.all("uptime").next().and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        Ok(Self { boot_id: answer.one("boot")?.to_owned(), uptime })
    }
}
