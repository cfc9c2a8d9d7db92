//! Provider `simulated`: machines that exist in this process's memory alone, for tests of scale and of faults.
//!
//! Its machines have addresses (127.128.0.1 and on) where nobody listens; who would log in to one of them talks to a
//! [`berth_machine::fleet::Fleet`] instead. They end with the process. The parameters of a MachineClass, all optional:
//!
//! | parameter | meaning |
//! | --- | --- |
//! | `seed` | what happens by chance is the same for the same seed (a number) |
//! | `account` | classes of one account (a name) see the same machines and share its capacity |
//! | `capacity` | machines that the account may have |
//! | `latency` | how long calls take: a duration for each of `check`, `create`, `get`, `reboot`, `delete`, `list`, `default` |
//! | `boot` | a duration: how long a machine starts until it runs |
//! | `lifetime` | a duration: how long a machine runs until it dies by itself |
//! | `failureRate` | share of calls (0 to 1) that fail before anything has happened |
//! | `lostAnswerRate` | share of calls whose answer is lost after everything has happened |
//! | `repeatRate` | share of calls that arrive twice |
//! | `hang` | a list of calls that never answer |
//! | `broken` | what the check says: `Configuration`, `Credentials` or `Unavailable` |
//!
//! A duration is one of `{fixedMs: 5}`, `{uniformMs: [5, 20]}`, `{exponentialMs: 5}` (the mean) and `{logNormalMs:
//! {median: 5, p99: 200}}`. The image `missing` does not exist.

mod cloud;
mod parameters;
mod random;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_core::api::MachineClassSpec;
use berth_machine::fleet::Fleet;
use futures::future::{BoxFuture, FutureExt as _};

use self::{
    cloud::{Boot, Cloud},
    parameters::{Broken, Call, Parameters},
    random::Draw,
};
use super::{Driver, Error, MachineInfo, MachineRequest, Provider, Result, SecretData};

/// Name of the provider, and so the beginning of its machines' ids on Servers.
pub const NAME: &str = "simulated";

/// An SSH host key that nobody has. Nobody connects, either.
const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHNpbXVsYXRlZCBtYWNoaW5lOiBubyBzdWNoIHNlcnZl";

/// All simulated machines. Clones are the same.
#[derive(Clone, Debug)]
pub struct Simulation {
    cloud: Arc<Mutex<Cloud>>,
    fleet: Fleet,
}

impl Simulation {
    /// Without a machine yet. The fleet is where the machines are logged in to.
    #[must_use]
    pub fn new(fleet: Fleet) -> Self {
        Self { cloud: Arc::default(), fleet }
    }

    /// Stops a machine behind the provider's back, as a crash would.
    pub fn crash(&self, uid: &str) {
        self.lock().crash(uid);
    }

    /// How many machines there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Cloud> {
        // Nothing under the lock can leave it half-changed.
        self.cloud.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver for Simulation {
    fn connect(&self, class: &MachineClassSpec, _: Option<&SecretData>) -> Result<Arc<dyn Provider>> {
        let parameters = Parameters::read(class)?;
        Ok(Arc::new(SimulatedProvider { simulation: self.clone(), parameters, any_account: false }))
    }

    fn without_class(&self) -> Option<Arc<dyn Provider>> {
        let parameters = Parameters::default();
        Some(Arc::new(SimulatedProvider { simulation: self.clone(), parameters, any_account: true }))
    }
}

struct SimulatedProvider {
    simulation: Simulation,
    parameters: Parameters,
    /// It was made without a class: a machine's account is the one where it is found.
    any_account: bool,
}

impl SimulatedProvider {
    /// One call, with everything that may happen to it on the way. `about`: the Server that it is about.
    async fn call<T>(&self, call: Call, about: &str, work: impl Fn() -> Result<T>) -> Result<T> {
        if self.parameters.hang.contains(&call) {
            std::future::pending::<()>().await;
        }
        let (mut draw, latency) = (self.draw(about, call.name()), self.draw(about, "latency"));
        let latency = self.parameters.latency(call).draw(latency);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        if draw.chance(self.parameters.failure_rate) {
            return Err(Error::Retryable(format!("simulated: {} failed", call.name())));
        }
        let mut result = work();
        if draw.chance(self.parameters.repeat_rate) {
            result = work();
        }
        if draw.chance(self.parameters.lost_answer_rate) {
            return Err(Error::Retryable(format!("simulated: the answer to {} was lost", call.name())));
        }
        result
    }

