//! The step that a person ends: what is waited for, and what the person is shown. Pure.

use berth_core::api::{ApproveStep, Rollout, RolloutProgress};

use crate::analysis;

/// Most characters of what one check says beside the wait. The whole text stands in `status.rollout.analysis`.
const MOST_CHARACTERS: usize = 200;

/// What the approval waits for, with the latest values of the evidence.
pub(crate) fn waiting_for(place: &str, step: &ApproveStep, rollout: &Rollout, progress: &RolloutProgress) -> String {
    let message = format!(
        "a person: {place} needs an approval: look at the new version and set spec.rollout.request to \
         {{action: Promote, id: <a new value>}}, or to {{action: Abort, ...}}"
    );
    if step.evidence.is_empty() {
        return message;
    }
    let known = analysis::watched(rollout, progress).map(|(_, known)| known);
    let said = step.evidence.iter().map(|name| {
        let check = known.and_then(|known| known.checks.iter().find(|check| check.name == *name));
        check.map_or_else(
            || format!("{name} was not looked at yet"),
            |check| {
                let text: String = check.message.chars().take(MOST_CHARACTERS).collect();
                format!("{name} {:?} ({text})", check.verdict)
            },
        )
    });
    let said: Vec<String> = said.collect();
    format!("{message}; evidence: {}", said.join(", "))
}

#[cfg(test)]
#[path = "approval_tests.rs"]
mod tests;
