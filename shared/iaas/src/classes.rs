//! The MachineClasses of a cluster: whether machines of a class can be created, and by which provider.

use std::{sync::Arc, time::Duration};

use berth_core::api::{Machine, MachineClass, MachineClassSpec, Server, TaskKind};
use berth_runtime::{Backoff, Cache, Context};
use futures::Stream;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};

use crate::{
    bulkhead::Slot,
    bulkheads::{BulkheadKind, Bulkheads},
    class_readings::ClassReadings,
    class_status::ClassStatus,
    connections::{ProviderConnection, ProviderConnections},
    drivers::Drivers,
    error::{ProviderError, Result as ProviderResult},
    metered::{CallLimits, CallMetrics},
    place::Place,
    secrets::Secrets,
    unusable::UnusableClass,
};

/// How long a set waits for the first answer of a provider: most providers answer by then, and the set shows no false
/// blocker when the process has just started.
const FIRST_ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Until a class that has to be corrected is tried again: changed Secrets are not watched.
const UNUSABLE: Backoff = Backoff::new(Duration::from_mins(1), Duration::from_mins(1));
/// Until a provider that cannot be reached is tried again.
const UNAVAILABLE: Backoff = Backoff::new(Duration::from_secs(8), Duration::from_secs(8));

/// The MachineClasses of this cluster, and the connections to their providers. Clones share them.
#[derive(Clone)]
pub struct Classes(Arc<Inner>);

struct Inner {
    ctx: Context,
    cache: Cache<MachineClass>,
    drivers: Drivers,
    secrets: Secrets,
    connections: ProviderConnections,
    bulkheads: Bulkheads,
    status: ClassStatus,
    readings: ClassReadings,
}

impl std::fmt::Debug for Classes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Classes").field(&self.0.drivers).finish()
    }
}

impl Classes {
    /// The classes in this cache. Each has `slots` for Servers that are worked on at once, at the provider and on the
    /// machines separately.
    #[must_use]
    pub fn new(ctx: &Context, cache: &Cache<MachineClass>, drivers: Drivers, limits: CallLimits, slots: usize) -> Self {
        Self(Arc::new(Inner {
            ctx: ctx.clone(),
            cache: cache.clone(),
            secrets: Secrets::new(ctx.client.clone()),
            connections: ProviderConnections::new(drivers.clone(), limits, CallMetrics::register(&ctx.metrics)),
            drivers,
            bulkheads: Bulkheads::new(slots),
            status: ClassStatus::new(ctx),
            readings: ClassReadings::default(),
        }))
    }

    /// Lets one reading of a class count for all of these Servers that existed then, instead of one reading for each.
    #[must_use]
    pub fn of_servers(self, servers: &Cache<Server>) -> Self {
        self.0.readings.know_servers(servers);
        self
    }

    /// The Servers to reconcile because there is a slot for them, or because their class is usable now. Only the first
    /// caller gets them.
    pub fn notifications(&self) -> impl Stream<Item = ObjectRef<Server>> + Send + use<> {
        self.0.bulkheads.notifications()
    }

