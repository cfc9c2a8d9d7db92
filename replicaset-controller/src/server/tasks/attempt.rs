//! One attempt at a task that needs the provider.

use berth_core::{api::Server, protocol::TaskResult};
use berth_iaas::{ProviderCapacity, ProviderError, Slot};
use tokio_util::sync::CancellationToken;

use super::{context::TaskContext, provider::MachineProvider};

/// One attempt at a task that needs the provider.
pub(super) struct Attempt<'a> {
    pub(super) context: &'a TaskContext,
    pub(super) server: &'a Server,
    pub(super) provider: &'a MachineProvider,
    pub(super) slot: &'a Slot,
    pub(super) cancel: &'a CancellationToken,
}

impl Attempt<'_> {
    /// The Server's UID, by which providers know its machine.
    pub(super) fn uid(&self) -> Result<&str, TaskResult> {
        let uid = self.server.metadata.uid.as_deref();
        uid.ok_or_else(|| TaskResult::failed("the Server has no UID"))
    }

    /// The provider's answer. After a failure that may be due to its availability or to the credentials, the provider is
    /// checked before its class is used again; an exhausted quota lets only one Server at a time try to create a machine.
    pub(super) fn answer<T>(&self, answer: berth_iaas::Result<T>) -> Result<T, TaskResult> {
        match &answer {
            Err(ProviderError::Retryable(_) | ProviderError::Credentials(_)) => self.provider.connection.recheck(),
            Err(ProviderError::Quota(_)) => self.slot.report(ProviderCapacity::Exhausted),
            Ok(_) | Err(_) => {}
        }
        Ok(answer?)
    }
}

/// The result of the work, or that it was stopped.
pub(super) async fn unless_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, TaskResult>>,
) -> Result<T, TaskResult> {
    tokio::select! {
        biased;
        result = work => result,
        () = cancel.cancelled() => Err(TaskResult::retry("stopped before it was done")),
    }
}
