//! VMDeployments against a real kube-apiserver. There is no webhook and no replicaset-controller: what they do, the
//! test does.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{path::Path, sync::Arc, time::Duration};

use berth_control_plane::{ControlPlane, Options};
use berth_core::{
    api::{Executor, Server, VMDeployment, VMReplicaSet},
    identity::Identities,
};
use berth_runtime::{Context, ContextParts, Process, SystemClock};
use deployment_controller::{desired, reconcile::Deployments};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_mins(1);

struct Lab {
    control_plane: ControlPlane,
    deployments: Api<VMDeployment>,
    sets: Api<VMReplicaSet>,
    servers: Api<Server>,
}

/// What a cache that is up to date shows.
struct Seen {
    deployment: VMDeployment,
    set: Option<VMReplicaSet>,
    servers: Vec<Server>,
}

impl Lab {
    async fn start() -> Self {
        let control_plane = ControlPlane::start(Options::default()).await.unwrap();
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
    async fn controller(&self, instance: &str) -> Deployments {
        let account = self.control_plane.service_account_client("berth-system", "deployment-controller");
        Deployments::new(Context::new(
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
        ))
    }

    async fn look(&self) -> Seen {
        let deployment = self.deployments.get("web").await.unwrap();
        let set = self.sets.get_opt("web").await.unwrap();
        let all = self.servers.list(&ListParams::default()).await.unwrap().items;
        let own = |server: &Server| set.as_ref().is_some_and(|set| desired::has(set, server));
        Seen { servers: all.into_iter().filter(own).collect(), deployment, set }
    }

    async fn turn(&self, controller: &Deployments, seen: &Seen) {
        let servers: Vec<&Server> = seen.servers.iter().collect();
        controller.reconcile(&seen.deployment, seen.set.as_ref(), &servers).await.unwrap();
    }

    /// Reconciles, with a fresh cache each time, until the condition holds.
    async fn until(&self, controller: &Deployments, holds: impl Fn(&Seen) -> bool) -> Seen {
        let deadline = Instant::now() + LIMIT;
        loop {
            let seen = self.look().await;
            if holds(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "{:?}\n{:?}\n{:?}", seen.deployment, seen.set, seen.servers);
            self.turn(controller, &seen).await;
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// replicaset-controller's part: a Server as the set's template has it.
    async fn born(&self, set: &VMReplicaSet, name: &str) {
        let template = &set.spec.template;
        let server = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Server",
            "metadata": {"name": name, "labels": template.metadata.labels, "ownerReferences": [set.controller_owner_ref(&())]},
            "spec": template.spec,
        });
        let params = PostParams { field_manager: Some("replicaset-controller".into()), dry_run: false };
        let server = self.servers.create(&params, &serde_json::from_value(server).unwrap()).await.unwrap();
        self.make_ready(&server).await;
    }

    /// The webhook's part: the Server is Ready with its newest declaration, which runs.
    async fn make_ready(&self, server: &Server) {
        let status = json!({"status": {
            "state": "Ready", "stateSince": "2026-01-01T00:00:00Z", "observedGeneration": server.metadata.generation,
            "app": {"revision": revision(server), "verified": true},
        }});
        self.servers.patch_status(&server.name_any(), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
}

fn revision(server: &Server) -> &str {
    server.spec.app.as_ref().unwrap().revision.as_deref().unwrap()
}

fn app(revision: &str, env: &[&str]) -> Value {
    let env: Vec<Value> = env.iter().map(|name| json!({"name": name, "value": "1"})).collect();
    let artifact = json!({"url": "http://127.0.0.1/w", "sha256": "b".repeat(64)});
    json!({"name": "web", "revision": revision, "artifact": artifact, "command": "./run", "env": env})
}

fn template_revision(seen: &Seen) -> Option<&str> {
    seen.set.as_ref()?.spec.template.spec.app.as_ref()?.revision.as_deref()
}

fn with(seen: &Seen, wanted: &str) -> usize {
    seen.servers.iter().filter(|server| revision(server) == wanted).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_rolled_out_within_the_budget() {
    let lab = Lab::start().await;
    let (one, other) = (lab.controller("a").await, lab.controller("b").await);
    let labels = json!({"app": "web"});
    let deployment = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "VMDeployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": labels}, "app": app("v1", &["OLD", "KEPT"]),
            "updateStrategy": {"maxUnavailable": 1},
            "template": {"metadata": {"labels": labels}, "spec": {"machine": {"className": "local"}}},
        },
    });
    lab.deployments.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
    let seen = lab.until(&one, |seen| seen.set.is_some()).await;
    assert_eq!(template_revision(&seen), Some("v1"));
    for name in ["web-0", "web-1", "web-2"] {
        lab.born(seen.set.as_ref().unwrap(), name).await;
    }
    let stable = |wanted: &'static str| {
        move |seen: &Seen| seen.deployment.status.as_ref().is_some_and(|s| s.stable_revision.as_deref() == Some(wanted))
    };
    lab.until(&one, stable("v1")).await;

    let change = Patch::Merge(json!({"spec": {"app": app("v2", &["KEPT", "NEW"])}}));
    lab.deployments.patch("web", &PatchParams::default(), &change).await.unwrap();
    for done in 1..=3 {
        let seen = lab.until(&one, |seen| with(seen, "v2") == done).await;
        // Two copies, one of which still sees what was there before: nothing more is touched.
        for _ in 0..3 {
            let newer = lab.look().await;
            tokio::join!(lab.turn(&one, &newer), lab.turn(&other, &seen));
        }
        let seen = lab.look().await;
        assert_eq!(with(&seen, "v2"), done);
        if done < 3 {
            assert_eq!(template_revision(&seen), Some("v1"), "new Servers get what is stable");
        }
        for server in seen.servers.iter().filter(|server| revision(server) == "v2") {
            let env: Vec<&str> = server.spec.app.as_ref().unwrap().env.iter().map(|e| e.name.as_str()).collect();
            assert_eq!(env, ["KEPT", "NEW"], "what left the application leaves the Server");
            lab.make_ready(server).await;
        }
    }
    lab.until(&one, stable("v2")).await;
    let at_rest = |seen: &Seen| {
        let status = seen.set.as_ref().and_then(|set| set.status.as_ref());
        template_revision(seen) == Some("v2") && status.is_none_or(|s| s.disturbed.is_empty())
    };
    lab.until(&one, at_rest).await;

    // At rest nothing is written. The first turn may bring the status up to date.
    lab.turn(&one, &lab.look().await).await;
    sleep(Duration::from_millis(1100)).await;
    lab.turn(&one, &lab.look().await).await;
    let before = lab.look().await;
    for _ in 0..3 {
        lab.turn(&one, &before).await;
    }
    let after = lab.look().await;
    assert_eq!(after.deployment, before.deployment);
    assert_eq!((after.set, after.servers), (before.set, before.servers));
    lab.control_plane.stop().await.unwrap();
}
