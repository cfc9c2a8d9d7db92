//! A Server in a test: built in a few words, written to as an API server would have it written to.
#![allow(dead_code, reason = "each test binary uses its part")]

use berth_core::{
    api::{
        AppFact, Claim, EnvironmentFact, Executor, Gate, GatePoint, HealthFact, HealthState, InstalledPackage,
        MachineFact, MachinePhase, MonitoringFact, MonitoringPhase, Outcome, ReachabilityFact, Report, Server,
        ServerSpec, ServerStatus, State, Task, TaskKind, TaskPhase, TrafficFact, TrafficPhase,
    },
    identity::{Author, Identities},
    lifecycle::{Refusal, RefusalReason, admit_create, admit_status, admit_update, current_tasks, monitoring_digest},
    protocol::StatusWrite,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use serde_json::{Value, json};

/// Seconds for which locks are taken.
pub(crate) const LOCK: i32 = 30;

/// When every test begins.
pub(crate) fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// The user that a controller is.
pub(crate) fn controller(executor: Executor) -> Author {
    Author::new(Identities::default().username(executor))
}

/// A person.
pub(crate) fn person(name: &str) -> Author {
    Author::new(name)
}

/// `<executor>/<instance>`.
pub(crate) fn holder(executor: Executor, instance: &str) -> String {
    format!("{executor}/{instance}")
}

/// Why a write came to nothing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Denied {
    /// A `test` of its patch failed.
    Stale,
    /// Admission refused it.
    Refused(Refusal),
}

/// Field and reason of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, Denied>) -> (String, RefusalReason) {
    match result {
        Err(Denied::Refused(refusal)) => (refusal.field, refusal.reason),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// The reason of a refusal.
pub(crate) fn reason<T: std::fmt::Debug>(result: Result<T, Denied>) -> RefusalReason {
    refusal(result).1
}

/// What an API server stores of an object: what its JSON says.
pub(crate) fn stored(server: &Server) -> Server {
    serde_json::from_value(serde_json::to_value(server).unwrap()).unwrap()
}

/// What an API server does with a status write: the patch, the webhook, and only the status of the outcome.
pub(crate) fn write_status(
    old: &Server,
    write: StatusWrite,
    author: &Author,
    now: Timestamp,
) -> Result<Server, Denied> {
    let mut json = serde_json::to_value(old).unwrap();
    json_patch::patch(&mut json, &write.into_patch()).map_err(|_| Denied::Stale)?;
    let new: Server = serde_json::from_value(json).unwrap();
    let admitted = admit_status(old, new, author, &Identities::default(), now).map_err(Denied::Refused)?;
    Ok(stored(&Server { status: admitted.status, ..old.clone() }))
}

/// What an API server does with a write of the declaration: the webhook, and a new generation where it changed.
pub(crate) fn write_spec(old: &Server, new: Server, author: &Author, now: Timestamp) -> Result<Server, Denied> {
    let mut new = admit_update(old, new, author, &Identities::default(), now).map_err(Denied::Refused)?;
    new.status.clone_from(&old.status);
    if new.spec != old.spec {
        new.metadata.generation = Some(old.metadata.generation.unwrap_or(0) + 1);
    }
    Ok(stored(&new))
}

/// A declaration with everything but gates.
pub(crate) fn full_spec() -> ServerSpec {
    serde_json::from_value(json!({
        "machine": {"className": "local"},
        "packages": [{"name": "runtime", "version": "1.0",
            "archive": {"url": "http://a.example/r.tgz", "sha256": "a".repeat(64)}}],
        "app": {"name": "web", "revision": "r1", "command": "./run",
            "artifact": {"url": "http://a.example/w.tgz", "sha256": "b".repeat(64)}},
        "healthCheck": {"httpGet": {"port": 8080}},
        "traffic": {"services": [{"name": "web", "port": 8080}]},
        "monitoring": {"port": 9100},
        "taskAttempts": 3
    }))
    .unwrap()
}

/// A Server that declares this, as it was created.
pub(crate) fn created(spec: ServerSpec) -> Server {
    let mut server = Server::new("web-0", spec);
    server.metadata.namespace = Some("default".into());
    server.metadata.uid = Some("uid-1".into());
    server.metadata.resource_version = Some("1".into());
    server.metadata.generation = Some(1);
    stored(&admit_create(server, &controller(Executor::ReplicasetController), start()).unwrap())
}

/// The fact about a machine that runs.
pub(crate) fn machine(id: &str, boot: &str) -> MachineFact {
    MachineFact {
        phase: MachinePhase::Running,
        id: Some(id.into()),
        address: Some("127.1.0.1".into()),
        ssh: None,
        boot_id: Some(boot.into()),
        created_at: None,
    }
}

/// The fact about a machine in this phase of which nothing else is known.
pub(crate) fn machine_phase(phase: MachinePhase) -> MachineFact {
    MachineFact { phase, id: None, address: None, ssh: None, boot_id: None, created_at: None }
}

/// The fact about packages as they are declared.
pub(crate) fn environment(spec: &ServerSpec) -> EnvironmentFact {
    let installed = spec.packages.iter().map(|package| InstalledPackage {
        name: package.name.clone(),
        version: package.version.clone(),
        sha256: package.sha256().map(str::to_owned),
    });
    EnvironmentFact { verified: true, packages: installed.collect() }
}

/// The fact about code as it is declared.
pub(crate) fn app(spec: &ServerSpec) -> Option<AppFact> {
    spec.app.as_ref().map(|app| AppFact { revision: app.effective_revision(), verified: true, deployed_at: None })
}

/// The fact about traffic as it is declared.
pub(crate) fn traffic(server: &Server, phase: TrafficPhase) -> Option<TrafficFact> {
    let declared = server.spec.traffic.as_ref()?;
    Some(TrafficFact {
        phase,
        services: declared.services.clone(),
        haproxy: declared.haproxy.clone(),
        address: server.status.as_ref().and_then(|status| status.machine.as_ref()?.address.clone()),
    })
}

/// The fact about a machine that has not answered for this many seconds.
pub(crate) fn unreachable(seconds: i64, now: Timestamp) -> ReachabilityFact {
    ReachabilityFact {
        reachable: false,
        since: Time(now - SignedDuration::from_secs(seconds)),
        observed_at: Time(now),
        message: "no answer".into(),
    }
}

/// A Server and the time.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    /// As it is stored.
    pub(crate) server: Server,
    /// The webhook's clock.
    pub(crate) now: Timestamp,
}

