//! Whether the release on a machine has run well there.

use berth_core::api::{Server, State, Task, TaskKind, TaskPhase};

/// The revision on the machine, if the Server was Ready with it. Judged by the order of what has happened, not by times, because
/// those come from several clocks.
///
/// Asked while the next DeployApp is under way, when the fact still names the release before it.
pub(crate) fn proven_revision(server: &Server) -> Option<&str> {
    let status = server.status.as_ref()?;
    let fact = status.app.as_ref()?;
    let was_deployed_since = |task: &Task| task.kind == TaskKind::DeployApp && task.phase == TaskPhase::Succeeded;
    if status.current_tasks().any(was_deployed_since) {
        return None;
    }
    // On the way back to Ready nothing is deployed before Deploying.
    (status.came_from() == Some(State::Ready)).then_some(fact.revision.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::server;

    use super::*;

    #[test]
    fn a_release_has_run_well_if_the_server_was_ready_after_its_deployment() {
        use State::{Deploying, Initializing, Ready, Unknown};
        for (states, deployed_since, expected) in [
            (&[Ready, Deploying][..], false, true),
            (&[Ready, Deploying], true, false),
            (&[Ready, Initializing, Deploying], false, true),
            (&[Ready, Unknown, Initializing, Deploying], false, true),
            (&[Ready, Deploying, Unknown, Initializing, Deploying], false, false),
            (&[Initializing, Deploying], false, false),
            (&[Ready, Deploying, Initializing, Deploying], false, false),
        ] {
            let mut server = server("web-0", "v2", "Deploying", 1);
            let status = server.status.as_mut().unwrap();
            let left = states[..states.len() - 1].iter().rev();
            status.came_from = left.copied().find(|state| !matches!(state, Initializing | Unknown));
            status.app = Some(serde_json::from_value(json!({"revision": "v1"})).unwrap());
            let phases: &[&str] = if deployed_since { &["Succeeded", "Running"] } else { &["Running"] };
            let task = |phase: &&str| {
                let task = json!({"id": 1, "kind": "DeployApp", "step": 1, "executor": "deployment-controller",
                    "phase": phase, "digest": ""});
                serde_json::from_value(task).unwrap()
            };
            status.tasks = phases.iter().map(task).collect();
            assert_eq!(proven_revision(&server), expected.then_some("v1"), "{states:?}, {deployed_since}");
        }
    }
}
