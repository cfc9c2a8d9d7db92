//! Carrying out a plan whose ledgers are written.

use std::{collections::VecDeque, time::Duration};

use berth_core::api::{Server, VMReplicaSet};
use berth_runtime::{ApiError, Context, EventType, reference};
use futures::{StreamExt as _, TryStreamExt as _, stream, stream::FuturesUnordered};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::{
    creation_batch::{BatchGuard, CreationBatches},
    drift_repair::DriftReports,
    finding::MachineFinding,
    inquiries::Inquiries,
    machines::MachineSource,
    observe::SetMemories,
    plan::{FailoverPlan, Plan},
    writes::{Creation, SetWrites},
};

/// How old a read of the set may be when a Server is created because of it. A name that is given up after the read may be created
/// all the same: what was created is compared with the ledger afterwards, before it begins.
const FRESH: Duration = Duration::from_millis(250);
/// How many calls of one kind run at once, other than creations: enough to hide their latency.
const CALLS: usize = 16;

/// Carries out the plan of one set.
pub(super) struct Applier<'a> {
    pub(super) ctx: &'a Context,
    pub(super) writes: &'a SetWrites<'a>,
    pub(super) set: &'a VMReplicaSet,
    pub(super) memories: &'a SetMemories,
    pub(super) machines: &'a dyn MachineSource,
    pub(super) inquiries: &'a Inquiries,
    pub(super) drifts: &'a dyn DriftReports,
    pub(super) batches: &'a CreationBatches,
    /// Creation calls in flight at once.
    pub(super) max_creating: usize,
}

