//! Starts the caches and controllers, and says what makes each of them reconcile.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use berth_core::{
    api::{Approval, Executor, MachineClass, Server, VMReplicaSet},
    second_opinion::SampledServer,
};
use berth_iaas::{CallLimits, Classes, Drivers};
use berth_runtime::{
    Cache, CacheOptions, Change, Context, Controller, Copies, Process, ServerIndex, Throttle, answer_questions,
};
use futures::future;
use kube::runtime::controller::Action;

use crate::{
    args::Args,
    class_use::{self, ClassReconciler, ClassRooms},
    cluster,
    drift::DriftDetector,
    orphans::OrphanCollector,
    server::{ServerReconciler, tasks::TaskContext},
    set::{machines::ClassMachines, plan::SetLimits, reconcile::SetReconciler},
    setup,
    sight::{BlindMonitors, look},
    triggers,
};

/// Slots of each bulkhead, as a multiple of `--concurrency`: tasks mostly wait for machines, so that many more of them than of
/// reconciles may run at once.
const SLOTS: u16 = 4;
/// How many bulkheads may be full before tasks of another class have to wait for this process. Tasks that wait for a slot
/// occupy nothing.
const FULL_BULKHEADS: u16 = 16;
/// A set is reconciled at most this often while its Servers change: a thousand changes a second become five reconciles, and
/// people still see progress at once.
const SET_INTERVAL: Duration = Duration::from_millis(200);

/// Runs until shutdown.
///
/// # Errors
/// When the arguments name something that cannot be used, or the API server's address or the cluster's identity is not known.
pub async fn run(args: Args, process: Process) -> Result<()> {
    let ctx = process.context(Executor::ReplicasetController, &args.common).await?;
    let Some(cluster) = cluster::identity(&ctx, args.cluster_name.as_deref()).await? else { return Ok(()) };
    let (tasks, drivers) = setup::machines(&args, &cluster)?;
    run_with(&ctx, &args, &process, tasks, drivers).await;
    Ok(())
}

/// Runs on this API server, these machines and their providers, until shutdown.
pub async fn run_with(ctx: &Context, args: &Args, process: &Process, tasks: TaskContext, drivers: Drivers) {
    let copies = Copies::start(ctx, &process.tasks);
    let monitors = BlindMonitors::among(&copies);
    let caches = Caches::start(ctx);
    tokio::select! {
        biased;
        () = caches.ready() => {}
        () = ctx.shutdown.cancelled() => return,
    }
    let slots = usize::from(ctx.concurrency.saturating_mul(SLOTS));
    let classes = Classes::new(ctx, &caches.classes, drivers, CallLimits::default(), slots).of_servers(&caches.servers);
    let orphan_period = Duration::from_secs(u64::from(args.orphan_period));
    let orphans = OrphanCollector::new(ctx, &classes, &tasks.cluster, orphan_period);
    let drift_interval = Duration::from_secs(u64::from(args.drift_interval));
    let drift = DriftDetector::new(ctx, tasks.clone(), &caches.servers, drift_interval).shared_among(&copies);
    let (connector, seen) = (tasks.connector.clone(), caches.servers.clone());
    let look = move |server: SampledServer| {
        let (connector, servers) = (connector.clone(), seen.clone());
        async move { look(&*connector, &servers, &server).await }
    };
    let limits = SetLimits {
        creating: usize::from(args.max_creating),
        replicas: args.max_replicas,
        zone_brake: usize::from(args.failover_brake),
    };
    let machines = ClassMachines::new(classes.clone(), tasks.connector.clone());
    let sets = SetReconciler::new(ctx.clone(), limits, Arc::new(machines), Arc::new(drift.clone()))
        .telling(monitors.clone())
        .with_rooms(ClassRooms::new(&caches.classes, &caches.servers));
    let batches = sets.batches();
    let servers = ServerReconciler::new(ctx, tasks, &caches.servers, &classes, &caches.approvals, batches);
    let servers = Arc::new(servers);
    let class_use = Arc::new(ClassReconciler::new(ctx, &caches.servers));
    tokio::join!(
        class_use::run(ctx, &caches.classes, class_use),
        orphans.run(),
        reconcile_servers(ctx, &caches, servers.clone()),
        run_tasks(ctx, &caches, &classes, servers),
        reconcile_sets(ctx, &caches, &drift, &monitors, Arc::new(sets)),
        drift.run(),
        answer_questions(ctx.clone(), copies, look),
    );
}

