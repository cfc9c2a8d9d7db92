//! Many whole lives of Servers: to measure what the simulation costs, and to see what large fleets do.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use berth_core::api::{MachineClass, Server, State, VMDeployment};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{Dice, Faults, Program, ProgramCopy, World, people::create, ports::APP_PORT};

/// Name of everything that is declared.
const NAME: &str = "web";
/// How often the fleet is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The longest that one chapter of the lives may take, in the time of the world.
const PATIENCE: Duration = Duration::from_hours(24);
/// The mean time between two crashes of copies.
const CRASH_INTERVAL: Duration = Duration::from_mins(1);
/// One machine of so many crashes at the same time: more would look like a fault of the network, and nothing would be replaced.
const CRASHES: usize = 5;

/// A fleet whose Servers live whole lives: created to Ready, new code in a roll-out, the machine crashes and is replaced, retired.
#[derive(Clone, Debug)]
pub struct Lives {
    /// How many Servers.
    pub servers: usize,
    /// How many copies of each controller.
    pub copies: usize,
    /// Whether a little of everything goes wrong with requests, watches, copies and the provider.
    pub has_faults: bool,
    /// Whether it is counted which kinds of requests there are: see [`World::request_counts`].
    pub counts_requests: bool,
    /// What is random follows from it.
    pub seed: u64,
}

impl Lives {
    fn faults(&self) -> Faults {
        if !self.has_faults {
            return Faults::default();
        }
        Faults {
            lost_requests: 0.01,
            lost_answers: 0.01,
            refusals: 0.03,
            latency: Duration::from_millis(20),
            broken_watches: 0.3,
            watch_delay: Duration::from_secs(1),
            provider_failures: 0.03,
            ..Faults::default()
        }
    }

    /// Lets the Servers live. `reached` is told of the end of each chapter, and sees the world.
    ///
    /// # Errors
    /// What did not happen.
    pub fn live(&self, reached: impl FnMut(&str, &World) + Send) -> Result<(), String> {
        let run = self.clone();
        World::run(self.seed, self.faults(), async move |world| {
            world.api().keep_no_log();
            if run.counts_requests {
                world.count_requests();
            }
            let fleet = Fleet { world: &world, client: world.person("ann"), servers: run.servers };
            let copies = run.start(&world)?;
            tokio::select! {
                biased;
                lived = fleet.live(reached) => lived,
                failed = run.crash_copies(&world, copies) => failed,
            }
        })
    }

    fn start(&self, world: &World) -> Result<Vec<(Program, ProgramCopy)>, String> {
        let all = (1..=self.copies).flat_map(|number| Program::ALL.map(|program| (program, number)));
        all.map(|(program, number)| Ok((program, start(world, program, number)?))).collect()
    }

    /// Lets copies crash and start again, for ever; returns only what goes wrong.
    async fn crash_copies(&self, world: &World, mut copies: Vec<(Program, ProgramCopy)>) -> Result<(), String> {
        let (dice, mut started) = (Dice::new(self.seed), copies.len());
        if !self.has_faults {
            return std::future::pending().await;
        }
        loop {
            sleep(dice.duration(Duration::ZERO, CRASH_INTERVAL * 2)).await;
            let (program, copy) = copies.swap_remove(dice.between(0, copies.len() - 1));
            copy.crash();
            started += 1;
            copies.push((program, start(world, program, started)?));
        }
    }
}

fn start(world: &World, program: Program, number: usize) -> Result<ProgramCopy, String> {
    let copy = world.start(program, &format!("copy-{number}"));
    copy.map_err(|error| format!("{program:?} does not start: {error}"))
}

struct Fleet<'a> {
    world: &'a World,
    client: Client,
    servers: usize,
}

