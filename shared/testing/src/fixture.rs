//! A Server that is built in a few words, and written to through the rules that an API server applies.

use berth_core::{
    api::{
        Backend, Claim, Executor, Gate, GatePoint, HealthFact, HealthState, MonitoringFact, MonitoringPhase, Outcome,
        Server, ServerSpec, ServerStatus, State, Task, TaskKind, TaskPhase, TrafficPhase,
    },
    identity::Author,
    protocol::StatusWrite,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use serde_json::{Value, json};

use crate::{
    admission::{Denied, controller, created, holder, person, write_spec, write_status},
    clock::{LOCK, start},
    facts::{app, environment, facts_of, machine, report, traffic},
    objects::full_spec,
};

/// A Server and the time.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// The Server as it is stored.
    pub server: Server,
    /// The webhook's clock.
    pub now: Timestamp,
}

/// Declares a load balancer that registers the Server before it receives traffic.
pub fn register_first(spec: &mut ServerSpec) {
    let backend = Backend { class: Some("edge".into()), name: Some("web".into()), port: 8080, ..Backend::default() };
    spec.traffic.get_or_insert_default().backends.push(backend);
}

/// Building.
impl Fixture {
    /// A Server that declares everything but gates, before its first decision.
    pub fn new() -> Self {
        Self::declaring(|_| {})
    }

    /// The same with a changed declaration.
    pub fn declaring(change: impl FnOnce(&mut ServerSpec)) -> Self {
        let mut spec = full_spec();
        change(&mut spec);
        Self { server: created(spec), now: start() }
    }

    /// A Server that declares everything but gates, with a load balancer that registers it before it receives traffic.
    pub fn registering() -> Self {
        Self::declaring(register_first)
    }

    /// A Server that declares a machine and nothing else.
    pub fn bare() -> Self {
        let spec = json!({"machine": {"className": "local"}});
        Self { server: created(serde_json::from_value(spec).unwrap()), now: start() }
    }

    /// With a gate.
    pub fn gate(self, before: GatePoint) -> Self {
        self.spec(|spec| spec.gates.push(Gate { before }))
    }

    /// With another declaration, which no admission checks.
    pub fn spec(mut self, change: impl FnOnce(&mut ServerSpec)) -> Self {
        change(&mut self.server.spec);
        self.server.metadata.generation = self.server.metadata.generation.map(|g| g + 1);
        self
    }

    /// With other facts, which no admission checks.
    pub fn fact(mut self, change: impl FnOnce(&mut ServerStatus)) -> Self {
        change(self.server.status.get_or_insert_default());
        self
    }

    /// The machine runs.
    pub fn running(self) -> Self {
        self.fact(|status| status.machine = Some(machine("m1", "b1")))
    }

    /// The packages are installed.
    pub fn installed(self) -> Self {
        let fact = environment(&self.server.spec);
        self.fact(|status| status.environment = Some(fact))
    }

    /// The Server is registered.
    pub fn registered(self) -> Self {
        self.traffic(TrafficPhase::Held)
    }

    /// The Server is registered, in this phase.
    pub fn traffic(self, phase: TrafficPhase) -> Self {
        let fact = traffic(&self.server, phase);
        self.fact(|status| status.traffic = fact)
    }

    /// The application is deployed.
    pub fn deployed(self) -> Self {
        let fact = app(&self.server.spec);
        self.fact(|status| status.app = fact)
    }

    /// The application is healthy.
    pub fn healthy(self) -> Self {
        let since = Time(self.now);
        self.fact(|status| {
            let epoch = status.epoch.unwrap_or_default();
            status.health = Some(HealthFact { state: HealthState::Healthy, epoch, since, message: String::new() });
        })
    }

    /// The Server is a monitoring target.
    pub fn bound(self) -> Self {
        self.monitoring(MonitoringPhase::Bound)
    }

    /// The Server is a monitoring target in this phase.
    pub fn monitoring(self, phase: MonitoringPhase) -> Self {
        let fact = self.server.monitoring_digest().map(|digest| MonitoringFact { phase, digest });
        self.fact(|status| status.monitoring = fact)
    }

    /// Everything is as declared.
    pub fn all_right(self) -> Self {
        self.running().installed().deployed().healthy().traffic(TrafficPhase::Serving).bound()
    }

    /// In this state, without tasks, before the next decision.
    pub fn was(self, state: State) -> Self {
        self.fact(|status| {
            status.state = Some(state);
            status.first_task_id = Some(1);
        })
    }

    /// After the next decision.
    pub fn decided(mut self) -> Self {
        self.acknowledge();
        self
    }

    /// A Ready Server with no open tasks.
    pub fn ready() -> Self {
        let ready = Self::new().all_right().decided();
        assert_eq!((ready.state(), ready.steps().as_str()), (State::Ready, ""));
        ready
    }
}

/// Writing.
impl Fixture {
    /// A status write as this author.
    pub fn write_as(&mut self, author: &Author, build: impl FnOnce(StatusWrite) -> StatusWrite) -> Result<(), Denied> {
        let write = build(StatusWrite::new(&self.server));
        self.server = write_status(&self.server, write, author, self.now)?;
        Ok(())
    }