/// Building.
impl Fixture {
    /// A Server that declares everything but gates, and was never decided upon.
    pub(crate) fn new() -> Self {
        Self::declaring(|_| {})
    }

    /// The same with changes.
    pub(crate) fn declaring(change: impl FnOnce(&mut ServerSpec)) -> Self {
        let mut spec = full_spec();
        change(&mut spec);
        Self { server: created(spec), now: start() }
    }

    /// A Server that declares a machine and nothing else.
    pub(crate) fn bare() -> Self {
        let spec = json!({"machine": {"className": "local"}});
        Self { server: created(serde_json::from_value(spec).unwrap()), now: start() }
    }

    /// With a gate.
    pub(crate) fn gate(self, before: GatePoint) -> Self {
        self.spec(|spec| spec.gates.push(Gate { before, policy: None }))
    }

    /// With another declaration, past every check.
    pub(crate) fn spec(mut self, change: impl FnOnce(&mut ServerSpec)) -> Self {
        change(&mut self.server.spec);
        self.server.metadata.generation = self.server.metadata.generation.map(|g| g + 1);
        self
    }

    /// With other facts, past every check.
    pub(crate) fn fact(mut self, change: impl FnOnce(&mut ServerStatus)) -> Self {
        change(self.server.status.get_or_insert_default());
        self
    }

    /// The machine runs.
    pub(crate) fn running(self) -> Self {
        self.fact(|status| status.machine = Some(machine("m1", "b1")))
    }

    /// The packages are there.
    pub(crate) fn installed(self) -> Self {
        let fact = environment(&self.server.spec);
        self.fact(|status| status.environment = Some(fact))
    }

    /// The load balancers know it.
    pub(crate) fn registered(self) -> Self {
        self.traffic(TrafficPhase::Held)
    }

    /// The load balancers know it like this.
    pub(crate) fn traffic(self, phase: TrafficPhase) -> Self {
        let fact = traffic(&self.server, phase);
        self.fact(|status| status.traffic = fact)
    }

    /// The code is there.
    pub(crate) fn deployed(self) -> Self {
        let fact = app(&self.server.spec);
        self.fact(|status| status.app = fact)
    }

    /// The application is well.
    pub(crate) fn healthy(self) -> Self {
        let since = Time(self.now);
        self.fact(|status| {
            let epoch = status.epoch.unwrap_or_default();
            status.health = Some(HealthFact { state: HealthState::Healthy, epoch, since, message: String::new() });
        })
    }

    /// It is watched.
    pub(crate) fn bound(self) -> Self {
        self.monitoring(MonitoringPhase::Bound)
    }

    /// It is watched like this.
    pub(crate) fn monitoring(self, phase: MonitoringPhase) -> Self {
        let fact = monitoring_digest(&self.server).map(|digest| MonitoringFact { phase, digest });
        self.fact(|status| status.monitoring = fact)
    }

