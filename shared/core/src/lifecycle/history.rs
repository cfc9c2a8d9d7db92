//! Where a Server has come from: what decisions read of it, and what people read.

use crate::api::{ServerStatus, State, Task, Transition};

/// How many lines of history are kept: enough to follow one roll-out or failure, in an object that stays small.
const LINES: usize = 20;
/// Most characters of a line: a sentence and the beginning of an error.
const LENGTH: usize = 400;

impl ServerStatus {
    /// The state before this one; none in the first state.
    #[must_use]
    pub fn previous_state(&self) -> Option<State> {
        self.previous_state.or_else(|| self.transitions.last()?.from)
    }

    /// The state from which the Server began its way to the next Ready: the newest one that it has left, other than `Initializing` and
    /// `Unknown`. None on the first way.
    #[must_use]
    pub fn came_from(&self) -> Option<State> {
        let is_on_the_way = |state: &State| matches!(state, State::Initializing | State::Unknown);
        self.came_from.or_else(|| {
            self.transitions.iter().rev().filter_map(|change| change.from).find(|from| !is_on_the_way(from))
        })
    }

    /// Records that the Server enters another state.
    pub(super) fn record_transition(&mut self, change: &Transition) {
        if let Some(from) = change.from {
            self.previous_state = Some(from);
            if !matches!(from, State::Initializing | State::Unknown) {
                self.came_from = Some(from);
            }
        }
        self.record(line_of_transition(change));
    }

    /// Records a task that has ended and leaves the list.
    pub(super) fn record_task(&mut self, task: &Task) {
        self.record(line_of_task(task));
    }

    /// Turns what versions before `status.history` stored into lines.
    pub(super) fn convert_transitions(&mut self) {
        if self.transitions.is_empty() {
            return;
        }
        (self.previous_state, self.came_from) = (self.previous_state(), self.came_from());
        for change in std::mem::take(&mut self.transitions) {
            self.record(line_of_transition(&change));
        }
    }

    fn record(&mut self, mut line: String) {
        if let Some((end, _)) = line.char_indices().nth(LENGTH) {
            line.truncate(end);
            line.push_str("...");
        }
        self.history.push(line);
        let excess = self.history.len().saturating_sub(LINES);
        self.history.drain(..excess);
    }
}

/// For example `2026-01-01T10:00:00Z Deploying -> Ready (ann): environment, application and health are as declared`.
fn line_of_transition(change: &Transition) -> String {
    let Transition { from, to, at, reason, author } = change;
    let from = from.map_or_else(String::new, |from| format!("{from} "));
    format!("{} {from}-> {to} ({author}): {reason}", at.0)
}

/// For example `2026-01-01T10:00:00Z CreateMachine (task 1) Succeeded after 2 attempts since 2026-01-01T09:59:00Z: the machine runs`.
fn line_of_task(task: &Task) -> String {
    let ended = task.finished_at.as_ref().map_or_else(String::new, |at| format!("{} ", at.0));
    let gate = task.gate.map_or_else(String::new, |point| format!(" before {point}"));
    let attempts = match task.attempts {
        0 | 1 => String::new(),
        n => format!(" after {n} attempts"),
    };
    let since = task.started_at.as_ref().map_or_else(String::new, |at| format!(" since {}", at.0));
    let message = if task.message.is_empty() { String::new() } else { format!(": {}", task.message) };
    format!("{ended}{}{gate} (task {}) {:?}{attempts}{since}{message}", task.kind, task.id, task.phase)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn transition(from: Option<State>, to: State) -> Transition {
        let at = "2026-01-01T10:00:00Z";
        serde_json::from_value(json!({"from": from, "to": to, "at": at, "reason": "because", "author": "ann"})).unwrap()
    }

    #[test]
    fn lines_say_what_happened_when_and_why() {
        let mut status = ServerStatus::default();
        status.record_transition(&transition(None, State::Initializing));
        let task = json!({"id": 7, "kind": "DeployApp", "step": 1, "phase": "Failed",
            "attempts": 3, "startedAt": "2026-01-01T10:00:01Z", "finishedAt": "2026-01-01T10:00:09Z", "message": "no disk"});
        status.record_task(&serde_json::from_value(task).unwrap());
        let gate = json!({"id": 8, "kind": "Gate", "gate": "DeployApp", "step": 1, "phase": "Cancelled"});
        status.record_task(&serde_json::from_value(gate).unwrap());
        status.record_transition(&transition(Some(State::Initializing), State::Deploying));
        assert_eq!(
            status.history,
            [
                "2026-01-01T10:00:00Z -> Initializing (ann): because",
                "2026-01-01T10:00:09Z DeployApp (task 7) Failed after 3 attempts since 2026-01-01T10:00:01Z: no disk",
                "Gate before DeployApp (task 8) Cancelled",
                "2026-01-01T10:00:00Z Initializing -> Deploying (ann): because",
            ]
        );
    }

    #[test]
    fn the_newest_lines_are_kept() {
        let mut status = ServerStatus::default();
        (0..30).for_each(|n| status.record(n.to_string()));
        assert_eq!((status.history.len(), status.history[0].as_str(), status.history[19].as_str()), (20, "10", "29"));
        status.record("ä".repeat(500));
        assert_eq!(status.history[19], format!("{}...", "ä".repeat(400)));
    }

    #[test]
    fn where_a_server_came_from_is_the_same_by_old_and_new_records() {
        use State::{Deploying, Initializing, Ready, Unknown};
        for (states, previous, came_from) in [
            (&[Initializing][..], None, None),
            (&[Initializing, Deploying], Some(Initializing), None),
            (&[Ready, Deploying], Some(Ready), Some(Ready)),
            (&[Ready, Unknown, Initializing, Deploying], Some(Initializing), Some(Ready)),
            (&[Ready, Deploying, Unknown, Initializing], Some(Unknown), Some(Deploying)),
        ] {
            let changes: Vec<Transition> = states.windows(2).map(|pair| transition(Some(pair[0]), pair[1])).collect();
            let mut new = ServerStatus::default();
            for change in &changes {
                new.record_transition(change);
            }
            let mut old = ServerStatus { transitions: changes, ..ServerStatus::default() };
            for status in [&new, &old] {
                assert_eq!((status.previous_state(), status.came_from()), (previous, came_from), "{states:?}");
            }
            old.convert_transitions();
            assert_eq!(old, new, "{states:?}");
        }
    }
}