    fn draw(&self, about: &str, what: &'static str) -> Draw {
        // Where nothing depends on it, nothing is remembered of thousands of machines.
        let n = if self.parameters.is_certain() { 0 } else { self.simulation.lock().count(about, what) };
        Draw::new(self.parameters.seed, about, what, n)
    }

    fn boot(&self, about: &str) -> Boot {
        let takes = self.parameters.boot.draw(self.draw(about, "boot"));
        let lives = self.parameters.lifetime.map(|lifetime| lifetime.draw(self.draw(about, "lifetime")));
        Boot { takes, lives }
    }

    fn account(&self, uid: &str) -> String {
        let found = self.any_account.then(|| self.simulation.lock().account_of(uid)).flatten();
        found.unwrap_or_else(|| self.parameters.account.clone())
    }

    /// The Server that the machine is of; of a machine that is not there, its UID.
    fn server(&self, account: &str, uid: &str) -> String {
        self.simulation.lock().server(account, uid).unwrap_or_else(|| uid.to_owned())
    }
}

fn machine_id(uid: &str) -> String {
    format!("{NAME}/{uid}")
}

impl Provider for SimulatedProvider {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        let answer = || match self.parameters.broken {
            None => Ok(()),
            Some(Broken::Configuration) => Err(Error::Configuration("simulated: there is no such project".into())),
            Some(Broken::Credentials) => Err(Error::Credentials("simulated: the credentials are not accepted".into())),
            Some(Broken::Unavailable) => Err(Error::Retryable("simulated: nobody answers".into())),
        };
        self.call(Call::Check, "", answer).boxed()
    }

    fn create<'a>(&'a self, request: &'a MachineRequest) -> BoxFuture<'a, Result<MachineInfo>> {
        async move {
            let server = cloud::server(&request.owner);
            self.call(Call::Create, &server, || {
                if request.image.as_deref() == Some("missing") {
                    return Err(Error::Configuration("simulated: there is no image \"missing\"".into()));
                }
                let (uid, boot) = (&request.owner.uid, self.boot(&server));
                let (account, fake) = (self.account(uid), self.simulation.fleet.machine(&machine_id(uid)));
                let capacity = self.parameters.capacity;
                self.simulation.lock().create(&account, request, capacity, boot, fake, HOST_KEY)
            })
            .await
        }
        .boxed()
    }

    fn get<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Option<MachineInfo>>> {
        async move {
            let account = self.account(uid);
            let server = self.server(&account, uid);
            self.call(Call::Get, &server, || Ok(self.simulation.lock().get(&account, uid, HOST_KEY))).await
        }
        .boxed()
    }

    fn reboot<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<MachineInfo>> {
        async move {
            let account = self.account(uid);
            let server = self.server(&account, uid);
            let reboot = || {
                let boot = self.boot(&server);
                self.simulation.lock().reboot(&account, uid, boot, HOST_KEY)
            };
            self.call(Call::Reboot, &server, reboot).await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let account = self.account(uid);
            let server = self.server(&account, uid);
            self.call(Call::Delete, &server, || {
                self.simulation.lock().delete(&account, uid);
                self.simulation.fleet.forget(&machine_id(uid));
                Ok(())
            })
            .await
        }
        .boxed()
    }

    fn list<'a>(&'a self, cluster: &'a str) -> BoxFuture<'a, Result<Vec<MachineInfo>>> {
        let account = &self.parameters.account;
        let list = move || Ok(self.simulation.lock().list(account, cluster, HOST_KEY));
        async move { self.call(Call::List, "", list).await }.boxed()
    }
}
