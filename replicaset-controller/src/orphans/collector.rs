//! Compares the machines of every MachineClass with the Servers, and destroys or reports orphans.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use berth_core::api::{MachineClass, Server};
use berth_iaas::{Classes, ProviderConnection};
use berth_runtime::{ApiError, Backoff, Context, EventType, reference};
use futures::future::join_all;
use k8s_openapi::jiff::SignedDuration;
use kube::{Api, api::ListParams};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use super::{
    find::{ClassMachines, Orphan, find_orphans},
    mark::Mark,
    note::{describe, note},
};

/// Servers per page of a list: only their metadata, so that a page is small.
const PAGE: u32 = 500;
/// Periods after which the mark is so old that the API's history may have been restored: one may be missed while the controller
/// is updated, and another because copies of it write at once.
const MISSED_PERIODS: i32 = 3;
/// With a short period, a restart of the controller takes longer than three of them.
const SHORTEST_GAP: SignedDuration = SignedDuration::from_mins(15);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OrphanLabels {
    class: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HeldLabels {
    class: String,
    reason: &'static str,
}

/// Collects orphans.
pub struct OrphanCollector {
    ctx: Context,
    classes: Classes,
    cluster: String,
    mark: Mark,
    longest_without_mark: SignedDuration,
    period: Duration,
    found: Family<OrphanLabels, Gauge>,
    held: Family<HeldLabels, Gauge>,
    destroyed: Family<OrphanLabels, Counter>,
}

impl OrphanCollector {
    /// Collects the orphans of this cluster in all of these classes, once per period.
    #[must_use]
    pub fn new(ctx: &Context, classes: &Classes, cluster: &str, period: Duration) -> Self {
        let (found, held, destroyed) = (Family::default(), Family::default(), Family::default());
        ctx.metrics.register(|r| {
            let about = "Machines without a Server that the last comparison found, by MachineClass";
            r.register("orphans", about, Family::clone(&found));
            let about = "Machines without a Server that are only reported, by MachineClass and reason";
            r.register("orphans_held", about, Family::clone(&held));
            let about = "Machines without a Server that were destroyed, by MachineClass";
            r.register("orphans_destroyed", about, Family::clone(&destroyed));
        });
        let (classes, cluster, mark) = (classes.clone(), cluster.to_owned(), Mark::new(ctx));
        let missed = SignedDuration::try_from(period).unwrap_or(SignedDuration::MAX).saturating_mul(MISSED_PERIODS);
        let longest_without_mark = missed.max(SHORTEST_GAP);
        Self { ctx: ctx.clone(), classes, cluster, mark, longest_without_mark, found, held, destroyed, period }
    }

    /// Collects orphans once per period until shutdown; zero means never.
    pub async fn run(&self) {
        // Machines that are created from now on may be destroyed as orphans later.
        while !self.period.is_zero() && !self.ctx.shutdown.is_cancelled() {
            self.collect().await;
            // With jitter, so that copies that were started together do not list the machines at once.
            let pause = Backoff::new(self.period, self.period).delay(1);
            tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => {},
                () = self.ctx.shutdown.cancelled() => return,
            }
        }
    }

    /// Compares the machines of every class with the Servers once. A class whose machines cannot be listed is skipped.
    pub async fn collect(&self) {
        // Before anything is listed: what is created later is covered by the next mark.
        let marked = self.mark.advance(self.longest_without_mark, self.ctx.clock.now()).await;
        let history = match marked {
            Ok(history) => history,
            Err(error) => return tracing::warn!(%error, "orphans are not looked for"),
        };
        let classes = self.classes.all();
        let listed = join_all(classes.iter().map(|class| self.list_machines(class))).await;
        let (listed, connections): (Vec<ClassMachines>, Vec<ProviderConnection>) = listed.into_iter().flatten().unzip();
        if listed.is_empty() {
            return;
        }
        let servers = match self.list_servers().await {
            Ok(servers) => servers,
            Err(error) => return tracing::warn!(%error, "orphans are not looked for"),
        };
        match self.mark.is_still(&history).await {
            Ok(true) => {}
            Ok(false) => return tracing::info!("the mark has changed meanwhile: orphans are looked for again later"),
            Err(error) => return tracing::warn!(%error, "orphans are not looked for"),
        }
        let orphans = find_orphans(&listed, &servers, &self.cluster, &history, self.ctx.clock.now());
        self.set_gauges(&listed, &orphans);
        let mut held: BTreeMap<(&str, &str), Vec<&Orphan>> = BTreeMap::new();
        for orphan in &orphans {
            let at = listed.iter().position(|listed| listed.class == orphan.class);
            let class = classes.iter().find(|class| class.name() == orphan.class);
            let (Some(connection), Some(class)) = (at.and_then(|at| connections.get(at)), class) else { continue };
            match orphan.held {
                None => self.destroy(class, connection, orphan).await,
                Some(reason) => held.entry((class.name(), reason.reason())).or_default().push(orphan),
            }
        }
        for ((class, _), orphans) in held {
            let class = classes.iter().find(|known| known.name() == class);
            let reason = orphans.first().and_then(|orphan| orphan.held);
            if let (Some(class), Some(reason)) = (class, reason) {
                self.publish(class, EventType::Warning, reason.reason(), note(&orphans, reason));
            }
        }
    }

    /// The machines of a class, and the connection to its provider. The time limit of calls ends a call that hangs.
    async fn list_machines(&self, class: &MachineClass) -> Option<(ClassMachines, ProviderConnection)> {
        let name = class.name();
        let list = async {
            let (class, connection) = self.classes.connection(name).await?;
            let machines = connection.provider.list(&self.cluster).await?;
            let listed = ClassMachines {
                class: name.to_owned(),
                place: connection.place.clone(),
                policy: class.spec.orphan_policy,
                grace: SignedDuration::from_secs(i64::from(class.spec.orphan_grace_seconds)),
                limit: class.spec.orphan_limit.and_then(|limit| usize::try_from(limit).ok()),
                machines,
            };
            anyhow::Ok((listed, connection))
        };
        let listed = list.await;
        listed
            .inspect_err(|error| tracing::warn!(class = name, %error, "the machines of the class are not listed"))
            .ok()
    }

    fn set_gauges(&self, listed: &[ClassMachines], orphans: &[Orphan]) {
        self.found.clear();
        self.held.clear();
        for ClassMachines { class, .. } in listed {
            let count = orphans.iter().filter(|orphan| orphan.class == *class).count();
            let labels = OrphanLabels { class: class.clone() };
            self.found.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        for (orphan, held) in orphans.iter().filter_map(|orphan| Some((orphan, orphan.held?))) {
            self.held.get_or_create(&HeldLabels { class: orphan.class.clone(), reason: held.reason() }).inc();
        }
    }

    /// Destroys the orphan, and publishes an Event about it.
    async fn destroy(&self, class: &MachineClass, connection: &ProviderConnection, orphan: &Orphan) {
        let machine = describe(orphan);
        match connection.provider.delete(&orphan.machine.owner.uid).await {
            Ok(()) => {
                self.destroyed.get_or_create(&OrphanLabels { class: class.name().to_owned() }).inc();
                self.publish(class, EventType::Normal, "OrphanDestroyed", format!("destroyed the {machine}"));
            }
            Err(error) => {
                let note = format!("cannot destroy the {machine}: {error}");
                self.publish(class, EventType::Warning, "OrphanNotDestroyed", note);
            }
        }
    }

    fn publish(&self, class: &MachineClass, kind: EventType, reason: &'static str, note: String) {
        tracing::warn!(class = class.name(), note, "{reason}");
        self.ctx.events.publish(&reference(class), kind, reason, note);
    }

    /// The UIDs of all Servers as the API server has them now, including those that cannot be decoded.
    async fn list_servers(&self) -> Result<BTreeSet<String>, ApiError> {
        let api: Api<Server> = Api::all(self.ctx.client.clone());
        let mut uids = BTreeSet::new();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = api.list_metadata(&page).await.map_err(ApiError::doing("list the Servers"))?;
            uids.extend(list.items.into_iter().filter_map(|server| server.metadata.uid));
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(uids),
            }
        }
    }
}
