//! What must hold in the world, whatever Berth believes: judged on the machines that exist, on what runs on them, on what a
//! client of the load balancer would see, and on what people have written.
//!
//! The [`Court`] sees each change of an object as it happens, and each change of a machine. It asks one judge after the other.

mod budget;
mod decisions;
mod end;
mod failover;
mod fleet;
mod gates;
mod lock;
mod machines;
mod stuck;
mod tasks;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

use berth_iaas::simulated::{SimulatedMachines, Simulation};
use berth_machine::fake::FakeState;
use parking_lot::Mutex;
use serde_json::Value;

use self::{
    budget::Budget,
    failover::Failover,
    gates::Gates,
    view::{Place, View, is_berth},
};
pub(crate) use self::{
    fleet::{asks_for_a_person, is_held, unexplained, unfinished},
    machines::{has_orphans, machines_without_server},
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

/// A change of an object, as a judge sees it.
pub(crate) struct Scene<'a> {
    /// Plural name of the object's kind.
    pub(crate) plural: &'a str,
    /// Where the object is.
    pub(crate) place: &'a Place,
    pub(crate) before: Option<&'a Value>,
    pub(crate) after: Option<&'a Value>,
    /// The user who made the change; empty for the API server itself.
    pub(crate) author: &'a str,
    /// What there was before the change.
    pub(crate) view: &'a View,
    pub(crate) simulation: &'a Simulation,
    pub(crate) machines: &'a SimulatedMachines,
    /// The time of the world.
    pub(crate) clock: &'a SimClock,
}

/// A change of a machine by a script.
pub(crate) struct Work<'a> {
    /// The Server that the machine belongs to, as the copy of the program knows it.
    pub(crate) place: &'a Place,
    pub(crate) uid: &'a str,
    /// The copy that sent the script, as it claims locks.
    pub(crate) holder: &'a str,
    pub(crate) before: &'a FakeState,
    pub(crate) after: &'a FakeState,
    pub(crate) view: &'a View,
    pub(crate) clock: &'a SimClock,
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

/// Whether a copy of one of Berth's programs made the change.
fn by_berth(scene: &Scene<'_>) -> bool {
    is_berth(scene.author)
}