impl Applier<'_> {
    /// Does what the plan asks for. The set was read at `read_at`.
    ///
    /// Returns the creation batch if it may have created a Server whose name was given up meanwhile: the set has to be planned
    /// again before any of the new Servers begins.
    pub(super) async fn apply(
        &self,
        servers: &[&Server],
        plan: &Plan<'_>,
        read_at: Instant,
    ) -> Result<Option<BatchGuard>, ApiError> {
        self.fail_over(servers, &plan.failover).await?;
        let (set, writes) = (self.set, self.writes);
        all(plan.retire.iter().map(|server| writes.delete(server)).collect()).await?;
        all(plan.replace.iter().map(|server| writes.delete(server)).collect()).await?;
        all(plan.update.iter().map(|server| writes.update(set, server)).collect()).await?;
        for server in &plan.repair {
            self.memories.note_repair_request(set, server, self.ctx.clock.now());
            self.drifts.report(server);
        }
        self.create(&plan.create, read_at).await
    }

    /// Creates the Servers: first one, and after each success one more at once, so that a fault that concerns all of them is
    /// met by few calls. The set is read again meanwhile, so that a name that was given up is not created.
    async fn create(&self, names: &[String], mut read_at: Instant) -> Result<Option<BatchGuard>, ApiError> {
        let mut left: VecDeque<&String> = names.iter().collect();
        let batch = self.batches.begin(self.set);
        let mut made = Vec::new();
        let zone = self.machines.zone(&self.set.spec.template.spec.machine.class_name);
        let (mut window, mut calls, mut reads) = (1, FuturesUnordered::new(), FuturesUnordered::new());
        loop {
            if !left.is_empty() && reads.is_empty() && read_at.elapsed() > FRESH / 2 {
                reads.push(async { (Instant::now(), self.writes.pending(self.set).await) });
            }
            while calls.len() < window
                && read_at.elapsed() <= FRESH
                && let Some(name) = left.pop_front()
            {
                let zone = &zone;
                calls.push(async move { (name, self.writes.create(self.set, name, zone.as_deref()).await) });
            }
            tokio::select! {
                biased;
                Some((began_at, pending)) = reads.next(), if !left.is_empty() => {
                    let pending = pending?;
                    left.retain(|name| pending.contains(*name));
                    read_at = began_at;
                }
                Some((name, created)) = calls.next() => match created {
                    Ok(Creation::Created) => {
                        window = (window + 1).min(self.max_creating);
                        made.push(name);
                    }
                    Ok(Creation::NameTaken) => self.report_taken_name(name),
                    Err(error) => {
                        self.warn("CreationFailed", error.to_string());
                        // Calls in flight may still create Servers; their names are entered.
                        calls.collect::<Vec<_>>().await;
                        return Err(error);
                    }
                },
                else => break,
            }
        }
        if made.is_empty() {
            return Ok(None);
        }
        // A name that was given up before its Server was there has left the ledger; so has one whose Server another copy has seen.
        let pending = self.writes.pending(self.set).await?;
        Ok(made.into_iter().any(|name| !pending.contains(name)).then_some(batch))
    }

    fn report_taken_name(&self, name: &str) {
        let note = format!("the name {name} belongs to a Server that is not this set's: another ordinal is used");
        self.warn("NameTaken", note);
        self.memories.note_foreign_name(self.set, name);
    }

    /// Carries out failover. Servers that have changed since they were read are left alone: they may be back. So are those whose
    /// machine was not found to be out of order a moment ago: the plan has asked about them, and the ledger was written since.
    async fn fail_over(&self, servers: &[&Server], plan: &FailoverPlan) -> Result<(), ApiError> {
        let find = |name: &str| servers.iter().copied().find(|server| server.name() == name);
        let lost = |name: &String| {
            let server = find(name)?;
            Some((server, self.inquiries.fresh(self.set, server)?))
        };
        let reboots = plan.reboot.iter().filter_map(|(name, id)| Some((lost(name)?, id)));
        all(reboots.map(|((server, machine), id)| self.reboot(server, machine, id)).collect()).await?;
        let retained = plan.retain.iter().filter_map(|(name, until)| Some((lost(name)?, *until)));
        all(retained.map(|((server, machine), until)| self.retain(server, machine, until)).collect()).await?;
        all(plan.replace.iter().filter_map(lost).map(|(server, machine)| self.replace(server, machine)).collect())
            .await?;
        let expired = plan.expired.iter().filter_map(|name| find(name));
        all(expired.map(|server| self.writes.delete(server)).collect()).await?;
        if plan.shrink > 0 && self.writes.lower_replicas(self.set, plan.shrink).await? {
            let count = plan.shrink;
            self.report_failover(format!("Servers cannot be reached: replicas lowered by {count}; they are retired"));
        }
        Ok(())
    }

    async fn reboot(&self, server: &Server, machine: MachineFinding, id: &str) -> Result<(), ApiError> {
        if self.writes.request_reboot(server, id).await? {
            let name = server.name();
            self.report_failover(format!("{name} cannot be reached ({machine}): its machine is rebooted"));
        }
        Ok(())
    }

    async fn replace(&self, server: &Server, machine: MachineFinding) -> Result<(), ApiError> {
        self.writes.delete(server).await?;
        let name = server.name();
        self.report_failover(format!("{name} cannot be reached ({machine}): retired, another one is created"));
        Ok(())
    }

    async fn retain(&self, server: &Server, machine: MachineFinding, until: Timestamp) -> Result<(), ApiError> {
        let reason = format!("it could not be reached; {machine}");
        if self.writes.retain(server, until, &reason).await? {
            let name = server.name();
            self.report_failover(format!(
                "{name} cannot be reached ({machine}): kept until {until}, another one is created"
            ));
        }
        Ok(())
    }

    fn report_failover(&self, note: String) {
        self.warn("Failover", note);
    }

    fn warn(&self, reason: &str, note: String) {
        self.ctx.events.publish(&reference(self.set), EventType::Warning, reason, note);
    }
}

/// Waits for the calls, a few of them at once; after the first failure no more are begun.
async fn all(calls: Vec<impl Future<Output = Result<(), ApiError>>>) -> Result<(), ApiError> {
    stream::iter(calls).buffer_unordered(CALLS).try_collect::<()>().await
}
