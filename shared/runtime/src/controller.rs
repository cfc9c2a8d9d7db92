//! The controller loop: kube's, with backoff per object, metrics and a graceful shutdown.

use std::{collections::HashMap, error::Error, pin::pin, sync::Arc, time::Instant};

use futures::{FutureExt, Stream, StreamExt, future, stream, stream::BoxStream};
use kube::runtime::{
    Config, Controller as KubeController,
    controller::{Action, Error as LoopError},
    reflector::ObjectRef,
};

use parking_lot::Mutex;

use crate::{
    Backoff, Cache, Change, Context, Metrics,
    cache::Cached,
    metrics::{ControllerLabels, ReconcileLabels},
};

/// How many objects are reconciled at the same time by default: enough to hide the latency of calls, few enough not to crowd the
/// API server.
const DEFAULT_CONCURRENCY: u16 = 16;

/// An error of a reconcile, which decides when the object is reconciled again.
pub trait ReconcileError: Error + Send + Sync + 'static {
    /// Whether only a change of the object can help. After other errors it is requeued with exponential backoff.
    fn is_terminal(&self) -> bool {
        false
    }
}

/// Reconciles the objects of a cache.
///
/// A reconcile begins when an object is new or has changed, when one of the triggers names it, and when the last reconcile
/// requeued it. There is no periodic resync. An object is never reconciled twice at the same time.
pub struct Controller<K: Cached> {
    name: &'static str,
    cache: Cache<K>,
    triggers: Vec<BoxStream<'static, ObjectRef<K>>>,
    concurrency: u16,
}

impl<K: Cached> Controller<K> {
    /// A controller; `name` is its label in metrics and logs.
    #[must_use]
    pub fn new(name: &'static str, cache: &Cache<K>) -> Self {
        Self { name, cache: cache.clone(), triggers: Vec::new(), concurrency: DEFAULT_CONCURRENCY }
    }

    /// Also reconciles the objects that this stream names.
    #[must_use]
    pub fn reconcile_on(mut self, keys: impl Stream<Item = ObjectRef<K>> + Send + 'static) -> Self {
        self.triggers.push(keys.boxed());
        self
    }

    /// Sets how many objects are reconciled at the same time. The default is 16.
    #[must_use]
    pub fn concurrency(mut self, concurrency: u16) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Runs until shutdown, and then until the running reconciles have ended.
    pub async fn run<C, F, Fut, E>(self, ctx: &Context, app: Arc<C>, reconcile: F)
    where
        C: Send + Sync + 'static,
        F: Fn(Arc<K>, Arc<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Action, E>> + Send + 'static,
        E: ReconcileError,
    {
        let Self { name, cache, triggers, concurrency } = self;
        let failures = Arc::new(Failures::<K>::default());
        let own = present_objects(cache.changes());
        let keys = stream::select_all(triggers.into_iter().chain([own.boxed()]));
        let shutdown = ctx.shutdown.clone();
        let (metrics, succeeded, policy) = (ctx.metrics.clone(), failures.clone(), failures.clone());
        let results = KubeController::for_shared_stream(stream::pending(), cache.store())
            .reconcile_on(keys)
            .with_config(Config::default().concurrency(concurrency))
            .graceful_shutdown_on(async move { shutdown.cancelled().await })
            .run(
                move |object, app| {
                    let (key, succeeded) = (ObjectRef::from_obj(&*object), succeeded.clone());
                    measured(name, metrics.clone(), reconcile(object, app))
                        .inspect(move |result| {
                            if result.is_ok() {
                                succeeded.reset(&key);
                            }
                        })
                        .boxed()
                },
                move |object, error, _| policy.policy(name, &object, error),
                app,
            );
        let mut results = pin!(results);
        while let Some(result) = results.next().await {
            // An object that is gone needs no reconcile; failed reconciles are logged by the error policy.
            match result {
                Err(LoopError::ObjectNotFound(key)) => failures.reset_erased(&key),
                Err(LoopError::QueueError(error)) => tracing::error!(controller = name, %error, "the queue failed"),
                Err(LoopError::RunnerError(error)) => tracing::error!(controller = name, %error, "the loop failed"),
                Ok(_) | Err(LoopError::ReconcilerFailed(..)) => (),
            }
        }
    }
}

/// The objects that are new or have changed.
fn present_objects<K: Cached>(
    changes: impl Stream<Item = Change<K>> + Send,
) -> impl Stream<Item = ObjectRef<K>> + Send {
    changes.filter_map(|change| {
        future::ready(match change {
            Change::Present(object) => Some(ObjectRef::from_obj(&*object)),
            Change::Gone(_) | Change::Undecodable(_) => None,
        })
    })
}

/// Runs a reconcile and counts it in the metrics.
async fn measured<E: ReconcileError>(
    name: &'static str,
    metrics: Arc<Metrics>,
    reconcile: impl Future<Output = Result<Action, E>>,
) -> Result<Action, E> {
    let labels = ControllerLabels { controller: name };
    let begun = Instant::now();
    metrics.active_reconciles.get_or_create(&labels).inc();
    let result = reconcile.await;
    metrics.active_reconciles.get_or_create(&labels).dec();
    metrics.reconcile_seconds.get_or_create(&labels).observe(begun.elapsed().as_secs_f64());
    let label = match &result {
        Ok(_) => "ok",
        Err(error) if error.is_terminal() => "terminal",
        Err(_) => "retry",
    };
    metrics.reconciles.get_or_create(&ReconcileLabels { controller: name, result: label }).inc();
    result
}

/// Consecutive failures of each object.
struct Failures<K: Cached>(Mutex<HashMap<ObjectRef<K>, u32>>);

impl<K: Cached> Default for Failures<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Cached> Failures<K> {
    /// What follows a failed reconcile.
    fn policy<E: ReconcileError>(&self, name: &str, object: &K, error: &E) -> Action {
        let key = ObjectRef::from_obj(object);
        let chain = Chain(error);
        if error.is_terminal() {
            self.reset(&key);
            tracing::info!(controller = name, object = %key, error = %chain, "reconcile failed; waiting for a change of the object");
            return Action::await_change();
        }
        let failures = {
            let mut counts = self.0.lock();
            let count = counts.entry(key.clone()).or_default();
            *count = count.saturating_add(1);
            *count
        };
        let delay = Backoff::RECONCILE.delay(failures);
        tracing::warn!(controller = name, object = %key, error = %chain, failures, delay_ms = delay.as_millis(), "reconcile failed; trying again");
        Action::requeue(delay)
    }

    fn reset(&self, key: &ObjectRef<K>) {
        self.0.lock().remove(key);
    }

    fn reset_erased(&self, key: &ObjectRef<kube::core::DynamicObject>) {
        let namespace = key.namespace.as_deref();
        self.reset(&crate::cache::key_of(namespace, &key.name));
    }
}

/// An error with its causes.
struct Chain<'a, E>(&'a E);

impl<E: Error> std::fmt::Display for Chain<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut written = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors contain the text of their cause already.
            if !written.contains(&text) {
                write!(f, ": {text}")?;
                written.push_str(&text);
            }
            cause = error.source();
        }
        Ok(())
    }
}
