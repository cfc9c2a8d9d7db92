//! The task that writes Events.

use std::{sync::Arc, time::Duration};

use berth_core::api::Executor;
use k8s_openapi::{
    api::core::v1::{Event, EventSource},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Notice,
    series::{Book, Series},
};
use crate::{Clock, Metrics};

/// Events written in one round; a round takes at least [`PAUSE`].
const ROUND: usize = 20;
const PAUSE: Duration = Duration::from_secs(1);
/// The API's limit of a note, in bytes.
const NOTE: usize = 1024;

/// Writes the Events that were published.
pub(crate) struct Sender {
    client: Client,
    source: EventSource,
    instance: String,
    notices: mpsc::Receiver<Notice>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    book: Book,
}

impl Sender {
    pub(super) fn new(
        client: Client,
        executor: Executor,
        instance: &str,
        notices: mpsc::Receiver<Notice>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let source = EventSource { component: Some(executor.name().to_owned()), host: None };
        Self { client, source, instance: instance.to_owned(), notices, clock, metrics, book: Book::default() }
    }

    /// Runs until shutdown or until nobody can publish any more, and then writes what is left once.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        while self.collect(&shutdown).await {
            self.round().await;
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => (),
                () = shutdown.cancelled() => (),
            }
        }
        while let Ok(notice) = self.notices.try_recv() {
            self.book.enter(notice);
        }
        self.round().await;
    }

    /// Waits until there is something to write; false when it is time to end.
    async fn collect(&mut self, shutdown: &CancellationToken) -> bool {
        if shutdown.is_cancelled() {
            return false;
        }
        if !self.book.is_waiting() {
            let notice = tokio::select! {
                notice = self.notices.recv() => notice,
                () = shutdown.cancelled() => None,
            };
            let Some(notice) = notice else { return false };
            self.book.enter(notice);
        }
        while let Ok(notice) = self.notices.try_recv() {
            self.book.enter(notice);
        }
        true
    }

    async fn round(&mut self) {
        for series in self.book.due(self.clock.now(), ROUND) {
            match self.write(&series).await {
                Ok(name) => {
                    Metrics::count(&self.metrics.events, "written");
                    self.book.named(&series.notice, name);
                }
                Err(error) => {
                    Metrics::count(&self.metrics.events, "failed");
                    tracing::warn!(%error, reason = series.notice.reason, "cannot write an Event");
                }
            }
        }
    }

    /// Writes an Event and returns its name. One that somebody has deleted is created anew.
    async fn write(&self, series: &Series) -> Result<Option<String>, kube::Error> {
        let namespace = series.notice.object.namespace.as_deref().unwrap_or("default");
        let events = Api::<Event>::namespaced(self.client.clone(), namespace);
        if let Some(name) = &series.name {
            let news = json!({
                "count": series.count,
                "message": shortened(&series.notice.note),
                "lastTimestamp": Time(series.notice.at),
            });
            match events.patch(name, &PatchParams::default(), &Patch::Merge(news)).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => (),
                result => return result.map(|event| event.metadata.name),
            }
        }
        let created = events.create(&PostParams::default(), &self.event(series, namespace)).await?;
        Ok(created.metadata.name)
    }

    fn event(&self, series: &Series, namespace: &str) -> Event {
        let notice = &series.notice;
        let about = notice.object.name.as_deref().unwrap_or("unknown");
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{about}.{:016x}", rand::random::<u64>())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: notice.object.clone(),
            type_: Some(notice.kind.name().to_owned()),
            reason: Some(notice.reason.clone()),
            message: Some(shortened(&notice.note).to_owned()),
            count: Some(series.count),
            first_timestamp: Some(Time(series.first)),
            last_timestamp: Some(Time(notice.at)),
            source: Some(self.source.clone()),
            reporting_component: Some(format!("berth.dev/{}", self.source.component.as_deref().unwrap_or_default())),
            reporting_instance: Some(self.instance.clone()),
            action: None,
            event_time: None,
            related: None,
            series: None,
        }
    }
}

fn shortened(note: &str) -> &str {
    &note[..note.floor_char_boundary(NOTE)]
}