    /// All classes.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<MachineClass>> {
        self.0.cache.store().state()
    }

    /// The class of this name, as it is now.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<MachineClass>> {
        self.0.cache.get(None, name)
    }

    /// Whether machines of the class can be created, by the last answer of its provider. Only the first answer is waited
    /// for, and not for long: an unresponsive provider does not hold up the caller.
    ///
    /// # Errors
    /// When they cannot, with the reason.
    pub async fn usable(&self, name: &str) -> Result<(), UnusableClass> {
        let (class, connection) = self.connection(name).await?;
        let mut answer = self.last_answer(&class, &connection);
        if answer.is_none() {
            answer = tokio::time::timeout(FIRST_ANSWER_LIMIT, connection.check.first_answer()).await.ok().flatten();
        }
        judge(name, answer)
    }

    /// Whether Servers of this namespace may get such machines, and machines of the class can be created: see
    /// [`Self::usable`].
    ///
    /// # Errors
    /// When they may not, or cannot, with the reason.
    pub async fn usable_for(&self, namespace: &str, machine: &Machine) -> Result<(), UnusableClass> {
        let class = self.get(&machine.class_name);
        match class.and_then(|class| class.refusal(namespace, machine)) {
            Some(refusal) => Err(refusal.into()),
            None => self.usable(&machine.class_name).await,
        }
    }

    /// Makes sure that the class stays as long as the Server exists, and that it gives the Server such a machine, by the class as
    /// the API server had it at most a second ago. To be called for an existing Server before its machine is created.
    ///
    /// # Errors
    /// When the class does not, or the API server does not answer.
    pub async fn reserve(&self, server: &Server) -> Result<(), UnusableClass> {
        let machine = &server.spec.machine;
        let class = self.0.readings.marked(&self.0.ctx, server).await?;
        match class.refusal(server.namespace(), machine) {
            Some(refusal) => Err(refusal.into()),
            None => Ok(()),
        }
    }

    /// The class and its provider, if the provider's last check succeeded.
    ///
    /// # Errors
    /// When it failed, or has not ended yet.
    pub async fn usable_connection(
        &self,
        name: &str,
    ) -> Result<(Arc<MachineClass>, ProviderConnection), UnusableClass> {
        let (class, connection) = self.connection(name).await?;
        let answer = self.last_answer(&class, &connection);
        judge(name, answer)?;
        Ok((class, connection))
    }

    /// The class of this name and the connection to its provider, whatever the provider's last check said.
    ///
    /// # Errors
    /// When the class does not exist, or it or its Secret is wrong.
    pub async fn connection(&self, name: &str) -> Result<(Arc<MachineClass>, ProviderConnection), UnusableClass> {
        let Some(class) = self.get(name) else {
            self.0.connections.forget(name);
            self.0.status.forget(name);
            return Err(UnusableClass::not_found(name));
        };
        match self.connect(name, &class.spec).await {
            Ok(connection) => Ok((class, connection)),
            Err(problem) => {
                self.0.status.publish(&class, Some(&problem));
                Err(problem)
            }
        }
    }

    async fn connect(&self, name: &str, spec: &MachineClassSpec) -> Result<ProviderConnection, UnusableClass> {
        let unusable = |reason| move |error: ProviderError| UnusableClass::new(name, reason, &error);
        self.0.drivers.get(&spec.provider).map_err(unusable("UnknownProvider"))?;
        let credentials = match &spec.credentials {
            Some(of) => Some(self.0.secrets.get(of).await.map_err(unusable("CredentialsNotFound"))?),
            None => None,
        };
        let connection = self.0.connections.connect(name, spec, credentials.as_deref());
        connection.map_err(|error| UnusableClass::from_provider(name, &error))
    }

    /// The last answer of the provider's check. A new answer is published, and a success notifies the Servers that wait.
    fn last_answer(&self, class: &Arc<MachineClass>, connection: &ProviderConnection) -> Option<ProviderResult<()>> {
        let (this, class) = (self.clone(), class.clone());
        connection.check.last_answer(&connection.provider, move |answer| {
            let name = class.name_any();
            let problem = answer.as_ref().err().map(|error| UnusableClass::from_provider(&name, error));
            this.0.status.publish(&class, problem.as_ref());
            if problem.is_none() {
                this.0.bulkheads.notify_all(&name);
            }
        })
    }

    /// The connection to the place of a machine that exists: through its class, unless that means another place by now, otherwise
    /// through any class that means this place, or without a class if the provider needs none. With the class if it is the
    /// machine's own.
    ///
    /// # Errors
    /// When there is no way to the place, or the provider's last check failed.
    pub async fn connection_to(
        &self,
        name: &str,
        place: &Place,
    ) -> Result<(Option<Arc<MachineClass>>, ProviderConnection), UnusableClass> {
        let own = self.connection(name).await;
        if let Ok((class, connection)) = &own
            && connection.place == *place
        {
            return match judge(name, self.last_answer(class, connection)) {
                // A mistake in the class must not keep the machine alive if its provider needs nothing of the class.
                Err(problem) if !problem.is_temporary => self.without_class(place).ok_or(problem),
                usable => usable.map(|()| (Some(class.clone()), connection.clone())),
            };
        }
        if let Some(found) = self.other_class_at(name, place).await.or_else(|| self.without_class(place)) {
            return Ok(found);
        }
        Err(match own {
            Err(problem) if problem.is_temporary => problem,
            own => UnusableClass::elsewhere(name, place, own.ok().map(|(_, connection)| connection.place).as_ref()),
        })
    }

    async fn other_class_at(
        &self,
        own: &str,
        place: &Place,
    ) -> Option<(Option<Arc<MachineClass>>, ProviderConnection)> {
        let classes = self.all();
        for class in classes.iter().filter(|class| class.name() != own && class.spec.provider == place.provider) {
            let Ok((class, connection)) = self.connection(class.name()).await else { continue };
            let usable = || judge(class.name(), self.last_answer(&class, &connection)).is_ok();
            if connection.place == *place && usable() {
                return Some((None, connection));
            }
        }
        None
    }

    fn without_class(&self, place: &Place) -> Option<(Option<Arc<MachineClass>>, ProviderConnection)> {
        Some((None, self.0.connections.without_class(place)?))
    }

    /// A slot for a task of this Server.
    ///
    /// # Errors
    /// When all slots of its class are in use: after how long to requeue the Server. [`Self::notifications`] names it as
    /// soon as a slot is free.
    pub fn acquire_slot(&self, server: &Server, task: TaskKind) -> Result<Slot, Duration> {
        let bulkhead = self.0.bulkheads.get(&server.spec.machine.class_name, BulkheadKind::of(task));
        bulkhead.try_acquire(&ObjectRef::from_obj(server), task == TaskKind::CreateMachine)
    }

    /// After how long to requeue a Server whose class is unusable. [`Self::notifications`] names it as soon as the class
    /// is usable.
    #[must_use]
    pub fn notify_when_usable(&self, server: &Server, problem: &UnusableClass) -> Duration {
        let bulkhead = self.0.bulkheads.get(&server.spec.machine.class_name, BulkheadKind::Provider);
        bulkhead.enqueue(&ObjectRef::from_obj(server));
        if problem.is_temporary { UNAVAILABLE.delay(1) } else { UNUSABLE.delay(1) }
    }
}

fn judge(class: &str, answer: Option<ProviderResult<()>>) -> Result<(), UnusableClass> {
    let unanswered = || ProviderError::Retryable("the provider has not answered yet".into());
    answer.unwrap_or_else(|| Err(unanswered())).map_err(|error| UnusableClass::from_provider(class, &error))
}
