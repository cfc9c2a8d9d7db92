//! The one copy of a controller that may act on something which only one may touch at a time.
//!
//! Where Kubernetes stores the result, `resourceVersion` decides between two copies, and nobody leads. Some systems have nothing of the
//! kind: for them one copy holds a Lease. The time since this process *saw* the Lease change counts, never a clock of another machine.
//! A copy that cannot renew stops to lead a while before others may take over, by its own clock.
//!
//! Own code instead of kube-runtime, which has no Leases.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, api::PostParams, core::ObjectMeta};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{ApiError, Context};

/// How long a Lease counts after its last renewal.
const COUNTS_FOR: Duration = Duration::from_secs(15);
/// How long its holder relies on it: less, so that it has stopped when another copy begins.
const RELIED_ON_FOR: Duration = Duration::from_secs(10);
/// How often it is renewed, and how often the others look.
const RENEW: Duration = Duration::from_secs(3);

/// Whether this copy leads. Clones share the answer.
#[derive(Clone, Debug)]
pub struct Leader {
    until: Arc<Mutex<Option<Instant>>>,
    leads: watch::Receiver<bool>,
}

impl Leader {
    /// Stands for the Lease of this name, in Berth's namespace, until shutdown: the future has to be run.
    pub fn start(ctx: &Context, name: &str) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, leads) = watch::channel(false);
        let until = Arc::new(Mutex::new(None));
        let candidate = Candidate {
            api: Api::namespaced(ctx.client.clone(), &ctx.identities.namespace),
            ctx: ctx.clone(),
            name: name.to_owned(),
            seen: None,
            until: Arc::clone(&until),
            sender,
        };
        (Self { until, leads }, candidate.run())
    }

    /// Whether this copy leads now. Ask right before each act: the answer becomes false by time alone.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.until.lock().is_some_and(|until| Instant::now() < until)
    }

    /// Changes when this copy begins or stops to lead.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }
}

struct Candidate {
    ctx: Context,
    api: Api<Lease>,
    name: String,
    /// The version of the Lease that was seen last, and since when.
    seen: Option<(String, Instant)>,
    until: Arc<Mutex<Option<Instant>>>,
    sender: watch::Sender<bool>,
}

impl Candidate {
    async fn run(mut self) {
        let shutdown = self.ctx.shutdown.clone();
        loop {
            let begun = Instant::now();
            match timeout(RENEW * 2, self.renew()).await {
                Ok(Ok(true)) => *self.until.lock() = Some(begun + RELIED_ON_FOR),
                Ok(Ok(false)) => *self.until.lock() = None,
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew the Lease"),
                Err(_) => tracing::warn!(lease = self.name, "the renewal of the Lease takes too long"),
            }
            self.tell();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = sleep(RENEW) => self.tell(),
            }
        }
        let led = self.until.lock().take().is_some();
        self.tell();
        if led && let Err(error) = self.give_up().await {
            tracing::debug!(%error, "the Lease stays until it expires");
        }
    }

    /// Says whether this copy leads, if that has changed.
    fn tell(&self) {
        let leads = self.until.lock().is_some_and(|until| Instant::now() < until);
        let changed = self.sender.send_if_modified(|before| std::mem::replace(before, leads) != leads);
        if changed {
            tracing::info!(lease = self.name, leads, "the leading copy has changed");
        }
    }

    /// Whether this copy holds the Lease now.
    async fn renew(&mut self) -> Result<bool, ApiError> {
        let found = self.api.get_opt(&self.name).await.map_err(ApiError::doing(self.action("read")))?;
        let Some(mut lease) = found else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let created = Lease { metadata, spec: Some(self.held(None)) };
            return self.won(self.api.create(&PostParams::default(), &created).await.map(drop));
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.seen = Some((version, Instant::now()));
        }
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let is_fresh = self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() < COUNTS_FOR);
        if holder != self.ctx.holder && !holder.is_empty() && is_fresh {
            return Ok(false);
        }
        lease.spec = Some(self.held(lease.spec.as_ref()));
        // The Lease carries its version: only one of several copies can write.
        self.won(self.api.replace(&self.name, &PostParams::default(), &lease).await.map(drop))
    }

    fn won(&self, written: Result<(), kube::Error>) -> Result<bool, ApiError> {
        match written {
            Ok(()) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
            Err(error) => Err(ApiError::doing(self.action("renew"))(error)),
        }
    }

    fn held(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(self.ctx.clock.now());
        let before = before.cloned().unwrap_or_default();
        let continues = before.holder_identity.as_ref() == Some(&self.ctx.holder);
        LeaseSpec {
            holder_identity: Some(self.ctx.holder.clone()),
            lease_duration_seconds: i32::try_from(COUNTS_FOR.as_secs()).ok(),
            acquire_time: if continues { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or_default() + i32::from(!continues)),
            ..LeaseSpec::default()
        }
    }

    /// Lets another copy take over at once.
    async fn give_up(&self) -> Result<(), ApiError> {
        let mut lease = self.api.get(&self.name).await.map_err(ApiError::doing(self.action("read")))?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() == Some(&self.ctx.holder) {
            spec.holder_identity = Some(String::new());
            let written = self.api.replace(&self.name, &PostParams::default(), &lease).await;
            written.map_err(ApiError::doing(self.action("give up")))?;
        }
        Ok(())
    }

    fn action(&self, what: &str) -> String {
        format!("{what} Lease {}/{}", self.ctx.identities.namespace, self.name)
    }
}
