//! The task DeployApp: brings the declared application onto the machine and reads back what runs there.

use std::time::Duration;

use berth_core::{
    api::{App, AppFact, Server},
    protocol::{Fact, TaskResult},
};
use berth_machine::{
    Connector, Machine, MachineChange,
    app::{self, AppRelease, AppStatus},
    unless_cancelled,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use tokio_util::sync::CancellationToken;

use crate::{proven::proven_revision, references::AppValues};

/// Limit of one attempt, besides the time that the application's own commands have: fetching a large artifact takes minutes, but
/// a machine that hangs must not occupy the Server's lock
/// for ever.
const DEPLOY_LIMIT: Duration = Duration::from_mins(10);

/// Deploys the Server's application on its machine, with what it needs from ConfigMaps and Secrets. If something of it is missing,
/// nothing is done.
pub(crate) async fn deploy(
    connector: &dyn Connector,
    server: &Server,
    values: Result<AppValues, String>,
    now: Timestamp,
    cancel: &CancellationToken,
) -> TaskResult {
    let values = match values {
        Ok(values) => values,
        Err(missing) => return TaskResult::waiting(missing),
    };
    match connector.connect(server) {
        Ok(connection) => {
            let (machine, root) = (connection.machine.as_ref(), connection.root.as_str());
            unless_cancelled(machine, root, cancel.cancelled(), deploy_on(machine, root, server, values, now)).await
        }
        Err(error) => TaskResult::retry(error.to_string()),
    }
}

/// Deploys the Server's application on this machine.
async fn deploy_on(
    machine: &dyn Machine,
    root: &str,
    server: &Server,
    values: AppValues,
    now: Timestamp,
) -> TaskResult {
    let Some(declared) = &server.spec.app else {
        return TaskResult::failed("the Server declares no application");
    };
    let wanted = to_release(server, declared, values);
    let place = format!("application {} {}", wanted.name, wanted.revision);
    match app::deploy_app(machine, root, &wanted, limit(&wanted)).await {
        Ok((change, found)) => match mismatch(&wanted, &found) {
            Some(problem) => TaskResult::retry(problem).at(place),
            None => deployed(server, &wanted, change, now, &place),
        },
        Err(error) if error.is_permanent() => TaskResult::failed(error.to_string()).at(place),
        Err(error) => TaskResult::retry(error.to_string()).at(place),
    }
}

fn limit(wanted: &AppRelease) -> Duration {
    DEPLOY_LIMIT + Duration::from_secs(wanted.hooks.total_seconds() + u64::from(wanted.stop_seconds))
}

/// How what was read back from the machine differs from what was deployed.
fn mismatch(wanted: &AppRelease, found: &AppStatus) -> Option<String> {
    if found.revision.as_ref() != Some(&wanted.revision) || found.sha256.as_ref() != Some(&wanted.sha256) {
        let found = found.revision.as_deref().unwrap_or("nothing");
        return Some(format!("the machine runs {found} after the deployment"));
    }
    if found.digest.as_ref() != Some(&wanted.digest) {
        return Some("something else has changed the application's files during the deployment".to_owned());
    }
    (!found.running).then(|| "it is deployed, but its command does not keep running".to_owned())
}

/// The result of a successful deployment. The time of a deployment that changed nothing stays as it was.
fn deployed(server: &Server, wanted: &AppRelease, change: MachineChange, now: Timestamp, place: &str) -> TaskResult {
    let known = server.status.as_ref().and_then(|status| status.app.as_ref());
    let deployed_at = match (change, known.filter(|fact| is_same(fact, wanted))) {
        (MachineChange::None, Some(fact)) => fact.deployed_at.clone(),
        _ => Some(Time(now)),
    };
    let what = if change == MachineChange::Done { "deployed" } else { "is deployed already" };
    let (revision, digest) = (wanted.revision.clone(), wanted.digest.clone());
    let fact = AppFact { revision, digest, verified: true, deployed_at, deploy_class: None };
    TaskResult::succeeded(format!("{place} {what}")).with(Fact::App(Some(fact)))
}

fn is_same(fact: &AppFact, wanted: &AppRelease) -> bool {
    (&fact.revision, &fact.digest) == (&wanted.revision, &wanted.digest)
}

/// The declared application as a release that a machine can get.
fn to_release(server: &Server, declared: &App, values: AppValues) -> AppRelease {
    let plain = declared.plain_variables().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let env = plain.chain(values.env).collect();
    AppRelease {
        name: declared.name.clone(),
        revision: declared.effective_revision(),
        digest: server.spec.app_digest().unwrap_or_default(),
        url: declared.artifact.url.clone(),
        sha256: declared.artifact.sha256.clone(),
        authorization: values.authorization,
        format: declared.artifact.format,
        user: declared.user.clone(),
        hooks: declared.hooks.clone().unwrap_or_default(),
        stop_seconds: declared.stop_limit(),
        env,
        secrets: values.secrets,
        files: values.files,
        // The declared command is a shell command.
        command: ["/bin/sh", "-c", &declared.command].map(str::to_owned).to_vec(),
        port: server.spec.app_port(),
        keep_releases: earlier_releases(declared),
        proven: proven_revision(server).map(str::to_owned),
        restart: declared.started_for().map(str::to_owned),
    }
}

/// The API counts the current release, too; the machine counts only the earlier ones.
fn earlier_releases(declared: &App) -> u32 {
    u32::try_from(declared.keep_releases - 1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use berth_core::api::Outcome;
    use berth_machine::app::SecretEnv;
    use berth_testing::{FakeMachine, MachineFault};
    use k8s_openapi::jiff::SignedDuration;

    use super::*;
    use crate::testing::{now, server};

    const ROOT: &str = "opt/berth";

    fn app_fact(result: &TaskResult) -> AppFact {
        let [Fact::App(Some(fact))] = result.facts.as_slice() else { panic!("{result:?}") };
        fact.clone()
    }

    #[tokio::test]
    async fn the_application_is_deployed_once_and_its_time_is_kept() {
        let machine = FakeMachine::new();
        let mut declared = server("web-0", "v1", "Deploying", 1);
        let first = deploy_on(&machine, ROOT, &declared, AppValues::default(), now()).await;
        assert_eq!((first.outcome, first.message.as_str()), (Outcome::Succeeded, "application web v1 deployed"));
        let fact = app_fact(&first);
        assert_eq!((fact.revision.as_str(), fact.verified, fact.deployed_at.clone()), ("v1", true, Some(Time(now()))));
        declared.status.as_mut().unwrap().app = Some(AppFact { verified: false, ..fact.clone() });
        let later = now() + SignedDuration::from_secs(60);
        let second = deploy_on(&machine, ROOT, &declared, AppValues::default(), later).await;
        assert_eq!((app_fact(&second), second.message.as_str()), (fact, "application web v1 is deployed already"));
        declared.spec.app.as_mut().unwrap().revision = Some("v2".into());
        let third = app_fact(&deploy_on(&machine, ROOT, &declared, AppValues::default(), later).await);
        assert_eq!((third.revision.as_str(), third.deployed_at), ("v2", Some(Time(later))));
    }

    #[tokio::test]
    async fn a_failed_start_says_what_runs_now_and_what_was_printed_and_may_be_tried_again() {
        let machine = FakeMachine::new();
        let deploy = async |revision: &str| {
            let declared = server("web-0", revision, "Deploying", 1);
            let secrets = SecretEnv([("TOKEN".to_owned(), "hush".to_owned())].into());
            let values = AppValues { secrets, ..AppValues::default() };
            deploy_on(&machine, ROOT, &declared, values, now()).await
        };
        machine.fail_next(MachineFault::DoesNotStart("no such file: hush\n".into()));
        let first = deploy("v1").await;
        let said = "application web v1: its command does not keep running; it printed last: no such file: ***";
        assert_eq!((first.outcome, first.message.as_str(), first.facts), (Outcome::Retry, said, vec![]));
        assert_eq!(deploy("v1").await.outcome, Outcome::Succeeded);
        machine.fail_next(MachineFault::DoesNotStart(String::new()));
        let said = "application web v2: its command does not keep running; v1, which ran before, runs again; it printed last: \
                    nothing";
        assert_eq!(deploy("v2").await.message, said);
    }

    #[tokio::test]
    async fn errors_name_the_application_and_only_permanent_ones_fail_the_task() {
        let machine = FakeMachine::new();
        let declared = server("web-0", "v1", "Deploying", 1);
        machine.fail_next(MachineFault::WrongDigest("c".repeat(64)));
        let wrong_digest = deploy_on(&machine, ROOT, &declared, AppValues::default(), now()).await;
        assert_eq!((wrong_digest.outcome, wrong_digest.facts), (Outcome::Failed, vec![]));
        let message = wrong_digest.message;
        assert!(message.starts_with("application web v1: ") && message.contains(&"c".repeat(64)), "{message}");
        machine.fail_next(MachineFault::Hang);
        assert_eq!(deploy_on(&machine, ROOT, &declared, AppValues::default(), now()).await.outcome, Outcome::Retry);
        assert_eq!(deploy_on(&machine, ROOT, &declared, AppValues::default(), now()).await.outcome, Outcome::Succeeded);
    }
}
