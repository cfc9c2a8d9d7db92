//! Where a story is played: a world with one fleet, the programs, and the people who act.

use std::{
    cell::{Cell, RefCell},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use berth_core::{
    api::{MachineClass, Server, VMDeployment},
    conditions::{self, READY, RECONCILING, STALLED},
};
use berth_sim::{Dice, Faults, MachineFaults, Program, ProgramCopy, World};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    chronicle::{Chronicle, FIRST_PACKAGE},
    golden,
};

/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_mins(40);
/// How often the world is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long nothing must have changed for a story to be over.
const QUIET: Duration = Duration::from_mins(1);
/// How many seconds a person needs to see what has happened.
const MOMENT: u64 = 5;
/// How long programs that are started anew are watched.
const ANEW: Duration = Duration::from_secs(40);

/// In which order things happen.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    seed: u64,
    copies: usize,
    faults: Faults,
    /// After how many writes the copy that sends the next one crashes, and whether that one takes effect.
    crash: Option<(u64, bool)>,
}

impl Course {
    /// Nothing is late, and nothing goes wrong by itself.
    pub(crate) fn fixed() -> Self {
        Self { seed: 1, copies: 1, faults: Faults::default(), crash: None }
    }

    /// The same with a crash at this write.
    pub(crate) fn with_crash(after: u64, takes_effect: bool) -> Self {
        Self { crash: Some((after, takes_effect)), ..Self::fixed() }
    }

    /// Two copies of each controller; messages, watches and scripts take their time, and a copy crashes at some write.
    pub(crate) fn drawn(seed: u64) -> Self {
        let dice = Dice::new(seed);
        let machines =
            MachineFaults { script_time: Duration::from_secs(dice.pick(&[1, 4])), ..MachineFaults::default() };
        let faults = Faults {
            lost_answers: 0.01,
            repeats: 0.1,
            conflicts: 0.1,
            latency: Duration::from_millis(dice.pick(&[20, 500])),
            broken_watches: 0.3,
            watch_delay: Duration::from_secs(dice.pick(&[1, 4])),
            machines,
            ..Faults::default()
        };
        let writes = u64::try_from(dice.between(0, 250)).unwrap();
        Self { seed, copies: 2, faults, crash: Some((writes, dice.chance(0.5))) }
    }

    /// Whether it is told as it is accepted, with its times.
    fn is_fixed(&self) -> bool {
        self.copies == 1 && self.crash.is_none()
    }
}

/// A story, and who plays it.
pub(crate) struct Stage {
    name: String,
    pub(crate) world: World,
    ann: Client,
    course: Course,
    copies: RefCell<Vec<(Program, ProgramCopy)>>,
    chronicle: RefCell<Chronicle>,
    started: Cell<usize>,
    requests: Cell<usize>,
}

/// Tells a story in the fixed order, and compares it with its log; then in others, whose end has to be the same.
pub(crate) fn story<T: AsyncFn(&Stage) + Copy + Send>(name: &str, about: &str, drawn: &[u64], tale: T) {
    let tell = |course: Course| play(name, about, course, tale);
    let told = tell(Course::fixed());
    golden::compare(name, &told);
    let end = golden::accepted_end(name);
    for seed in drawn.iter().copied().chain(more_seeds()) {
        let course = Course::drawn(seed);
        let otherwise = tell(course.clone());
        assert_eq!(golden::end_of(&otherwise), end, "the story {name} ends otherwise with {course:?}:\n{otherwise}");
    }
    for (write, takes_effect) in more_crashes() {
        let otherwise = tell(Course::with_crash(write, takes_effect));
        assert_eq!(
            golden::end_of(&otherwise),
            end,
            "{name} ends otherwise with a crash at write {write}:\n{otherwise}"
        );
    }
}

/// `BERTH_STORY_SEEDS=1000..1100` tells each story in as many more orders.
fn more_seeds() -> std::ops::Range<u64> {
    range("BERTH_STORY_SEEDS")
}

/// `BERTH_STORY_CRASHES=0..300` lets a copy crash at each of these writes, before and after it takes effect.
fn more_crashes() -> impl Iterator<Item = (u64, bool)> {
    range("BERTH_STORY_CRASHES").flat_map(|write| [(write, false), (write, true)])
}

fn range(name: &str) -> std::ops::Range<u64> {
    let text = std::env::var(name).unwrap_or_default();
    text.split_once("..").map_or(0..0, |(from, to)| from.parse().unwrap()..to.parse().unwrap())
}

fn play<T: AsyncFn(&Stage) + Send>(name: &str, about: &str, course: Course, tale: T) -> String {
    World::run(course.seed, course.faults.clone(), move |world| async move {
        let stage = Stage::open(name, world, course);
        tale(&stage).await;
        stage.close(about).await
    })
}

