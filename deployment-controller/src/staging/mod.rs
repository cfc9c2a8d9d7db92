//! Brings the artifact of a new version to Servers ahead of their turn, while they serve (`rollout.stageAhead`).
//!
//! `planner` says which Servers, on each reconcile of a VMDeployment. [`Stager`] does it beside the reconciles, some at a time, and
//! remembers in `memory` what it has done: nothing of it is written to any object. A Server's turn comes when the artifact is there, or could
//! not be brought: then DeployApp downloads it.

mod memory;
mod metrics;
mod planner;

use std::{sync::Arc, time::Duration};

use berth_core::api::{App, Server, VMDeployment};
use berth_machine::{
    Connector, MachineChange,
    staging::{StagedRelease, stage_app},
};
use berth_runtime::{Backoff, Cache, Context};
use futures::{
    Stream, StreamExt as _,
    channel::mpsc::{self, UnboundedSender},
    stream::FuturesUnordered,
};
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{observed::ObservedDeployment, references};
use memory::{DeploymentKey, StagingAttempt, StagingMemory};
use metrics::StagingMetrics;

/// Limit of one attempt: fetching a large artifact takes minutes, as it does for DeployApp.
const LIMIT: Duration = Duration::from_mins(10);

/// Brings artifacts ahead.
pub(crate) struct Stager {
    ctx: Context,
    connector: Arc<dyn Connector>,
    servers: Cache<Server>,
    deployments: Cache<VMDeployment>,
    memory: Mutex<StagingMemory>,
    metrics: StagingMetrics,
    changed: Notify,
    ended: Mutex<Option<UnboundedSender<ObjectRef<VMDeployment>>>>,
    /// How many machines are staged on at the same time.
    at_most: usize,
}

/// How an attempt has ended.
enum StagingEnd {
    Present(MachineChange),
    Failed(String),
    /// The Server is not fit for it now, or it is not wanted any more.
    Left,
}

impl Stager {
    /// For the VMDeployments and Servers in these caches, on machines that `connector` reaches.
    pub(crate) fn new(
        ctx: &Context,
        connector: Arc<dyn Connector>,
        servers: &Cache<Server>,
        deployments: &Cache<VMDeployment>,
    ) -> Self {
        let metrics = StagingMetrics::default();
        ctx.metrics.register(|registry| metrics.register(registry));
        Self {
            ctx: ctx.clone(),
            connector,
            servers: servers.clone(),
            deployments: deployments.clone(),
            memory: Mutex::default(),
            metrics,
            changed: Notify::new(),
            ended: Mutex::default(),
            // A quarter of what DeployApp may do at once: both share the artifact store, and DeployApp holds traffic meanwhile.
            at_most: usize::from(ctx.concurrency),
        }
    }

    /// Brings ahead what this VMDeployment wants now, and nothing else of it any more. Returns the sorted names of the Servers that have to wait
    /// for their artifact. Only the copy that acts on the VMDeployment calls it: what was brought is known in its memory alone.
    pub(crate) fn want(&self, observed: &ObservedDeployment<'_>) -> Vec<String> {
        let (key, ahead) = (key_of(observed.deployment), planner::ahead(observed));
        let mut memory = self.memory.lock();
        memory.want(key.clone(), ahead.as_ref());
        self.metrics.set_failing(memory.failing());
        if ahead.is_some() {
            self.changed.notify_one();
        }
        let app = ahead.map(|ahead| ahead.app);
        planner::awaited(observed, |server| app.as_ref().is_some_and(|app| memory.is_known(&key, app, server)))
    }

    /// Brings nothing ahead for this VMDeployment: another copy does.
    pub(crate) fn leave(&self, deployment: &VMDeployment) {
        let mut memory = self.memory.lock();
        memory.want(key_of(deployment), None);
        self.metrics.set_failing(memory.failing());
    }

    /// The VMDeployments of which an attempt has ended: a Server may have been waiting for it.
    pub(crate) fn ended(&self) -> impl Stream<Item = ObjectRef<VMDeployment>> + Send + use<> {
        let (sender, ended) = mpsc::unbounded();
        *self.ended.lock() = Some(sender);
        ended
    }