impl Fleet<'_> {
    async fn live(&self, mut reached: impl FnMut(&str, &World)) -> Result<(), String> {
        let mut over = |chapter| reached(chapter, self.world);
        self.declare().await.map_err(|error| format!("the fleet is refused: {error}"))?;
        self.wait("created", |server| serves(server, "r1")).await?;
        over("created");
        let newer = Patch::Merge(json!({"spec": {"app": app("r2")}}));
        let patched = self.deployments().patch(NAME, &PatchParams::default(), &newer).await;
        patched.map_err(|error| format!("the new code is refused: {error}"))?;
        self.wait("new code", |server| serves(server, "r2")).await?;
        over("new code");
        let first: Vec<String> = self.world.servers().iter().map(|server| server.uid().to_owned()).collect();
        for some in first.chunks(self.servers.div_ceil(CRASHES)) {
            for uid in some {
                self.world.crash_machine(uid);
            }
            let lost: BTreeSet<&str> = some.iter().map(String::as_str).collect();
            self.wait("replaced", |server| serves(server, "r2") && !lost.contains(server.uid())).await?;
        }
        over("replaced");
        let deleted = self.deployments().delete(NAME, &DeleteParams::default()).await;
        deleted.map_err(|error| format!("the fleet cannot be removed: {error}"))?;
        self.until("retired", <[_]>::is_empty).await?;
        over("retired");
        self.world.finding().map_or(Ok(()), |finding| Err(finding.to_string()))
    }

    /// Waits until the fleet is complete and every Server is as it should be.
    async fn wait(&self, chapter: &str, is_good: impl Fn(&Server) -> bool) -> Result<(), String> {
        let is_over =
            |servers: &[Arc<Server>]| servers.len() == self.servers && servers.iter().all(|server| is_good(server));
        self.until(chapter, is_over).await
    }

    async fn until(&self, chapter: &str, is_over: impl Fn(&[Arc<Server>]) -> bool) -> Result<(), String> {
        let begun = Instant::now();
        while !is_over(&self.world.servers()) {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{chapter}: not in {} h", PATIENCE.as_secs() / 3_600));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    async fn declare(&self) -> kube::Result<()> {
        let class = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "MachineClass", "metadata": {"name": "small"},
            "spec": {"provider": "simulated", "access": {"user": "berth", "port": 22, "root": "opt/berth"},
                     "parameters": {"boot": {"uniformMs": [1000, 20000]}}}
        });
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME},
                             "spec": {"ports": [{"name": "http", "port": 80}]}});
        create::<MachineClass>(&Api::all(self.client.clone()), class).await?;
        create::<Service>(&Api::default_namespaced(self.client.clone()), service).await?;
        create(&self.deployments(), self.deployment()).await
    }

    fn deployment(&self) -> Value {
        let traffic = json!({"backends": [{"service": NAME, "port": 80, "portName": "http"}], "drain": {"seconds": 2}});
        json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "VMDeployment", "metadata": {"name": NAME},
            "spec": {
                "replicas": self.servers, "selector": {"matchLabels": {"app": NAME}},
                "updateStrategy": {"maxUnavailable": "25%"},
                "template": {"metadata": {"labels": {"app": NAME}},
                             "spec": {"machine": {"className": "small"}, "traffic": traffic,
                                      "packages": [{"name": "jq", "version": "1.7", "apt": {}}],
                                      "healthCheck": {"httpGet": {"port": APP_PORT, "path": "/"}}}},
                "failover": {"waitSeconds": 20, "action": "Replace", "maxInFlight": self.servers},
                "app": app("r1")
            }
        })
    }

    fn deployments(&self) -> Api<VMDeployment> {
        Api::default_namespaced(self.client.clone())
    }
}

fn app(revision: &str) -> Value {
    let artifact = json!({"url": format!("http://a/{revision}.tar"), "sha256": "ab".repeat(32)});
    json!({"name": NAME, "revision": revision, "command": "./run", "artifact": artifact})
}

fn serves(server: &Server, revision: &str) -> bool {
    let app = server.status.as_ref().and_then(|status| status.app.as_ref());
    server.state() == Some(State::Ready) && app.is_some_and(|app| app.revision == revision)
}
