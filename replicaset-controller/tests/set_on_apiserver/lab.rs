//! A real kube-apiserver with Berth's types, and copies of the controller.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use berth_control_plane::{ControlPlane, ControlPlaneOptions};
use berth_core::api::{Server, VMReplicaSet};
use berth_runtime::Process;
use futures::{
    FutureExt as _,
    future::{self, BoxFuture},
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use replicaset_controller::set::{
    drift_repair::NoDriftReports,
    machines::{MachineAtProvider, MachineSource, NoMachines},
    plan::SetLimits,
    reconcile::SetReconciler,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::context::context;

/// A source of machines that has none while there is a problem. The machines that exist are gone, unless they are alive.
#[derive(Default)]
pub(crate) struct Source {
    pub(crate) problem: Mutex<Option<NoMachines>>,
    /// Names of the Servers whose machine runs and answers.
    pub(crate) alive: Mutex<BTreeSet<String>>,
    pub(crate) zone: Option<String>,
}

impl Source {
    pub(crate) fn is_alive(&self, server: &Server) -> bool {
        self.alive.lock().contains(server.name())
    }
}

impl MachineSource for Source {
    fn check<'a>(&'a self, _: &'a VMReplicaSet) -> BoxFuture<'a, Result<(), NoMachines>> {
        future::ready(self.problem.lock().clone().map_or(Ok(()), Err)).boxed()
    }

    fn find<'a>(&'a self, server: &'a Server) -> BoxFuture<'a, Result<MachineAtProvider, String>> {
        let word = if self.is_alive(server) { MachineAtProvider::Running } else { MachineAtProvider::Gone };
        future::ready(Ok(word)).boxed()
    }

    fn knock<'a>(&'a self, server: &'a Server) -> BoxFuture<'a, bool> {
        future::ready(self.is_alive(server)).boxed()
    }

    fn zone(&self, _: &str) -> Option<String> {
        self.zone.clone()
    }
}

pub(crate) const LIMIT: Duration = Duration::from_mins(1);

pub(crate) struct Lab {
    pub(crate) control_plane: ControlPlane,
    pub(crate) sets: Api<VMReplicaSet>,
    pub(crate) servers: Api<Server>,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        control_plane.install(&deploy, None).await.unwrap();
        let client = control_plane.admin_client();
        let (sets, servers) = (Api::default_namespaced(client.clone()), Api::default_namespaced(client));
        Self { control_plane, sets, servers }
    }

    /// A copy of the controller, with the rights that are shipped.
    pub(crate) async fn controller(&self, instance: &str) -> SetReconciler {
        self.controller_with(instance, Arc::default()).await
    }

    pub(crate) async fn controller_with(&self, instance: &str, machines: Arc<Source>) -> SetReconciler {
        let account = self.control_plane.service_account_client("berth-system", "replicaset-controller");
        Self::controller_through(account.await.unwrap(), instance, machines)
    }

    /// A copy of the controller with this client.
    pub(crate) fn controller_through(client: Client, instance: &str, machines: Arc<Source>) -> SetReconciler {
        let process = Process::default();
        let context = context(&process, client, instance);
        SetReconciler::new(
            context,
            SetLimits { creating: 50, replicas: 10_000, zone_brake: 40 },
            machines,
            Arc::new(NoDriftReports),
        )
    }

    pub(crate) async fn create(&self, name: &str, spec: Value) {
        self.try_create(name, spec).await.unwrap();
    }

    pub(crate) async fn try_create(&self, name: &str, spec: Value) -> Result<(), kube::Error> {
        // Sets must not select each other's Servers.
        let labels = json!({"app": null, "set": name});
        let declared = json!({"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}});
        let mut set = json!({"metadata": {"name": name}, "spec": declared});
        json_patch::merge(&mut set, &json!({"spec": spec}));
        self.sets.create(&PostParams::default(), &berth_testing::replica_set(set)).await.map(drop)
    }

    pub(crate) async fn change(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.sets.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// The set and its Servers, as an up-to-date cache shows them after retired Servers were cleaned up.
    pub(crate) async fn read(&self, name: &str) -> (VMReplicaSet, Vec<Server>) {
        let set = self.sets.get(name).await.unwrap();
        let all = self.servers.list(&ListParams::default()).await.unwrap().items;
        let own = all.into_iter().filter(|server| set.owns(server));
        let (gone, own): (Vec<_>, Vec<_>) = own.partition(|server| server.metadata.deletion_timestamp.is_some());
        for server in gone {
            let finalizers = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            let released = self.servers.patch(server.name(), &PatchParams::default(), &finalizers).await;
            // Another read may run at the same time.
            assert!(released.is_ok() || self.servers.get_opt(server.name()).await.unwrap().is_none());
        }
        (set, own)
    }

    /// Reconciles, with a fresh cache each time, until the condition holds.
    pub(crate) async fn until(
        &self,
        controller: &SetReconciler,
        name: &str,
        holds: impl Fn(&VMReplicaSet, &[Server]) -> bool,
    ) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let (set, servers) = self.read(name).await;
            if holds(&set, &servers) {
                return;
            }
            assert!(Instant::now() < deadline, "{set:?}\n{servers:?}");
            controller.reconcile(&set, &servers.iter().collect::<Vec<_>>()).await.unwrap();
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The webhook's part: the Server is Ready with its newest declaration.
    pub(crate) async fn make_ready(&self, server: &Server) {
        self.put_in_state(server, "Ready").await;
    }

    /// The webhook's part: the machine does not answer monitor-controller for a long time.
    pub(crate) async fn make_unreachable(&self, server: &Server) {
        self.put_in_state(server, "Unknown").await;
    }

    async fn put_in_state(&self, server: &Server, state: &str) {
        let status = json!({"status": {
            "state": state, "stateSince": "2026-01-01T00:00:00Z", "observedGeneration": server.metadata.generation,
            "machine": {"phase": "Running"},
        }});
        self.servers.patch_status(server.name(), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
}
