//! The task that keeps this process's Lease and follows those of the others.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tokio::{
    pin,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{lease, roster::Roster, state::CopyState};
use crate::{ApiError, Backoff, Context};

/// A Lease counts for so many renewals.
const RENEWALS: u32 = 3;

pub(super) struct Keeper {
    ctx: Context,
    state: Arc<CopyState>,
    api: Api<Lease>,
    renew: Duration,
    roster: Roster,
    /// Renewals that failed in a row.
    failures: u32,
    /// Whether it was said that the Leases of the others cannot be watched.
    is_watch_broken: bool,
}

impl Keeper {
    pub(super) fn new(ctx: &Context, state: Arc<CopyState>, renew: Duration) -> Self {
        let api = Api::namespaced(ctx.client.clone(), &state.namespace);
        let (ctx, roster) = (ctx.clone(), Roster::default());
        Self { ctx, state, api, renew, roster, failures: 0, is_watch_broken: false }
    }

    /// Runs until shutdown, and then removes the Lease.
    pub(super) async fn run(mut self) {
        let shutdown = self.ctx.shutdown.clone();
        let events = watcher(self.api.clone(), watcher::Config::default().labels(lease::COPY)).default_backoff();
        pin!(events);
        // Copies expire by time alone.
        let mut tick = interval(self.renew / 5);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_renewal = Instant::now();
        let state = Arc::clone(&self.state);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = sleep_until(next_renewal) => next_renewal = Instant::now() + self.renew_now().await,
                () = state.has_news.notified() => next_renewal = Instant::now(),
                Some(event) = events.next() => self.follow(event),
                _ = tick.tick() => self.remove_garbage(),
            }
            self.count();
        }
        if let Err(error) = self.api.delete(&self.state.own.name, &DeleteParams::default()).await {
            tracing::debug!(%error, "the Lease of this copy stays until it expires");
        }
    }

    fn follow(&mut self, event: Result<Event<Lease>, watcher::Error>) {
        let now = Instant::now();
        match event {
            Ok(Event::Init) => self.roster.list_begins(),
            Ok(Event::InitApply(lease) | Event::Apply(lease)) => self.roster.observe(lease, now),
            Ok(Event::InitDone) => {
                self.roster.list_ends();
                self.is_watch_broken = false;
            }
            Ok(Event::Delete(lease)) => self.roster.remove(&lease),
            Err(error) => {
                if !std::mem::replace(&mut self.is_watch_broken, true) {
                    let namespace = &self.state.namespace;
                    tracing::warn!(%error, namespace, "cannot watch the Leases of the other copies: they are taken to be gone, and this copy does all work");
                }
            }
        }
    }

    /// Says which copies there are now.
    fn count(&self) {
        let (own, now) = (&self.state.own, Instant::now());
        let (come, gone) = self.state.set_others(self.roster.others(own, now));
        if !come.is_empty() || !gone.is_empty() {
            tracing::info!(?come, ?gone, "other copies of controllers");
        }
    }

    /// Removes what crashed copies have left.
    fn remove_garbage(&self) {
        for lease in self.roster.garbage(&self.state.own.name, Instant::now()) {
            self.remove(lease);
        }
    }

    /// Removes this version of a Lease; if its copy has renewed it after all, it stays.
    fn remove(&self, lease: Lease) {
        let (api, name) = (self.api.clone(), lease.metadata.name.unwrap_or_default());
        let preconditions =
            Preconditions { uid: lease.metadata.uid, resource_version: lease.metadata.resource_version };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        tokio::spawn(async move {
            match api.delete(&name, &params).await {
                Ok(_) => tracing::info!(name, "removed the Lease of a copy that has crashed"),
                Err(error) => tracing::debug!(%error, name, "cannot remove the Lease of a copy that has crashed"),
            }
        });
    }

    /// Renews the Lease, with what there is to say. Returns the time until the next renewal.
    async fn renew_now(&mut self) -> Duration {
        let notes = self.state.notes.lock().clone();
        match self.write(&notes).await {
            Ok(()) => {
                self.failures = 0;
                self.taken_back(&notes);
                self.renew
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures == 1 {
                    tracing::warn!(%error, "the other copies cannot see this one: they do its work as well");
                }
                Backoff::CALL.delay(self.failures)
            }
        }
    }

    async fn write(&self, notes: &BTreeMap<String, Option<String>>) -> Result<(), ApiError> {
        let (own, now) = (&self.state.own, self.ctx.clock.now());
        let action = || format!("renew Lease {}/{}", self.state.namespace, own.name);
        let renewal = Patch::Merge(lease::renewal(notes, now));
        match self.api.patch(&own.name, &PatchParams::default(), &renewal).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            result => return result.map(drop).map_err(ApiError::doing(action())),
        }
        let said = notes.iter().filter_map(|(note, text)| Some((note.clone(), text.clone()?)));
        let copy = lease::ControllerCopy { notes: said.collect(), ..own.clone() };
        let created = lease::new(&copy, &self.state.namespace, self.renew * RENEWALS, now);
        self.api.create(&PostParams::default(), &created).await.map(drop).map_err(ApiError::doing(action()))
    }

    /// Forgets the notes that were taken back by this write and not said again since.
    fn taken_back(&self, written: &BTreeMap<String, Option<String>>) {
        self.state.notes.lock().retain(|note, text| text.is_some() || written.get(note) != Some(&None));
    }
}
