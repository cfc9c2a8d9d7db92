//! A namespace of its own on some API server, and plain requests to it.

use std::time::Duration;

use berth_sim::ApiServer;
use http::{Method, Request, header};
use kube::{Client, client::Body};
use serde_json::{Value, json};

/// How long a change that another program makes may take.
const LIMIT: Duration = Duration::from_mins(1);

pub(crate) struct Lab {
    client: Client,
    pub(crate) namespace: String,
    /// Set for the API server in memory, which forgets its past only when it is told to. A real one that has just been started
    /// does not know the versions from before its start.
    pub(crate) in_memory: Option<ApiServer>,
    /// The user as whom the client acts, which has all rights itself.
    user: Option<String>,
}

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) code: u16,
    pub(crate) body: Value,
}

impl Lab {
    pub(crate) async fn new(client: Client, name: &str) -> Self {
        let namespace = name.replace('_', "-");
        let namespace = namespace[..namespace.len().min(60)].trim_end_matches('-').to_owned();
        let lab = Self { client, namespace, in_memory: None, user: None };
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}});
        lab.send(Method::POST, "/api/v1/namespaces", "", Some(&object)).await.expect(201);
        lab
    }

    /// The same, as another user.
    pub(crate) fn as_user(&self, user: &str) -> Self {
        let client = self.in_memory.as_ref().map_or_else(|| self.client.clone(), |api| api.client(user));
        Self {
            client,
            namespace: self.namespace.clone(),
            in_memory: self.in_memory.clone(),
            user: Some(user.to_owned()),
        }
    }

    /// Makes all versions up to now too old.
    pub(crate) fn forget_the_past(&self) {
        if let Some(api) = &self.in_memory {
            api.compact();
        }
    }

    /// The path of Berth's objects of this kind, in the namespace.
    pub(crate) fn path(&self, plural: &str) -> String {
        format!("/apis/berth.dev/v1alpha1/namespaces/{}/{plural}", self.namespace)
    }

    pub(crate) async fn get(&self, path: &str) -> Outcome {
        self.send(Method::GET, path, "", None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Outcome {
        self.send(Method::POST, path, "", Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Outcome {
        self.send(Method::PUT, path, "", Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Outcome {
        self.send(Method::DELETE, path, "", None).await
    }

    pub(crate) async fn merge(&self, path: &str, body: &Value) -> Outcome {
        self.send(Method::PATCH, path, "application/merge-patch+json", Some(body)).await
    }

    pub(crate) async fn json_patch(&self, path: &str, body: &Value) -> Outcome {
        self.send(Method::PATCH, path, "application/json-patch+json", Some(body)).await
    }

    pub(crate) async fn apply(&self, path: &str, manager: &str, body: &Value) -> Outcome {
        let path = format!("{path}?fieldManager={manager}&force=true");
        self.send(Method::PATCH, &path, "application/apply-patch+yaml", Some(body)).await
    }

    pub(crate) async fn metadata(&self, path: &str, list: &str) -> Outcome {
        let accept = format!("application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1");
        let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        self.answer(request).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, content: &str, body: Option<&Value>) -> Outcome {
        let content = if content.is_empty() { "application/json" } else { content };
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string().into_bytes()));
        self.answer(
            Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, content).body(body).unwrap(),
        )
        .await
    }

    async fn answer(&self, mut request: Request<Body>) -> Outcome {
        if let Some(user) = &self.user {
            request.headers_mut().insert("impersonate-user", user.parse().unwrap());
        }
        let response = self.client.send(request).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect_bytes().await.unwrap();
        Outcome { code, body: serde_json::from_slice(&body).unwrap_or_default() }
    }

    /// The events of a watch until it ends.
    pub(crate) async fn watch(&self, path: &str) -> Vec<Value> {
        let response = self.client.send(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        lines(&response.into_body().collect_bytes().await.unwrap())
    }

    pub(crate) async fn watch_metadata(&self, path: &str) -> Vec<Value> {
        let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        lines(&self.client.send(request).await.unwrap().into_body().collect_bytes().await.unwrap())
    }

    /// Creates the smallest Server, with these changes.
    pub(crate) async fn server(&self, name: &str, changes: &Value) -> Value {
        self.post(&self.path("servers"), &server(name, changes)).await.expect(201)
    }

    /// Waits until the object is as wanted.
    pub(crate) async fn eventually(&self, path: &str, is_wanted: impl Fn(&Outcome) -> bool) {
        let looked = async {
            while !is_wanted(&self.get(path).await) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(tokio::time::timeout(LIMIT, looked).await.is_ok(), "{path} is {:?}", self.get(path).await);
    }
}

impl Outcome {
    /// The document of a response with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.body);
        self.body
    }

    /// The message of a refusal with this code and reason.
    #[track_caller]
    pub(crate) fn refused(self, code: u16, reason: &str) -> String {
        let body = self.expect(code);
        assert_eq!((body["status"].as_str(), body["reason"].as_str()), (Some("Failure"), Some(reason)), "{body}");
        body["message"].as_str().unwrap_or_default().to_owned()
    }
}

fn lines(body: &[u8]) -> Vec<Value> {
    body.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// The smallest Server, with these changes.
pub(crate) fn server(name: &str, changes: &Value) -> Value {
    let mut server = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": {"name": name},
        "spec": {"machine": {"className": "small"}}
    });
    json_patch::merge(&mut server, changes);
    server
}

pub(crate) fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

pub(crate) fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap()
}

pub(crate) fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}
