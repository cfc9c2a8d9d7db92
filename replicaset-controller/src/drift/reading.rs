//! What a check has read from a machine, and how it differs.

use std::time::Duration;

use berth_core::api::{AppFact, EnvironmentFact, Server};
use berth_machine::app::{AppStatus, read_app};

use crate::server::tasks::{
    TaskContext,
    install_packages::{difference, read_environment},
};

/// Reading what is deployed takes a fraction of a second, after a wait until nothing changes the machine.
const READ_LIMIT: Duration = Duration::from_mins(1);

/// What is installed on a machine, and what is deployed there.
#[derive(Clone, Debug)]
pub struct MachineReading {
    /// The installed packages.
    pub environment: EnvironmentFact,
    /// The deployed application; none if it was not read.
    pub app: Option<AppStatus>,
}

impl MachineReading {
    /// Reads the Server's machine. The error is for people.
    pub(super) async fn read(tasks: &TaskContext, server: &Server) -> Result<Self, String> {
        let environment = read_environment(tasks, server).await?;
        let app = match &server.spec.app {
            Some(app) if is_read(server) && tasks.connector.sees_application(server) => {
                let connection = tasks.connector.connect(server).map_err(|error| error.to_string())?;
                let read = read_app(connection.machine.as_ref(), &connection.root, &app.name, READ_LIMIT).await;
                Some(read.map_err(|error| error.to_string())?)
            }
            _ => None,
        };
        Ok(Self { environment, app })
    }

    /// How the machine differs from the Server's declaration and facts, for people; none if it does not.
    pub(super) fn difference(&self, server: &Server) -> Option<String> {
        let differences = [difference(server, &self.environment), self.app_difference(server)];
        let differences: Vec<String> = differences.into_iter().flatten().collect();
        (!differences.is_empty()).then(|| differences.join(", "))
    }

    /// The fact that reports the difference. If the application differs, the packages are no longer said to be verified: then
    /// everything on the machine is read back, the application by deployment-controller, whose fact it is.
    pub(super) fn fact(self, server: &Server) -> EnvironmentFact {
        let verified = self.app_difference(server).is_none();
        EnvironmentFact { verified, ..self.environment }
    }

    fn app_difference(&self, server: &Server) -> Option<String> {
        let found = self.app.as_ref()?;
        let known = app_fact(server)?;
        let Some(revision) = &found.revision else {
            return Some(format!("application {} is not deployed any more", known.revision));
        };
        if *revision != known.revision {
            return Some(format!("application {revision} is deployed instead of {}", known.revision));
        }
        let is_other = found.digest.as_ref() != Some(&known.digest);
        is_other.then(|| format!("application {revision} is not started as it was deployed"))
    }
}

/// Whether the application is where Berth puts one. What a deploy system has deployed is in no folder that Berth knows, also when Berth
/// is to deploy the next one.
fn is_read(server: &Server) -> bool {
    let fact = server.status.as_ref().and_then(|status| status.app.as_ref());
    fact.is_none_or(|fact| fact.deploy_class.is_none())
}

/// The fact about the application that the Server declares, if it was read back.
pub(super) fn app_fact(server: &Server) -> Option<&AppFact> {
    server.spec.app.as_ref()?;
    server.status.as_ref()?.app.as_ref().filter(|fact| fact.verified)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reading(revision: Option<&str>, digest: Option<&str>) -> MachineReading {
        let app =
            AppStatus { revision: revision.map(Into::into), digest: digest.map(Into::into), ..AppStatus::default() };
        MachineReading { environment: EnvironmentFact { verified: true, packages: Vec::new() }, app: Some(app) }
    }

    #[test]
    fn another_application_than_the_one_that_was_read_back_is_drift() {
        let server: Server = serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": {"name": "s"},
            "spec": {"machine": {"className": "local"}, "app": {"name": "web", "revision": "v1", "command": "./run",
                "artifact": {"url": "http://a/b", "sha256": "a".repeat(64)}}},
            "status": {"app": {"revision": "v1", "digest": "d1", "verified": true}},
        }))
        .unwrap();
        for (revision, digest, expected) in [
            (Some("v1"), Some("d1"), None),
            (Some("v2"), Some("d2"), Some("application v2 is deployed instead of v1")),
            (Some("v1"), Some("d2"), Some("application v1 is not started as it was deployed")),
            (Some("v1"), None, Some("application v1 is not started as it was deployed")),
            (None, None, Some("application v1 is not deployed any more")),
        ] {
            let reading = reading(revision, digest);
            assert_eq!(reading.difference(&server).as_deref(), expected);
            assert_eq!(reading.fact(&server).verified, expected.is_none(), "then everything is read back");
        }
        let mut unverified = server.clone();
        unverified.status.as_mut().unwrap().app.as_mut().unwrap().verified = false;
        assert_eq!(reading(None, None).difference(&unverified), None, "a task reads it back");
        let not_read = MachineReading { app: None, ..reading(None, None) };
        assert_eq!(not_read.difference(&server), None);
        assert!(is_read(&server));
        let mut external = server;
        external.status.as_mut().unwrap().app.as_mut().unwrap().deploy_class = Some("ci".into());
        assert!(!is_read(&external), "else everything that a deploy system deploys is drift");
    }
}
