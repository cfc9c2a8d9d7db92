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
    credentials,
    fault::{IncusFault, no_answer},
    parameters::{IncusEndpoint, IncusParameters},
};
use crate::{
    driver::SecretData,
    error::{ProviderError, Result},
};

type Answer<T> = std::result::Result<T, IncusFault>;

/// Time limit for connecting: an endpoint in the same network answers within milliseconds.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Time limit for one call, from its start to the last byte: no call waits for Incus longer than [`WAIT_SLICE`].
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long Incus may hold back the answer about an operation that still runs: less than [`CALL_LIMIT`].
const WAIT_SLICE: Duration = Duration::from_secs(20);

/// Longest answer of the API that is read: a list of ten thousand instances has about 50 MiB.
const MOST_BYTES: usize = 64 << 20;
/// Longest file that is read: a public host key has less than 1 KiB. The machine decides what its files are, and a link to
/// `/dev/zero` has no end.
const MOST_FILE_BYTES: usize = 64 << 10;

/// A client for one project of one Incus server.
#[derive(Clone, Debug)]
pub(super) struct IncusClient {
    http: reqwest::Client,
    base: Url,
    project: String,
    /// Name of the server in messages.
    endpoint: String,
}

/// The JSON object that every answer consists of, except for files.
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

/// A background operation of Incus.
#[derive(Clone, Debug, Deserialize)]
struct Operation {
    id: String,
    status_code: u16,
    #[serde(default)]
    err: String,
    #[serde(default)]
    resources: Option<BTreeMap<String, Vec<String>>>,
}

impl IncusClient {
    /// A client for the class's endpoint. Does not connect yet.
    pub(super) fn new(
        class: &MachineClassSpec,
        parameters: &IncusParameters,
        credentials: Option<&SecretData>,
    ) -> Result<Self> {
        let builder = reqwest::Client::builder()
            .no_proxy()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .timeout(CALL_LIMIT);
        let (builder, base, endpoint) = match &parameters.endpoint {
            IncusEndpoint::Unix(path) => {
                if class.credentials.is_some() || credentials.is_some() {
                    return Err(ProviderError::Credentials(
                        "spec.credentials: a unix socket takes none, because every process that may open it is trusted; remove it".into(),
                    ));
                }
                let endpoint = format!("unix://{}", path.display());
                // On its socket, Incus 6.0 reads the first bytes of a connection before it accepts the next one. A pool
                // opens connections and sends nothing on them, which would block Incus for all its clients.
                let builder = builder.unix_socket(path.as_path()).pool_max_idle_per_host(0);
                let builder = builder.tls_backend_preconfigured(credentials::no_tls()?);
                (builder, "http://incus".to_owned(), endpoint)
            }
            IncusEndpoint::Https(url) => {
                let builder = builder.tls_backend_preconfigured(credentials::tls(credentials)?);
                (builder, url.to_string(), url.to_string().trim_end_matches('/').to_owned())
            }
        };
        let unusable =
            |error: &dyn std::fmt::Display| ProviderError::Configuration(format!("spec.parameters.endpoint: {error}"));
        Ok(Self {
            http: builder.build().map_err(|error| unusable(&error))?,
            base: Url::parse(&base).map_err(|error| unusable(&error))?,
            project: parameters.project.clone(),
            endpoint,
        })
    }

    /// Name of the project.
    pub(super) fn project(&self) -> &str {
        &self.project
    }

