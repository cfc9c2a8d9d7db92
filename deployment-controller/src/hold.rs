//! What holds a roll-out: a person's pause, steps, or too many failures.

use berth_core::{
    api::{Rollout, RolloutProgress, VMDeployment},
    budget::Budget,
};
use k8s_openapi::jiff::Timestamp;

use crate::{
    after,
    alarms::{self, ALARM_FIRING},
    analysis::{self, ANALYSIS_FAILED},
    background::{self, BACKGROUND_CHECK_FAILED},
    count::RolloutCount,
    held::{Hold, UNTIL_A_PERSON},
    steps,
};

/// Reason of the condition `Stalled`: more Servers have failed with the newest application than `rollout.maxFailed` allows.
pub(crate) const TOO_MANY_FAILED: &str = "TooManyFailed";

/// Reason of the condition `Stalled`: a Secret that the newest application needs is missing. No Server is touched before it is
/// there: each would be taken out of traffic only to wait.
const MISSING_SECRET: &str = "MissingSecret";

/// The same for a ConfigMap.
const MISSING_CONFIG_MAP: &str = "MissingConfigMap";

/// The same for a DeployClass that is missing, or cannot be used.
const MISSING_DEPLOY_CLASS: &str = "MissingDeployClass";

/// Reasons of the condition `Stalled` with which the roll-out has failed, if it does not go back.
pub(crate) const FAILED: [&str; 4] = [TOO_MANY_FAILED, ANALYSIS_FAILED, BACKGROUND_CHECK_FAILED, ALARM_FIRING];

/// Names in a message: enough to begin with, few enough to read.
const NAMES: usize = 5;

/// Why nothing is rolled out; none when nothing holds the roll-out. `missing_content`: what is missing of the ConfigMaps and
/// Secrets that the application needs; `progress`: how far the roll-out has come, if anything is known about it.
pub(crate) fn hold(
    deployment: &VMDeployment,
    count: &RolloutCount<'_>,
    missing_content: Option<&str>,
    progress: Option<&RolloutProgress>,
    now: Timestamp,
) -> Option<Hold> {
    let rollout = &deployment.spec.rollout;
    // A person who goes back does so although the roll-out is paused.
    let of_status = deployment.status.as_ref().and_then(|status| status.rollout.as_ref());
    let is_undone = of_status.is_some_and(|known| known.undone.is_some());
    let paused = |field| Hold::paused(format!("the roll-out is paused ({field})"));
    let is_gradual = !steps::needs_no_steps(deployment, count);
    too_many_failed(deployment, count)
        .map(|message| Hold::failed(TOO_MANY_FAILED, message))
        .or_else(|| (deployment.spec.paused && !is_undone).then(|| paused("spec.paused")))
        .or_else(|| rollout.paused.then(|| paused("spec.rollout.paused")))
        .or_else(|| missing_content.map(|missing| Hold::failed(missing_reason(missing), missing.to_owned())))
        .or_else(|| checks_failed(rollout, progress?))
        .or_else(|| after::hold(rollout, progress, is_gradual))
        .or_else(|| alarms::hold(rollout, progress, is_gradual, now))
}

/// Reason of the condition `Stalled` while this is missing.
pub(crate) fn missing_reason(missing: &str) -> &'static str {
    match missing {
        _ if missing.starts_with("DeployClass ") => MISSING_DEPLOY_CLASS,
        _ if missing.contains(" of ConfigMap ") => MISSING_CONFIG_MAP,
        _ => MISSING_SECRET,
    }
}

/// That the analysis of the current step or a check in the background has failed, if one has.
fn checks_failed(rollout: &Rollout, progress: &RolloutProgress) -> Option<Hold> {
    let analysed = analysis::failure(rollout, progress).map(|failure| (ANALYSIS_FAILED, failure));
    let in_background = || background::failure(rollout, progress).map(|failure| (BACKGROUND_CHECK_FAILED, failure));
    let (reason, failure) = analysed.or_else(in_background)?;
    Some(Hold::failed(reason, format!("{failure}; {UNTIL_A_PERSON}")))
}

/// Which Servers have failed with the newest application, if more have than may.
pub(crate) fn too_many_failed(deployment: &VMDeployment, count: &RolloutCount<'_>) -> Option<String> {
    let (max, failed) = (Budget::max_failed(deployment)?, &count.failed);
    if failed.len() <= max {
        return None;
    }
    let (first, reason) = failed.first()?;
    let names = failed.iter().take(NAMES).map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let more = if failed.len() > NAMES { format!(" and {} more", failed.len() - NAMES) } else { String::new() };
    Some(format!(
        "{} Servers have failed with revision {}, at most {max} may (spec.rollout.maxFailed): {names}{more}; no other Server is \
         touched until another revision is declared, they are repaired or retried (spec.retry), or maxFailed is raised; \
         {first}: {reason}",
        failed.len(),
        count.newest.effective_revision()
    ))
}

#[cfg(test)]
mod tests {
    use berth_core::{
        api::{Server, State, Task, TaskKind, TaskPhase, VMReplicaSet},
        conditions::{self, PROGRESSING, STALLED},
        lifecycle,
    };
    use serde_json::json;

    use super::*;
    use crate::{
        observed::ObservedDeployment,
        replica_set::{self, newest_app},
        rollout, status,
        testing::{deployment, failed, now, server},
    };

