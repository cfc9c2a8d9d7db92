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

use super::aggregator::{AggregatedEvent, Aggregator};
use super::occurrence::Occurrence;
use crate::{Clock, Metrics};

/// Most Events written per round: 20 a second do not burden an API server.
const BATCH: usize = 20;
/// Pause between two rounds.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest note that the API accepts, in bytes.
const MAX_NOTE: usize = 1024;

/// Writes the Events that were published.
pub(crate) struct EventWriter {
    client: Client,
    source: EventSource,
    instance: String,
    occurrences: mpsc::Receiver<Occurrence>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    aggregator: Aggregator,
}

impl EventWriter {
    pub(super) fn new(
        client: Client,
        executor: Executor,
        instance: &str,
        occurrences: mpsc::Receiver<Occurrence>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let source = EventSource { component: Some(executor.name().to_owned()), host: None };
        Self {
            client,
            source,
            instance: instance.to_owned(),
            occurrences,
            clock,
            metrics,
            aggregator: Aggregator::default(),
        }
    }

    /// Runs until shutdown, or until all publishers are gone, and then tries once to write what is left.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        while self.collect(&shutdown).await {
            self.round().await;
            tokio::select! {
                biased;
                () = tokio::time::sleep(PAUSE) => (),
                () = shutdown.cancelled() => (),
            }
        }
        while let Ok(occurrence) = self.occurrences.try_recv() {
            self.aggregator.add(occurrence);
        }
        self.round().await;
    }

    /// Waits until there is something to write. Returns false when the writer has to end.
    async fn collect(&mut self, shutdown: &CancellationToken) -> bool {
        if shutdown.is_cancelled() {
            return false;
        }
        if !self.aggregator.is_waiting() {
            let occurrence = tokio::select! {
                biased;
                occurrence = self.occurrences.recv() => occurrence,
                () = shutdown.cancelled() => None,
            };
            let Some(occurrence) = occurrence else { return false };
            self.aggregator.add(occurrence);
        }
        while let Ok(occurrence) = self.occurrences.try_recv() {
            self.aggregator.add(occurrence);
        }
        true
    }

    /// Writes the Events that are due.
    async fn round(&mut self) {
        for series in self.aggregator.due(self.clock.now(), BATCH) {
            match self.write(&series).await {
                Ok(name) => {
                    Metrics::count_result(&self.metrics.events, "written");
                    self.aggregator.set_name(&series.occurrence, name);
                }
                Err(error) => {
                    Metrics::count_result(&self.metrics.events, "failed");
                    tracing::warn!(%error, reason = series.occurrence.reason, "cannot write an Event");
                }
            }
        }
    }

    /// Writes an Event and returns its name. An Event that was deleted is created again.
    async fn write(&self, series: &AggregatedEvent) -> Result<Option<String>, kube::Error> {
        let namespace = series.occurrence.object.namespace.as_deref().unwrap_or("default");
        let events = Api::<Event>::namespaced(self.client.clone(), namespace);
        if let Some(name) = &series.name {
            let changes = json!({
                "count": series.count,
                "message": shortened(&series.occurrence.note),
                "lastTimestamp": Time(series.occurrence.at),
            });
            match events.patch(name, &PatchParams::default(), &Patch::Merge(changes)).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => (),
                result => return result.map(|event| event.metadata.name),
            }
        }
        let created = events.create(&PostParams::default(), &self.event(series, namespace)).await?;
        Ok(created.metadata.name)
    }

    fn event(&self, series: &AggregatedEvent, namespace: &str) -> Event {
        let occurrence = &series.occurrence;
        let about = occurrence.object.name.as_deref().unwrap_or("unknown");
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{about}.{:016x}", rand::random::<u64>())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: occurrence.object.clone(),
            type_: Some(occurrence.kind.name().to_owned()),
            reason: Some(occurrence.reason.clone()),
            message: Some(shortened(&occurrence.note).to_owned()),
            count: Some(series.count),
            first_timestamp: Some(Time(series.first)),
            last_timestamp: Some(Time(occurrence.at)),
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
    &note[..note.floor_char_boundary(MAX_NOTE)]
}
