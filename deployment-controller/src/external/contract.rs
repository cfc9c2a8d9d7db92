//! What Berth and a deploy system tell each other: the types of `docs/executor.openapi.yaml`.

use std::collections::BTreeMap;

use berth_core::api::{ArtifactFormat, Server};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One deployment on one machine, as Berth asks for it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct JobRequest {
    pub(crate) server: JobServer,
    pub(crate) application: JobApplication,
    pub(crate) task: i64,
    pub(crate) attempt: i32,
    pub(crate) timeout_seconds: i32,
}

/// Where to deploy.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct JobServer {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) address: String,
}

/// What to deploy.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct JobApplication {
    pub(crate) name: String,
    pub(crate) revision: String,
    pub(crate) digest: String,
    pub(crate) artifact: JobArtifact,
    pub(crate) command: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) stop_seconds: i32,
}

/// The code.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct JobArtifact {
    pub(crate) url: String,
    pub(crate) sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<ArtifactFormat>,
}

/// What a deploy system says of a job. What else it says is ignored.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Job {
    pub(crate) key: String,
    pub(crate) digest: String,
    pub(crate) state: JobState,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    #[serde(default, rename = "logURL", skip_serializing_if = "Option::is_none")]
    pub(crate) log_url: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) permanent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) running: Option<RunningApplication>,
}

/// How far a job is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub(crate) enum JobState {
    Pending,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl JobState {
    pub(crate) fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// What runs on the machine, as the deploy system has read it back.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunningApplication {
    pub(crate) revision: String,
    pub(crate) digest: String,
    pub(crate) sha256: String,
}

/// Why a deploy system refuses a request.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobError {
    pub(crate) message: String,
}

/// The request for the Server's application; an error for people if there is nothing to deploy or no machine.
pub(crate) fn request(server: &Server, task: i64, attempt: i32, timeout_seconds: i32) -> Result<JobRequest, String> {
    let app = server.spec.app.as_ref().ok_or("the Server declares no application")?;
    let address = server.address().ok_or("the address of the machine is not known")?;
    let revision = app.effective_revision();
    let mut env: BTreeMap<String, String> =
        app.plain_variables().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // What an application gets from Berth wherever it runs.
    if server.spec.app_port() != 0 {
        env.entry("PORT".to_owned()).or_insert_with(|| server.spec.app_port().to_string());
    }
    env.insert("BERTH_MACHINE_ADDRESS".to_owned(), address.to_owned());
    env.insert("BERTH_APP_REVISION".to_owned(), revision.clone());
    env.extend(app.started_for().map(|id| ("BERTH_RESTART".to_owned(), id.to_owned())));
    Ok(JobRequest {
        server: JobServer {
            namespace: server.namespace().to_owned(),
            name: server.name().to_owned(),
            uid: server.uid().to_owned(),
            address: address.to_owned(),
        },
        application: JobApplication {
            name: app.name.clone(),
            revision,
            digest: server.spec.app_digest().unwrap_or_default(),
            artifact: JobArtifact {
                url: app.artifact.url.clone(),
                sha256: app.artifact.sha256.clone(),
                format: app.artifact.format,
            },
            command: app.command.clone(),
            user: app.user.clone(),
            env,
            stop_seconds: app.stop_seconds,
        },
        task,
        attempt,
        timeout_seconds,
    })
}

/// The key of the job of this attempt. Whoever carries out the attempt finds the same job by it: a start that is repeated starts
/// nothing else.
pub(crate) fn key(request: &JobRequest, attempt: i32) -> String {
    key_of(&request.server.uid, request.task, attempt)
}

/// The same, of the Server with this UID.
pub(crate) fn key_of(uid: &str, task: i64, attempt: i32) -> String {
    format!("{uid}-{task}-{attempt}")
}

#[cfg(test)]
#[path = "contract_tests.rs"]
mod tests;
