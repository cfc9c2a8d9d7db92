//! A [`Context`] on the API server in memory.

use std::{sync::Arc, time::Duration};

use berth_core::{api::Executor, identity::Identities};
use berth_testing::FakeApi;
use k8s_openapi::jiff::Timestamp;
use kube::Client;

use crate::{Clock, Context, ContextParts, Process, with_timeouts};

/// Duration of locks.
pub(crate) const LOCK: Duration = Duration::from_secs(30);

impl Clock for FakeApi {
    fn now(&self) -> Timestamp {
        Self::now(self)
    }
}

/// The context of an instance of replicaset-controller, whose calls time out after ten seconds.
pub(crate) fn context(api: &FakeApi, instance: &str) -> Context {
    let parts = ContextParts {
        client: Client::new(with_timeouts(api.service(), Duration::from_secs(10)), "default"),
        executor: Executor::ReplicasetController,
        instance: instance.to_owned(),
        identities: Identities::default(),
        clock: Arc::new(api.clone()),
        lock_duration: LOCK,
        concurrency: 4,
    };
    Context::new(&Process::default(), parts)
}
