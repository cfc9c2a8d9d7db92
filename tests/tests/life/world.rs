//! A running Berth with one VMDeployment, and what tests observe of it.

use std::{collections::BTreeMap, time::Duration};

use berth_core::api::{Server, State, TaskKind, TaskPhase, TrafficPhase, VMDeployment, VMReplicaSet};
use berth_testing::manifest;
use berth_tests::{Archive, Artifact, Berth, CheckResult, Options, Part, eventually};
use k8s_openapi::api::{
    core::v1::{Event, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};

/// Long, because several whole systems share two cores.
pub(crate) const LONG: Duration = Duration::from_mins(2);

pub(crate) struct World {
    pub(crate) berth: Berth,
}

/// An application that answers `/` with this text, and is healthy while its file `healthz` exists. It logs requests beside its releases.
fn code(text: &str) -> Vec<u8> {
    let run = "#!/bin/sh\nexec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port 8080 --root ./www \
               --access-log ../../access.log\n";
    let archive = Archive::new().executable("run", run).file("www/index.html", text).file("www/healthz", "ok");
    archive.build().unwrap()
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Without a panic floor: of a Service with one Server, it would keep that one in traffic.
    pub(crate) async fn start_without_floor() -> Self {
        let arguments = [(Part::LbController, vec!["--panic-threshold=0%".to_owned()])].into();
        Self::start_with(Options { arguments, ..Options::default() }).await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        let world = Self { berth: Berth::start(options).await.unwrap() };
        let report = world.berth.install_report();
        assert!(report.warnings.is_empty(), "the API server warns: {:?}", report.warnings);
        world
    }

    pub(crate) fn servers(&self) -> Api<Server> {
        self.berth.servers("default")
    }

    pub(crate) fn deployments(&self) -> Api<VMDeployment> {
        Api::namespaced(self.berth.client(), "default")
    }

    /// Creates a MachineClass, a Service and a VMDeployment `web` with changes of the test.
    pub(crate) async fn deploy(&self, replicas: i32, change: impl FnOnce(&mut Value)) {
        let classes: Api<berth_core::api::MachineClass> = Api::all(self.berth.client());
        let access = json!({"user": "berth", "port": 2222, "root": "opt/berth"});
        let class = berth_testing::machine_class(json!({"spec": {"access": access}}));
        classes.create(&PostParams::default(), &class).await.unwrap();
        let services: Api<Service> = Api::namespaced(self.berth.client(), "default");
        let service =
            json!({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
        services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();

        let (tool, theme) = (self.package("tool", "1"), self.package("theme", "1"));
        let spec = json!({
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "machine": {"className": "local"},
                "packages": [tool, theme],
                "healthCheck": {"httpGet": {"port": 8080, "path": "/healthz"}, "periodSeconds": 1, "failureThreshold": 2, "deadlineSeconds": 10},
                "reachability": {"periodSeconds": 1, "timeoutSeconds": 1, "unreachableAfterSeconds": 2},
                "traffic": {"backends": [{"service": "web", "port": 8080, "portName": "http"}], "drain": {"seconds": 1}},
                "monitoring": {"port": 8080, "path": "/metrics"}
            }},
            "app": self.app("v1"),
            "updateStrategy": {"maxUnavailable": 1}
        });
        let mut value = manifest("VMDeployment", "web", spec);
        change(&mut value);
        let resource = ApiResource::erase::<VMDeployment>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.berth.client(), "default", &resource);
        api.create(&PostParams::default(), &serde_json::from_value(value).unwrap()).await.unwrap();
    }

    pub(crate) fn put_code(&self, revision: &str) -> Artifact {
        self.berth.artifacts().put(&format!("web-{revision}.tar"), code(revision))
    }

    pub(crate) fn app(&self, revision: &str) -> Value {
        let code = self.put_code(revision);
        json!({"name": "web", "revision": revision, "command": "sh ./run", "artifact": {"url": code.url, "sha256": code.sha256}})
    }

    pub(crate) fn package(&self, name: &str, version: &str) -> Value {
        let bytes = Archive::new().file("version", version).file("name", name).build().unwrap();
        let artifact = self.berth.artifacts().put(&format!("{name}-{version}.tar"), bytes);
        json!({"name": name, "version": version, "archive": {"url": artifact.url, "sha256": artifact.sha256}})
    }

    pub(crate) async fn patch(&self, patch: Value) {
        self.deployments().patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) async fn patch_server(&self, name: &str, patch: Value) {
        self.servers().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) async fn list(&self) -> Vec<Server> {
        let mut servers = self.servers().list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        servers.sort_by_key(ResourceExt::name_any);
        servers
    }

    /// Waits until there are exactly `count` Servers, all Ready with nothing left to do.
    pub(crate) async fn ready(&self, count: usize) -> Vec<Server> {
        self.ready_when(count, |_| true).await
    }

    /// The same, and the condition holds for each.
    pub(crate) async fn ready_when(&self, count: usize, holds: impl Fn(&Server) -> bool) -> Vec<Server> {
        let found = eventually(format!("{count} Servers Ready"), LONG, async || {
            let servers = self.list().await;
            let done = servers.len() == count && servers.iter().all(|s| is_settled(s) && holds(s));
            if done { Ok(servers) } else { Err(describe(&servers)) }
        });
        match found.await {
            Ok(servers) => servers,
            Err(error) => panic!("{error}\n{}", self.logs()),
        }
    }

    /// Waits until the condition holds for the Server.
    pub(crate) async fn server(&self, name: &str, what: &str, holds: impl Fn(&Server) -> bool) -> Server {
        let found = eventually(format!("{name}: {what}"), LONG, async || match self.servers().get(name).await {
            Ok(server) if holds(&server) => Ok(server),
            Ok(server) => Err(describe(&[server])),
            Err(error) => Err(error.to_string()),
        });
        match found.await {
            Ok(server) => server,
            Err(error) => panic!("{error}\n{}", self.logs()),
        }
    }

    /// Waits until the set has a condition of this type and reason; returns its message.
    pub(crate) async fn set_condition(&self, kind: &str, reason: &str) -> String {
        let sets: Api<VMReplicaSet> = Api::namespaced(self.berth.client(), "default");
        let message = eventually(format!("{kind}: {reason}"), LONG, async || {
            let status = sets.get("web").await.map_err(|e| e.to_string())?.status.unwrap_or_default();
            let found = status.conditions.iter().find(|c| c.type_ == kind && c.reason == reason);
            found.map(|c| c.message.clone()).ok_or_else(|| format!("{:?}", status.conditions))
        });
        message.await.unwrap()
    }

    /// Waits until no Server, no machine and no endpoint is left.
    pub(crate) async fn nothing_left(&self) {
        let gone = eventually("no Server, machine or endpoint", LONG, async || {
            let servers = self.list().await;
            let machines = self.berth.machines().all().map_err(|e| e.to_string())?.len();
            let endpoints = self.endpoints().await;
            if servers.is_empty() && machines == 0 && endpoints.is_empty() {
                Ok(())
            } else {
                Err(format!("{machines} machines, {endpoints:?}, {}", describe(&servers)))
            }
        });
        if let Err(error) = gone.await {
            panic!("{error}\n{}", self.logs());
        }
    }

    /// Whether the Server with this UID has a machine, running or not.
    pub(crate) fn has_machine(&self, uid: &str) -> bool {
        self.berth.machines().all().unwrap().iter().any(|(of, _)| of == uid)
    }

    /// The conditions ready, serving and terminating of the Service's endpoints, by Server.
    pub(crate) async fn endpoints(&self) -> BTreeMap<String, (bool, bool, bool)> {
        let api: Api<EndpointSlice> = Api::namespaced(self.berth.client(), "default");
        let list = api.list(&ListParams::default().labels("kubernetes.io/service-name=web")).await.unwrap();
        let mut found = BTreeMap::new();
        for endpoint in list.items.into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default()) {
            let name = endpoint.target_ref.and_then(|t| t.name).unwrap();
            let conditions = endpoint.conditions.unwrap_or_default();
            let flags = (
                conditions.ready == Some(true),
                conditions.serving == Some(true),
                conditions.terminating == Some(true),
            );
            assert!(found.insert(name.clone(), flags).is_none(), "{name} has two endpoints");
        }
        found
    }

    /// Waits until the Server receives traffic. lb-controller reports the release before it opens the endpoint.
    pub(crate) async fn gets_traffic(&self, name: &str) {
        let shown = eventually(format!("traffic reaches {name}"), LONG, async || {
            let endpoints = self.endpoints().await;
            check(endpoints.get(name) == Some(&(true, true, false)), || format!("{endpoints:?}"))
        });
        shown.await.unwrap();
    }

    pub(crate) async fn events(&self, reason: &str) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.berth.client(), "default");
        api.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .into_iter()
            .filter(|e| e.reason.as_deref() == Some(reason))
            .collect()
    }

    /// The response of the application on this Server.
    pub(crate) async fn answer(&self, server: &Server) -> Result<String, reqwest::Error> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        client.get(format!("http://{}:8080/", address(server))).send().await?.error_for_status()?.text().await
    }

    pub(crate) async fn assert_answers(&self, server: &Server, text: &str) {
        let answer = eventually(format!("{} answers {text}", server.name_any()), LONG, async || {
            match self.answer(server).await {
                Ok(other) if other.trim() == text => Ok(()),
                Ok(other) => Err(other),
                Err(error) => Err(error.to_string()),
            }
        });
        answer.await.unwrap();
    }

    /// The ends of all logs, for the message of a failed test.
    pub(crate) fn logs(&self) -> String {
        let instances = self.berth.instances();
        let ends = instances.iter().map(|i| format!("== {}\n{}", i.process.name(), i.process.log_tail()));
        ends.collect::<Vec<_>>().join("\n")
    }

    pub(crate) async fn end(self) {
        self.berth.stop().await.unwrap();
    }
}

