//! New code goes out in steps, and a bad version comes back by itself.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use berth_core::{
    api::VMDeploymentStatus,
    conditions::{self, READY},
};
use berth_tests::{Berth, repository};

use crate::{examples, pages, progress::Servers, screen::Screen, traffic::Traffic};

/// Time limit of each part of a roll-out; it takes half a minute at most.
const LIMIT: Duration = Duration::from_mins(2);

/// Shows a good version that goes out in steps, and a bad one that is caught and rolled back.
pub(crate) async fn show(
    screen: &mut Screen,
    berth: &Berth,
    kubeconfig: &Path,
    replicas: usize,
    traffic: Option<&Traffic<'_>>,
) -> Result<()> {
    let kubectl = &berth.control_plane().assets().kubectl;
    let patch =
        async |file: &str| examples::patch(kubectl, kubeconfig, &repository().join("examples").join(file)).await;

    println!("\nNew code. The machines stay as they are, and the steps of spec.rollout say how far the code may go:");
    println!("one server; a pause of five seconds; all servers.");
    patch("web-v2.patch.yaml").await?;
    screen.stage("declared version 2");
    screen.until("the pause after the first server", LIMIT, |_, status| is_in_pause(status)).await?;
    screen.stage("step 1 is done: one server has version 2 and is well with it; the others serve version 1");
    pages::request(&screen.list()).await?;
    if let Some(traffic) = traffic {
        let since = traffic.answers();
        screen.until("the end of the pause", LIMIT, |_, status| !is_in_pause(status)).await?;
        traffic.print_shares(&since);
    }
    screen
        .until("version 2 on all servers", LIMIT, |servers, status| is_stable(servers, status, "v2", replicas))
        .await?;
    screen.stage("step 3 is done: version 2 is the stable one, at most one server was out of traffic at a time");

    println!("\nA bad version. It starts, but its health check never succeeds:");
    patch("web-v3.patch.yaml").await?;
    screen.stage("declared version 3");
    let failed = |_: &Servers, status: &VMDeploymentStatus| abort_of(status).is_some();
    let status = screen.until("the failure of version 3", LIMIT, failed).await?;
    let abort = abort_of(&status).context("the roll-out was aborted")?;
    screen.stage("caught on the first server, and rolled back without a person, because more servers have failed than");
    println!("          spec.rollout.maxFailed allows and spec.rollout.onFailure is Rollback:");
    // What is wrong, and on which server. Between them stands what a person could do, had it not been rolled back.
    let parts: Vec<&str> = abort.split("; ").collect();
    parts.first().into_iter().chain(parts.last()).for_each(|part| println!("          {part}"));
    screen.until("version 2 on all servers", LIMIT, |servers, status| is_back(servers, status, replicas)).await?;
    screen.stage("version 2 is back. The other servers were never touched");
    pages::request(&screen.list()).await?;
    println!("Version 3 is still declared, and stays away until a person requests Retry: the VMDeployment is Stalled");
    println!("(RolloutAborted), and GitOps tools show it as failed. A person declares version 2 again:");
    patch("web-v2.patch.yaml").await?;
    screen.until("Ready", LIMIT, |servers, status| is_stable(servers, status, "v2", replicas)).await?;
    screen.stage("what is declared is what runs");
    Ok(())
}

fn is_in_pause(status: &VMDeploymentStatus) -> bool {
    status.rollout.as_ref().is_some_and(|progress| progress.current_step == Some(2))
}

/// Whether the version is on all servers, and declared.
fn is_stable(servers: &Servers, status: &VMDeploymentStatus, revision: &str, replicas: usize) -> bool {
    let is_declared = status.revision.as_deref() == Some(revision) && status.stable_revision == status.revision;
    is_declared && conditions::get_true(&status.conditions, READY).is_some() && servers.all_serve(replicas)
}

/// Why the roll-out was aborted, if it was.
fn abort_of(status: &VMDeploymentStatus) -> Option<String> {
    Some(status.rollout.as_ref()?.aborted.as_ref()?.message.clone())
}

/// Whether no server has the aborted version any more.
fn is_back(servers: &Servers, status: &VMDeploymentStatus, replicas: usize) -> bool {
    let is_gone = status.revisions.iter().all(|count| Some(&count.revision) != status.revision.as_ref());
    is_gone && abort_of(status).is_some() && servers.all_serve(replicas)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(value: Value) -> VMDeploymentStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_stages_of_a_roll_out_are_told_apart() {
        let none = Servers::default();
        let paused = status(json!({"rollout": {"digest": "a", "healthyReplicas": 1, "currentStep": 2}}));
        assert!(is_in_pause(&paused) && !is_in_pause(&status(json!({}))));

        let ready = json!([{"type": "Ready", "status": "True", "reason": "Ready", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let with = |stable: &str, conditions: &Value| {
            status(json!({"revision": "v2", "stableRevision": stable, "conditions": conditions}))
        };
        assert!(is_stable(&none, &with("v2", &ready), "v2", 0));
        assert!(!is_stable(&none, &with("v2", &ready), "v2", 1), "a server is missing");
        assert!(!is_stable(&none, &with("v1", &ready), "v2", 0), "it has not proven itself");
        assert!(!is_stable(&none, &with("v2", &json!([])), "v2", 0));
        assert!(!is_stable(&none, &with("v2", &ready), "v3", 0), "the controller has not seen it yet");

        let aborted = |revision: &str| {
            let abort = json!({"reason": "TooManyFailed", "message": "why", "at": "2026-01-01T00:00:00Z"});
            status(json!({"revision": "v3", "revisions": [{"revision": revision, "replicas": 1, "readyReplicas": 1}],
                "rollout": {"digest": "a", "healthyReplicas": 0, "aborted": abort}}))
        };
        assert_eq!(abort_of(&aborted("v3")).as_deref(), Some("why"));
        assert!(is_back(&none, &aborted("v2"), 0) && !is_back(&none, &aborted("v3"), 0));
    }
}
