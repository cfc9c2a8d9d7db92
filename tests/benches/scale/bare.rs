//! A bare client that sends the same kinds of writes as Berth, with the same contents, through the same webhook. It has no watch
//! and no cache: it reads the tasks from the response to its last write, and reports them with the facts of a Server that Berth
//! has brought to Ready.

use std::{collections::BTreeMap, time::Instant};

use berth_core::{
    FINALIZER,
    api::{
        Claim, Executor, MachineFact, MachinePhase, Outcome, Report, Server, ServerStatus, Task, TaskKind, TaskPhase,
        TrafficFact, TrafficPhase,
    },
    protocol::StatusWrite,
};
use berth_tests::{BERTH_NAMESPACE, Berth};
use futures::{StreamExt, stream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{cost::Counted, meter::Meter, usage::Requests};

/// Concurrent writes.
const CALLS: usize = 32;
/// Endpoints per slice.
const ENDPOINTS: usize = 100;

/// Rates of writes.
pub(crate) struct Rates {
    /// Requests per second until all are Ready.
    pub(crate) up: f64,
    /// Requests per second until all have other code.
    pub(crate) code: f64,
    /// Requests per second until all are gone.
    pub(crate) down: f64,
    /// Requests per Server until it is Ready.
    pub(crate) up_each: f64,
    /// Servers created per second, before any other write to them.
    pub(crate) created: f64,
}

/// What the bare client imitates: a Server of Berth before and after other code was rolled out, and what Berth wrote meanwhile.
pub(crate) struct Imitated<'a> {
    pub(crate) model: &'a Server,
    pub(crate) with_other_code: &'a Server,
    pub(crate) up: &'a Requests,
    pub(crate) code: &'a Requests,
    pub(crate) down: &'a Requests,
}

/// Brings `count` Servers like the model to Ready and to other code and retires them, with as many writes of EndpointSlices as Berth
/// made.
pub(crate) async fn writes_per_second(berth: &Berth, imitated: &Imitated<'_>, count: usize) -> Rates {
    let Imitated { up, code, down, .. } = imitated;
    let bare = Bare::new(berth, imitated.model).await;
    let begin = Instant::now();
    let come = async {
        let created = stream::iter((0..count).map(|n| bare.create(n))).buffer_unordered(CALLS).collect().await;
        let created_in = begin.elapsed();
        (bare.carry_out(created).await, created_in)
    };
    let (((ready, sent), created_in), slices) = futures::join!(come, bare.slices(up));
    let writes = count + sent + slices;
    let up_rate = writes as f64 / begin.elapsed().as_secs_f64();
    assert!(ready.iter().all(is_ready), "the bare client's Servers are not Ready");

    let bare = Bare { model: imitated.with_other_code, ..bare };
    let begin = Instant::now();
    let renew = async {
        let declared = stream::iter(ready.iter().map(|server| bare.declare_code(server)));
        bare.carry_out(declared.buffer_unordered(CALLS).collect().await).await
    };
    let ((ready, sent), slices) = futures::join!(renew, bare.slices(code));
    let code_rate = (2 * count + sent + slices) as f64 / begin.elapsed().as_secs_f64();
    assert!(ready.iter().all(|server| bare.has_code(server)), "the bare client's Servers do not have the other code");

    let begin = Instant::now();
    let go = async {
        let leaving = stream::iter(ready.iter().map(|server| bare.retire(server)));
        let (left, sent) = bare.carry_out(leaving.buffer_unordered(CALLS).collect().await).await;
        stream::iter(left.iter().map(|server| bare.release(server))).buffer_unordered(CALLS).collect::<Vec<()>>().await;
        sent
    };
    let (sent, slices) = futures::join!(go, bare.slices(down));
    let gone = 3 * count + sent + slices;
    Rates {
        up: up_rate,
        code: code_rate,
        down: gone as f64 / begin.elapsed().as_secs_f64(),
        up_each: writes as f64 / count as f64,
        created: count as f64 / created_in.as_secs_f64(),
    }
}

/// Brings `count` Servers like the model to Ready and retires them, all in step, and returns what each kind of write costs.
pub(crate) async fn cost_of_kinds(berth: &Berth, model: &Server, count: usize) -> Vec<(String, Counted)> {
    let bare = Bare::new(berth, model).await;
    let mut kinds = Vec::new();
    let mut begin = Meter::of(berth).await;
    let mut record = async |kind: &str| {
        let now = Meter::of(berth).await;
        kinds.push((kind.to_owned(), Counted { writes: count, cost: now.since(&begin) }));
        begin = now;
    };
    let create = stream::iter((0..count).map(|n| bare.create(n)));
    let mut servers: Vec<Server> = create.buffer_unordered(CALLS).collect().await;
    record("creation").await;
    for is_end in [false, true] {
        if is_end {
            let leaving = stream::iter(servers.iter().map(|server| bare.delete(server)));
            servers = leaving.buffer_unordered(CALLS).collect().await;
            record("deletion").await;
            let leaving = stream::iter(servers.iter().map(|server| bare.acknowledge(server)));
            servers = leaving.buffer_unordered(CALLS).collect().await;
            record("decision to retire").await;
        }
        while let Some((_, _, kind)) = bare.next(&servers[0]) {
            let steps = stream::iter(servers.into_iter().map(|server| bare.step(server))).buffer_unordered(CALLS);
            servers = steps.map(|(server, _)| server).collect().await;
            record(&kind).await;
        }
    }
    stream::iter(servers.iter().map(|server| bare.release(server))).buffer_unordered(CALLS).collect::<Vec<()>>().await;
    record("removal of the finalizer").await;
    kinds
}