    /// Name of the server in messages.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Reads the resource at this path below `/1.0`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Answer<T> {
        let answer = self.send(self.request(Method::GET, path, query)).await?;
        self.decode(self.envelope(answer).await?.metadata)
    }

    /// Changes the resource at this path below `/1.0`, and waits until the change is complete, at most until `deadline`.
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

    /// Waits for the end of an operation, at most until `deadline`.
    pub(super) async fn wait(&self, operation: &str, deadline: Instant) -> Answer<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).min(WAIT_SLICE);
            let seconds = left.as_secs().max(1).to_string();
            let state: Operation = self
                .get(&["operations", operation, "wait"], &[("timeout", seconds.as_str())])
                .await
                .map_err(without_answer_if_forgotten)?;
            match state.status_code {
                200 => return Ok(()),
                code @ 400.. => return Err(IncusFault::Refused { code: failure_code(code), message: state.err }),
                _ if left.is_zero() => {
                    let why = format!("{}: the operation was not complete in time, and still runs", self.endpoint);
                    return Err(IncusFault::NoAnswer(ProviderError::Retryable(why)));
                }
                _ => {}
            }
        }
    }

    /// The id of an operation that works on this instance now.
    pub(super) async fn running_operation(&self, instance: &str) -> Answer<Option<String>> {
        let all: BTreeMap<String, Vec<Operation>> = self.get(&["operations"], &[("recursion", "1")]).await?;
        let works_on_instance = |operation: &Operation| {
            let urls = operation.resources.iter().flatten().flat_map(|(_, urls)| urls);
            let mut paths = urls.map(|url| url.split('?').next().unwrap_or_default());
            operation.status_code < 200 && paths.any(|path| path.rsplit('/').next() == Some(instance))
        };
        Ok(all.into_values().flatten().find(works_on_instance).map(|operation| operation.id))
    }

    /// The content of a file on an instance; none if it does not exist.
    pub(super) async fn read_file(&self, instance: &str, path: &str) -> Answer<Option<Vec<u8>>> {
        let request = self.request(Method::GET, &["instances", instance, "files"], &[("path", path)]);
        let answer = match self.check_status(self.send(request).await?).await {
            Err(fault) if fault.is_missing() => return Ok(None),
            answer => answer?,
        };
        self.read(answer, MOST_FILE_BYTES).await.map(Some)
    }

    /// Whether a file exists on an instance.
    pub(super) async fn has_file(&self, instance: &str, path: &str) -> Answer<bool> {
        let request = self.request(Method::HEAD, &["instances", instance, "files"], &[("path", path)]);
        match self.check_status(self.send(request).await?).await {
            Err(fault) if fault.is_missing() => Ok(false),
            answer => answer.map(|_| true),
        }
    }

    /// Creates a file, or without content a folder, on an instance.
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
        let body = self.read(answer, MOST_BYTES).await?;
        let envelope: Envelope = match serde_json::from_slice(&body) {
            Ok(envelope) => envelope,
            // Answers to HEAD have no body.
            Err(_) if status >= 400 => {
                return Err(IncusFault::Refused { code: status, message: format!("status {status}") });
            }
            Err(error) => return Err(self.not_incus(&error)),
        };
        if envelope.kind == "error" || status >= 400 {
            let code = if envelope.error_code == 0 { status } else { envelope.error_code };
            return Err(IncusFault::Refused { code, message: envelope.error });
        }
        Ok(envelope)
    }

    /// The body of the answer, which may have at most this many bytes.
    async fn read(&self, mut answer: Response, most: usize) -> Answer<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| no_answer(&self.endpoint, &error))? {
            if body.len() + part.len() > most {
                let why = format!("{}: {} has more than {most} bytes", self.endpoint, answer.url().path());
                return Err(IncusFault::NoAnswer(ProviderError::Retryable(why)));
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    /// Returns the answer unless it is an error.
    async fn check_status(&self, answer: Response) -> Answer<Response> {
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let error = self.envelope(answer).await;
        Err(error.err().unwrap_or_else(|| self.not_incus(&format!("status {status}"))))
    }

    fn decode<T: DeserializeOwned>(&self, metadata: Value) -> Answer<T> {
        serde_json::from_value(metadata).map_err(|error| self.not_incus(&error))
    }

    fn not_incus(&self, why: &dyn std::fmt::Display) -> IncusFault {
        let text = format!("{}: the answer is not of the Incus API 1.0: {why}", self.endpoint);
        IncusFault::NoAnswer(ProviderError::Retryable(text))
    }
}

/// A file or folder to create.
#[derive(Clone, Debug)]
pub(super) struct NewFile {
    /// Numeric id of the owner.
    pub(super) uid: u32,
    /// Numeric id of the group.
    pub(super) gid: u32,
    /// Permissions, as for chmod.
    pub(super) mode: u32,
    /// Content of the file; none for a folder.
    pub(super) content: Option<Vec<u8>>,
}

/// Incus forgets its operations when it restarts. Then its answer 404 says nothing about the result of the operation.
fn without_answer_if_forgotten(fault: IncusFault) -> IncusFault {
    match fault {
        IncusFault::Refused { code: 404, message } if message == "Operation not found" => IncusFault::NoAnswer(
            ProviderError::Retryable("Incus was interrupted and no longer knows the operation".into()),
        ),
        fault => fault,
    }
}

/// Failed operations have the status 400 whatever the reason. Elsewhere, 500 means this, and 400 a wrong request.
fn failure_code(code: u16) -> u16 {
    if code == 400 { 500 } else { code }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;

    #[tokio::test]
    async fn a_file_without_end_is_refused_once_it_is_too_long() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let mut sent = 0_usize;
            let mut part: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n";
            while stream.write_all(part).await.is_ok() {
                sent += part.len();
                part = &[0; 4096];
            }
            sent
        });
        let class = json!({"provider": "incus", "parameters": {"endpoint": format!("unix://{}", socket.display())}});
        let class: MachineClassSpec = serde_json::from_value(class).unwrap();
        let client = IncusClient::new(&class, &IncusParameters::read(&class).unwrap(), None).unwrap();
        let read = tokio::time::timeout(Duration::from_secs(10), client.read_file("b-1", "/etc/key.pub")).await;
        let error = read.expect("it is read without end").unwrap_err().while_doing("read the key").to_string();
        assert!(error.contains("more than 65536 bytes") && error.contains("/instances/b-1/files"), "{error}");
        assert!(server.await.unwrap() < 16 * MOST_FILE_BYTES);
    }
}
