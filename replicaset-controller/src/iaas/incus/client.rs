//! The REST API of Incus: calls, operations and files, each within a time limit.
//!
//! See <https://linuxcontainers.org/incus/docs/main/rest-api/>.

use std::{collections::BTreeMap, time::Duration};

use berth_core::api::MachineClassSpec;
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    Error, Result, credentials,
    fault::{Fault, no_answer},
    parameters::{Endpoint, Parameters},
};
use crate::iaas::SecretData;

type Answer<T> = std::result::Result<T, Fault>;

/// How long a connection may take to come up.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long one call may take, from its beginning to the last byte.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long Incus is asked to hold back the answer about an operation that goes on: less than a call may take.
const WAIT_SLICE: Duration = Duration::from_secs(20);

/// One server, as one project of it.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    project: String,
    /// How the server is called in messages.
    endpoint: String,
}

/// Every answer but a file's.
#[derive(Debug, Deserialize)]
struct Envelope {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_code: u16,
    #[serde(default)]
    metadata: Value,
}

/// Something that Incus does in the background.
#[derive(Clone, Debug, Deserialize)]
struct Operation {
    id: String,
    status_code: u16,
    #[serde(default)]
    err: String,
    #[serde(default)]
    resources: Option<BTreeMap<String, Vec<String>>>,
}

impl Client {
    /// A client for the class's endpoint. Does not connect yet.
    pub(super) fn new(
        class: &MachineClassSpec,
        parameters: &Parameters,
        credentials: Option<&SecretData>,
    ) -> Result<Self> {
        let builder = reqwest::Client::builder()
            .no_proxy()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .timeout(CALL_LIMIT);
        let (builder, base, endpoint) = match &parameters.endpoint {
            Endpoint::Unix(path) => {
                if class.credentials.is_some() || credentials.is_some() {
                    return Err(Error::Credentials(
                        "spec.credentials: a unix socket takes none: who may open it is trusted; remove it".into(),
                    ));
                }
                let endpoint = format!("unix://{}", path.display());
                // On its socket, Incus 6.0 reads the first bytes of a connection before it accepts the next one, whoever
                // that is from. A pool of connections opens some that nothing is sent on, which stops Incus for all.
                let builder = builder.unix_socket(path.as_path()).pool_max_idle_per_host(0);
                let builder = builder.tls_backend_preconfigured(credentials::no_tls()?);
                (builder, "http://incus".to_owned(), endpoint)
            }
            Endpoint::Https(url) => {
                let builder = builder.tls_backend_preconfigured(credentials::tls(credentials)?);
                (builder, url.to_string(), url.to_string().trim_end_matches('/').to_owned())
            }
        };
        let unusable =
            |error: &dyn std::fmt::Display| Error::Configuration(format!("spec.parameters.endpoint: {error}"));
        Ok(Self {
            http: builder.build().map_err(|error| unusable(&error))?,
            base: Url::parse(&base).map_err(|error| unusable(&error))?,
            project: parameters.project.clone(),
            endpoint,
        })
    }

    /// The project whose instances this is about.
    pub(super) fn project(&self) -> &str {
        &self.project
    }