fn is_ready(server: &Server) -> bool {
    let status = server.status.as_ref();
    status.is_some_and(|s| {
        s.state == Some(berth_core::api::State::Ready) && s.tasks.iter().all(|t| t.phase.is_finished())
    })
}

/// Parameters with the field manager of this controller.
fn patch_as(executor: Executor) -> PatchParams {
    PatchParams { field_manager: Some(executor.name().to_owned()), ..PatchParams::default() }
}

struct Bare<'a> {
    servers: BTreeMap<Executor, Api<Server>>,
    slices: Api<EndpointSlice>,
    model: &'a Server,
}

impl<'a> Bare<'a> {
    async fn new(berth: &Berth, model: &'a Server) -> Self {
        let mut servers = BTreeMap::new();
        for executor in Executor::CONTROLLERS {
            let client = berth.control_plane().service_account_client(BERTH_NAMESPACE, executor.name()).await.unwrap();
            servers.insert(executor, Api::namespaced(client, "bare"));
        }
        let slices = Api::namespaced(servers[&Executor::LbController].clone().into_client(), "bare");
        Self { servers, slices, model }
    }

    async fn create(&self, n: usize) -> Server {
        let (labels, finalizers) = (&self.model.metadata.labels, &self.model.metadata.finalizers);
        let metadata = json!({"name": format!("bare-{n}"), "labels": labels, "finalizers": finalizers});
        let server = Server { metadata: serde_json::from_value(metadata).unwrap(), status: None, ..self.model.clone() };
        let params =
            PostParams { field_manager: patch_as(Executor::ReplicasetController).field_manager, dry_run: false };
        self.servers[&Executor::ReplicasetController].create(&params, &server).await.unwrap()
    }

    /// Sends the writes of one Server one after another, so that each is based on the one before.
    async fn carry_out(&self, mut servers: Vec<Server>) -> (Vec<Server>, usize) {
        let (mut done, mut sent) = (Vec::new(), 0);
        while !servers.is_empty() {
            let steps = stream::iter(servers.into_iter().map(|server| self.step(server))).buffer_unordered(CALLS);
            let steps: Vec<(Server, bool)> = steps.collect().await;
            sent += steps.iter().filter(|(_, wrote)| *wrote).count();
            let (going_on, finished): (Vec<_>, Vec<_>) = steps.into_iter().partition(|(_, wrote)| *wrote);
            servers = going_on.into_iter().map(|(server, _)| server).collect();
            done.extend(finished.into_iter().map(|(server, _)| server));
        }
        (done, sent)
    }

    /// Sends the next write of a Server, if it has an open task.
    async fn step(&self, server: Server) -> (Server, bool) {
        let Some((executor, write, _)) = self.next(&server) else { return (server, false) };
        let patch = Patch::Json::<()>(write.into_patch());
        let written = self.servers[&executor].patch_status(&server.name_any(), &patch_as(executor), &patch).await;
        (written.unwrap(), true)
    }

    /// The next write of a Server, and what it does; none without an open task.
    fn next(&self, server: &Server) -> Option<(Executor, StatusWrite, String)> {
        if server.status.is_none() {
            let first = StatusWrite::new(server).claim(claim(Executor::ReplicasetController, 1));
            return Some((Executor::ReplicasetController, first, "first decision, claim of CreateMachine".to_owned()));
        }
        let open = Executor::CONTROLLERS.into_iter().flat_map(|executor| server.open_tasks(executor));
        let task = open.min_by_key(|task| task.id)?;
        let is_claim = task.kind.needs_lock() && task.phase == TaskPhase::Pending;
        let action = if is_claim { "claim of" } else { "report on" };
        Some((task.executor(), self.write(server, task), format!("{action} {}", task.kind)))
    }

    /// Claims a task, or reports on it and claims the next task of the same executor.
    fn write(&self, server: &Server, task: &Task) -> StatusWrite {
        let write = StatusWrite::new(server);
        if task.kind.needs_lock() && task.phase == TaskPhase::Pending {
            return write.claim(claim(task.executor(), task.id));
        }
        let report = Report {
            task_id: task.id,
            holder: holder(task.executor()),
            outcome: Outcome::Succeeded,
            message: "done as Berth would have done it".to_owned(),
            retry_after_seconds: None,
            successors: Vec::new(),
        };
        let write = self.facts(server, task, write).report(report);
        let tasks = server.status.as_ref().into_iter().flat_map(ServerStatus::current_tasks);
        let next = tasks.into_iter().find(|t| t.kind == TaskKind::InstallPackages && t.phase == TaskPhase::Pending);
        match next.filter(|_| task.kind == TaskKind::CreateMachine) {
            Some(next) => write.claim(claim(next.executor(), next.id)),
            None => write,
        }
    }