    /// Runs until shutdown. What is under way then is ended.
    pub(crate) async fn run(&self) {
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < self.at_most
                && let Some(attempt) = self.next()
            {
                under_way.push(self.carry_out(attempt));
            }
            let next = self.memory.lock().next_due().filter(|_| under_way.len() < self.at_most);
            tokio::select! {
                biased;
                () = self.ctx.shutdown.cancelled() => return,
                Some((attempt, end)) = under_way.next(), if !under_way.is_empty() => self.note(&attempt, end),
                () = self.changed.notified() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    fn next(&self) -> Option<StagingAttempt> {
        let mut memory = self.memory.lock();
        memory.retain(|(namespace, name): &DeploymentKey| {
            let known = self.deployments.get(Some(namespace), name);
            known.is_some_and(|deployment| deployment.metadata.deletion_timestamp.is_none())
        });
        memory.begin(Instant::now())
    }

    async fn carry_out(&self, attempt: StagingAttempt) -> (StagingAttempt, StagingEnd) {
        let end = tokio::select! {
            biased;
            () = attempt.cancel.cancelled() => StagingEnd::Left,
            end = self.stage(&attempt) => end,
        };
        (attempt, end)
    }

    async fn stage(&self, attempt: &StagingAttempt) -> StagingEnd {
        let target = &attempt.target;
        let server = self.servers.get(Some(&target.namespace), &target.name);
        let Some(server) = server.filter(|server| target.is_of(server) && planner::is_fit(server)) else {
            return StagingEnd::Left;
        };
        match self.stage_on(&server, &attempt.app).await {
            Ok(change) => StagingEnd::Present(change),
            Err(problem) => StagingEnd::Failed(problem),
        }
    }

    async fn stage_on(&self, server: &Server, app: &App) -> Result<MachineChange, String> {
        // Of what the application refers to, nothing but the credentials of the artifact is needed.
        let artifact_alone = App { env: Vec::new(), files: Vec::new(), ..app.clone() };
        let values = references::resolve(&self.ctx.client, server.namespace(), &artifact_alone).await;
        let values = values.map_err(|error| error.to_string())??;
        let connection = self.connector.connect(server).map_err(|error| error.to_string())?;
        let release = StagedRelease {
            name: app.name.clone(),
            revision: app.effective_revision(),
            url: app.artifact.url.clone(),
            sha256: app.artifact.sha256.clone(),
            format: app.artifact.format,
            authorization: values.authorization,
        };
        let staged = stage_app(connection.machine.as_ref(), &connection.root, &release, LIMIT).await;
        staged.map_err(|error| error.to_string())
    }

    fn note(&self, attempt: &StagingAttempt, end: StagingEnd) {
        let (server, namespace) = (&attempt.target.name, &attempt.target.namespace);
        let revision = attempt.app.effective_revision();
        let delay = Backoff::TASK.delay(attempt.failures.saturating_add(1));
        let next = match end {
            StagingEnd::Present(change) => {
                self.metrics.count(if change == MachineChange::Done { "staged" } else { "present" });
                tracing::info!(
                    server,
                    namespace,
                    revision,
                    ?change,
                    "the artifact is there ahead of the Server's turn"
                );
                None
            }
            StagingEnd::Failed(problem) => {
                self.metrics.count("failed");
                tracing::warn!(server, namespace, revision, problem, again_in = ?delay, "the artifact was not brought ahead");
                Some(delay)
            }
            StagingEnd::Left => Some(delay),
        };
        let mut memory = self.memory.lock();
        memory.end(attempt, next.map(|delay| Instant::now() + delay));
        self.metrics.set_failing(memory.failing());
        if let Some(ended) = &*self.ended.lock() {
            // Without a reader this program is about to end.
            let _ = ended.unbounded_send(ObjectRef::new(&attempt.deployment().1).within(&attempt.deployment().0));
        }
    }
}

fn key_of(deployment: &VMDeployment) -> DeploymentKey {
    (deployment.namespace().to_owned(), deployment.name().to_owned())
}
