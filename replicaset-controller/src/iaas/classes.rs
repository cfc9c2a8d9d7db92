//! MachineClasses: whether machines of a class can be had, and from whom.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use berth_core::api::{MachineClass, MachineClassSpec, Server, TaskKind};
use berth_runtime::{Backoff, Cache, Context, EventType, reference};
use futures::{
    Stream, StreamExt as _,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
    stream,
};
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};

use super::{
    ClassProblem, Connection, Error, Limits, Providers, Result as ProviderResult, Secrets, Slot, bulkhead::Bulkhead,
    connections::Connections, metered::CallMetrics,
};

/// How long a set waits for the first answer of a provider.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// When to look again at what nobody may tell of: a changed Secret.
const UNUSABLE: Backoff = Backoff::new(Duration::from_mins(1), Duration::from_mins(1));
/// When to look again at a provider that cannot be reached.
const UNAVAILABLE: Backoff = Backoff::new(Duration::from_secs(8), Duration::from_secs(8));

/// The MachineClasses of this cluster, and the connections to their providers. Clones are the same.
#[derive(Clone)]
pub struct Classes(Arc<Inner>);

struct Inner {
    ctx: Context,
    cache: Cache<MachineClass>,
    providers: Providers,
    secrets: Secrets,
    connections: Connections,
    /// Servers of one class that are worked on at once, at their provider and on their machines.
    limit: usize,
    bulkheads: Mutex<HashMap<(String, Work), Arc<Bulkhead>>>,
    woken: UnboundedSender<ObjectRef<Server>>,
    waking: Mutex<Option<UnboundedReceiver<ObjectRef<Server>>>>,
    /// The reason of each class's problem that was told.
    told: Mutex<HashMap<String, &'static str>>,
    usable: Family<Class, Gauge>,
}

/// What takes up room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Work {
    /// Calls of the provider.
    AtProvider,
    /// Work on the machines themselves.
    OnMachines,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    class: String,
}

impl std::fmt::Debug for Classes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Classes").field(&self.0.providers).finish()
    }
}

impl Classes {
    /// The classes that the cache shows. Of one class, `limit` Servers are worked on at once.
    #[must_use]
    pub fn new(ctx: &Context, cache: &Cache<MachineClass>, providers: Providers, limits: Limits, limit: usize) -> Self {
        let usable = Family::default();
        let help = "Whether machines of a MachineClass that is in use can be had (1) or not (0)";
        ctx.metrics.register(|r| r.register("machine_class_usable", help, Family::clone(&usable)));
        let (woken, waking) = unbounded();
        Self(Arc::new(Inner {
            ctx: ctx.clone(),
            cache: cache.clone(),
            secrets: Secrets::new(ctx.client.clone()),
            connections: Connections::new(providers.clone(), limits, CallMetrics::register(&ctx.metrics)),
            providers,
            limit,
            bulkheads: Mutex::default(),
            woken,
            waking: Mutex::new(Some(waking)),
            told: Mutex::default(),
            usable,
        }))
    }

