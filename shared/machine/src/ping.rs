//! Is the machine there, and has it been rebooted? The cheapest thing that can be asked.

use std::{sync::LazyLock, time::Duration};

use crate::{
    Machine, Result,
    script::{Facts, Step},
};

/// Says which boot this is.
pub(crate) const BOOT: &str = include_str!("scripts/boot.sh");

pub(crate) static SCRIPT: LazyLock<String> = LazyLock::new(|| Step::text(&[BOOT, include_str!("scripts/ping.sh")]));

/// What a machine says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineInfo {
    /// Another value after every boot.
    pub boot_id: String,
    /// Time since the boot, where the machine knows it.
    pub uptime: Option<Duration>,
}

/// Asks the machine for its boot id: `BERTH_BOOT_ID` of its sessions, else the kernel's with the start of the first process, which
/// differs for containers.
pub async fn ping(machine: &dyn Machine, timeout: Duration) -> Result<MachineInfo> {
    MachineInfo::from_facts(&Step::new(&SCRIPT).run(machine, "", timeout).await?)
}

impl MachineInfo {
    pub(crate) fn from_facts(facts: &Facts) -> Result<Self> {
        let uptime = facts.all("uptime").next().and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        Ok(Self { boot_id: facts.one("boot")?.to_owned(), uptime })
    }
}
