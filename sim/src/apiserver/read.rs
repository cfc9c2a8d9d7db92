//! Reads: one object, a list in pages, and the beginning of a watch.

use std::time::Duration;

use axum::body::{Body, Bytes};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Response;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    ApiServer,
    failure::{Failure, respond, respond_text},
    metadata::only_metadata,
    request::{Call, Subresource, Target, View},
    resources::Resource,
    selectors::Selector,
    store::{Place, Stored},
    watch::Watch,
};

/// How long a watch lasts that names no time: the shortest that kube-apiserver chooses.
const WATCH_SECONDS: u64 = 1_800;

impl ApiServer {
    pub(super) fn get(&self, call: &Call, target: &Target) -> Result<Response<Body>, Failure> {
        let object = self.stored(target, target.name.as_deref().unwrap_or_default())?;
        Ok(answer(200, call.view, self.resource(target), target.subresource, &object))
    }

    pub(super) fn list(&self, call: &Call, target: &Target) -> Result<Response<Body>, Failure> {
        let (resource, store) = (self.resource(target), self.0.store.lock());
        let selector = Selector::of(&call.parameters, resource)?;
        let limit = usize::try_from(call.parameters.number("limit")?.unwrap_or_default()).unwrap_or_default();
        let limit = if limit == 0 { usize::MAX } else { limit };
        let start = call.parameters.text("continue").map(Continue::read).transpose()?;
        let revision = start.as_ref().map_or(store.revision(), |start| start.revision);
        let snapshot = store.snapshot(target.resource, start.as_ref().map(|start| &start.after), revision)?;
        let mut selected = snapshot.into_iter().filter(|(place, object)| {
            (target.namespace.is_empty() || target.namespace == place.0) && selector.matches(object)
        });
        let page: Vec<(&Place, _)> = selected.by_ref().take(limit).collect();
        let left = selected.count();
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if let Some((last, _)) = page.last().filter(|_| left > 0) {
            metadata["continue"] = Continue { revision, after: (*last).clone() }.write().into();
            if selector.is_empty() {
                metadata["remainingItemCount"] = left.into();
            }
        }
        let items: Vec<Bytes> = page.iter().map(|(_, object)| seen(call.view, object)).collect();
        let (kind, api_version) = match call.view {
            View::Whole => (format!("{}List", resource.kind), resource.api_version()),
            View::MetadataOnly => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
        };
        let head = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata},"items":["#);
        let list = [head.as_bytes(), &items.join(&b","[..]), b"]}"].concat();
        Ok(respond_text(200, list.into()))
    }

    pub(super) fn watch(&self, call: &Call, target: &Target) -> Result<Response<Body>, Failure> {
        let (resource, parameters) = (self.resource(target), &call.parameters);
        if parameters.flag("sendInitialEvents") {
            return Err(Failure::bad_request("sendInitialEvents is not simulated: list, then watch"));
        }
        let position = match parameters.number("resourceVersion")? {
            None | Some(0) => return Err(Failure::bad_request("a watch without resourceVersion is not simulated")),
            Some(revision) => revision,
        };
        let seconds = parameters.number("timeoutSeconds")?.unwrap_or(WATCH_SECONDS);
        let watch = Watch {
            store: self.0.store.clone(),
            resource: target.resource,
            api_version: resource.api_version(),
            kind: resource.kind.clone(),
            namespace: target.namespace.clone(),
            selector: Selector::of(parameters, resource)?,
            view: call.view,
            bookmarks: parameters.flag("allowWatchBookmarks"),
            position,
            refusal: self.0.store.lock().check_known(target.resource, position).err(),
            ends_at: Instant::now() + Duration::from_secs(seconds),
        };
        Ok(watch.into_response())
    }
}

/// The whole object as a client means it that patches this subresource.
pub(super) fn shown(resource: &Resource, subresource: Option<Subresource>, object: &Value) -> Value {
    match (subresource, &resource.scale) {
        (Some(Subresource::Scale), Some(paths)) => {
            let number = |pointer: &str| object.pointer(pointer).cloned().unwrap_or_else(|| 0.into());
            let metadata = &object["metadata"];
            json!({
                "kind": "Scale", "apiVersion": "autoscaling/v1",
                "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
                             "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"]},
                "spec": {"replicas": number(&paths.replicas)}, "status": {"replicas": number(&paths.status_replicas)}
            })
        }
        _ => object.clone(),
    }
}

/// An answer that shows an object.
pub(super) fn answer(
    code: u16,
    view: View,
    resource: &Resource,
    subresource: Option<Subresource>,
    object: &Stored,
) -> Response<Body> {
    match subresource {
        Some(Subresource::Scale) => respond(code, &shown(resource, subresource, object)),
        _ => respond_text(code, seen(view, object)),
    }
}

/// The text of what a client sees of an object.
fn seen(view: View, object: &Stored) -> Bytes {
    match view {
        View::Whole => object.text().clone(),
        View::MetadataOnly => only_metadata(object).to_string().into(),
    }
}

/// Where the next page of a list begins.
struct Continue {
    revision: u64,
    /// The place of the last object that was read.
    after: Place,
}

impl Continue {
    fn write(&self) -> String {
        let token = json!({"v": "berth-sim/1", "rv": self.revision, "namespace": self.after.0, "name": self.after.1});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn read(token: &str) -> Result<Self, Failure> {
        let decoded = URL_SAFE_NO_PAD.decode(token).ok().and_then(|json| serde_json::from_slice::<Value>(&json).ok());
        let read = |token: Value| {
            let text = |field: &str| token[field].as_str().map(str::to_owned);
            Some(Self { revision: token["rv"].as_u64()?, after: (text("namespace")?, text("name")?) })
        };
        decoded.and_then(read).ok_or_else(|| Failure::bad_request("continue key is not valid"))
    }
}
