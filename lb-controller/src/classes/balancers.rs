//! All classes together, as one load balancer of this program.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
};

use berth_core::api::{BalancerClass, Server, VMDeployment};
use berth_runtime::{Cache, Context, EventType, Leader, reference};
use futures::{
    StreamExt as _,
    channel::mpsc::{self, UnboundedSender},
    future::{BoxFuture, join, join_all},
};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    drivers::Drivers,
    in_use,
    metrics::Metrics,
    named::classes_of,
    shared::Shared,
    status::StatusWriter,
    view::View,
    worker::{Submission, Worker},
};
use crate::{
    balancer::{BalancerError, LoadBalancer, Observer, Problem, Responsible},
    kept::KeptServers,
    member::{Member, ServerRef},
    panic_floor::PanicThreshold,
    subsets::Subsets,
};

/// The Lease of the copy that carries out the traffic of Servers with a class.
const LEASE: &str = "lb-controller-classes";

/// A class that is followed.
struct Followed {
    class: Arc<BalancerClass>,
    view: Arc<Mutex<View>>,
    submissions: UnboundedSender<Submission>,
    stop: CancellationToken,
}

/// All classes.
pub struct ClassBalancers {
    classes: Cache<BalancerClass>,
    deployments: Cache<VMDeployment>,
    subsets: Subsets,
    servers: Cache<Server>,
    kept: Arc<KeptServers>,
    default_threshold: PanicThreshold,
    drivers: Drivers,
    leader: Mutex<Option<Leader>>,
    /// By name, the classes that are followed by this copy, and why others are not.
    followed: Mutex<BTreeMap<String, Result<Followed, String>>>,
    tasks: TaskTracker,
    metrics: Metrics,
}

impl ClassBalancers {
    /// The classes that the client of this context can read.
    #[must_use]
    pub fn new(
        ctx: &Context,
        (servers, deployments): (&Cache<Server>, &Cache<VMDeployment>),
        subsets: &Subsets,
        kept: &Arc<KeptServers>,
        default_threshold: PanicThreshold,
        drivers: Drivers,
    ) -> Self {
        let metrics = Metrics::default();
        ctx.metrics.register(|registry| metrics.register(registry));
        Self {
            classes: Cache::start(ctx),
            deployments: deployments.clone(),
            subsets: subsets.clone(),
            servers: servers.clone(),
            kept: Arc::clone(kept),
            default_threshold,
            drivers,
            leader: Mutex::default(),
            followed: Mutex::default(),
            tasks: TaskTracker::new(),
            metrics,
        }
    }

    async fn follow(&self, ctx: Context, mut observer: Observer) {
        tokio::select! {
            biased;
            () = ctx.shutdown.cancelled() => return,
            _ = join(self.classes.ready(), self.deployments.ready()) => {}
        }
        // Whether processes answer does not make this program ready: it has other work, too.
        observer.synced();
        let mut changes = pin!(self.classes.changes());
        // Without a class there is nothing to lead, and nothing is written.
        let first = tokio::select! {
            biased;
            () = ctx.shutdown.cancelled() => return,
            first = changes.next() => first,
        };
        if first.is_none() {
            return;
        }
        let (leader, standing) = Leader::start(&ctx, LEASE);
        *self.leader.lock() = Some(leader.clone());
        let standing = self.tasks.spawn(standing);
        let shared = Arc::new(Shared {
            ctx: ctx.clone(),
            classes: self.classes.clone(),
            servers: self.servers.clone(),
            deployments: self.deployments.clone(),
            subsets: self.subsets.clone(),
            kept: Arc::clone(&self.kept),
            default_threshold: self.default_threshold,
            leader: leader.clone(),
            observer,
            metrics: self.metrics.clone(),
        });
        let mut leads = leader.changes();
        loop {
            tokio::select! {
                biased;
                () = ctx.shutdown.cancelled() => break,
                told = leads.changed() => {
                    if told.is_err() {
                        break;
                    }
                    self.lead(&shared, leader.leads()).await;
                }
                Some(change) = changes.next() => {
                    if leader.leads() {
                        self.refollow(&shared, change.object().name()).await;
                    }
                }
            }
        }
        self.unfollow_all();
        let _ = standing.await;
    }

    /// Begins to follow all classes, or stops.
    async fn lead(&self, shared: &Arc<Shared>, leads: bool) {
        self.unfollow_all();
        if !leads {
            return;
        }
        for class in self.classes.store().state() {
            self.refollow(shared, class.name()).await;
        }
        // Whatever is to be done about them was left to the copy that led before.
        for server in self.servers.store().state() {
            if classes_of(&server).next().is_some() {
                shared.observer.changed(ServerRef::of(&server));
            }
        }
    }

    /// Follows the class as it is declared now.
    async fn refollow(&self, shared: &Arc<Shared>, name: &str) {
        let declared = self.classes.get(None, name);
        {
            let mut followed = self.followed.lock();
            let is_same = |class: &BalancerClass| {
                followed.get(name).is_some_and(|f| f.as_ref().is_ok_and(|f| f.class.spec == class.spec))
            };
            if declared.as_ref().is_some_and(|class| is_same(class)) {
                return;
            }
            if let Some(Ok(before)) = followed.remove(name) {
                before.stop.cancel();
            }
        }
        let Some(class) = declared else { return };
        let driver = (self.drivers)(Arc::clone(&class)).await;
        let declared = Arc::clone(&class);
        let started = driver.map(|driver| {
            let (submissions, receiver) = mpsc::unbounded();
            let followed = Followed {
                class: Arc::clone(&class),
                view: Arc::default(),
                submissions,
                stop: shared.ctx.shutdown.child_token(),
            };
            let worker = Worker {
                shared: Arc::clone(shared),
                class,
                driver,
                view: Arc::clone(&followed.view),
                decided: BTreeMap::new(),
                suspects: BTreeMap::new(),
                status: StatusWriter::default(),
                is_marked: false,
            };
            self.tasks.spawn(worker.run(receiver, followed.stop.clone()));
            followed
        });
        if let Err(why) = &started {
            tracing::warn!(class = name, why, "cannot use the BalancerClass");
            shared.ctx.events.publish(&reference(&*declared), EventType::Warning, "NotReady", why);
        }
        self.followed.lock().insert(name.to_owned(), started);
    }