    /// How the server is called in messages.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Reads something below `/1.0`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Answer<T> {
        let answer = self.send(self.request(Method::GET, path, query)).await?;
        self.decode(self.envelope(answer).await?.metadata)
    }

    /// Changes something below `/1.0`, and waits until that is done, at most until `deadline`.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
        deadline: Instant,
    ) -> Answer<()> {
        let request = self.request(method, path, query);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let envelope = self.envelope(self.send(request).await?).await?;
        if envelope.kind != "async" {
            return Ok(());
        }
        let operation: Operation = self.decode(envelope.metadata)?;
        self.wait(&operation.id, deadline).await
    }

    /// Waits for something that goes on, at most until `deadline`.
    pub(super) async fn wait(&self, operation: &str, deadline: Instant) -> Answer<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).min(WAIT_SLICE);
            let seconds = left.as_secs().max(1).to_string();
            let state: Operation =
                self.get(&["operations", operation, "wait"], &[("timeout", seconds.as_str())]).await.map_err(lost)?;
            match state.status_code {
                200 => return Ok(()),
                code @ 400.. => return Err(Fault::Refused { code: failed(code), message: state.err }),
                _ if left.is_zero() => {
                    let why = format!("{}: it is not done in time, and goes on there", self.endpoint);
                    return Err(Fault::NoAnswer(Error::Retryable(why)));
                }
                _ => {}
            }
        }
    }

    /// An operation that has this instance in hand now.
    pub(super) async fn in_hand(&self, instance: &str) -> Answer<Option<String>> {
        let all: BTreeMap<String, Vec<Operation>> = self.get(&["operations"], &[("recursion", "1")]).await?;
        let about = |operation: &Operation| {
            let named = operation.resources.iter().flatten().flat_map(|(_, urls)| urls);
            let mut paths = named.map(|url| url.split('?').next().unwrap_or_default());
            operation.status_code < 200 && paths.any(|path| path.rsplit('/').next() == Some(instance))
        };
        Ok(all.into_values().flatten().find(about).map(|operation| operation.id))
    }

    /// A file on an instance; none if there is no such file.
    pub(super) async fn read_file(&self, instance: &str, path: &str) -> Answer<Option<Vec<u8>>> {
        let request = self.request(Method::GET, &["instances", instance, "files"], &[("path", path)]);
        let answer = match self.refusals(self.send(request).await?).await {
            Err(fault) if fault.is_missing() => return Ok(None),
            answer => answer?,
        };
        Ok(Some(answer.bytes().await.map_err(|error| no_answer(&self.endpoint, &error))?.into()))
    }

    /// Whether there is such a file on an instance.
    pub(super) async fn has_file(&self, instance: &str, path: &str) -> Answer<bool> {
        let request = self.request(Method::HEAD, &["instances", instance, "files"], &[("path", path)]);
        match self.refusals(self.send(request).await?).await {
            Err(fault) if fault.is_missing() => Ok(false),
            answer => answer.map(|_| true),
        }
    }

    /// Makes a folder (without content) or a file on an instance.
    pub(super) async fn write_file(&self, instance: &str, path: &str, file: &NewFile) -> Answer<()> {
        let (kind, content) = match &file.content {
            Some(content) => ("file", content.clone()),
            None => ("directory", Vec::new()),
        };
        let request = self
            .request(Method::POST, &["instances", instance, "files"], &[("path", path)])
            .header("X-Incus-type", kind)
            .header("X-Incus-uid", file.uid)
            .header("X-Incus-gid", file.gid)
            .header("X-Incus-mode", format!("{:04o}", file.mode))
            .body(content);
        self.envelope(self.send(request).await?).await.map(|_| ())
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().push("1.0").extend(path);
        }
        url.query_pairs_mut().append_pair("project", &self.project).extend_pairs(query);
        self.http.request(method, url)
    }

    async fn send(&self, request: RequestBuilder) -> Answer<Response> {
        request.send().await.map_err(|error| no_answer(&self.endpoint, &error))
    }

    async fn envelope(&self, answer: Response) -> Answer<Envelope> {
        let status = answer.status().as_u16();
        let body = answer.bytes().await.map_err(|error| no_answer(&self.endpoint, &error))?;
        let envelope: Envelope = match serde_json::from_slice(&body) {
            Ok(envelope) => envelope,
            // The answer to HEAD has no body.
            Err(_) if status >= 400 => {
                return Err(Fault::Refused { code: status, message: format!("status {status}") });
            }
            Err(error) => return Err(self.stranger(&error)),
        };
        if envelope.kind == "error" || status >= 400 {
            let code = if envelope.error_code == 0 { status } else { envelope.error_code };
            return Err(Fault::Refused { code, message: envelope.error });
        }
        Ok(envelope)
    }

    /// The answer itself, if it is no refusal.
    async fn refusals(&self, answer: Response) -> Answer<Response> {
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let refused = self.envelope(answer).await;
        Err(refused.err().unwrap_or_else(|| self.stranger(&format!("status {status}"))))
    }

    fn decode<T: DeserializeOwned>(&self, metadata: Value) -> Answer<T> {
        serde_json::from_value(metadata).map_err(|error| self.stranger(&error))
    }

    fn stranger(&self, why: &dyn std::fmt::Display) -> Fault {
        let text = format!("{}: the answer is not one of Incus's API 1.0: {why}", self.endpoint);
        Fault::NoAnswer(Error::Retryable(text))
    }
}

/// A file to be made.
#[derive(Clone, Debug)]
pub(super) struct NewFile {
    /// Owner.
    pub(super) uid: u32,
    /// Group.
    pub(super) gid: u32,
    /// Permissions.
    pub(super) mode: u32,
    /// What is in it; none for a folder.
    pub(super) content: Option<Vec<u8>>,
}

/// Incus forgets what went on when it is restarted: that is no answer about what was asked for.
fn lost(fault: Fault) -> Fault {
    match fault {
        Fault::Refused { code: 404, message } if message == "Operation not found" => {
            Fault::NoAnswer(Error::Retryable("Incus was interrupted and no longer knows the operation".into()))
        }
        fault => fault,
    }
}

/// The status of a failed operation says only that it failed, which is what 500 means elsewhere.
fn failed(code: u16) -> u16 {
    if code == 400 { 500 } else { code }
}