    /// A status write of a controller.
    pub fn write(&mut self, executor: Executor, build: impl FnOnce(StatusWrite) -> StatusWrite) -> Result<(), Denied> {
        self.write_as(&controller(executor), build)
    }

    /// The write that asks for a decision.
    pub fn acknowledge(&mut self) {
        self.write(Executor::ReplicasetController, StatusWrite::acknowledge).unwrap();
    }

    /// A write of the declaration or the metadata.
    pub fn update(&mut self, author: &Author, change: impl FnOnce(&mut Server)) -> Result<(), Denied> {
        let mut new = self.server.clone();
        change(&mut new);
        self.server = write_spec(&self.server, new, author, self.now)?;
        Ok(())
    }

    /// A person changes the declaration, and the webhook decides on it.
    pub fn declare(&mut self, change: impl FnOnce(&mut ServerSpec)) {
        self.update(&person("ann"), |server| change(&mut server.spec)).unwrap();
        self.acknowledge();
    }

    /// The deletion of the object is requested, and the webhook decides on it.
    pub fn delete(&mut self) {
        self.server.metadata.deletion_timestamp = Some(Time(self.now));
        self.server.metadata.generation = self.server.metadata.generation.map(|g| g + 1);
        self.acknowledge();
    }

    /// Time passes.
    pub fn advance(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// An instance of the task's executor claims it.
    pub fn claim(&mut self, kind: TaskKind, instance: &str) -> Result<(), Denied> {
        self.claim_for(kind, instance, LOCK)
    }

    /// The same, for this many seconds.
    pub fn claim_for(&mut self, kind: TaskKind, instance: &str, duration_seconds: i32) -> Result<(), Denied> {
        let executor = kind.executor();
        let claim =
            Claim { task_id: self.task(kind).id, holder: holder(executor, instance), duration_seconds, again: false };
        self.write(executor, |write| write.claim(claim))
    }

    /// An instance of the task's executor reports on it, without facts.
    pub fn report(&mut self, kind: TaskKind, instance: &str, outcome: Outcome) -> Result<(), Denied> {
        self.report_with(kind, instance, outcome, |write| write)
    }

    /// An instance of the task's executor reports on it, with facts.
    pub fn report_with(
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

    /// The task is carried out and reported with its facts.
    pub fn perform(&mut self, kind: TaskKind) {
        if kind.needs_lock() {
            self.claim(kind, "a").unwrap();
        }
        let server = self.server.clone();
        let boot = format!("b{}", server.status.as_ref().unwrap().last_task_id.unwrap());
        self.report_with(kind, "a", Outcome::Succeeded, |write| facts_of(kind, &server, &boot, write)).unwrap();
    }

    /// Carries out open tasks until none is left.
    pub fn perform_all(&mut self) {
        for _ in 0..50 {
            let open: Option<TaskKind> =
                self.status().tasks.iter().find(|task| self.server.is_open(task)).map(|task| task.kind);
            match open {
                Some(kind) => self.perform(kind),
                None => return,
            }
        }
        panic!("tasks never end: {}", self.steps());
    }
}

/// Reading.
impl Fixture {
    /// The status.
    pub fn status(&self) -> &ServerStatus {
        self.server.status.as_ref().unwrap()
    }

    /// The state.
    pub fn state(&self) -> State {
        self.status().state.unwrap()
    }

    /// The newest task of this kind.
    pub fn task(&self, kind: TaskKind) -> &Task {
        let found = self.status().tasks.iter().rfind(|task| task.kind == kind);
        found.unwrap_or_else(|| panic!("no task {kind} in {}", self.steps()))
    }

    /// The phase of the newest task of this kind.
    pub fn phase(&self, kind: TaskKind) -> TaskPhase {
        self.task(kind).phase
    }

    /// The unfinished tasks of the current state in steps: `HoldTraffic > Gate(DeployApp) > DeployApp > A + B`.
    pub fn steps(&self) -> String {
        let mut tasks: Vec<&Task> = self.status().current_tasks().filter(|task| !task.phase.is_finished()).collect();
        tasks.sort_by_key(|task| (task.step, task.id));
        let name = |task: &&Task| task.gate.map_or(task.kind.to_string(), |point| format!("Gate({point})"));
        let steps = tasks.chunk_by(|a, b| a.step == b.step);
        steps.map(|step| step.iter().map(name).collect::<Vec<_>>().join(" + ")).collect::<Vec<_>>().join(" > ")
    }

    /// Status, reason and message of a condition.
    pub fn condition(&self, kind: &str) -> (String, String, String) {
        let Some(condition) = berth_core::conditions::get(&self.status().conditions, kind) else {
            return ("False".to_owned(), String::new(), String::new());
        };
        (condition.status.clone(), condition.reason.clone(), condition.message.clone())
    }

    /// What it waits for.
    pub fn waiting_for(&self) -> &str {
        self.status().waiting_for.as_deref().unwrap_or_default()
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        serde_json::to_value(&self.server).unwrap()
    }
}
