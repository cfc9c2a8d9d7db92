//! A real control plane with Berth's kinds, and what replicaset-controller and the webhook would do there.

use std::{path::Path, sync::Arc, time::Duration};

use berth_control_plane::{ControlPlane, ControlPlaneOptions};
use berth_core::{
    api::{Executor, Server, VMDeployment, VMReplicaSet},
    identity::Identities,
};
use berth_runtime::{Context, ContextParts, Process, SystemClock};
use deployment_controller::{ContentKey, Deployments};
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::ConfigMap};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// A control plane with Berth's kinds, and the objects of one namespace.
pub(crate) struct Cluster {
    pub(crate) control_plane: ControlPlane,
    pub(crate) deployments: Api<VMDeployment>,
    pub(crate) sets: Api<VMReplicaSet>,
    pub(crate) servers: Api<Server>,
}

/// What a cache that is up to date shows.
pub(crate) struct Snapshot {
    pub(crate) deployment: VMDeployment,
    pub(crate) set: Option<VMReplicaSet>,
    pub(crate) servers: Vec<Server>,
}

impl Snapshot {
    /// The revision that new Servers get.
    pub(crate) fn template_revision(&self) -> Option<&str> {
        self.set.as_ref()?.spec.template.spec.app.as_ref()?.revision.as_deref()
    }

    /// The Servers that declare this revision.
    pub(crate) fn with_revision(&self, wanted: &str) -> Vec<&Server> {
        self.servers.iter().filter(|server| revision(server) == wanted).collect()
    }

    pub(crate) fn is_stable(&self, revision: &str) -> bool {
        let status = self.deployment.status.as_ref();
        status.is_some_and(|status| status.stable_revision.as_deref() == Some(revision))
    }

    pub(crate) fn nothing_is_disturbed(&self) -> bool {
        let status = self.set.as_ref().and_then(|set| set.status.as_ref());
        status.is_none_or(|status| status.disturbed.is_empty())
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        control_plane.install(&deploy, None).await.unwrap();
        let client = control_plane.admin_client();
        Self {
            control_plane,
            deployments: Api::default_namespaced(client.clone()),
            sets: Api::default_namespaced(client.clone()),
            servers: Api::default_namespaced(client),
        }
    }

    /// A copy of the controller, with the rights that are shipped.
    pub(crate) async fn controller(&self, instance: &str) -> Deployments {
        let account = self.control_plane.service_account_client("berth-system", "deployment-controller");
        let context = Context::new(
            &Process::default(),
            ContextParts {
                client: account.await.unwrap(),
                executor: Executor::DeploymentController,
                instance: instance.into(),
                identities: Identities::default(),
                concurrency: 16,
                clock: Arc::new(SystemClock),
                lock_duration: Duration::from_secs(30),
            },
        );
        Deployments::new(context, ContentKey::derived_from(b"test"))
    }

    pub(crate) async fn snapshot(&self) -> Snapshot {
        let deployment = self.deployments.get("web").await.unwrap();
        let set = self.sets.get_opt("web").await.unwrap();
        let servers = self.servers.list(&ListParams::default()).await.unwrap().items;
        let is_owned = |server: &Server| set.as_ref().is_some_and(|set| set.owns(server));
        Snapshot { servers: servers.into_iter().filter(is_owned).collect(), deployment, set }
    }

    /// Reconciles, with a new snapshot each time, until the condition holds.
    pub(crate) async fn reconcile_until(
        &self,
        controller: &Deployments,
        holds: impl Fn(&Snapshot) -> bool,
    ) -> Snapshot {
        let deadline = Instant::now() + LIMIT;
        loop {
            let snapshot = self.snapshot().await;
            if holds(&snapshot) {
                return snapshot;
            }
            let Snapshot { deployment, set, servers } = &snapshot;
            assert!(Instant::now() < deadline, "{deployment:?}\n{set:?}\n{servers:?}");
            reconcile(controller, &snapshot).await;
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn request(&self, request: Value) {
        let patch = Patch::Merge(json!({"spec": {"rollout": {"request": request}}}));
        self.deployments.patch("web", &PatchParams::default(), &patch).await.unwrap();
    }

    /// The ControllerRevisions in their order: number, revision, and whether it was stable.
    pub(crate) async fn history(&self) -> Vec<String> {
        let api: Api<ControllerRevision> = Api::default_namespaced(self.control_plane.admin_client());
        let mut found = api.list(&ListParams::default().labels("berth.dev/deployment=web")).await.unwrap().items;
        found.sort_by_key(|revision| revision.revision);
        let shown = found.iter().map(|object| {
            assert!(object.metadata.owner_references.is_some(), "it goes with its VMDeployment: {object:?}");
            let stable = if object.annotations().contains_key("berth.dev/stable") { " stable" } else { "" };
            let data = object.data.as_ref().unwrap();
            assert_eq!(data.0["revision"], object.labels()["berth.dev/revision"]);
            format!("{} {}{stable}", object.revision, object.labels()["berth.dev/revision"])
        });
        shown.collect()
    }

    pub(crate) async fn create_deployment(&self, app: Value) {
        let spec = json!({"replicas": 3, "app": app, "updateStrategy": {"maxUnavailable": 1}});
        let deployment = berth_testing::deployment(json!({"spec": spec}));
        self.deployments.create(&PostParams::default(), &deployment).await.unwrap();
    }

    /// Writes this text into the ConfigMap that the application has a file from.
    pub(crate) async fn write_config(&self, text: &str) {
        let api: Api<ConfigMap> = Api::default_namespaced(self.control_plane.admin_client());
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"a": text}});
        api.patch("conf", &PatchParams::apply("test"), &Patch::Apply(map)).await.unwrap();
    }

    /// As replicaset-controller does it: a Server of the set's template.
    pub(crate) async fn create_server(&self, set: &VMReplicaSet, name: &str) {
        let template = &set.spec.template;
        let server = berth_testing::server(json!({
            "metadata": {"name": name, "labels": template.metadata.labels, "ownerReferences": [set.controller_owner_ref(&())]},
            "spec": template.spec,
        }));
        let params = PostParams { field_manager: Some("replicaset-controller".into()), dry_run: false };
        let server = self.servers.create(&params, &server).await.unwrap();
        self.make_ready(&server).await;
    }

    /// As the webhook does it: the Server is Ready with its newest declaration, which is deployed.
    pub(crate) async fn make_ready(&self, server: &Server) {
        let status = json!({"status": {
            "state": "Ready", "stateSince": "2026-01-01T00:00:00Z", "observedGeneration": server.metadata.generation,
            "app": {"revision": revision(server), "digest": server.spec.app_digest(), "verified": true},
        }});
        self.servers.patch_status(server.name(), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
}

pub(crate) async fn reconcile(controller: &Deployments, snapshot: &Snapshot) {
    let servers: Vec<&Server> = snapshot.servers.iter().collect();
    Box::pin(controller.reconcile(&snapshot.deployment, snapshot.set.as_ref(), &servers)).await.unwrap();
}

pub(crate) fn revision(server: &Server) -> &str {
    server.spec.app.as_ref().unwrap().revision.as_deref().unwrap()
}
