//! A deploy system, spoken to by HTTP. Where it is, and with which credentials, only a DeployClass says.

use std::time::Duration;

use berth_core::api::DeployClass;
use berth_runtime::ApiError;
use kube::{Api, Client};
use reqwest::{Method, header::HeaderMap};
use serde::de::DeserializeOwned;

use super::contract::{Job, JobError, JobRequest};
use crate::class_access::{Http, SecretData, read_secret};

/// How long a request may take: a deploy system answers at once, and works on its jobs afterwards.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// More bytes than this are not read of an answer: a job is a few hundred.
const MOST_BYTES: usize = 64 << 10;

/// More characters than this are not repeated of the words of a deploy system: the log has the rest.
const MOST_CHARACTERS: usize = 500;

/// A deploy system that may be asked.
pub(crate) struct DeploySystem {
    pub(super) class: String,
    /// How often a job is looked at.
    pub(super) poll: Duration,
    /// How long a job may take.
    pub(super) job_limit: Duration,
    http: Http,
    url: String,
}

/// Why a request has led to no job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// There is no answer, or none that is understood, or the deploy system cannot answer now. It may have done what was asked.
    Unclear(String),
    /// It knows no such job.
    UnknownJob,
    /// It refuses; `permanent` if it would refuse the same request again.
    Refused { words: String, permanent: bool },
}

impl DeploySystem {
    /// The deploy system of this class. The inner error says why this namespace cannot use it.
    pub(crate) async fn of_class(
        client: &Client,
        class: &str,
        namespace: &str,
    ) -> Result<Result<Self, String>, ApiError> {
        let found = Api::<DeployClass>::all(client.clone()).get_opt(class).await;
        let Some(found) = found.map_err(ApiError::doing(format!("read DeployClass {class}")))? else {
            return Ok(Err(format!(
                "DeployClass {class} (spec.app.executor.className): there is none. Create it, and the deployment goes on"
            )));
        };
        if !found.spec.allows(namespace) {
            return Ok(Err(format!(
                "DeployClass {class}: it does not allow namespace {namespace} (its spec.allowedNamespaces)"
            )));
        }
        let secret = match read_secret(client, found.spec.credentials.as_ref()).await? {
            Ok(secret) => secret,
            Err(problem) => return Ok(Err(format!("DeployClass {class}: spec.credentials: {problem}"))),
        };
        Ok(Self::new(&found, &secret, CALL_LIMIT).map_err(|problem| format!("DeployClass {class}: {problem}")))
    }

    pub(super) fn new(class: &DeployClass, secret: &SecretData, call_limit: Duration) -> Result<Self, String> {
        let seconds = |seconds: i32| Duration::from_secs(u64::from(seconds.unsigned_abs().max(1)));
        Ok(Self {
            class: class.name().to_owned(),
            poll: seconds(class.spec.poll_seconds),
            job_limit: seconds(class.spec.job_timeout_seconds),
            http: Http::new(secret, call_limit, HeaderMap::new())?,
            url: class.spec.url.trim_end_matches('/').to_owned(),
        })
    }

    /// Starts the job, or finds it started.
    pub(super) async fn start(&self, key: &str, request: &JobRequest) -> Result<Job, CallError> {
        let call = self.http.request(Method::PUT, format!("{}/jobs/{key}", self.url)).json(request);
        match self.call(call, key).await {
            Err(CallError::UnknownJob) => Err(CallError::Refused {
                words: "it answers with status 404 to the start of a job: see spec.url of the DeployClass".to_owned(),
                permanent: false,
            }),
            answer => answer,
        }
    }

    /// Looks at the job.
    pub(super) async fn look(&self, key: &str) -> Result<Job, CallError> {
        self.call(self.http.request(Method::GET, format!("{}/jobs/{key}", self.url)), key).await
    }

    /// Asks it to end the job.
    pub(super) async fn cancel(&self, key: &str) -> Result<Job, CallError> {
        self.call(self.http.request(Method::POST, format!("{}/jobs/{key}/cancel", self.url)), key).await
    }

    async fn call(&self, request: reqwest::RequestBuilder, key: &str) -> Result<Job, CallError> {
        let answer = self.http.answer(request, MOST_BYTES).await.map_err(CallError::Unclear)?;
        let not_understood = || {
            let words = "its answer is not that of docs/executor.openapi.yaml: see spec.url of the DeployClass";
            CallError::Unclear(words.to_owned())
        };
        let (code, body) = answer.ok_or_else(not_understood)?;
        if !(200..300).contains(&code) {
            return Err(self.refusal(code, &body));
        }
        let job: Job = parse(&body).ok_or_else(not_understood)?;
        // Whatever else answers at this address does not know the key.
        if job.key == key { Ok(self.readable(job)) } else { Err(not_understood()) }
    }

    fn refusal(&self, code: u16, body: &[u8]) -> CallError {
        let said = parse::<JobError>(body).map(|error| self.words(&error.message)).filter(|words| !words.is_empty());
        let words = match &said {
            Some(said) => format!("it refuses (status {code}): {said}"),
            None => format!("it answers with status {code}: see spec.url of the DeployClass"),
        };
        match code {
            401 | 403 => {
                let words =
                    format!("it refuses the credentials (status {code}): see spec.credentials of the DeployClass");
                CallError::Refused { words, permanent: false }
            }
            404 => CallError::UnknownJob,
            400 | 422 => CallError::Refused { words, permanent: true },
            408 | 425 | 429 | 500.. => CallError::Unclear(words.replacen("it refuses", "it cannot answer now", 1)),
            _ => CallError::Refused { words, permanent: false },
        }
    }

    /// The job as it may be shown to people.
    fn readable(&self, job: Job) -> Job {
        let is_link = |url: &String| {
            let is_plain = url.chars().all(|c| c.is_ascii_graphic()) && url.len() <= MOST_CHARACTERS;
            is_plain && (url.starts_with("https://") || url.starts_with("http://"))
        };
        let log_url = job.log_url.filter(is_link).map(|url| self.http.hide_log_in(&url));
        Job { message: self.words(&job.message), log_url, ..job }
    }

    /// Words of the deploy system on one line, without Berth's credentials.
    fn words(&self, text: &str) -> String {
        let text = self.http.hide_log_in(text);
        let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join(" ").chars().take(MOST_CHARACTERS).collect()
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

#[cfg(test)]
#[path = "system_tests.rs"]
mod tests;
