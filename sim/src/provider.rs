//! The way from a copy of replicaset-controller to the provider, and what goes wrong there.

use std::{future::pending, sync::Arc, time::Duration};

use berth_core::api::MachineClassSpec;
use berth_iaas::{
    Driver, MachineRequest, Provider, ProviderError, ProviderMachine, Result, SecretData, simulated::Simulation,
};
use futures::future::{BoxFuture, FutureExt as _};
use tokio::{sync::oneshot, time::sleep};

use crate::{
    ApiServer, Dice,
    faults::ActiveFaults,
    judges::court::Court,
    troubles::{ProviderLie, Troubles},
    way::Way,
};

/// How long a connection is waited for, as by the clients of real providers.
const CONNECT: Duration = Duration::from_secs(5);

/// Connects one copy with the simulated provider.
#[derive(Clone)]
pub(crate) struct WorldDriver {
    pub(crate) api: ApiServer,
    pub(crate) simulation: Simulation,
    pub(crate) troubles: Troubles,
    pub(crate) dice: Dice,
    pub(crate) faults: ActiveFaults,
    pub(crate) court: Court,
    pub(crate) way: Way,
}

impl Driver for WorldDriver {
    fn connect(&self, class: &MachineClassSpec, secret: Option<&SecretData>) -> Result<Arc<dyn Provider>> {
        Ok(self.over(self.simulation.connect(class, secret)?))
    }

    fn without_class(&self, place: &str) -> Option<Arc<dyn Provider>> {
        self.simulation.without_class(place).map(|provider| self.over(provider))
    }
}

impl WorldDriver {
    fn over(&self, inner: Arc<dyn Provider>) -> Arc<dyn Provider> {
        Arc::new(WorldProvider { inner, driver: self.clone() })
    }
}

struct WorldProvider {
    inner: Arc<dyn Provider>,
    driver: WorldDriver,
}

impl WorldProvider {
    /// Sends a call. Once it is sent, it takes effect whatever becomes of who waits for its answer.
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(Arc<dyn Provider>) -> BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let WorldDriver { troubles, dice, faults, way, .. } = &self.driver;
        if way.has_ended() {
            pending::<()>().await;
        }
        if !way.reaches_provider() || !troubles.is_provider_there() {
            if dice.chance(0.5) {
                pending::<()>().await;
            }
            sleep(CONNECT).await;
            self.driver.api.note(&format!("{}: the provider does not answer", way.holder()));
            return Err(ProviderError::Retryable("the provider does not answer within 5s".to_owned()));
        }
        let rate = faults.now().provider_failures / 2.0;
        if dice.chance(rate) {
            return Err(ProviderError::Retryable("the provider has failed".to_owned()));
        }
        let (answer, answered) = oneshot::channel();
        let sent = call(self.inner.clone());
        tokio::spawn(async move {
            // Nobody may wait for it any more.
            let _ = answer.send(sent.await);
        });
        let result = answered.await;
        if let Some(most) = troubles.slowness() {
            sleep(dice.duration(Duration::ZERO, most)).await;
        }
        if way.has_ended() || !way.reaches_provider() {
            pending::<()>().await;
        }
        if dice.chance(rate) {
            return Err(ProviderError::Retryable("the answer of the provider was lost".to_owned()));
        }
        result.unwrap_or_else(|_| Err(ProviderError::Retryable("the connection to the provider broke".to_owned())))
    }
}

impl Provider for WorldProvider {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        self.call(|inner| async move { inner.check().await }.boxed()).boxed()
    }

    fn create<'a>(&'a self, request: &'a MachineRequest) -> BoxFuture<'a, Result<ProviderMachine>> {
        let (request, driver) = (request.clone(), self.driver.clone());
        self.call(|inner| {
            async move {
                let exists = driver.simulation.has_machine(&request.owner.uid);
                if !exists && driver.troubles.is_provider_full() {
                    return Err(ProviderError::Quota("nobody gets another machine now".to_owned()));
                }
                inner.create(&request).await
            }
            .boxed()
        })
        .boxed()
    }

    fn get<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Option<ProviderMachine>>> {
        let WorldDriver { troubles, api, court, .. } = self.driver.clone();
        let uid = uid.to_owned();
        self.call(|inner| {
            async move {
                let found = inner.get(&uid).await?;
                let is_forgotten = found.is_some() && troubles.takes_lie(ProviderLie::NoMachine);
                if is_forgotten {
                    api.note(&format!("the provider says that {uid} has no machine"));
                    court.note_lie(&uid);
                }
                Ok(found.filter(|_| !is_forgotten))
            }
            .boxed()
        })
        .boxed()
    }

    fn reboot<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<ProviderMachine>> {
        let uid = uid.to_owned();
        self.call(|inner| async move { inner.reboot(&uid).await }.boxed()).boxed()
    }

    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<()>> {
        let uid = uid.to_owned();
        self.call(|inner| async move { inner.delete(&uid).await }.boxed()).boxed()
    }

    fn list<'a>(&'a self, cluster: &'a str) -> BoxFuture<'a, Result<Vec<ProviderMachine>>> {
        let (cluster, troubles) = (cluster.to_owned(), self.driver.troubles.clone());
        self.call(|inner| {
            async move {
                let list = troubles.shown(inner.list(&cluster).await?);
                Ok(if troubles.takes_lie(ProviderLie::EmptyList) { Vec::new() } else { list })
            }
            .boxed()
        })
        .boxed()
    }
}
