//! The world: an API server, the webhook behind it, machines, and copies of the controllers.

use std::{
    sync::{Arc, LazyLock, Once},
    time::Duration,
};

use berth_core::api::Server;
use berth_iaas::simulated::{SimulatedConnector, SimulatedMachines, Simulation};
use berth_machine::{
    Connector, SshConnector,
    ssh::{ClientKey, PoolConfig, SshPool},
};
use berth_runtime::Metrics;
use kube::Client;
use parking_lot::Mutex;
use tokio::{
    runtime::Builder,
    time::{sleep, timeout},
};

use crate::{
    ApiServer, Dice, Faults, Finding, Judge, RequestCounts, SimClock,
    crash_point::CrashPoint,
    faults::ActiveFaults,
    findings::Findings,
    judges::court::Court,
    meter::Meter,
    randomness,
    scripts::ScriptStage,
    troubles::Troubles,
    upgrade::FutureFields,
    way::Ways,
    webhook_copies::{Outages, patient, two_copies},
};

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(100);

/// The SSH key of all programs, made once: nothing connects to machines of a world by SSH.
static SSH_KEY: LazyLock<berth_machine::Result<ClientKey>> = LazyLock::new(ClientKey::generate);

/// A world of its own. It has to be made and used on a runtime of one thread with paused time.
pub struct World {
    pub(crate) api: ApiServer,
    pub(crate) clock: SimClock,
    pub(crate) simulation: Simulation,
    pub(crate) machines: SimulatedMachines,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) stage: ScriptStage,
    pub(crate) troubles: Troubles,
    pub(crate) ways: Ways,
    pub(crate) court: Court,
    pub(crate) dice: Dice,
    pub(crate) faults: ActiveFaults,
    pub(crate) outages: Outages,
    pub(crate) future_fields: FutureFields,
    pub(crate) findings: Findings,
    pub(crate) meter: Meter,
    pub(crate) crash_point: CrashPoint,
    /// The metrics of the copies that were started.
    pub(crate) metrics: Mutex<Vec<Arc<Metrics>>>,
}

impl World {
    /// Runs a story in a world of its own, on a thread of its own. Everything that is random in it follows from the seed.
    ///
    /// # Panics
    /// When the story panics.
    pub fn run<F: Future>(seed: u64, faults: Faults, story: impl FnOnce(World) -> F + Send) -> F::Output
    where
        F::Output: Send,
    {
        static WARM_UP: Once = Once::new();
        WARM_UP.call_once(|| run(0, Faults::default(), World::warm_up));
        run(seed, faults, story)
    }

    /// A world without anything in it but the webhook and the garbage collector.
    ///
    /// # Errors
    /// When the shipped manifests cannot be used.
    fn new(seed: u64, faults: Faults) -> Result<Self, Box<dyn std::error::Error>> {
        let clock = SimClock::start();
        // Not the sequence of the story: what people do must not change because a request was sent more.
        let (dice, outages) = (Dice::new(!seed), Outages::default());
        let webhook = two_copies(clock, faults.webhook_skew, dice.clone(), outages.clone())?;
        let api = ApiServer::new(clock, Some(webhook))?;
        let machines = SimulatedMachines::default();
        let ssh = SshConnector::new(SshPool::new(SSH_KEY.as_ref()?.clone(), PoolConfig::default()));
        let findings = Findings::default();
        let simulation = Simulation::new(machines.clone()).with_clock(Arc::new(clock));
        let court = Court::new(findings.clone(), simulation.clone(), machines.clone(), clock);
        court.allow_skew(faults.controller_skew);
        let witness = court.clone();
        api.set_witness(move |plural, change, author| witness.see(plural, change, author));
        let witness = court.clone();
        api.set_claim_witness(move |namespace, name, holder| witness.see_claim(namespace, name, holder));
        let (faults, troubles) = (ActiveFaults::new(faults), Troubles::default());
        let stage = ScriptStage {
            api: api.clone(),
            findings: findings.clone(),
            court: court.clone(),
            dice: dice.clone(),
            faults: faults.clone(),
            troubles: troubles.clone(),
            at_work: Arc::default(),
        };
        let collector = api.clone();
        tokio::spawn(async move { collector.collect_garbage().await });
        Ok(Self {
            api,
            clock,
            simulation,
            connector: Arc::new(SimulatedConnector::new(machines.clone(), Arc::new(ssh))),
            machines,
            stage,
            troubles,
            ways: Ways::default(),
            court,
            dice,
            outages,
            future_fields: FutureFields::default(),
            faults,
            findings,
            meter: Meter::default(),
            crash_point: CrashPoint::default(),
            metrics: Mutex::default(),
        })
    }

    /// A client of a person with all rights, who tries again while the webhook is out of order.
    #[must_use]
    pub fn person(&self, name: &str) -> Client {
        Client::new(patient(self.api.clone(), name.into(), self.outages.clone()), "default")
    }

    /// No fault happens from now on.
    pub fn end_faults(&self) {
        self.faults.end();
    }

    /// From now on, writes that take Servers out of EndpointSlices are answered as done and have no effect. No API server does
    /// that: it shows that the judges find what a load balancer does wrong.
    pub fn lie_about_holds(&self) {
        self.faults.lie();
    }

    /// What was found to be wrong first.
    #[must_use]
    pub fn finding(&self) -> Option<Finding> {
        let hot_loop = || self.api.hot_loop().map(|text| Finding::new(Judge::HotLoop, text));
        self.findings.first().or_else(hot_loop)
    }

    /// How often controllers have reconciled an object.
    pub(crate) fn reconciles(&self) -> u64 {
        let encoded = self.metrics.lock().iter().filter_map(|metrics| metrics.encode().ok()).collect::<String>();
        let counts = encoded.lines().filter(|line| line.starts_with("berth_reconciles_total"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// The Servers, as they are stored.
    #[must_use]
    pub fn servers(&self) -> Vec<Arc<Server>> {
        self.api.decoded("servers")
    }

    /// From now on, it is counted which kinds of requests the programs send.
    pub fn count_requests(&self) {
        self.meter.count_kinds();
    }

    /// How many requests of each kind there were; nothing if they are not counted.
    #[must_use]
    pub fn request_counts(&self) -> RequestCounts {
        self.meter.kinds()
    }

    /// Stops the machine of the Server with this UID as a crash would.
    pub fn crash_machine(&self, uid: &str) {
        self.simulation.crash(uid);
    }

    /// Adds a line to the log.
    pub(crate) fn note(&self, line: impl AsRef<str>) {
        self.api.note(line.as_ref());
    }

    /// The API server.
    #[must_use]
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// Waits until `is_wanted` is true, at most for so long in the time of the world. Says whether it became true.
    pub async fn wait<F: Future<Output = bool>>(&self, limit: Duration, is_wanted: impl Fn() -> F) -> bool {
        let looked = async {
            while !is_wanted().await {
                sleep(POLL).await;
            }
        };
        timeout(limit, looked).await.is_ok()
    }
}

fn run<F: Future>(seed: u64, faults: Faults, story: impl FnOnce(World) -> F + Send) -> F::Output
where
    F::Output: Send,
{
    let run = || {
        randomness::seed_this_thread(seed);
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
        runtime.block_on(async {
            story(World::new(seed, faults).unwrap_or_else(|error| panic!("no world: {error}"))).await
        })
    };
    let ended = std::thread::scope(|scope| scope.spawn(run).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
