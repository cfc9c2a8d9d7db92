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
    store::{Change, Store, Stored},
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
    /// Why the watch cannot begin at this revision.
    pub(crate) refusal: Option<Failure>,
    /// When the watch ends.
    pub(crate) ends_at: Instant,
}

/// What comes next on a watch.
enum Next {
    Line(Bytes),
    /// The last line.
    Last(Bytes),
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
                Next::Line(line) => Some((Ok(line), Some(watch))),
                Next::Last(line) => Some((Ok(line), None)),
                Next::End => None,
            }
        })
    }

    async fn next(&mut self) -> Next {
        let bookmark_at = Instant::now() + BOOKMARK_INTERVAL;
        let changed = self.store.lock().changed(self.resource);
        loop {
            // Begins to listen before it looks, so that it misses nothing in between.
            let another = changed.notified();
            match self.next_event() {
                Ok(Some(line)) => return Next::Line(line),
                Ok(None) => {}
                Err(failure) => return Next::Last(event("ERROR", failure.status().to_string().as_bytes())),
            }
            tokio::select! {
                biased;
                () = another => {}
                () = sleep_until(self.ends_at) => return Next::End,
                () = sleep_until(bookmark_at), if self.bookmarks => return Next::Line(self.bookmark()),
            }
        }
    }

    /// The next change that the client is to see.
    fn next_event(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Some(failure) = self.refusal.take() {
            return Err(failure);
        }
        let store = self.store.lock();
        while let Some(change) = store.change_after(self.resource, self.position)? {
            self.position = change.revision;
            let is_watched = self.namespace.is_empty() || self.namespace == change.key.place.0;
            if let Some(line) = is_watched.then(|| self.line(change)).flatten() {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// What a change is to a client that sees only the objects that it selects.
    fn line(&self, change: &Change) -> Option<Bytes> {
        let selected = |object: &Option<Arc<Stored>>| object.clone().filter(|object| self.selector.matches(object));
        let (event_type, object) = match (selected(&change.before), selected(&change.after)) {
            (None, None) => return None,
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(before), None) => {
                let mut last = (**before).clone();
                last["metadata"]["resourceVersion"] = change.revision.to_string().into();
                return Some(self.event("DELETED", &last));
            }
        };
        Some(match self.view {
            View::Whole => event(event_type, object.text()),
            View::MetadataOnly => self.event(event_type, &object),
        })
    }

    fn event(&self, event_type: &str, object: &Value) -> Bytes {
        let text = match self.view {
            View::Whole => object.to_string(),
            View::MetadataOnly => only_metadata(object).to_string(),
        };
        event(event_type, text.as_bytes())
    }

    fn bookmark(&mut self) -> Bytes {
        // It has looked already, and there was nothing.
        self.position = self.position.max(self.store.lock().revision());
        let metadata = json!({"resourceVersion": self.position.to_string(), "creationTimestamp": null});
        let (kind, api_version) = match self.view {
            View::Whole => (self.kind.as_str(), self.api_version.as_str()),
            View::MetadataOnly => ("PartialObjectMetadata", "meta.k8s.io/v1"),
        };
        let bookmark = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        event("BOOKMARK", bookmark.to_string().as_bytes())
    }
}

/// A line of a watch. The type comes first, as the API server writes it.
fn event(event_type: &str, object: &[u8]) -> Bytes {
    [br#"{"type":""#, event_type.as_bytes(), br#"","object":"#, object, b"}\n"].concat().into()
}
