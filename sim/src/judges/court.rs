//! The court: asks each judge about each change, as it happens.

use std::sync::Arc;

use berth_iaas::simulated::{SimulatedMachines, Simulation};
use berth_machine::fake::FakeState;
use parking_lot::Mutex;

use super::{
    budget::Budget,
    decisions, end,
    failover::Failover,
    gates::Gates,
    lock, machines,
    scene::{Scene, Work},
    stuck, tasks,
    view::{self, Place, View},
};
use crate::{Finding, Judge, SimClock, apiserver::Change, findings::Findings};

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
        self.report(Judge::End, end::too_early(&scene));
        self.report(Judge::Decisions, decisions::undone(&scene));
        self.report(Judge::Tasks, tasks::miscounted(&scene));
        self.report(Judge::Budget, memory.budget.exceeded(&scene));
        self.report(Judge::Gates, memory.gates.passed(&scene));
        self.report(Judge::Failover, memory.failover.harms(&scene));
        memory.view.apply(plural, place, change.after.clone(), author, self.clock.elapsed());
    }

    /// A script has changed a machine.
    pub(crate) fn see_work(&self, server: &str, uid: &str, holder: &str, before: &FakeState, after: &FakeState) {
        let memory = &*self.memory.lock();
        let (namespace, name) = server.split_once('/').unwrap_or_default();
        let place = Place::new(namespace, name);
        let work = Work { place: &place, uid, holder, before, after, view: &memory.view, clock: &self.clock };
        self.report(Judge::Lock, lock::work_without_lock(&work));
        self.report(Judge::Decisions, decisions::work_on_forced(&work));
        self.report(Judge::Gates, memory.gates.work(&work));
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
