//! Waits until nothing changes the machine.

use std::{sync::LazyLock, time::Duration};

use crate::{error::Result, machine::Machine, operation::MachineOperation};

pub(crate) static SCRIPT: LazyLock<String> =
    LazyLock::new(|| MachineOperation::script(&[include_str!("scripts/settle.sh")]));

/// Waits, for at most half of `timeout`, until no script changes the machine any more: after that a script whose client is gone
/// has no effect. An error means that this is not known.
pub async fn settle(machine: &dyn Machine, root: &str, timeout: Duration) -> Result<()> {
    MachineOperation::changing(&SCRIPT, root)?.run(machine, "", timeout).await.map(drop)
}
