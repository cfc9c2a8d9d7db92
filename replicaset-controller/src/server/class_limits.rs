//! Whether a Server's class has a machine for it.

use std::time::Duration;

use berth_core::{
    api::{MachineClass, Server},
    machine_class::{ClassRefusal, MachineRoom, machine_room},
};
use berth_iaas::Place;
use berth_runtime::{EventType, reference, requeue_after};

use super::reconciler::ServerReconciler;

/// Reason for a class that has no more machines to give.
pub(crate) const TOO_MANY_MACHINES: &str = "TooManyMachines";
/// When to look again for a machine of a class that has none left: Servers are not reconciled when others of their class go.
const WHILE_FULL: Duration = Duration::from_secs(20);
/// When to look again for a machine of a class that refuses: its change reconciles the Server at once.
const WHILE_REFUSED: Duration = Duration::from_mins(5);

impl ServerReconciler {
    /// How long the Server has to wait because its class has no machine for it, by the cache; none when it may have one. Where
    /// a machine may exist already, the class is not asked.
    pub(super) fn wait_for_class(&self, server: &Server) -> Option<Duration> {
        if Place::of_machine(server).is_some() {
            return None;
        }
        let class = self.classes.get(&server.spec.machine.class_name)?;
        if let Some(ClassRefusal { reason, message }) = class.refusal(server.namespace(), &server.spec.machine) {
            self.ctx.events.publish(&reference(server), EventType::Warning, reason, message);
            return Some(WHILE_REFUSED);
        }
        let (max, now) = (class.max_machines()?, self.ctx.clock.now());
        let servers = self.cache.store().state();
        let counting = servers.iter().map(AsRef::as_ref).filter(|other| class.counts(other));
        // A Server that cannot be decoded may have a machine of any class.
        let room = machine_room(server, counting, max.saturating_sub(self.cache.undecodable().len()), now);
        match room {
            MachineRoom::Free => None,
            MachineRoom::KnownAt(at) => Some(requeue_after(at, now)),
            MachineRoom::Full => {
                self.ctx.events.publish(&reference(server), EventType::Warning, TOO_MANY_MACHINES, full(&class, max));
                Some(WHILE_FULL)
            }
        }
    }
}

fn full(class: &MachineClass, max: usize) -> String {
    format!(
        "MachineClass {}: spec.maxMachines is {max}, and older Servers have or get them: this one gets a machine once one of \
         these is retired, or the limit is raised",
        class.name()
    )
}