    /// The Servers that have to be looked at again, because there is room now or their class can be used. The first caller
    /// gets all of them.
    pub fn woken(&self) -> impl Stream<Item = ObjectRef<Server>> + Send + use<> {
        let waking = self.0.waking.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream::iter(waking).flatten()
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

    /// Whether machines of the class can be had, as far as is known: an answer of its provider counts for a while, and
    /// only the first one is waited for, shortly. A provider that does not answer does not hold the caller up.
    ///
    /// # Errors
    /// Says why not.
    pub async fn usable(&self, name: &str) -> Result<(), ClassProblem> {
        let (class, connection) = self.connection(name).await?;
        let mut answer = self.check(&class, &connection);
        if answer.is_none() {
            answer = tokio::time::timeout(FIRST_ANSWER, connection.checked.answer()).await.ok().flatten();
        }
        judge(name, answer)
    }

    /// The class and its provider, if the provider's last check said that machines can be had.
    ///
    /// # Errors
    /// When it did not, or is being asked for the first time.
    pub async fn usable_connection(&self, name: &str) -> Result<(Arc<MachineClass>, Connection), ClassProblem> {
        let (class, connection) = self.connection(name).await?;
        let answer = self.check(&class, &connection);
        judge(name, answer)?;
        Ok((class, connection))
    }

    /// The class of this name and the connection to its provider, whatever the provider's check said.
    ///
    /// # Errors
    /// When it is not there, or what it or its Secret says cannot be used.
    pub async fn connection(&self, name: &str) -> Result<(Arc<MachineClass>, Connection), ClassProblem> {
        let Some(class) = self.get(name) else {
            self.0.connections.forget(name);
            self.forget(name);
            let message = format!("there is no MachineClass {name:?}: create it, or declare another class");
            return Err(ClassProblem { reason: "ClassNotFound", message, is_temporary: false });
        };
        match self.connect(name, &class.spec).await {
            Ok(connection) => Ok((class, connection)),
            Err(problem) => {
                self.tell(&class, Some(&problem));
                Err(problem)
            }
        }
    }

    async fn connect(&self, name: &str, spec: &MachineClassSpec) -> Result<Connection, ClassProblem> {
        let problem = |reason| move |error: Error| ClassProblem::new(name, reason, &error);
        self.0.providers.get(&spec.provider).map_err(problem("UnknownProvider"))?;
        let credentials = match &spec.credentials {
            Some(of) => Some(self.0.secrets.get(of).await.map_err(problem("CredentialsNotFound"))?),
            None => None,
        };
        let connection = self.0.connections.connect(name, spec, credentials.as_deref());
        connection.map_err(|error| ClassProblem::of_provider(name, &error))
    }

    /// The last answer of the provider's check. A new one is told, and wakes those that wait for it.
    fn check(&self, class: &Arc<MachineClass>, connection: &Connection) -> Option<ProviderResult<()>> {
        let (this, class) = (self.clone(), class.clone());
        connection.checked.look(&connection.provider, move |answer| {
            let name = class.name_any();
            let problem = answer.as_ref().err().map(|error| ClassProblem::of_provider(&name, error));
            this.tell(&class, problem.as_ref());
            if problem.is_none() {
                this.bulkheads_of(&name).iter().for_each(|bulkhead| bulkhead.wake_all());
            }
        })
    }

    /// The provider of this name, for machines whose class is gone or names another provider by now.
    ///
    /// # Errors
    /// When there is no such provider, or it needs the class.
    pub fn without_class(&self, class: &str, provider: &str) -> Result<Connection, ClassProblem> {
        let connection = self.0.connections.without_class(provider);
        connection.map_err(|error| ClassProblem::new(class, "UnknownProvider", &error))?.ok_or_else(|| ClassProblem {
            reason: "ClassNotFound",
            message: format!(
                "MachineClass {class}: the machine is of the provider {provider}, which cannot be used without the class: \
                 create the class again as it was"
            ),
            is_temporary: false,
        })
    }

    /// Room for a task of this Server, or when to look again at the latest.
    ///
    /// # Errors
    /// When as many Servers of its class are being worked on as may be; the Server is named by [`Self::woken`] then.
    pub fn enter(&self, server: &Server, kind: TaskKind) -> Result<Slot, Duration> {
        let work = if kind == TaskKind::InstallPackages { Work::OnMachines } else { Work::AtProvider };
        let bulkhead = self.bulkhead(&server.spec.machine.class_name, work);
        bulkhead.try_enter(&ObjectRef::from_obj(server), kind == TaskKind::CreateMachine)
    }

    /// When to look again at a Server whose class cannot be used; it is named by [`Self::woken`] once the class can.
    #[must_use]
    pub fn wait(&self, server: &Server, problem: &ClassProblem) -> Duration {
        self.bulkhead(&server.spec.machine.class_name, Work::AtProvider).wait(&ObjectRef::from_obj(server));
        if problem.is_temporary { UNAVAILABLE.delay(1) } else { UNUSABLE.delay(1) }
    }

    fn bulkhead(&self, class: &str, work: Work) -> Arc<Bulkhead> {
        let mut bulkheads = self.lock_bulkheads();
        let new = || Bulkhead::new(self.0.limit, self.0.woken.clone());
        bulkheads.entry((class.to_owned(), work)).or_insert_with(new).clone()
    }

    fn bulkheads_of(&self, class: &str) -> Vec<Arc<Bulkhead>> {
        self.lock_bulkheads().iter().filter(|((name, _), _)| name == class).map(|(_, b)| b.clone()).collect()
    }

    fn lock_bulkheads(&self) -> MutexGuard<'_, HashMap<(String, Work), Arc<Bulkhead>>> {
        self.0.bulkheads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells people when a class turns unusable, for another reason than before, or usable again.
    fn tell(&self, class: &MachineClass, problem: Option<&ClassProblem>) {
        let name = class.name_any();
        self.0.usable.get_or_create(&Class { class: name.clone() }).set(i64::from(problem.is_none()));
        let before = {
            let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
            match problem {
                Some(problem) => told.insert(name.clone(), problem.reason),
                None => told.remove(&name),
            }
        };
        let about = reference(class);
        match problem {
            Some(problem) if before != Some(problem.reason) => {
                tracing::warn!(
                    class = name,
                    reason = problem.reason,
                    problem = problem.message,
                    "no machines can be had"
                );
                self.0.ctx.events.publish(&about, EventType::Warning, problem.reason, problem.message.clone());
            }
            None if before.is_some() => {
                tracing::info!(class = name, "machines can be had again");
                self.0.ctx.events.publish(&about, EventType::Normal, "Usable", "machines can be had again".to_owned());
            }
            _ => {}
        }
    }

    fn forget(&self, name: &str) {
        self.0.usable.remove(&Class { class: name.to_owned() });
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

fn judge(name: &str, answer: Option<ProviderResult<()>>) -> Result<(), ClassProblem> {
    let unanswered = || Error::Retryable("the provider has not answered yet".into());
    answer.unwrap_or_else(|| Err(unanswered())).map_err(|error| ClassProblem::of_provider(name, &error))
}
