//! DeployApp: makes the deployed code that which is declared, and reads back what runs.

use std::{collections::BTreeMap, time::Duration};

use berth_core::api::{App, AppFact, Outcome, Server};
use berth_machine::{
    Machine,
    app::{self, AppStatus},
    archive::Change,
    fleet::Fleet,
    ssh::{SshPool, SshTarget},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

/// Limit for a deployment, its download included.
const DEPLOY_LIMIT: Duration = Duration::from_mins(10);

/// What came of a deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// What became of it.
    pub outcome: Outcome,
    /// In words.
    pub message: String,
    /// What runs, if it is known.
    pub app: Option<AppFact>,
}

impl Finished {
    fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), app: None }
    }
}

/// Deploys the Server's application on its machine.
pub async fn deploy(pool: &SshPool, fleet: Option<&Fleet>, server: &Server, now: Timestamp) -> Finished {
    let Some((target, root)) = way(server) else {
        return Finished::new(Outcome::Retry, "the Server does not say how its machine is reached");
    };
    let id = server.status.as_ref().and_then(|s| s.machine.as_ref()?.id.as_deref());
    deploy_on(&Fleet::reach(fleet, pool, id, target), &root, server, now).await
}

fn way(server: &Server) -> Option<(SshTarget, String)> {
    let machine = server.status.as_ref()?.machine.as_ref()?;
    let ssh = machine.ssh.as_ref()?;
    let target = SshTarget {
        address: machine.address.clone()?,
        port: u16::try_from(ssh.port).ok()?,
        user: ssh.user.clone(),
        host_key: ssh.host_key.clone(),
    };
    Some((target, ssh.root.clone()))
}

/// Deploys the Server's application on this machine.
pub async fn deploy_on(machine: &dyn Machine, root: &str, server: &Server, now: Timestamp) -> Finished {
    let Some(declared) = &server.spec.app else {
        return Finished::new(Outcome::Failed, "the Server declares no application");
    };
    let wanted = wanted(server, declared);
    let place = format!("application {} {}", declared.name, wanted.revision);
    match app::deploy_app(machine, root, &wanted, DEPLOY_LIMIT).await {
        Ok((change, status)) => judge(server, &place, &wanted, change, &status, now),
        Err(error) => {
            let outcome = if error.is_permanent() { Outcome::Failed } else { Outcome::Retry };
            Finished::new(outcome, format!("{place}: {error}"))
        }
    }
}

fn judge(
    server: &Server,
    place: &str,
    wanted: &app::App,
    change: Change,
    found: &AppStatus,
    now: Timestamp,
) -> Finished {
    if found.revision.as_ref() != Some(&wanted.revision) || found.sha256.as_ref() != Some(&wanted.sha256) {
        let found = found.revision.as_deref().unwrap_or("nothing");
        return Finished::new(Outcome::Retry, format!("{place}: the machine runs {found} after the deployment"));
    }
    if !found.running {
        return Finished::new(
            Outcome::Retry,
            format!("{place}: it is deployed, but its command does not keep running"),
        );
    }
    let known = server.status.as_ref().and_then(|s| s.app.as_ref()).filter(|fact| fact.revision == wanted.revision);
    let deployed_at = match (change, known) {
        (Change::None, Some(fact)) => fact.deployed_at.clone(),
        _ => Some(Time(now)),
    };
    let done = if change == Change::Done { "deployed" } else { "is deployed already" };
    let fact = AppFact { revision: wanted.revision.clone(), verified: true, deployed_at };
    Finished { app: Some(fact), ..Finished::new(Outcome::Succeeded, format!("{place} {done}")) }
}

/// The application in the terms of the machine.
fn wanted(server: &Server, declared: &App) -> app::App {
    let env = declared.env.iter().map(|e| (e.name.clone(), e.value.clone())).collect::<BTreeMap<_, _>>();
    app::App {
        name: declared.name.clone(),
        revision: declared.effective_revision(),
        url: declared.artifact.url.clone(),
        sha256: declared.artifact.sha256.clone(),
        env,
        // The declared command is a shell command.
        command: ["/bin/sh", "-c", &declared.command].map(str::to_owned).to_vec(),
        port: port(server),
        keep_releases: u32::try_from(declared.keep_releases - 1).unwrap_or(0),
    }
}

/// The port that the application is told as `PORT`, unless its own environment says it: the one where its health is
/// judged, else the first that traffic goes to.
fn port(server: &Server) -> u16 {
    let health = server.spec.health_check.as_ref();
    let probed = health.and_then(|h| h.http_get.as_ref().map(|g| g.port).or(h.tcp_socket.as_ref().map(|t| t.port)));
    let traffic = server.spec.traffic.as_ref();
    let balanced = traffic.and_then(|t| t.services.first().map(|s| s.port).or(t.haproxy.first().map(|h| h.port)));
    probed.or(balanced).and_then(|port| u16::try_from(port).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use berth_machine::fake::{FakeMachine, Fault};

    use super::*;
    use crate::testing::{now, server};

    const ROOT: &str = "opt/berth";

    #[tokio::test]
    async fn the_application_is_deployed_once_and_its_time_is_kept() {
        let machine = FakeMachine::new();
        let mut declared = server("web-0", "v1", "Deploying", 1);
        let first = deploy_on(&machine, ROOT, &declared, now()).await;
        assert_eq!((first.outcome, first.message.as_str()), (Outcome::Succeeded, "application web v1 deployed"));
        let fact = first.app.unwrap();
        assert_eq!((fact.revision.as_str(), fact.verified, fact.deployed_at.clone()), ("v1", true, Some(Time(now()))));
        declared.status.as_mut().unwrap().app = Some(AppFact { verified: false, ..fact.clone() });
        let later = now().checked_add(k8s_openapi::jiff::SignedDuration::from_secs(60)).unwrap();
        let second = deploy_on(&machine, ROOT, &declared, later).await;
        assert_eq!((second.app, second.message.as_str()), (Some(fact), "application web v1 is deployed already"));
        declared.spec.app.as_mut().unwrap().revision = Some("v2".into());
        let third = deploy_on(&machine, ROOT, &declared, later).await.app.unwrap();
        assert_eq!((third.revision.as_str(), third.deployed_at), ("v2", Some(Time(later))));
    }

    #[tokio::test]
    async fn errors_name_the_application_and_whether_another_attempt_helps() {
        let machine = FakeMachine::new();
        let declared = server("web-0", "v1", "Deploying", 1);
        machine.fail_next(Fault::WrongDigest("c".repeat(64)));
        let wrong = deploy_on(&machine, ROOT, &declared, now()).await;
        assert_eq!((wrong.outcome, wrong.app), (Outcome::Failed, None));
        assert!(wrong.message.starts_with("application web v1: ") && wrong.message.contains(&"c".repeat(64)));
        machine.fail_next(Fault::Hang);
        assert_eq!(deploy_on(&machine, ROOT, &declared, now()).await.outcome, Outcome::Retry);
        assert_eq!(deploy_on(&machine, ROOT, &declared, now()).await.outcome, Outcome::Succeeded);
    }
}
