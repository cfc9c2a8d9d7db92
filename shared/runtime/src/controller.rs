//! The controller loop: kube's, with backoff per object, metrics and an orderly end.

use std::{
    collections::HashMap,
    error::Error,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use futures::{FutureExt, Stream, StreamExt, future, stream, stream::BoxStream};
use kube::{
    ResourceExt,
    runtime::{
        Config, Controller as KubeController,
        controller::{Action, Error as LoopError},
        reflector::ObjectRef,
    },
};

use crate::{
    Backoff, Cache, Change, Context, Metrics,
    cache::Cached,
    metrics::{Of, Result as ResultLabel},
};

/// How a failed reconcile goes on.
pub trait ReconcileError: Error + Send + Sync + 'static {
    /// Whether only a change of the object can help; otherwise it is tried again, later each time.
    fn is_terminal(&self) -> bool {
        false
    }
}

type Property<K> = Box<dyn Fn(&K) -> u64 + Send>;

/// Reconciles the objects of a cache.
///
/// A reconcile begins when an object is new or has changed, when one of the other triggers names it, and when the
/// last one asked for it. There is no periodic one. An object is never reconciled twice at the same time.
pub struct Controller<K: Cached> {
    name: &'static str,
    cache: Cache<K>,
    property: Option<Property<K>>,
    triggers: Vec<BoxStream<'static, ObjectRef<K>>>,
    concurrency: u16,
}

impl<K: Cached> Controller<K> {
    /// A controller; `name` is its label in metrics and logs.
    #[must_use]
    pub fn new(name: &'static str, cache: &Cache<K>) -> Self {
        Self { name, cache: cache.clone(), property: None, triggers: Vec::new(), concurrency: 16 }
    }

    /// Only a change of this property of an object begins a reconcile: so that what the controller itself writes (as
    /// its status) does not. Make it a hash of everything that the reconcile depends on, as generation, deletion and
    /// finalizers.
    #[must_use]
    pub fn when_changed(mut self, property: impl Fn(&K) -> u64 + Send + 'static) -> Self {
        self.property = Some(Box::new(property));
        self
    }

    /// Reconciles what this stream names, too.
    #[must_use]
    pub fn also_on(mut self, keys: impl Stream<Item = ObjectRef<K>> + Send + 'static) -> Self {
        self.triggers.push(keys.boxed());
        self
    }

    /// Objects that are reconciled at the same time; 16 if not said.
    #[must_use]
    pub fn concurrency(mut self, concurrency: u16) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Runs until shutdown, and then until the reconciles under way have ended.
    pub async fn run<C, F, Fut, E>(self, ctx: &Context, app: Arc<C>, reconcile: F)
    where
        C: Send + Sync + 'static,
        F: Fn(Arc<K>, Arc<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Action, E>> + Send + 'static,
        E: ReconcileError,
    {
        let Self { name, cache, property, triggers, concurrency } = self;
        let failures = Arc::new(Failures::<K>::default());
        let own = own_changes(cache.changes(), property);
        let keys = stream::select_all(triggers.into_iter().chain([own.boxed()]));
        let shutdown = ctx.shutdown.clone();
        let (metrics, forget, policy) = (ctx.metrics.clone(), failures.clone(), failures.clone());
        let results = KubeController::for_shared_stream(stream::pending(), cache.store())
            .reconcile_on(keys)
            .with_config(Config::default().concurrency(concurrency))
            .graceful_shutdown_on(async move { shutdown.cancelled().await })
            .run(
                move |object, app| {
                    let (key, forget) = (ObjectRef::from_obj(&*object), forget.clone());
                    measured(name, metrics.clone(), reconcile(object, app))
                        .inspect(move |result| {
                            if result.is_ok() {
                                forget.forget(&key);
                            }
                        })
                        .boxed()
                },
                move |object, error, _| policy.policy(name, &object, error),
                app,
            );
        let mut results = pin!(results);
        while let Some(result) = results.next().await {
            // A vanished object has nothing to reconcile; failures of reconciles were logged where they were seen.
            match result {
                Err(LoopError::ObjectNotFound(key)) => failures.forget_erased(&key),
                Err(LoopError::QueueError(error)) => tracing::error!(controller = name, %error, "the queue failed"),
                Err(LoopError::RunnerError(error)) => tracing::error!(controller = name, %error, "the loop failed"),
                Ok(_) | Err(LoopError::ReconcilerFailed(..)) => (),
            }
        }
    }
}

/// The objects of a cache that are new or have changed, in the property if one is given.
fn own_changes<K: Cached>(
    changes: impl Stream<Item = Change<K>> + Send,
    property: Option<Property<K>>,
) -> impl Stream<Item = ObjectRef<K>> + Send {
    let mut known: HashMap<ObjectRef<K>, (Option<String>, u64)> = HashMap::new();
    changes.filter_map(move |change| {
        let key = ObjectRef::from_obj(&**change.object());
        let wanted = match (&change, &property) {
            (Change::Present(object), Some(property)) => {
                let value = (object.uid(), property(object));
                known.insert(key.clone(), value.clone()) != Some(value)
            }
            (Change::Present(_), None) => true,
            (Change::Gone(_) | Change::SetAside(_), _) => {
                known.remove(&key);
                false
            }
        };
        future::ready(wanted.then_some(key))
    })
}

async fn measured<E: ReconcileError>(
    name: &'static str,
    metrics: Arc<Metrics>,
    reconcile: impl Future<Output = Result<Action, E>>,
) -> Result<Action, E> {
    let label = Of { name: name.to_owned() };
    let begun = Instant::now();
    metrics.reconciling.get_or_create(&label).inc();
    let result = reconcile.await;
    metrics.reconciling.get_or_create(&label).dec();
    metrics.reconcile_seconds.get_or_create(&label).observe(begun.elapsed().as_secs_f64());
    let outcome = match &result {
        Ok(_) => "ok",
        Err(error) if error.is_terminal() => "terminal",
        Err(_) => "retry",
    };
    metrics.reconciles.get_or_create(&ResultLabel { name: name.to_owned(), result: outcome.to_owned() }).inc();
    result
}

/// Failures in a row, per object.
struct Failures<K: Cached>(Mutex<HashMap<ObjectRef<K>, u32>>);

impl<K: Cached> Default for Failures<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Cached> Failures<K> {
    fn policy<E: ReconcileError>(&self, name: &str, object: &K, error: &E) -> Action {
        let key = ObjectRef::from_obj(object);
        let chain = Chain(error);
        if error.is_terminal() {
            self.forget(&key);
            tracing::info!(controller = name, object = %key, error = %chain, "waiting for a change");
            return Action::await_change();
        }
        let failures = {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(key.clone()).or_default();
            *count = count.saturating_add(1);
            *count
        };
        let delay = Backoff::RECONCILE.delay(failures);
        tracing::warn!(controller = name, object = %key, error = %chain, failures, delay_ms = delay.as_millis(), "reconcile failed; trying again");
        Action::requeue(delay)
    }

    fn forget(&self, key: &ObjectRef<K>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn forget_erased(&self, key: &ObjectRef<kube::core::DynamicObject>) {
        let namespace = key.namespace.as_deref();
        self.forget(&crate::cache::key_of(namespace, &key.name));
    }
}

/// An error with its causes.
struct Chain<'a, E>(&'a E);

impl<E: Error> std::fmt::Display for Chain<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut said = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors repeat their cause in their own text.
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said.push_str(&text);
            }
            cause = error.source();
        }
        Ok(())
    }
}
