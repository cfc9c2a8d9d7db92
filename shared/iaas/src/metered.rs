//! A time limit and metrics for every call of a provider.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_runtime::Metrics;
use futures::future::{BoxFuture, FutureExt as _};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
};

use crate::{
    error::{ProviderError, Result},
    provider::{MachineRequest, Provider, ProviderMachine},
};

/// How long each call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Checking the provider.
    pub check: Duration,
    /// Reading one machine.
    pub get: Duration,
    /// Listing the machines of a cluster.
    pub list: Duration,
    /// Creating, rebooting or destroying a machine.
    pub change: Duration,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            check: Duration::from_secs(15),
            get: Duration::from_secs(30),
            list: Duration::from_mins(2),
            change: Duration::from_mins(5),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    provider: String,
    call: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallResultLabels {
    provider: String,
    call: &'static str,
    /// `ok`, `timeout`, or the kind of error.
    result: &'static str,
}

/// Metrics of the calls of all providers.
#[derive(Clone)]
pub(crate) struct CallMetrics {
    calls: Family<CallResultLabels, Counter>,
    seconds: Family<CallLabels, Histogram, fn() -> Histogram>,
}

impl fmt::Debug for CallMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallMetrics").finish_non_exhaustive()
    }
}

impl CallMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let own = Self {
            calls: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 3.0, 13))),
        };
        metrics.register(|r| {
            r.register("iaas_calls", "Calls of IaaS providers, by provider, call and result", own.calls.clone());
            r.register(
                "iaas_call_seconds",
                "Duration of calls of IaaS providers, by provider and call",
                own.seconds.clone(),
            );
        });
        own
    }
}

/// A provider whose calls are limited in time and counted.
pub(crate) struct MeteredProvider {
    inner: Arc<dyn Provider>,
    provider: String,
    limits: CallLimits,
    metrics: CallMetrics,
}

impl MeteredProvider {
    pub(crate) fn new(inner: Arc<dyn Provider>, provider: &str, limits: CallLimits, metrics: CallMetrics) -> Self {
        Self { inner, provider: provider.to_owned(), limits, metrics }
    }

    fn call<'a, T: Send + 'a>(
        &'a self,
        call: &'static str,
        limit: Duration,
        work: BoxFuture<'a, Result<T>>,
    ) -> BoxFuture<'a, Result<T>> {
        async move {
            let begun = Instant::now();
            let (result, label) = match tokio::time::timeout(limit, work).await {
                Ok(Ok(value)) => (Ok(value), "ok"),
                Ok(Err(error)) => {
                    let label = error_label(&error);
                    (Err(error), label)
                }
                Err(_) => (Err(self.timeout(call, limit)), "timeout"),
            };
            let provider = || self.provider.clone();
            self.metrics.calls.get_or_create(&CallResultLabels { provider: provider(), call, result: label }).inc();
            let seconds = begun.elapsed().as_secs_f64();
            self.metrics.seconds.get_or_create(&CallLabels { provider: provider(), call }).observe(seconds);
            result
        }
        .boxed()
    }

    fn timeout(&self, call: &str, limit: Duration) -> ProviderError {
        let (provider, seconds) = (&self.provider, limit.as_secs_f32());
        ProviderError::Retryable(format!("the provider {provider} did not answer {call} within {seconds} s"))
    }
}

fn error_label(error: &ProviderError) -> &'static str {
    match error {
        ProviderError::Retryable(_) => "retryable",
        ProviderError::Quota(_) => "quota",
        ProviderError::Configuration(_) => "configuration",
        ProviderError::Credentials(_) => "credentials",
    }
}

impl Provider for MeteredProvider {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        self.call("check", self.limits.check, self.inner.check())
    }

    fn create<'a>(&'a self, request: &'a MachineRequest) -> BoxFuture<'a, Result<ProviderMachine>> {
        self.call("create", self.limits.change, self.inner.create(request))
    }

    fn get<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Option<ProviderMachine>>> {
        self.call("get", self.limits.get, self.inner.get(uid))
    }

    fn reboot<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<ProviderMachine>> {
        self.call("reboot", self.limits.change, self.inner.reboot(uid))
    }

    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<()>> {
        self.call("delete", self.limits.change, self.inner.delete(uid))
    }

    fn list<'a>(&'a self, cluster: &'a str) -> BoxFuture<'a, Result<Vec<ProviderMachine>>> {
        self.call("list", self.limits.list, self.inner.list(cluster))
    }
}