    fn unfollow_all(&self) {
        for followed in std::mem::take(&mut *self.followed.lock()).into_values().flatten() {
            followed.stop.cancel();
        }
    }

    /// The classes that the member should be registered with, and those that show it.
    fn classes_with(&self, member: &Member) -> BTreeSet<String> {
        let desired = member.desired.iter().flat_map(|desired| &desired.classes);
        let mut classes: BTreeSet<String> = desired.map(|backend| backend.class.clone()).collect();
        for (name, followed) in &*self.followed.lock() {
            if followed.as_ref().is_ok_and(|followed| followed.view.lock().knows(&member.server)) {
                classes.insert(name.clone());
            }
        }
        classes
    }

    /// Why the member cannot be registered with this class.
    fn obstacle(&self, class: &str, member: &Member) -> Option<String> {
        let Some(declared) = self.classes.get(None, class) else {
            return Some(format!("BalancerClass {class} does not exist: create it, or correct spec.traffic.backends"));
        };
        if let Some(Err(why)) = self.followed.lock().get(class) {
            return Some(format!("BalancerClass {class}: {why}"));
        }
        let namespace = &member.server.namespace;
        let is_new = !self.is_shown_by(class, &member.server);
        if is_new && in_use::is_being_deleted(&declared) {
            return Some(format!(
                "BalancerClass {class} is being deleted: name another class in spec.traffic.backends, or create it again"
            ));
        }
        (is_new && !declared.spec.allows(namespace)).then(|| {
            format!(
                "BalancerClass {class} does not allow namespace {namespace}: add it to spec.allowedNamespaces, or use another \
                 class"
            )
        })
    }

    /// Whether a process of the class has an entry of this Server.
    fn is_shown_by(&self, class: &str, server: &ServerRef) -> bool {
        let followed = self.followed.lock();
        let view = followed.get(class).and_then(|followed| followed.as_ref().ok()).map(|followed| &followed.view);
        view.is_some_and(|view| view.lock().knows(server))
    }

    /// Hands the member to the class, and waits for the answer.
    async fn submit(&self, class: &str, member: &Member) -> Result<(), BalancerError> {
        let unavailable = || BalancerError::Unavailable {
            action: format!("change the traffic of BalancerClass {class}"),
            reason: "this copy of lb-controller does not follow it at the moment".to_owned(),
        };
        let is_wanted = member.desired.iter().flat_map(|d| &d.classes).any(|backend| backend.class == class);
        if let Some(why) = self.obstacle(class, member).filter(|_| is_wanted) {
            return Err(BalancerError::Blocked(why));
        }
        let (result, answer) = oneshot::channel();
        let submission = Submission { member: member.clone(), since: Instant::now(), result };
        let sent = match self.followed.lock().get(class) {
            Some(Ok(followed)) => followed.submissions.unbounded_send(submission).is_ok(),
            _ => false,
        };
        if !sent {
            return Err(unavailable());
        }
        answer.await.unwrap_or_else(|_| Err(unavailable()))
    }
}

impl LoadBalancer for ClassBalancers {
    fn name(&self) -> &'static str {
        "balancerclasses"
    }

    fn run(self: Arc<Self>, ctx: Context, observer: Observer) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.follow(ctx, observer).await })
    }

    fn shows(&self, member: &Member) -> bool {
        let classes = self.classes_with(member);
        let followed = self.followed.lock();
        classes.iter().all(|class| match followed.get(class) {
            Some(Ok(followed)) => {
                let view = followed.view.lock();
                view.shows(&member.server, &view.wanted(class, &member.server, member.desired.as_ref()))
            }
            _ => false,
        })
    }

    fn apply<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<(), BalancerError>> {
        Box::pin(async move {
            let classes = self.classes_with(member);
            // All are changed, whatever becomes of the others.
            let results = join_all(classes.iter().map(|class| self.submit(class, member))).await;
            results.into_iter().filter_map(Result::err).min_by_key(BalancerError::rank).map_or(Ok(()), Err)
        })
    }

    fn is_responsible(&self, server: &Server) -> Responsible {
        if classes_of(server).next().is_none() {
            return Responsible::Any;
        }
        match self.leader.lock().as_ref() {
            // There is no class: any copy may say so.
            None => Responsible::Any,
            Some(leader) if leader.leads() => Responsible::This,
            Some(_) => Responsible::Another,
        }
    }

    fn is_idle(&self, member: &Member) -> bool {
        let classes = self.classes_with(member);
        let followed = self.followed.lock();
        classes.iter().all(|class| match followed.get(class) {
            Some(Ok(followed)) => {
                let view = followed.view.lock();
                view.is_idle(&view.wanted(class, &member.server, member.desired.as_ref()))
            }
            _ => false,
        })
    }

    fn problems<'a>(&'a self, _: &'a Member) -> BoxFuture<'a, Result<Vec<Problem>, BalancerError>> {
        // What keeps a registration with a class from having any effect blocks it.
        Box::pin(async { Ok(Vec::new()) })
    }
}
