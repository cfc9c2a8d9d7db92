//! DestroyMachine: destroys the machine and waits until it is gone.

use berth_core::{
    api::{MachineFact, MachinePhase},
    protocol::{Fact, TaskResult},
};
use berth_iaas::{Place, ProviderCapacity};

use super::attempt::Attempt;

pub(super) async fn destroy(attempt: &Attempt<'_>) -> Result<TaskResult, TaskResult> {
    attempt.answer(attempt.provider.connection.provider.delete(attempt.uid()?).await)?;
    attempt.slot.report(ProviderCapacity::Available);
    attempt.context.connector.forget(attempt.server);
    Ok(TaskResult::succeeded("the machine is gone").with(Fact::Machine(gone(&attempt.provider.connection.place))))
}

/// There is no machine at this place.
fn gone(place: &Place) -> MachineFact {
    MachineFact {
        phase: MachinePhase::Gone,
        provider: Some(place.provider.clone()),
        place: Some(place.place.clone()),
        id: None,
        address: None,
        ssh: None,
        boot_id: None,
        created_at: None,
    }
}
