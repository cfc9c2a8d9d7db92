//! Reading a Server's history.

use berth_core::api::{ServerStatus, State, TaskKind, TaskPhase};

/// The states that the Server has entered, as far as its history reaches.
pub fn entered_states(status: &ServerStatus) -> Vec<State> {
    let name = |line: &'_ String| Some(line.split_once("-> ")?.1.split_once(" (")?.0.to_owned());
    let names = status.history.iter().filter_map(name);
    names.filter_map(|name| State::ALL.into_iter().find(|state| state.to_string() == name)).collect()
}

/// How many tasks of this kind ended in this way, as far as the list of tasks and the history reach.
pub fn ended_tasks(status: &ServerStatus, kind: TaskKind, phase: TaskPhase) -> usize {
    let listed = status.tasks.iter().filter(|task| task.kind == kind && task.phase == phase).count();
    let is_it = |line: &&String| line.contains(&format!("{kind} (task ")) && line.contains(&format!(") {phase:?}"));
    listed + status.history.iter().filter(is_it).count()
}
