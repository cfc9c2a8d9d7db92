//! The provider, with the latency and the faults of each call.

use std::sync::Arc;

use berth_core::api::MachineClassSpec;
use futures::future::{BoxFuture, FutureExt as _};

use super::{
    cloud::{Boot, NewMachine, server_key},
    parameters::{CheckFailure, ProviderCall, SimulatedParameters},
    random::Draw,
    simulation::Simulation,
};
use crate::{
    driver::{Driver, SecretData},
    error::{ProviderError, Result},
    provider::{MachineRequest, Provider, ProviderMachine},
};

/// A well-formed SSH host key that no server has: nothing connects to simulated machines by SSH.
const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHNpbXVsYXRlZCBtYWNoaW5lOiBubyBzdWNoIHNlcnZl";

impl Driver for Simulation {
    fn connect(&self, class: &MachineClassSpec, _: Option<&SecretData>) -> Result<Arc<dyn Provider>> {
        let parameters = SimulatedParameters::read(class)?;
        Ok(Arc::new(SimulatedProvider { simulation: self.clone(), parameters }))
    }

    fn without_class(&self, place: &str) -> Option<Arc<dyn Provider>> {
        let parameters = SimulatedParameters { account: place.to_owned(), ..SimulatedParameters::default() };
        Some(Arc::new(SimulatedProvider { simulation: self.clone(), parameters }))
    }
}

struct SimulatedProvider {
    simulation: Simulation,
    parameters: SimulatedParameters,
}

impl SimulatedProvider {
    /// Carries out one call with its latency and faults. `server` is what the call is about; empty for none.
    async fn call<T>(&self, call: ProviderCall, server: &str, work: impl Fn() -> Result<T>) -> Result<T> {
        if self.parameters.hang.contains(&call) {
            std::future::pending::<()>().await;
        }
        let (mut draw, latency) = (self.draw(server, call.name()), self.draw(server, "latency"));
        let latency = self.parameters.latency(call).draw(latency);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        if draw.chance(self.parameters.failure_rate) {
            return Err(ProviderError::Retryable(format!("simulated: {} failed", call.name())));
        }
        let mut result = work();
        if draw.chance(self.parameters.repeat_rate) {
            result = work();
        }
        if draw.chance(self.parameters.lost_answer_rate) {
            return Err(ProviderError::Retryable(format!("simulated: the answer to {} was lost", call.name())));
        }
        result
    }

    fn draw(&self, server: &str, purpose: &'static str) -> Draw {
        // Counting costs memory for each of thousands of machines, so that it is only done where chance plays a part.
        let n = if self.parameters.is_deterministic() { 0 } else { self.simulation.lock().count_draw(server, purpose) };
        Draw::new(self.parameters.seed, server, purpose, n)
    }

    fn boot(&self, server: &str) -> Boot {
        let duration = self.parameters.boot.draw(self.draw(server, "boot"));
        let lifetime = self.parameters.lifetime.map(|lifetime| lifetime.draw(self.draw(server, "lifetime")));
        Boot { duration, lifetime }
    }

    /// The key of the Server that the machine belongs to; the UID if there is no such machine.
    fn server(&self, account: &str, uid: &str) -> String {
        self.simulation.lock().server(account, uid).unwrap_or_else(|| uid.to_owned())
    }
}

impl Provider for SimulatedProvider {
    fn place(&self) -> String {
        self.parameters.account.clone()
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        let answer = || match self.parameters.broken {
            None => Ok(()),
            Some(CheckFailure::Configuration) => {
                Err(ProviderError::Configuration("simulated: there is no such project".into()))
            }
            Some(CheckFailure::Credentials) => {
                Err(ProviderError::Credentials("simulated: the credentials are not accepted".into()))
            }
            Some(CheckFailure::Unavailable) => {
                Err(ProviderError::Retryable("simulated: the provider does not answer".into()))
            }
        };
        self.call(ProviderCall::Check, "", answer).boxed()
    }

    fn create<'a>(&'a self, request: &'a MachineRequest) -> BoxFuture<'a, Result<ProviderMachine>> {
        async move {
            let server = server_key(&request.owner);
            self.call(ProviderCall::Create, &server, || {
                if request.image.as_deref() == Some("missing") {
                    return Err(ProviderError::Configuration("simulated: there is no image \"missing\"".into()));
                }
                let new = NewMachine {
                    boot: self.boot(&server),
                    fake: self.simulation.machines().of_server(&request.owner.uid),
                    created_at: self.simulation.now(),
                };
                let (account, capacity) = (self.parameters.account.clone(), self.parameters.capacity);
                self.simulation.lock().create(&account, request, capacity, new, HOST_KEY)
            })
            .await
        }
        .boxed()
    }

    fn get<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Option<ProviderMachine>>> {
        async move {
            let account = self.parameters.account.clone();
            let server = self.server(&account, uid);
            self.call(ProviderCall::Get, &server, || Ok(self.simulation.lock().get(&account, uid, HOST_KEY))).await
        }
        .boxed()
    }

    fn reboot<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<ProviderMachine>> {
        async move {
            let account = self.parameters.account.clone();
            let server = self.server(&account, uid);
            let reboot = || {
                let boot = self.boot(&server);
                self.simulation.lock().reboot(&account, uid, boot, HOST_KEY)
            };
            self.call(ProviderCall::Reboot, &server, reboot).await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let account = self.parameters.account.clone();
            let server = self.server(&account, uid);
            self.call(ProviderCall::Delete, &server, || {
                self.simulation.lock().delete(&account, uid);
                self.simulation.machines().remove(uid);
                Ok(())
            })
            .await
        }
        .boxed()
    }

    fn list<'a>(&'a self, cluster: &'a str) -> BoxFuture<'a, Result<Vec<ProviderMachine>>> {
        let account = &self.parameters.account;
        let list = move || Ok(self.simulation.lock().list(account, cluster, HOST_KEY));
        async move { self.call(ProviderCall::List, "", list).await }.boxed()
    }
}
