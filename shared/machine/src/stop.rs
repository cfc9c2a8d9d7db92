//! Work on a machine that may be cancelled.

use std::{future::Future, time::Duration};

use berth_core::protocol::TaskResult;

use crate::{machine::Machine, settle::settle};

/// How long a machine may take to say that nothing runs on it any more: what a script's watchdog needs, and less than the task
/// runner waits.
const SETTLE_LIMIT: Duration = Duration::from_secs(9);

/// The result of `work` on the machine. When `cancelled` is ready first, the work is dropped, and with it its connection: then its
/// script ends, and the machine is asked whether it has.
pub async fn unless_cancelled(
    machine: &dyn Machine,
    root: &str,
    cancelled: impl Future<Output = ()>,
    work: impl Future<Output = TaskResult>,
) -> TaskResult {
    tokio::select! {
        biased;
        result = work => return result,
        () = cancelled => {}
    }
    let stopped = TaskResult::retry("stopped before it was done");
    match tokio::time::timeout(SETTLE_LIMIT, settle(machine, root, SETTLE_LIMIT)).await {
        Ok(Ok(())) => stopped,
        Ok(Err(error)) => stopped.at(error).and_may_still_run(),
        Err(_) => stopped.and_may_still_run(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::fake::{FakeMachine, MachineFault};

    #[tokio::test]
    async fn cancelled_work_may_still_run_until_the_machine_says_that_nothing_does() {
        let machine = FakeMachine::new();
        let cancelled = || unless_cancelled(&machine, "opt/berth", ready(()), pending());
        let stopped = cancelled().await;
        assert_eq!((stopped.message.as_str(), stopped.may_still_run), ("stopped before it was done", false));
        for fault in [MachineFault::Unreachable, MachineFault::Hang, MachineFault::LoseAnswer] {
            machine.fail_next(fault.clone());
            assert!(cancelled().await.may_still_run, "{fault:?}");
        }
        let done = unless_cancelled(&machine, "opt/berth", pending(), ready(TaskResult::succeeded("done"))).await;
        assert_eq!(done, TaskResult::succeeded("done"));
    }
}