    fn facts(&self, server: &Server, task: &Task, write: StatusWrite) -> StatusWrite {
        let model = self.model.status.clone().unwrap();
        let traffic = |phase| model.traffic.clone().map(|fact| TrafficFact { phase, ..fact });
        match task.kind {
            TaskKind::CreateMachine => write.machine(model.machine),
            TaskKind::InstallPackages => write.environment(model.environment.unwrap()),
            TaskKind::RegisterBackend => write.traffic(traffic(TrafficPhase::Held)),
            TaskKind::DeployApp => write.app(model.app),
            TaskKind::CheckHealth => {
                let mut health = model.health.unwrap();
                health.epoch = server.status.as_ref().and_then(|status| status.epoch).unwrap();
                write.health(health).monitoring(model.monitoring)
            }
            TaskKind::ReleaseTraffic => write.traffic(traffic(TrafficPhase::Serving)),
            TaskKind::HoldTraffic if server.metadata.deletion_timestamp.is_none() => {
                write.traffic(traffic(TrafficPhase::Held))
            }
            TaskKind::HoldTraffic => write.traffic(None),
            TaskKind::UnbindMonitoring => write.monitoring(None),
            TaskKind::DestroyMachine => {
                write.machine(model.machine.map(|fact| MachineFact { phase: MachinePhase::Gone, ..fact }))
            }
            kind => panic!("no such task was expected: {kind}"),
        }
    }

    /// Two writes: the application of the model is declared, and the status write that asks for a decision.
    async fn declare_code(&self, server: &Server) -> Server {
        let patch = json!([{"op": "replace", "path": "/spec/app", "value": self.model.spec.app}]);
        let patch = Patch::Json::<()>(serde_json::from_value(patch).unwrap());
        let api = &self.servers[&Executor::DeploymentController];
        let by = patch_as(Executor::DeploymentController);
        self.acknowledge(&api.patch(&server.name_any(), &by, &patch).await.unwrap()).await
    }

    fn has_code(&self, server: &Server) -> bool {
        let deployed = |server: &Server| server.status.as_ref().and_then(|s| s.app.clone()).map(|app| app.revision);
        is_ready(server) && deployed(server) == deployed(self.model)
    }

    /// Two writes: the deletion, and the status write that asks for a decision.
    async fn retire(&self, server: &Server) -> Server {
        self.acknowledge(&self.delete(server).await).await
    }

    async fn delete(&self, server: &Server) -> Server {
        let api = &self.servers[&Executor::ReplicasetController];
        api.delete(&server.name_any(), &DeleteParams::default()).await.unwrap().left().unwrap()
    }

    async fn acknowledge(&self, leaving: &Server) -> Server {
        let patch = Patch::Json::<()>(StatusWrite::new(leaving).acknowledge().into_patch());
        let api = &self.servers[&Executor::ReplicasetController];
        api.patch_status(&leaving.name_any(), &patch_as(Executor::ReplicasetController), &patch).await.unwrap()
    }

    async fn release(&self, server: &Server) {
        let at = server.finalizers().iter().position(|f| f == FINALIZER).unwrap();
        let patch = json!([{"op": "remove", "path": format!("/metadata/finalizers/{at}")}]);
        let patch = Patch::Json::<()>(serde_json::from_value(patch).unwrap());
        let api = &self.servers[&Executor::ReplicasetController];
        api.patch(&server.name_any(), &patch_as(Executor::ReplicasetController), &patch).await.unwrap();
    }

    /// Makes as many writes of slices as Berth made, and returns their number.
    async fn slices(&self, writes: &Requests) -> usize {
        let total =
            ["POST", "PUT", "DELETE"].iter().map(|verb| writes.count(&format!("{verb} endpointslices"))).sum::<u64>();
        for n in 0..total {
            let name = format!("slice-{}", n % 4);
            let endpoints: Vec<_> =
                (0..ENDPOINTS).map(|i| json!({"addresses": [format!("a{i}-{n}.example.org")]})).collect();
            let slice = json!({"metadata": {"name": name}, "addressType": "FQDN", "endpoints": endpoints});
            let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
            if let Err(error) = self.slices.create(&PostParams::default(), &slice).await {
                assert!(matches!(&error, kube::Error::Api(status) if status.code == 409), "{error}");
                self.slices.replace(&name, &PostParams::default(), &slice).await.unwrap();
            }
        }
        usize::try_from(total).unwrap()
    }
}

fn holder(executor: Executor) -> String {
    format!("{executor}/bare")
}

fn claim(executor: Executor, task: i64) -> Claim {
    Claim { task_id: task, holder: holder(executor), duration_seconds: 600, again: false }
}
