//! The context of a copy of replicaset-controller.

use std::{sync::Arc, time::Duration};

use berth_core::{api::Executor, identity::Identities};
use berth_runtime::{Context, ContextParts, Process, SystemClock};
use kube::Client;

/// The context of a copy with this client, with the defaults of the program's arguments.
pub(crate) fn context(process: &Process, client: Client, instance: &str) -> Context {
    let parts = ContextParts {
        client,
        executor: Executor::ReplicasetController,
        instance: instance.into(),
        identities: Identities::default(),
        concurrency: 16,
        clock: Arc::new(SystemClock),
        lock_duration: Duration::from_secs(30),
    };
    Context::new(process, parts)
}