    fn newer(max_failed: &serde_json::Value) -> VMDeployment {
        deployment("v2", |spec| {
            spec["replicas"] = 6.into();
            spec["updateStrategy"] = json!({"maxUnavailable": "100%"});
            spec["rollout"] = json!({"maxFailed": max_failed});
        })
    }

    /// The Servers that are updated next, reason of Stalled, reason of Progressing, and what is waited for.
    fn outcome(deployment: &VMDeployment, servers: &[Server]) -> (usize, String, String, String) {
        let servers: Vec<&Server> = servers.iter().collect();
        let set: VMReplicaSet = replica_set::desired(deployment, newest_app(deployment));
        let next = rollout::next_updates(deployment, &set, &servers, None, now()).servers.len();
        let observed = ObservedDeployment {
            deployment,
            set: Some(&set),
            servers: &servers,
            missing_content: None,
            looks: &[],
            alarm_look: None,
            others: &[],
            awaited: &[],
            now: now(),
        };
        let (status, _) = status::compute(&observed);
        let reason = |kind| conditions::get(&status.conditions, kind).unwrap().reason.clone();
        (next, reason(STALLED), reason(PROGRESSING), status.waiting_for.unwrap_or_default())
    }

    fn six(failed_ones: usize) -> Vec<Server> {
        let name = |n: usize| format!("web-{n}");
        let of = |n| if n < failed_ones { failed(&name(n), "v2") } else { server(&name(n), "v1", "Ready", 90) };
        (0..6).map(of).collect()
    }

    #[test]
    fn a_roll_out_stops_when_more_servers_have_failed_than_may() {
        for (max, failed, stops) in [
            (json!(1), 1, false),
            (json!(1), 2, true),
            (json!(0), 1, true),
            (json!("50%"), 3, false),
            (json!("50%"), 4, true),
            (json!("5%"), 1, false),
            (json!("5%"), 2, true),
            (json!(null), 5, false),
        ] {
            let (next, stalled, progressing, waiting_for) = outcome(&newer(&max), &six(failed));
            assert_eq!(
                (next == 0, stalled == TOO_MANY_FAILED),
                (stops, stops),
                "{max}, {failed} failed: {waiting_for}"
            );
            assert_eq!(progressing == TOO_MANY_FAILED, stops, "{max}, {failed} failed");
        }
        let waiting_for = outcome(&newer(&json!(1)), &six(2)).3;
        assert!(
            waiting_for.starts_with(
                "a person: 2 Servers have failed with revision v2, at most 1 may (spec.rollout.maxFailed): web-0, web-1; no"
            ) && waiting_for.ends_with("web-0: DeployApp failed: no space left"),
            "{waiting_for}"
        );
    }

    #[test]
    fn nothing_is_updated_while_a_secret_is_missing_and_a_person_is_told() {
        let (deployment, servers) = (newer(&json!(null)), six(0));
        let servers: Vec<&Server> = servers.iter().collect();
        let set: VMReplicaSet = replica_set::desired(&deployment, newest_app(&deployment));
        let missing = Some("needs key password of Secret shop/db");
        assert!(rollout::next_updates(&deployment, &set, &servers, missing, now()).is_empty(&set));
        let observed = ObservedDeployment {
            deployment: &deployment,
            set: Some(&set),
            servers: &servers,
            missing_content: missing,
            looks: &[],
            alarm_look: None,
            others: &[],
            awaited: &[],
            now: now(),
        };
        let (status, at) = status::compute(&observed);
        assert_eq!(conditions::get_true(&status.conditions, STALLED).unwrap().reason, MISSING_SECRET);
        assert_eq!(status.waiting_for.unwrap(), "a person: needs key password of Secret shop/db");
        assert_eq!((status.rollout.unwrap().progressed_at, at), (None, None), "the deadline does not run");
    }

    #[test]
    fn health_that_was_not_proven_before_the_newest_revision_is_deployed_is_no_failure_of_it() {
        let mut servers = six(1);
        let deploy = servers[0].status.as_ref().unwrap().tasks[0].clone();
        servers[0].spec.health_check = serde_json::from_value(json!({"tcpSocket": {"port": 80}})).unwrap();
        let digest = lifecycle::plan(&servers[0], State::Deploying)
            .into_iter()
            .find(|task| task.kind == TaskKind::CheckHealth)
            .unwrap()
            .digest;
        let status = servers[0].status.as_mut().unwrap();
        let unhealthy = Task { kind: TaskKind::CheckHealth, digest, message: "status 500".into(), ..deploy.clone() };
        status.tasks = vec![unhealthy, Task { id: 2, phase: TaskPhase::Pending, message: String::new(), ..deploy }];
        assert_eq!(outcome(&newer(&json!(0)), &servers).1, "Progressing");
        servers[0].status.as_mut().unwrap().tasks.truncate(1);
        assert_eq!(outcome(&newer(&json!(0)), &servers).1, TOO_MANY_FAILED);
    }

    #[test]
    fn a_stopped_roll_out_goes_on_with_another_revision_a_retry_or_a_higher_limit() {
        assert_eq!(outcome(&newer(&json!(1)), &six(2)).0, 0);
        let mut another = newer(&json!(1));
        another.spec.app.revision = Some("v3".into());
        assert_eq!(outcome(&another, &six(2)).0, 6, "those that failed included");
        assert_eq!(outcome(&newer(&json!(2)), &six(2)).0, 4);
        let mut retried = six(2);
        retried[0] = server("web-0", "v2", "Deploying", 1);
        assert_eq!(outcome(&newer(&json!(1)), &retried).0, 4);
    }
}