struct Caches {
    servers: Cache<Server>,
    sets: Cache<VMReplicaSet>,
    classes: Cache<MachineClass>,
    approvals: Cache<Approval>,
}

impl Caches {
    fn start(ctx: &Context) -> Self {
        Self {
            servers: Cache::start_with(ctx, CacheOptions::servers()),
            sets: Cache::start(ctx),
            classes: Cache::start_with(ctx, CacheOptions::default().keep_change_times()),
            approvals: Cache::start(ctx),
        }
    }

    async fn ready(&self) {
        future::join4(self.servers.ready(), self.sets.ready(), self.classes.ready(), self.approvals.ready()).await;
    }
}

/// Everything about Servers that takes one short write.
async fn reconcile_servers(ctx: &Context, caches: &Caches, servers: Arc<ServerReconciler>) {
    Controller::new("servers", &caches.servers)
        .reconcile_on(triggers::servers_of_class(&caches.classes, caches.servers.store()))
        .reconcile_on(servers.finished_batches())
        .reconcile_on(triggers::servers_of_approval(&caches.approvals, caches.servers.store()))
        .concurrency(ctx.concurrency)
        .run(ctx, servers, |server, servers| async move { servers.reconcile(&server).await })
        .await;
}

/// The tasks of Servers, in a controller of their own, because they take minutes.
async fn run_tasks(ctx: &Context, caches: &Caches, classes: &Classes, servers: Arc<ServerReconciler>) {
    Controller::new("tasks", &caches.servers)
        .reconcile_on(triggers::servers_of_class(&caches.classes, caches.servers.store()))
        .reconcile_on(servers.finished_batches())
        .reconcile_on(classes.notifications())
        .concurrency(ctx.concurrency.saturating_mul(SLOTS).saturating_mul(FULL_BULKHEADS))
        .run(ctx, servers, |server, servers| async move { servers.run_tasks(server).await })
        .await;
}

async fn reconcile_sets(
    ctx: &Context,
    caches: &Caches,
    drift: &DriftDetector,
    monitors: &BlindMonitors,
    sets: Arc<SetReconciler>,
) {
    let (index, throttle) = (Arc::new(ServerIndex::default()), Arc::new(Throttle::new(SET_INTERVAL)));
    let of_servers = triggers::sets_of_servers(&caches.servers, index.clone(), sets.zones());
    // Complete before the first set is reconciled. The changes are followed already: a Server that goes now is not kept.
    for server in caches.servers.store().state() {
        let change = Change::Present(server);
        sets.zones().follow(&change);
        index.follow(&change);
    }
    Controller::new("vmreplicasets", &caches.sets)
        .reconcile_on(of_servers)
        .reconcile_on(sets.answers())
        .reconcile_on(triggers::sets_of_class(&caches.classes, caches.sets.store()))
        .reconcile_on(drift.notifications())
        .reconcile_on(monitors.notifications())
        .concurrency(ctx.concurrency)
        .run(ctx, sets, move |set, sets| {
            let (index, throttle) = (index.clone(), throttle.clone());
            async move {
                if let Some(wait) = throttle.requeue_after(&*set) {
                    return Ok(Action::requeue(wait));
                }
                let servers = index.of(&set);
                sets.reconcile(&set, &servers.iter().map(AsRef::as_ref).collect::<Vec<_>>()).await
            }
        })
        .await;
}
