//! The court: asks each judge about each change, as it happens.

use std::{sync::Arc, time::Duration};

use berth_iaas::simulated::{SimulatedMachines, Simulation};
use parking_lot::Mutex;

use super::{
    budget::Budget,
    decisions, end,
    failover::Failover,
    gates::Gates,
    lock, machines, said,
    scene::{Deed, Scene, Work},
    steps::Steps,
    stuck, tasks,
    view::{self, Place, View},
    zones::ZoneOrder,
};
use crate::{ApiServer, Finding, Judge, SimClock, apiserver::Change, findings::Findings};

/// All judges that watch a world, with what they remember. Clones share it.
#[derive(Clone)]
pub(crate) struct Court {
    findings: Findings,
    simulation: Simulation,
    machines: SimulatedMachines,
    clock: SimClock,
    memory: Arc<Mutex<Memory>>,
}

/// What the judges remember.
#[derive(Default)]
struct Memory {
    view: View,
    budget: Budget,
    gates: Gates,
    failover: Failover,
    steps: Steps,
    zones: ZoneOrder,
}

impl Court {
    pub(crate) fn new(
        findings: Findings,
        simulation: Simulation,
        machines: SimulatedMachines,
        clock: SimClock,
    ) -> Self {
        Self { findings, simulation, machines, clock, memory: Arc::default() }
    }

    /// The clocks of two copies of a controller may be so far apart.
    pub(crate) fn allow_skew(&self, skew: Duration) {
        let memory = &mut *self.memory.lock();
        (memory.steps.skew, memory.zones.skew) = (skew, skew);
    }

    /// An object has changed.
    pub(crate) fn see(&self, plural: &str, change: &Change, author: &str) {
        if !view::MATTERS.contains(&plural) {
            return;
        }
        let place = Place::new(&change.key.place.0, &change.key.place.1);
        let memory = &mut *self.memory.lock();
        let scene = Scene {
            plural,
            place: &place,
            before: change.before.as_deref().map(|stored| &**stored),
            after: change.after.as_deref().map(|stored| &**stored),
            author,
            view: &memory.view,
            simulation: &self.simulation,
            machines: &self.machines,
            clock: &self.clock,
        };
        self.report(Judge::Machines, machines::several_for_one_server(&scene));
        self.report(Judge::End, end::too_early(&scene, |uid| self.findings.is_forgotten(uid)));
        self.report(Judge::Decisions, decisions::undone(&scene));
        self.report(Judge::Tasks, tasks::miscounted(&scene));
        self.report(Judge::Budget, memory.budget.exceeded(&scene));
        self.report(Judge::Gates, memory.gates.passed(&scene));
        self.report(Judge::Failover, memory.failover.harms(&scene));
        self.report(Judge::Steps, memory.steps.exceeded(&scene));
        self.report(Judge::Zones, memory.zones.broken(&scene));
        self.report(Judge::Stuck, said::silence(&scene));
        memory.view.apply(plural, place, change.after.clone(), author, self.clock.elapsed());
    }

    /// A copy of a program claims the lock of a Server, and was told that it has it.
    pub(crate) fn see_claim(&self, namespace: &str, name: &str, holder: &str) {
        self.memory.lock().view.note_claim(Place::new(namespace, name), holder, self.clock.elapsed());
    }

    /// A script has changed a machine.
    pub(crate) fn see_work(&self, deed: &Deed<'_>) {
        let memory = &mut *self.memory.lock();
        let Deed { uid, holder, before, after, .. } = *deed;
        let (namespace, name) = deed.server.split_once('/').unwrap_or_default();
        let (place, sent) = (Place::new(namespace, name), self.clock.elapsed().saturating_sub(deed.age));
        let work = Work { place: &place, uid, holder, sent, before, after, view: &memory.view, clock: &self.clock };
        if !deed.ends {
            self.report(Judge::Lock, lock::work_without_lock(&work));
        }
        self.report(Judge::Decisions, decisions::work_on_forced(&work));
        self.report(Judge::Gates, memory.gates.work(&work));
        memory.steps.note_work(&work);
    }

    /// Etcd was restored. No change of an object tells of that.
    pub(crate) fn note_restore(&self, api: &ApiServer) {
        self.memory.lock().view.restore(api, self.clock.elapsed());
    }

    /// The provider has said that this machine does not exist, and it does: whoever believes it harms it in good faith.
    pub(crate) fn note_lie(&self, uid: &str) {
        self.memory.lock().failover.doubt(uid, self.clock.elapsed());
    }

    /// A copy of a program has logged in on this machine, or did not get that far.
    pub(crate) fn note_login(&self, uid: &str, holder: &str, answers: bool) {
        self.memory.lock().failover.connected(uid, holder, answers, self.clock.elapsed());
    }

    /// A machine is gone, and nobody has asked for that.
    pub(crate) fn note_loss(&self, uid: &str) {
        self.memory.lock().gates.forget_machine(uid);
    }

    /// Whether a person forces this Server, as namespace/name, to Ready.
    pub(crate) fn is_forced_ready(&self, server: &str) -> bool {
        let (namespace, name) = server.split_once('/').unwrap_or_default();
        decisions::is_forced_ready(&self.memory.lock().view, &Place::new(namespace, name))
    }

    /// What is stuck without saying why.
    pub(crate) fn silent(&self) -> Option<Finding> {
        let text = stuck::without_words(&self.memory.lock().view, self.clock.elapsed())?;
        Some(Finding::new(Judge::Stuck, text))
    }

    fn report(&self, judge: Judge, text: Option<String>) {
        if let Some(text) = text {
            self.findings.report(judge, format!("{} ms: {text}", self.clock.elapsed().as_millis()));
        }
    }
}