    /// Everything is as declared.
    pub(crate) fn all_right(self) -> Self {
        self.running().installed().deployed().healthy().traffic(TrafficPhase::Serving).bound()
    }

    /// In this state (with no tasks), before the next decision.
    pub(crate) fn was(self, state: State) -> Self {
        self.fact(|status| {
            status.state = Some(state);
            status.first_task_id = Some(1);
        })
    }

    /// Decided upon.
    pub(crate) fn decided(mut self) -> Self {
        self.acknowledge();
        self
    }

    /// Everything is as declared, and it is Ready with nothing to do.
    pub(crate) fn ready() -> Self {
        let ready = Self::new().all_right().decided();
        assert_eq!((ready.state(), ready.steps().as_str()), (State::Ready, ""));
        ready
    }
}

/// Writing.
impl Fixture {
    /// A status write as this author.
    pub(crate) fn write_as(
        &mut self,
        author: &Author,
        build: impl FnOnce(StatusWrite) -> StatusWrite,
    ) -> Result<(), Denied> {
        let write = build(StatusWrite::new(&self.server));
        self.server = write_status(&self.server, write, author, self.now)?;
        Ok(())
    }

    /// A status write of a controller.
    pub(crate) fn write(
        &mut self,
        executor: Executor,
        build: impl FnOnce(StatusWrite) -> StatusWrite,
    ) -> Result<(), Denied> {
        self.write_as(&controller(executor), build)
    }

    /// The write that asks for a decision.
    pub(crate) fn acknowledge(&mut self) {
        self.write(Executor::ReplicasetController, StatusWrite::acknowledge).unwrap();
    }

    /// A write of the declaration or the metadata.
    pub(crate) fn update(&mut self, author: &Author, change: impl FnOnce(&mut Server)) -> Result<(), Denied> {
        let mut new = self.server.clone();
        change(&mut new);
        self.server = write_spec(&self.server, new, author, self.now)?;
        Ok(())
    }

    /// A person declares something, and it is decided upon.
    pub(crate) fn declare(&mut self, change: impl FnOnce(&mut ServerSpec)) {
        self.update(&person("ann"), |server| change(&mut server.spec)).unwrap();
        self.acknowledge();
    }

    /// Somebody asks for the object's deletion, and it is decided upon.
    pub(crate) fn delete(&mut self) {
        self.server.metadata.deletion_timestamp = Some(Time(self.now));
        self.server.metadata.generation = self.server.metadata.generation.map(|g| g + 1);
        self.acknowledge();
    }

