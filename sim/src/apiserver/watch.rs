//! Watches: the changes after a revision, as a stream of lines.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use futures::{Stream, stream};
use http::Response;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{
    failure::Failure,
    metadata::only_metadata,
    request::View,
    selectors::Selector,
    store::{Change, Store},
};

/// How often a watch that allows bookmarks gets one.
const BOOKMARK_INTERVAL: Duration = Duration::from_mins(1);

/// A watch of one kind.
pub(crate) struct Watch {
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) resource: usize,
    pub(crate) api_version: String,
    pub(crate) kind: String,
    /// Empty for all namespaces.
    pub(crate) namespace: String,
    pub(crate) selector: Selector,
    pub(crate) view: View,
    pub(crate) bookmarks: bool,
    /// The revision up to which the client knows everything.
    pub(crate) position: u64,
    /// When the watch ends.
    pub(crate) ends_at: Instant,
}

/// What comes next on a watch.
enum Next {
    Line(String),
    /// The last line.
    Last(String),
    End,
}

impl Watch {
    /// The response whose body is the stream.
    pub(crate) fn into_response(self) -> Response<Body> {
        Response::new(Body::from_stream(self.lines()))
    }

    fn lines(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
        stream::unfold(Some(self), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Next::Line(line) => Some((Ok(Bytes::from(line)), Some(watch))),
                Next::Last(line) => Some((Ok(Bytes::from(line)), None)),
                Next::End => None,
            }
        })
    }

    async fn next(&mut self) -> Next {
        let mut bookmark_at = Instant::now() + BOOKMARK_INTERVAL;
        let mut changed = self.store.lock().changed();
        loop {
            match self.next_event() {
                Ok(Some(line)) => return Next::Line(line),
                Ok(None) => {}
                Err(failure) => return Next::Last(event("ERROR", &failure.status())),
            }
            tokio::select! {
                biased;
                // The store lives as long as the watch, so that the sender is never gone.
                _ = changed.changed() => {}
                () = sleep_until(self.ends_at) => return Next::End,
                () = sleep_until(bookmark_at), if self.bookmarks => {
                    bookmark_at += BOOKMARK_INTERVAL;
                    return Next::Line(self.bookmark());
                }
            }
        }
    }

    /// The next change that the client is to see.
    fn next_event(&mut self) -> Result<Option<String>, Failure> {
        let store = self.store.lock();
        while let Some(change) = store.change_after(self.position)? {
            self.position = change.revision;
            let is_watched = change.key.resource == self.resource
                && (self.namespace.is_empty() || self.namespace == change.key.namespace);
            if let Some(line) = is_watched.then(|| self.line(change)).flatten() {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// What a change is to a client that sees only the objects that it selects.
    fn line(&self, change: &Change) -> Option<String> {
        let selected = |object: &Option<Arc<Value>>| object.clone().filter(|object| self.selector.matches(object));
        let (event_type, object) = match (selected(&change.before), selected(&change.after)) {
            (None, None) => return None,
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(before), None) => {
                let mut last = (*before).clone();
                last["metadata"]["resourceVersion"] = change.revision.to_string().into();
                ("DELETED", Arc::new(last))
            }
        };
        Some(match self.view {
            View::Whole => event(event_type, &object),
            View::MetadataOnly => event(event_type, &only_metadata(&object)),
        })
    }

    fn bookmark(&self) -> String {
        let metadata = json!({"resourceVersion": self.position.to_string(), "creationTimestamp": null});
        let (kind, api_version) = match self.view {
            View::Whole => (self.kind.as_str(), self.api_version.as_str()),
            View::MetadataOnly => ("PartialObjectMetadata", "meta.k8s.io/v1"),
        };
        event("BOOKMARK", &json!({"kind": kind, "apiVersion": api_version, "metadata": metadata}))
    }
}

/// A line of a watch. The type comes first, as the API server writes it.
fn event(event_type: &str, object: &Value) -> String {
    format!("{{\"type\":\"{event_type}\",\"object\":{object}}}\n")
}
