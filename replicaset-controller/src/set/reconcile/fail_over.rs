//! Carrying failover out.

use berth_core::api::{Server, VMReplicaSet};
use berth_runtime::{CallError as Error, EventType, reference};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::{
    super::{failover, live::Live, machines::Found},
    Sets, uid,
};

/// How soon a provider is asked again that did not say what became of a machine.
const SILENCE: SignedDuration = SignedDuration::from_secs(30);

impl Sets {
    /// Does what failover asks for. Servers that have changed since they were read are left alone: they may be back.
    pub(super) async fn fail_over(
        &self,
        live: &Live<'_>,
        set: &VMReplicaSet,
        servers: &[&Server],
        plan: &failover::Plan,
    ) -> Result<(), Error> {
        let find = |name: &str| servers.iter().copied().find(|s| s.metadata.name.as_deref() == Some(name));
        for (name, id) in &plan.reboot {
            let Some(server) = find(name) else { continue };
            if live.ask_reboot(server, id).await? {
                self.tell(set, format!("{name} cannot be reached: its machine is rebooted"));
            }
        }
        for (name, until) in &plan.retain {
            let Some((server, found)) = self.found(set, find(name)).await else { continue };
            let reason = format!("it could not be reached; its machine {found}");
            if live.retain(server, *until, &reason).await? {
                let note = format!(
                    "{name} cannot be reached (its machine {found}): kept until {until}, another one is created"
                );
                self.tell(set, note);
            }
        }
        for name in &plan.replace {
            let Some((server, found)) = self.found(set, find(name)).await else { continue };
            live.delete(server, true).await?;
            self.tell(set, format!("{name} cannot be reached (its machine {found}): retired, another one is created"));
        }
        for server in plan.expired.iter().filter_map(|name| find(name)) {
            live.delete(server, false).await?;
        }
        if plan.shrink > 0 && live.shrink(set, plan.shrink).await? {
            let gone = plan.shrink;
            self.tell(set, format!("Servers cannot be reached: replicas lowered by {gone}; they are retired"));
        }
        Ok(())
    }

    /// The Server, and what its provider says of its machine. One that does not say is remembered.
    async fn found<'a>(&self, set: &VMReplicaSet, server: Option<&'a Server>) -> Option<(&'a Server, Found)> {
        let server = server?;
        match self.machines.find(server).await {
            Ok(found) => Some((server, found)),
            Err(why) => {
                let until = self.ctx.clock.now().checked_add(SILENCE).unwrap_or(Timestamp::MAX);
                let mut memory = self.memory();
                memory.entry(uid(set)).or_default().silent.insert(server.name_any(), (why, until));
                None
            }
        }
    }

    fn tell(&self, set: &VMReplicaSet, note: String) {
        self.ctx.events.publish(&reference(set), EventType::Warning, "Failover", note);
    }
}