impl Stage {
    fn open(name: &str, world: World, course: Course) -> Self {
        let stage = Self {
            name: name.to_owned(),
            ann: world.person("ann"),
            world,
            copies: RefCell::default(),
            chronicle: RefCell::default(),
            started: Cell::new(0),
            requests: Cell::new(0),
            course,
        };
        if let Some((after, takes_effect)) = stage.course.crash {
            stage.world.crash_at_write(after, takes_effect);
        }
        for program in Program::ALL {
            (0..stage.course.copies).for_each(|_| stage.start(program));
        }
        stage
    }

    fn start(&self, program: Program) {
        self.started.set(self.started.get() + 1);
        let copy = self.world.start(program, &format!("copy-{}", self.started.get())).unwrap();
        self.copies.borrow_mut().push((program, copy));
    }

    /// Declares a class of machines that boot in 20 s, a Service, and the VMDeployment `web` with revision v1. Returns when all
    /// Servers serve. `rest` is what the declaration has besides.
    pub(crate) async fn declare(&self, replicas: usize, rest: Value) {
        let (params, client) = (PostParams::default(), self.ann.clone());
        let class = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "MachineClass", "metadata": {"name": "small"},
            "spec": {"provider": "simulated", "access": {"user": "berth", "port": 22, "root": "opt/berth"},
                     "parameters": {"boot": {"uniformMs": [20000, 20000]}}}});
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
                             "spec": {"ports": [{"name": "http", "port": 80}]}});
        Api::<MachineClass>::all(client.clone()).create(&params, &object(class)).await.unwrap();
        Api::<Service>::default_namespaced(client.clone()).create(&params, &object(service)).await.unwrap();
        let mut spec = json!({
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "app": app("v1"),
            "updateStrategy": {"maxUnavailable": 1},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "machine": {"className": "small"}, "packages": packages(FIRST_PACKAGE),
                "traffic": {"backends": [{"service": "web", "port": 80, "portName": "http"}], "drain": {"seconds": 6}},
                "healthCheck": {"httpGet": {"port": 80, "path": "/"}, "periodSeconds": 2, "deadlineSeconds": 30},
                "reachability": {"periodSeconds": 2, "timeoutSeconds": 1, "unreachableAfterSeconds": 6}}},
        });
        json_patch::merge(&mut spec, &rest);
        let deployment = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "VMDeployment", "metadata": {"name": "web"}, "spec": spec});
        Api::<VMDeployment>::default_namespaced(client).create(&params, &object(deployment)).await.unwrap();
        self.tell("ann", format!("declares {replicas} Servers with v1"));
        self.until("all Servers serve", |now| now.is_ready_with("v1")).await;
    }

    /// A person changes the declaration, who needs a moment for it.
    pub(crate) async fn ann(&self, words: &str, spec: Value) {
        self.later(MOMENT).await;
        self.tell("ann", words);
        let patch = Patch::Merge(json!({"spec": spec}));
        let deployments: Api<VMDeployment> = Api::default_namespaced(self.ann.clone());
        deployments.patch("web", &PatchParams::default(), &patch).await.unwrap();
    }

    /// A person declares this revision.
    pub(crate) async fn declares(&self, revision: &str) {
        self.ann(&format!("declares {revision}"), json!({"app": app(revision)})).await;
    }

    /// A person makes a request.
    pub(crate) async fn requests(&self, action: &str, reason: &str) {
        self.requests.set(self.requests.get() + 1);
        let request = json!({"action": action, "id": format!("request-{}", self.requests.get()), "reason": reason});
        self.ann(&format!("requests {action}: {reason}"), json!({"rollout": {"request": request}})).await;
    }

    /// A person labels a Server.
    pub(crate) async fn labels(&self, server: &str, label: &str, value: &str) {
        let patch = Patch::Merge(json!({"metadata": {"labels": {label: value}}}));
        let servers: Api<Server> = Api::default_namespaced(self.ann.clone());
        servers.patch(server, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Something happens that nobody has declared.
    pub(crate) fn happens(&self, words: &str, what: impl FnOnce(&World)) {
        self.tell("-", words);
        what(&self.world);
    }

    /// Waits until this is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Now) -> bool) {
        let begun = Instant::now();
        while !self.look(&is_so) {
            if begun.elapsed() > PATIENCE {
                self.fail(&format!("{} min are too short for this: {what}", PATIENCE.as_secs() / 60));
            }
            sleep(LOOK).await;
        }
    }

    /// Lets time pass.
    pub(crate) async fn later(&self, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            self.look(&|_| true);
            sleep(LOOK).await;
        }
    }

    /// All programs are started anew, and find everything as it is: they have nothing to write.
    pub(crate) async fn starts_anew(&self) {
        if !self.course.is_fixed() {
            return;
        }
        self.later(10).await;
        let before = self.world.writes();
        for (program, copy) in self.copies.take() {
            copy.crash();
            self.start(program);
        }
        self.later(ANEW.as_secs()).await;
        let written = self.world.writes() - before;
        if written > 0 {
            self.fail(&format!("programs that were started anew find everything as it is, and write {written} times"));
        }
    }

    /// Looks at the world: judges, the chronicle, copies that have crashed. Says whether something is so.
    fn look(&self, is_so: &impl Fn(&Now) -> bool) -> bool {
        if let Some(finding) = self.world.verdict() {
            self.fail(&finding.to_string());
        }
        self.chronicle.borrow_mut().look(&self.world);
        let ended: Vec<usize> = {
            let copies = self.copies.borrow();
            copies.iter().enumerate().filter(|(_, (_, copy))| copy.has_ended()).map(|(number, _)| number).collect()
        };
        for number in ended.into_iter().rev() {
            let (program, copy) = self.copies.borrow_mut().remove(number);
            copy.crash();
            self.start(program);
        }
        is_so(&Now::of(&self.world))
    }

    fn tell(&self, subject: &str, text: impl Into<String>) {
        self.chronicle.borrow_mut().tell(self.world.api().elapsed(), subject, text);
    }

    /// Ends the story because something is wrong, and writes down every request.
    fn fail(&self, what: &str) -> ! {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.log", self.name));
        std::fs::write(&file, self.world.api().log().join("\n")).unwrap();
        let chronicle = self.chronicle.borrow();
        let told = golden::written("", &chronicle.lines(), &chronicle.present());
        panic!("{what}\nwith {:?}\n{told}\nEvery request is in {}.", self.course, file.display());
    }

    /// Waits until everything has come to rest, and returns what was told.
    async fn close(&self, about: &str) -> String {
        self.world.end_faults();
        self.until("everything rests", |_| self.chronicle.borrow().quiet_since() + QUIET < self.world.api().elapsed())
            .await;
        self.starts_anew().await;
        let chronicle = self.chronicle.borrow();
        golden::written(about, &chronicle.lines(), &chronicle.present())
    }
}