pub(crate) fn state(server: &Server) -> Option<State> {
    server.status.as_ref().and_then(|s| s.state)
}

pub(crate) fn is_in(wanted: State) -> impl Fn(&Server) -> bool {
    move |server| state(server) == Some(wanted)
}

/// Whether the Server is Ready with its newest declaration and has nothing left to do.
pub(crate) fn is_settled(server: &Server) -> bool {
    let Some(status) = &server.status else { return false };
    status.state == Some(State::Ready)
        && status.observed_generation == server.metadata.generation
        && status.tasks.iter().all(|task| task.phase.is_finished())
        && status.lock.is_none()
}

pub(crate) fn address(server: &Server) -> String {
    server.status.as_ref().and_then(|s| s.machine.as_ref()).and_then(|m| m.address.clone()).unwrap()
}

pub(crate) fn machine_id(server: &Server) -> Option<String> {
    server.status.as_ref().and_then(|s| s.machine.as_ref()).and_then(|m| m.id.clone())
}

pub(crate) fn traffic(server: &Server) -> Option<TrafficPhase> {
    server.status.as_ref().and_then(|s| s.traffic.as_ref()).map(|t| t.phase)
}

pub(crate) fn uid(server: &Server) -> String {
    server.uid().to_owned()
}

/// How many tasks of this kind have succeeded, as far as the Server's history reaches.
pub(crate) fn succeeded(server: &Server, kind: TaskKind) -> usize {
    server.status.as_ref().map_or(0, |status| berth_testing::ended_tasks(status, kind, TaskPhase::Succeeded))
}

pub(crate) fn describe(servers: &[Server]) -> String {
    let lines = servers.iter().map(|server| {
        let status = server.status.clone().unwrap_or_default();
        let tasks: Vec<String> = status
            .tasks
            .iter()
            .filter(|t| !t.phase.is_finished() || t.phase == TaskPhase::Failed)
            .map(|t| format!("{}:{} {:?} x{} {:?}", t.id, t.kind, t.phase, t.attempts, t.message))
            .collect();
        format!(
            "{} {:?} for {:?}, generation {:?}/{:?}, lock {:?}, tasks {tasks:?}",
            server.name_any(),
            status.state,
            status.waiting_for,
            status.observed_generation,
            server.metadata.generation,
            status.lock.map(|l| (l.holder, l.task_id)),
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A check of a condition.
pub(crate) fn check(holds: bool, otherwise: impl FnOnce() -> String) -> CheckResult<()> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
