//! What a job says about an attempt at DeployApp: pure rules.

use berth_core::{
    api::AppFact,
    protocol::{Fact, TaskResult},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::contract::{Job, JobRequest, JobState, RunningApplication};

/// The job as people know it: of which class it is, and which application it is about.
pub(super) struct Subject<'a> {
    pub(super) class: &'a str,
    pub(super) request: &'a JobRequest,
}

impl Subject<'_> {
    /// The application, in front of every message.
    pub(super) fn application(&self) -> String {
        let app = &self.request.application;
        format!("application {} {}", app.name, app.revision)
    }

    /// What the task says while the job goes on.
    pub(super) fn progress(&self, job: &Job) -> String {
        let state = if job.state == JobState::Pending { "waits" } else { "runs" };
        format!("{}: {} {state}{}", self.application(), self.name(&job.key), log(job))
    }

    /// The job's name.
    pub(super) fn name(&self, key: &str) -> String {
        format!("job {key} of DeployClass {}", self.class)
    }

    /// What the attempt has come to; none while the job goes on.
    pub(super) fn result(&self, job: &Job, now: Timestamp) -> Option<TaskResult> {
        let said = if job.message.is_empty() { "it does not say why" } else { &job.message };
        let words = |what: &str| format!("{} {what}: {said}{}", self.name(&job.key), log(job));
        let result = match job.state {
            JobState::Pending | JobState::Running => return None,
            JobState::Failed if job.permanent => TaskResult::failed(words("failed")),
            JobState::Failed => TaskResult::retry(words("failed")),
            JobState::Cancelled => TaskResult::retry(words("was cancelled in the deploy system")),
            JobState::Succeeded => match self.mismatch(job.running.as_ref()) {
                Some(problem) => TaskResult::retry(format!("{} {problem}{}", self.name(&job.key), log(job))),
                None => self.deployed(job, now),
            },
        };
        Some(result.at(self.application()))
    }

    /// How what runs differs from what was to be deployed.
    fn mismatch(&self, running: Option<&RunningApplication>) -> Option<String> {
        let app = &self.request.application;
        let Some(running) = running else {
            return Some("succeeded, but does not say what runs on the machine (field running)".to_owned());
        };
        let fields = [
            ("revision", &running.revision, &app.revision),
            ("digest", &running.digest, &app.digest),
            ("sha256", &running.sha256, &app.artifact.sha256),
        ];
        let (field, found, wanted) = fields.into_iter().find(|(_, found, wanted)| found != wanted)?;
        let found: String = found.chars().filter(char::is_ascii_graphic).take(64).collect();
        Some(format!("says that something else runs after it: {field} {found} instead of {wanted}"))
    }

    fn deployed(&self, job: &Job, now: Timestamp) -> TaskResult {
        let app = &self.request.application;
        let fact = AppFact {
            revision: app.revision.clone(),
            digest: app.digest.clone(),
            verified: true,
            deployed_at: Some(Time(now)),
            deploy_class: Some(self.class.to_owned()),
        };
        TaskResult::succeeded(format!("deployed by {}{}", self.name(&job.key), log(job))).with(Fact::App(Some(fact)))
    }
}

/// Where the log of the job is.
pub(super) fn log(job: &Job) -> String {
    job.log_url.as_ref().map(|url| format!("; log: {url}")).unwrap_or_default()
}