/// How the fleet is at a moment.
pub(crate) struct Now {
    deployment: Option<Arc<VMDeployment>>,
    servers: Vec<Arc<Server>>,
    /// What runs on the machines.
    running: Vec<Option<String>>,
}

impl Now {
    fn of(world: &World) -> Self {
        let servers = world.servers();
        let running = servers.iter().map(|server| world.running_revision(server.uid())).collect();
        Self { deployment: world.deployments().into_iter().next(), servers, running }
    }

    /// The reason of the condition that is True, once a controller has seen the newest declaration.
    pub(crate) fn reason(&self) -> String {
        let Some(deployment) = &self.deployment else { return String::new() };
        let Some(status) = &deployment.status else { return String::new() };
        if status.observed_generation != deployment.metadata.generation {
            return String::new();
        }
        let find = |kind| conditions::get_true(&status.conditions, kind).map(|condition| condition.reason.clone());
        [STALLED, RECONCILING, READY].into_iter().find_map(find).unwrap_or_default()
    }

    /// Whether everything is as declared, and this revision is the stable one.
    pub(crate) fn is_ready_with(&self, revision: &str) -> bool {
        let Some(status) = self.deployment.as_ref().and_then(|deployment| deployment.status.as_ref()) else {
            return false;
        };
        let is_ready = conditions::get_true(&status.conditions, READY).is_some();
        is_ready && !self.reason().is_empty() && status.stable_revision.as_deref() == Some(revision)
    }

    /// The step that has its turn; 0 when there is none.
    pub(crate) fn step(&self) -> i32 {
        let status = self.deployment.as_ref().and_then(|deployment| deployment.status.as_ref());
        status.and_then(|status| status.rollout.as_ref()?.current_step).unwrap_or_default()
    }

    /// On how many machines this revision runs.
    pub(crate) fn running(&self, revision: &str) -> usize {
        self.running.iter().filter(|running| running.as_deref() == Some(revision)).count()
    }

    /// How many Servers there are.
    pub(crate) fn servers(&self) -> usize {
        self.servers.len()
    }

    /// The UID of a Server.
    pub(crate) fn uid(&self, name: &str) -> String {
        self.servers.iter().find(|server| server.name() == name).unwrap().uid().to_owned()
    }
}

/// How the fleet is now.
pub(crate) fn now(stage: &Stage) -> Now {
    Now::of(&stage.world)
}

/// The declaration of this revision.
pub(crate) fn app(revision: &str) -> Value {
    let artifact = json!({"url": format!("http://a/{revision}.tar"), "sha256": "ab".repeat(32)});
    json!({"name": "web", "revision": revision, "command": "./run", "artifact": artifact})
}

/// The declaration of this version of a package.
pub(crate) fn packages(version: &str) -> Value {
    json!([{"name": "jq", "version": version, "apt": {}}])
}

fn object<K: serde::de::DeserializeOwned>(document: Value) -> K {
    serde_json::from_value(document).unwrap()
}
