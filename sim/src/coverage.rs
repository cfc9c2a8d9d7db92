//! What a run has tried: which faults happened, in which states Servers were seen, and which tasks ran when faults happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use berth_core::api::{Server, TaskPhase};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::ApiServer;

/// How old what is known of the Servers may be when a fault happens. There are thousands of faults, and reading all Servers for
/// each would take more time than the run.
const FRESH: Duration = Duration::from_secs(1);

/// What was tried. Clones share it.
#[derive(Clone, Default)]
pub struct Coverage(Arc<Mutex<Counts>>);

/// Compared and shown by value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// How often each kind of fault happened.
    faults: BTreeMap<&'static str, u64>,
    /// How often a Server was seen in each state.
    states: BTreeMap<String, u64>,
    /// The tasks that ran when each kind of fault happened, and how often.
    pairs: BTreeMap<(&'static str, String), u64>,
    /// Every kind of task that was seen to run.
    tasks: BTreeSet<String>,
    seen: Option<Seen>,
}

/// What was last seen of the Servers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    at: Instant,
    running: BTreeSet<String>,
}

impl Coverage {
    /// A fault of this kind happens now.
    pub(crate) fn count(&self, kind: &'static str, api: &ApiServer) {
        let counts = &mut *self.0.lock();
        *counts.faults.entry(kind).or_default() += 1;
        if counts.seen.as_ref().is_none_or(|seen| seen.at.elapsed() >= FRESH) {
            counts.look(api);
        }
        for task in counts.seen.iter().flat_map(|seen| &seen.running) {
            *counts.pairs.entry((kind, task.clone())).or_default() += 1;
        }
    }

    /// Adds what another run has tried.
    pub fn add(&self, other: &Self) {
        let other = other.0.lock().clone();
        let counts = &mut *self.0.lock();
        for (kind, number) in other.faults {
            *counts.faults.entry(kind).or_default() += number;
        }
        for (state, number) in other.states {
            *counts.states.entry(state).or_default() += number;
        }
        for (pair, number) in other.pairs {
            *counts.pairs.entry(pair).or_default() += number;
        }
        counts.tasks.extend(other.tasks);
    }

    /// In one line: how many faults there were, and how many pairs of a fault and a task that ran.
    #[must_use]
    pub fn summary(&self) -> String {
        let counts = self.0.lock();
        let faults: u64 = counts.faults.values().sum();
        let (kinds, tasks) = (counts.faults.len(), counts.tasks.len());
        let (pairs, all) = (counts.pairs.len(), kinds * tasks);
        let states = counts.states.len();
        format!("{faults} faults of {kinds} kinds, {states} states, {pairs} of {all} pairs of fault and running task")
    }
}

impl Counts {
    fn look(&mut self, api: &ApiServer) {
        let mut running = BTreeSet::new();
        for server in api.objects::<Server>("servers") {
            let state = server.state().map_or_else(|| "none yet".to_owned(), |state| state.to_string());
            *self.states.entry(state).or_default() += 1;
            let tasks = server.status.iter().flat_map(|status| &status.tasks);
            running.extend(tasks.filter(|task| task.phase == TaskPhase::Running).map(|task| task.kind.to_string()));
        }
        self.tasks.extend(running.iter().cloned());
        self.seen = Some(Seen { at: Instant::now(), running });
    }
}

impl PartialEq for Coverage {
    fn eq(&self, other: &Self) -> bool {
        let one = self.0.lock().clone();
        let two = other.0.lock();
        (one.faults, one.states, one.pairs) == (two.faults.clone(), two.states.clone(), two.pairs.clone())
    }
}

impl fmt::Debug for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())
    }
}

/// A table: each kind of fault, how often it happened, and how often while each task ran.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.lock();
        write!(f, "{:<28}{:>9}", "fault", "times")?;
        for task in &counts.tasks {
            write!(f, " {task:>16}")?;
        }
        for (kind, number) in &counts.faults {
            write!(f, "\n{kind:<28}{number:>9}")?;
            for task in &counts.tasks {
                write!(f, " {:>16}", counts.pairs.get(&(*kind, task.clone())).copied().unwrap_or_default())?;
            }
        }
        let states: Vec<String> = counts.states.iter().map(|(state, number)| format!("{state} {number}")).collect();
        write!(f, "\nstates seen: {}", states.join(", "))
    }
}
