//! What every controller needs: clients, identity, clock, metrics and shutdown.

use std::{sync::Arc, time::Duration};

use berth_core::{api::Executor, identity::Identities};
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::{Clock, CommonArgs, Events, Metrics, Process, Readiness, SystemClock, Turns, client};

/// What every controller needs. Clones share the same parts.
#[derive(Clone)]
pub struct Context {
    /// Client of the API server; each of its calls has a time limit.
    pub client: Client,
    /// Which controller this is.
    pub executor: Executor,
    /// Holder of the locks that this process claims, as `<executor>/<instance>`.
    pub holder: String,
    /// Which users are Berth's controllers.
    pub identities: Identities,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Publishes Events.
    pub events: Events,
    /// The metrics of the process.
    pub metrics: Arc<Metrics>,
    /// Conditions for the process to be ready.
    pub readiness: Readiness,
    /// Cancelled when the process has to end.
    pub shutdown: CancellationToken,
    /// Duration of the locks that are claimed, in whole seconds. They are renewed after half of it.
    pub lock_duration: Duration,
    /// How many objects are reconciled at the same time.
    pub concurrency: u16,
    /// Which copy of this controller acts first.
    pub turns: Turns,
}

/// The parts of a context that do not come from the process.
pub struct ContextParts {
    /// Client of the API server.
    pub client: Client,
    /// Which controller this is.
    pub executor: Executor,
    /// Name of this instance.
    pub instance: String,
    /// Which users are Berth's controllers.
    pub identities: Identities,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Duration of the locks that are claimed, in whole seconds.
    pub lock_duration: Duration,
    /// How many objects are reconciled at the same time.
    pub concurrency: u16,
}

impl Context {
    /// A context of this process. Starts the task that writes its Events.
    #[must_use]
    pub fn new(process: &Process, parts: ContextParts) -> Self {
        let ContextParts { client, executor, instance, identities, clock, lock_duration, concurrency } = parts;
        let (events, writer) = Events::new(client.clone(), executor, &instance, clock.clone(), process.metrics.clone());
        process.tasks.spawn(writer.run(process.shutdown.clone()));
        Self {
            client,
            executor,
            holder: format!("{executor}/{instance}"),
            identities,
            clock,
            events,
            metrics: process.metrics.clone(),
            readiness: process.readiness.clone(),
            shutdown: process.shutdown.clone(),
            lock_duration,
            concurrency,
            turns: Turns::default(),
        }
    }
}

impl Process {
    /// The context of a controller. Does not connect to the API server yet.
    ///
    /// # Errors
    /// If the API server is not configured, or the kubeconfig cannot be used.
    pub async fn context(&self, executor: Executor, args: &CommonArgs) -> anyhow::Result<Context> {
        let call = Duration::from_secs(u64::from(args.call_timeout));
        let parts = ContextParts {
            client: client::build(args.kubeconfig.as_deref(), call).await?,
            executor,
            instance: args.new_instance(),
            identities: args.identities(),
            clock: Arc::new(SystemClock),
            lock_duration: Duration::from_secs(u64::from(args.lock_seconds.unsigned_abs())),
            concurrency: args.concurrency,
        };
        Ok(Context::new(self, parts))
    }
}