    /// Time passes.
    pub(crate) fn advance(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// An instance of the task's executor claims it.
    pub(crate) fn claim(&mut self, kind: TaskKind, instance: &str) -> Result<(), Denied> {
        self.claim_for(kind, instance, LOCK)
    }

    /// The same for so many seconds.
    pub(crate) fn claim_for(&mut self, kind: TaskKind, instance: &str, duration_seconds: i32) -> Result<(), Denied> {
        let executor = kind.executor();
        let claim = Claim { task_id: self.task(kind).id, holder: holder(executor, instance), duration_seconds };
        self.write(executor, |write| write.claim(claim))
    }

    /// An instance of the task's executor reports on it, without facts.
    pub(crate) fn report(&mut self, kind: TaskKind, instance: &str, outcome: Outcome) -> Result<(), Denied> {
        self.report_with(kind, instance, outcome, |write| write)
    }

    /// An instance of the task's executor reports on it, with facts.
    pub(crate) fn report_with(
        &mut self,
        kind: TaskKind,
        instance: &str,
        outcome: Outcome,
        facts: impl FnOnce(StatusWrite) -> StatusWrite,
    ) -> Result<(), Denied> {
        let executor = match kind.executor() {
            Executor::Person => Executor::ReplicasetController,
            other => other,
        };
        let report = report(self.task(kind), &holder(executor, instance), outcome);
        self.write(executor, |write| facts(write).report(report))
    }

    /// The task is carried out, and the facts say so.
    pub(crate) fn perform(&mut self, kind: TaskKind) {
        if kind.needs_lock() {
            self.claim(kind, "a").unwrap();
        }
        let server = self.server.clone();
        let boot = format!("b{}", server.status.as_ref().unwrap().last_task_id.unwrap());
        self.report_with(kind, "a", Outcome::Succeeded, |write| outcome_of(kind, &server, &boot, write)).unwrap();
    }

    /// Every task that opens is carried out, until none is open.
    pub(crate) fn perform_all(&mut self) {
        for _ in 0..50 {
            let open: Option<TaskKind> = self
                .status()
                .tasks
                .iter()
                .find(|task| berth_core::lifecycle::is_open(&self.server, task))
                .map(|task| task.kind);
            match open {
                Some(kind) => self.perform(kind),
                None => return,
            }
        }
        panic!("it never comes to rest: {}", self.steps());
    }
}

/// The facts that carrying this task out brings about.
pub(crate) fn outcome_of(kind: TaskKind, server: &Server, boot: &str, write: StatusWrite) -> StatusWrite {
    let status = server.status.as_ref().unwrap();
    match kind {
        TaskKind::CreateMachine => write.machine(Some(machine("m1", boot))),
        TaskKind::RebootMachine => {
            write.machine(status.machine.clone().map(|m| MachineFact { boot_id: Some(boot.into()), ..m }))
        }
        TaskKind::DestroyMachine => write.machine(Some(machine_phase(MachinePhase::Gone))),
        TaskKind::InstallPackages => write.environment(environment(&server.spec)),
        TaskKind::DeployApp => write.app(app(&server.spec)),
        TaskKind::RegisterBackend => write.traffic(traffic(server, TrafficPhase::Held)),
        TaskKind::HoldTraffic => {
            write.traffic(status.traffic.clone().map(|t| TrafficFact { phase: TrafficPhase::Held, ..t }))
        }
        TaskKind::ReleaseTraffic => write.traffic(traffic(server, TrafficPhase::Serving)),
        TaskKind::RemoveBackend => write.traffic(None),
        TaskKind::CheckHealth => write.health(HealthFact {
            state: HealthState::Healthy,
            epoch: status.epoch.unwrap(),
            since: Time(start()),
            message: String::new(),
        }),
        TaskKind::BindMonitoring => write.monitoring(
            monitoring_digest(server).map(|digest| MonitoringFact { phase: MonitoringPhase::Bound, digest }),
        ),
        TaskKind::PauseMonitoring => {
            write.monitoring(status.monitoring.clone().map(|m| MonitoringFact { phase: MonitoringPhase::Paused, ..m }))
        }
        TaskKind::UnbindMonitoring => write.monitoring(None),
        TaskKind::AwaitRecovery => write.reachability(ReachabilityFact {
            reachable: true,
            since: Time(start()),
            observed_at: Time(start()),
            message: String::new(),
        }),
        TaskKind::Gate => write,
    }
}

/// A report on a task.
pub(crate) fn report(task: &Task, holder: &str, outcome: Outcome) -> Report {
    Report {
        task_id: task.id,
        holder: holder.to_owned(),
        outcome,
        message: format!("{outcome:?}"),
        retry_after_seconds: None,
    }
}

/// Reading.
impl Fixture {
    /// The status.
    pub(crate) fn status(&self) -> &ServerStatus {
        self.server.status.as_ref().unwrap()
    }

    /// The state.
    pub(crate) fn state(&self) -> State {
        self.status().state.unwrap()
    }

    /// The newest task of this kind.
    pub(crate) fn task(&self, kind: TaskKind) -> &Task {
        let found = self.status().tasks.iter().rfind(|task| task.kind == kind);
        found.unwrap_or_else(|| panic!("no task {kind} in {}", self.steps()))
    }

    /// The phase of the newest task of this kind.
    pub(crate) fn phase(&self, kind: TaskKind) -> TaskPhase {
        self.task(kind).phase
    }

    /// The unfinished tasks of the current state in steps: `HoldTraffic > Gate(DeployApp) > DeployApp > A + B`.
    pub(crate) fn steps(&self) -> String {
        let mut tasks: Vec<&Task> = current_tasks(self.status()).filter(|task| !task.phase.is_finished()).collect();
        tasks.sort_by_key(|task| (task.step, task.id));
        let mut out = String::new();
        let mut step = 0;
        for task in tasks {
            out.push_str(match step {
                0 => "",
                step if step == task.step => " + ",
                _ => " > ",
            });
            step = task.step;
            match task.gate {
                Some(point) => out.push_str(&format!("Gate({point})")),
                None => out.push_str(&task.kind.to_string()),
            }
        }
        out
    }

    /// Status, reason and message of a condition.
    pub(crate) fn condition(&self, kind: &str) -> (String, String, String) {
        let condition = berth_core::conditions::get(&self.status().conditions, kind).unwrap();
        (condition.status.clone(), condition.reason.clone(), condition.message.clone())
    }

    /// What it waits for.
    pub(crate) fn waiting_for(&self) -> &str {
        self.status().waiting_for.as_deref().unwrap_or_default()
    }

    /// As JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::to_value(&self.server).unwrap()
    }
}
