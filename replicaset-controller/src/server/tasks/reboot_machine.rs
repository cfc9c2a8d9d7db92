//! RebootMachine: resets the machine and waits until it answers.

use berth_core::protocol::{Fact, TaskResult};

use super::{
    attempt::{Attempt, unless_cancelled},
    reachable::wait_until_reachable,
};

pub(super) async fn reboot(attempt: &Attempt<'_>) -> Result<TaskResult, TaskResult> {
    // Commands on open connections to the machine would wait in vain for an answer.
    attempt.context.connector.forget(attempt.server);
    let machine = attempt.answer(attempt.provider.connection.provider.reboot(attempt.uid()?).await)?;
    let fact = unless_cancelled(attempt.cancel, wait_until_reachable(attempt, machine)).await?;
    Ok(TaskResult::succeeded("the machine was rebooted and can be reached").with(Fact::Machine(fact)))
}
