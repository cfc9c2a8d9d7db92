//! Copies of Berth's controllers.

use std::{sync::Arc, time::Duration};

use berth_core::identity::Identities;
use berth_iaas::{Drivers, simulated::PROVIDER};
use berth_runtime::{Context, ContextParts, Process, with_timeouts};
use clap::Parser as _;
use deployment_controller::ContentKey;
use k8s_openapi::jiff::SignedDuration;
use kube::Client;
use replicaset_controller::server::tasks::TaskContext;
use tokio::time::sleep;

use crate::{
    Program, World,
    link::{Link, LinkedConnector, LinkedProbes},
    machines::{JudgedConnector, Probes},
    network::Network,
    provider::WorldDriver,
    way::Way,
};

/// How long a controller waits for the API server: the default of `--call-timeout`.
const CALL: Duration = Duration::from_secs(10);
/// How long a lock is claimed for: the default of `--lock-seconds`.
const LOCK: Duration = Duration::from_secs(30);
/// How many objects a controller reconciles at the same time: the default of `--concurrency`.
const CONCURRENCY: u16 = 16;
/// How long the warm-up lasts: all programs have their caches by then.
const WARM_UP: Duration = Duration::from_secs(10);
/// How long a copy has to end: the `terminationGracePeriodSeconds` of the shipped Deployments.
const GRACE: Duration = Duration::from_secs(30);
/// The cluster that machines belong to.
const CLUSTER: &str = "simulated";

/// A running copy of a controller.
pub struct ProgramCopy {
    process: Process,
    link: Link,
    way: Way,
}

impl World {
    /// Uses each program once. Libraries make some of their maps when they are first used in a process, and each map changes what
    /// the next one draws: no world may be the first.
    pub(crate) async fn warm_up(self) {
        for program in Program::ALL {
            self.start(program, "warm-up").unwrap_or_else(|error| panic!("{program:?} does not start: {error}"));
        }
        sleep(WARM_UP).await;
    }

    /// Starts a copy of a program. `name` is that of its pod.
    ///
    /// # Errors
    /// When its arguments are wrong.
    pub fn start(&self, program: Program, name: &str) -> Result<ProgramCopy, Box<dyn std::error::Error>> {
        let process = Process::default();
        let identities = Identities::default();
        let user = identities.username(program.executor());
        let link = Link::new();
        let network = Network {
            api: self.api.clone(),
            user: user.into(),
            dice: self.dice.clone(),
            faults: self.faults.clone(),
            meter: self.meter.clone(),
            link: link.clone(),
            crash_point: self.crash_point.clone(),
        };
        let parts = ContextParts {
            client: Client::new(with_timeouts(network.service(), CALL), "default"),
            executor: program.executor(),
            instance: name.to_owned(),
            identities,
            clock: Arc::new(self.clock.apart(self.draw_skew())),
            lock_duration: LOCK,
            concurrency: CONCURRENCY,
        };
        let ctx = Context::new(&process, parts);
        self.metrics.lock().push(ctx.metrics.clone());
        let way = Way::new(program, &ctx.holder);
        self.ways.add(&way);
        let judged = Arc::new(self.connector(&way, &link));
        let connector = Arc::new(LinkedConnector { inner: judged, link: link.clone() });
        match program {
            Program::ReplicasetController => {
                let args =
                    replicaset_controller::Args::try_parse_from([program.executor().name(), "--ssh-key", "none"])?;
                let tasks = TaskContext { connector, authorized_key: String::new(), cluster: CLUSTER.to_owned() };
                let drivers = Drivers::default().with(PROVIDER, Arc::new(self.driver(&way)));
                let process = process.clone();
                tokio::spawn(
                    async move { replicaset_controller::run_with(&ctx, &args, &process, tasks, drivers).await },
                );
            }
            Program::DeploymentController => {
                let process = process.clone();
                let key = ContentKey::derived_from(b"simulated");
                tokio::spawn(async move { deployment_controller::run_with(&ctx, &process, connector, key).await });
            }
            Program::MonitorController => {
                let args = monitor_controller::Args::try_parse_from([program.executor().name()])?;
                let (simulation, machines) = (self.simulation.clone(), self.machines.clone());
                let (troubles, is_blind) = (self.troubles.clone(), link.is_blind());
                let probes = Probes { simulation, machines, troubles, is_blind };
                let probes = Arc::new(LinkedProbes { inner: probes, link: link.clone() });
                let process = process.clone();
                tokio::spawn(async move {
                    // It listens nowhere here, which is all that can fail.
                    let _ = monitor_controller::run_with(&ctx, &args, &process, probes).await;
                });
            }
            Program::LbController => {
                let args = lb_controller::Args::try_parse_from([program.executor().name()])?;
                let process = process.clone();
                tokio::spawn(async move { lb_controller::run_with(&ctx, &args, &process, None).await });
            }
        }
        Ok(ProgramCopy { process, link, way })
    }
}

impl World {
    /// Connects a copy with machines.
    fn connector(&self, way: &Way, link: &Link) -> JudgedConnector {
        JudgedConnector {
            inner: self.connector.clone(),
            simulation: self.simulation.clone(),
            machines: self.machines.clone(),
            stage: self.stage.clone(),
            way: way.clone(),
            link: link.clone(),
        }
    }

    /// Connects a copy with the provider.
    fn driver(&self, way: &Way) -> WorldDriver {
        let (simulation, troubles) = (self.simulation.clone(), self.troubles.clone());
        WorldDriver {
            api: self.api.clone(),
            simulation,
            troubles,
            dice: self.dice.clone(),
            faults: self.faults.clone(),
            court: self.court.clone(),
            way: way.clone(),
        }
    }

    /// How far the clock of a new copy is ahead of the world's; less than zero if it is behind.
    fn draw_skew(&self) -> SignedDuration {
        let most = self.faults.controller_skew() / 2;
        if most.is_zero() {
            return SignedDuration::ZERO;
        }
        let skew = SignedDuration::try_from(self.dice.duration(Duration::ZERO, most)).unwrap_or_default();
        if self.dice.chance(0.5) { skew } else { -skew }
    }
}

impl ProgramCopy {
    /// Takes a copy of monitor-controller its way to all machines, or gives it back.
    pub fn set_blind(&self, is_blind: bool) {
        self.link.set_blind(is_blind);
    }

    /// Lets the copy hang, or go on. While it hangs, nothing reaches it. Its timers run, but what it sends leaves it when it goes on: as
    /// from a process that was stopped after it had decided, and goes on with its old knowledge.
    pub fn set_hanging(&self, hangs: bool) {
        self.link.set_hanging(hangs);
    }

    /// Takes the copy its way to the API server, or gives it back.
    pub fn set_parted(&self, is_parted: bool) {
        self.link.set_parted(is_parted);
    }

    /// Ends the copy at this moment: nothing that it still does reaches the API server or a machine. What it has begun at a provider
    /// goes on, and a script on a machine until its watchdog ends it, as after a real crash.
    pub fn crash(&self) {
        self.link.end();
        self.way.end();
        self.process.shutdown.cancel();
    }

    /// Asks the copy to end, as Kubernetes does before it ends a pod.
    pub fn stop(&self) {
        self.process.shutdown.cancel();
    }

    /// Asks the copy to end, and ends it if it takes longer than Kubernetes allows.
    pub(crate) fn terminate(self) {
        self.stop();
        tokio::spawn(async move {
            sleep(GRACE).await;
            self.crash();
        });
    }

    /// Ends everything that lasts.
    pub(crate) fn recover(&self) {
        self.link.recover();
    }

    /// Whether the copy has crashed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.link.has_ended()
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }
}
