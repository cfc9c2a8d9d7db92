//! The way of one copy of a program to machines and to their provider.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Program;

/// The way of one copy to machines and to their provider. Clones are the same way.
#[derive(Clone)]
pub(crate) struct Way(Arc<WayInner>);

struct WayInner {
    program: Program,
    /// The copy as it claims locks.
    holder: String,
    has_ended: AtomicBool,
    no_machines_until: Mutex<Option<Instant>>,
    no_provider_until: Mutex<Option<Instant>>,
}

impl Way {
    pub(crate) fn new(program: Program, holder: &str) -> Self {
        Self(Arc::new(WayInner {
            program,
            holder: holder.to_owned(),
            has_ended: AtomicBool::new(false),
            no_machines_until: Mutex::default(),
            no_provider_until: Mutex::default(),
        }))
    }

    pub(crate) fn holder(&self) -> &str {
        &self.0.holder
    }

    /// The copy has ended.
    pub(crate) fn end(&self) {
        self.0.has_ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.has_ended.load(Ordering::Relaxed)
    }

    pub(crate) fn reaches_machines(&self) -> bool {
        is_over(*self.0.no_machines_until.lock())
    }

    pub(crate) fn reaches_provider(&self) -> bool {
        is_over(*self.0.no_provider_until.lock())
    }
}

/// Whether what lasts until then is over.
pub(crate) fn is_over(until: Option<Instant>) -> bool {
    until.is_none_or(|until| until <= Instant::now())
}

/// The ways of all copies that live.
#[derive(Clone, Default)]
pub(crate) struct Ways(Arc<Mutex<Vec<Way>>>);

impl Ways {
    pub(crate) fn add(&self, way: &Way) {
        self.0.lock().push(way.clone());
    }

    /// Takes a copy of one of these programs its way to machines. Returns which one.
    pub(crate) fn lose_machines(&self, number: usize, until: Instant) -> Option<String> {
        let of = [Program::ReplicasetController, Program::DeploymentController];
        self.lose(number, &of, |way| *way.0.no_machines_until.lock() = Some(until))
    }

    /// Takes a copy of replicaset-controller its way to the provider. Returns which one.
    pub(crate) fn lose_provider(&self, number: usize, until: Instant) -> Option<String> {
        self.lose(number, &[Program::ReplicasetController], |way| *way.0.no_provider_until.lock() = Some(until))
    }

    fn lose(&self, number: usize, of: &[Program], lose: impl FnOnce(&Way)) -> Option<String> {
        let mut ways = self.0.lock();
        ways.retain(|way| !way.has_ended());
        let ways: Vec<&Way> = ways.iter().filter(|way| of.contains(&way.0.program)).collect();
        let way = ways.get(number % ways.len().max(1))?;
        lose(way);
        Some(way.holder().to_owned())
    }

    /// Gives all ways back.
    pub(crate) fn recover(&self) {
        for way in self.0.lock().iter() {
            (*way.0.no_machines_until.lock(), *way.0.no_provider_until.lock()) = (None, None);
        }
    }
}
