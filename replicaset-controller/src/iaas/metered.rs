//! A limit of time and metrics for every call of a provider, in one place.

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

use super::{Error, MachineInfo, MachineRequest, Provider, Result};

/// How long each call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Looking whether machines can be had.
    pub check: Duration,
    /// Looking at one machine.
    pub get: Duration,
    /// Looking at all machines.
    pub list: Duration,
    /// Making, rebooting or destroying a machine.
    pub change: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            check: Duration::from_secs(15),
            get: Duration::from_secs(30),
            list: Duration::from_mins(2),
            change: Duration::from_mins(5),
        }
    }
}

/// Which call it was, of which provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    provider: String,
    call: &'static str,
}

/// And how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    provider: String,
    call: &'static str,
    outcome: &'static str,
}

/// Metrics of all providers' calls.
#[derive(Clone)]
pub(super) struct CallMetrics {
    calls: Family<Ended, Counter>,
    seconds: Family<Call, Histogram, fn() -> Histogram>,
}

impl fmt::Debug for CallMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallMetrics").finish_non_exhaustive()
    }
}

impl CallMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let own = Self {
            calls: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 3.0, 13))),
        };
        metrics.register(|r| {
            r.register("iaas_calls", "Calls of IaaS providers, by provider, call and outcome", own.calls.clone());
            r.register(
                "iaas_call_seconds",
                "Duration of calls of IaaS providers, by provider and call",
                own.seconds.clone(),
            );
        });
        own
    }
}

/// A provider whose calls end in time and are counted.
pub(super) struct Metered {
    inner: Arc<dyn Provider>,
    provider: String,
    limits: Limits,
    metrics: CallMetrics,
}

impl Metered {
    pub(super) fn new(inner: Arc<dyn Provider>, provider: &str, limits: Limits, metrics: CallMetrics) -> Self {
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
            let (result, outcome) = match tokio::time::timeout(limit, work).await {
                Ok(Ok(value)) => (Ok(value), "ok"),
                Ok(Err(error)) => {
                    let outcome = outcome(&error);
                    (Err(error), outcome)
                }
                Err(_) => (Err(self.late(call, limit)), "timeout"),
            };
            let provider = || self.provider.clone();
            self.metrics.calls.get_or_create(&Ended { provider: provider(), call, outcome }).inc();
            let seconds = begun.elapsed().as_secs_f64();
            self.metrics.seconds.get_or_create(&Call { provider: provider(), call }).observe(seconds);
            result
        }
        .boxed()
    }

    fn late(&self, call: &str, limit: Duration) -> Error {
        let (provider, seconds) = (&self.provider, limit.as_secs_f32());
        Error::Retryable(format!("the provider {provider} did not answer {call} within {seconds} s"))
    }
}

fn outcome(error: &Error) -> &'static str {
    match error {
        Error::Retryable(_) => "retryable",
        Error::Quota(_) => "quota",
        Error::Configuration(_) => "configuration",
        Error::Credentials(_) => "credentials",
    }
}

impl Provider for Metered {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        self.call("check", self.limits.check, self.inner.check())
    }

    fn create<'a>(&'a self, request: &'a MachineRequest) -> BoxFuture<'a, Result<MachineInfo>> {
        self.call("create", self.limits.change, self.inner.create(request))
    }

    fn get<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Option<MachineInfo>>> {
        self.call("get", self.limits.get, self.inner.get(uid))
    }

    fn reboot<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<MachineInfo>> {
        self.call("reboot", self.limits.change, self.inner.reboot(uid))
    }

    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<()>> {
        self.call("delete", self.limits.change, self.inner.delete(uid))
    }

    fn list<'a>(&'a self, cluster: &'a str) -> BoxFuture<'a, Result<Vec<MachineInfo>>> {
        self.call("list", self.limits.list, self.inner.list(cluster))
    }
}
