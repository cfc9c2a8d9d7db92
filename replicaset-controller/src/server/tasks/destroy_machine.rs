//! DestroyMachine: destroys the machine and waits until it is gone.

use berth_core::{
    api::{MachineFact, MachinePhase},
    protocol::{Fact, TaskResult},
};
use berth_iaas::ProviderCapacity;

use super::attempt::Attempt;

const GONE: MachineFact =
    MachineFact { phase: MachinePhase::Gone, id: None, address: None, ssh: None, boot_id: None, created_at: None };

pub(super) async fn destroy(attempt: &Attempt<'_>) -> Result<TaskResult, TaskResult> {
    attempt.answer(attempt.provider.connection.provider.delete(attempt.uid()?).await)?;
    attempt.slot.report(ProviderCapacity::Available);
    attempt.context.connector.forget(attempt.server);
    Ok(TaskResult::succeeded("the machine is gone").with(Fact::Machine(GONE)))
}
