//! Compares the machines of every MachineClass with the Servers, and destroys or reports orphans.

use std::{collections::BTreeSet, time::Duration};

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

use super::find::{ClassMachines, Orphan, find_orphans};

/// Servers per page of a list: only their metadata, so that a page is small.
const PAGE: u32 = 500;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OrphanLabels {
    class: String,
}

/// Collects orphans.
pub struct OrphanCollector {
    ctx: Context,
    classes: Classes,
    cluster: String,
    found: Family<OrphanLabels, Gauge>,
    destroyed: Family<OrphanLabels, Counter>,
}

impl OrphanCollector {
    /// Collects the orphans of this cluster in all of these classes.
    #[must_use]
    pub fn new(ctx: &Context, classes: &Classes, cluster: &str) -> Self {
        let (found, destroyed) = (Family::<OrphanLabels, Gauge>::default(), Family::<OrphanLabels, Counter>::default());
        ctx.metrics.register(|r| {
            let help = "Machines without a Server that the last comparison found, by MachineClass";
            r.register("orphans", help, found.clone());
            let help = "Machines without a Server that were destroyed, by MachineClass";
            r.register("orphans_destroyed", help, destroyed.clone());
        });
        Self { ctx: ctx.clone(), classes: classes.clone(), cluster: cluster.to_owned(), found, destroyed }
    }

    /// Collects orphans once per period until shutdown; zero means never.
    pub async fn run(&self, period: Duration) {
        while !period.is_zero() {
            // With jitter, so that copies that were started together do not list the machines at once.
            let pause = Backoff::new(period, period).delay(1);
            tokio::select! {
                () = tokio::time::sleep(pause) => self.collect().await,
                () = self.ctx.shutdown.cancelled() => return,
            }
        }
    }

    /// Compares the machines of every class with the Servers once. A class whose machines cannot be listed is skipped.
    pub async fn collect(&self) {
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
        let orphans = find_orphans(&listed, &servers, &self.cluster, self.ctx.clock.now());
        self.set_gauges(&listed, &orphans);
        for orphan in &orphans {
            let at = listed.iter().position(|listed| listed.class == orphan.class);
            let class = classes.iter().find(|class| class.name() == orphan.class);
            if let (Some(connection), Some(class)) = (at.and_then(|at| connections.get(at)), class) {
                self.handle(class, connection, orphan).await;
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
                provider: class.spec.provider.clone(),
                policy: class.spec.orphan_policy,
                grace: SignedDuration::from_secs(i64::from(class.spec.orphan_grace_seconds)),
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
        for ClassMachines { class, .. } in listed {
            let count = orphans.iter().filter(|orphan| orphan.class == *class).count();
            let labels = OrphanLabels { class: class.clone() };
            self.found.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Destroys or only reports the orphan, and publishes an Event about it.
    async fn handle(&self, class: &MachineClass, connection: &ProviderConnection, orphan: &Orphan) {
        let owner = &orphan.machine.owner;
        let machine = format!(
            "machine {} of the Server {}/{} (UID {}), which does not exist",
            orphan.machine.id, owner.namespace, owner.name, owner.uid
        );
        let (kind, reason, note) = if orphan.destroy {
            match connection.provider.delete(&owner.uid).await {
                Ok(()) => {
                    self.destroyed.get_or_create(&OrphanLabels { class: class.name().to_owned() }).inc();
                    (EventType::Normal, "OrphanDestroyed", format!("destroyed the {machine}"))
                }
                Err(error) => {
                    (EventType::Warning, "OrphanNotDestroyed", format!("cannot destroy the {machine}: {error}"))
                }
            }
        } else {
            let advice = "destroy it by hand, or set orphanPolicy to Delete";
            (EventType::Warning, "Orphan", format!("there is the {machine}: {advice}"))
        };
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
