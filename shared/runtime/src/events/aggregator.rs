//! Aggregates repeats of an Event into one Event with a count.

use std::collections::HashMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::occurrence::Occurrence;

/// Least time between two writes of the same Event, so that a fast repeat costs few writes.
const WRITE_INTERVAL: SignedDuration = SignedDuration::from_secs(10);
/// A repeat after this time is a new Event: client-go's interval for similar Events.
const REPEAT_INTERVAL: SignedDuration = SignedDuration::from_mins(10);
/// How many Events are kept in memory: as many as client-go keeps.
const MAX_EVENTS: usize = 4096;

/// What two occurrences of the same Event have in common.
type Key = (Option<String>, Option<String>, Option<String>, &'static str, String);

/// An Event to write.
#[derive(Clone, Debug)]
pub(super) struct AggregatedEvent {
    /// The newest occurrence.
    pub(super) occurrence: Occurrence,
    /// How often it occurred.
    pub(super) count: i32,
    /// When it occurred first.
    pub(super) first: Timestamp,
    /// Name of the Event object, once it was created.
    pub(super) name: Option<String>,
    written: Option<Timestamp>,
    changed: bool,
}

/// Counts occurrences, and decides which Events have to be written.
#[derive(Debug, Default)]
pub(super) struct Aggregator(HashMap<Key, AggregatedEvent>);

fn key(occurrence: &Occurrence) -> Key {
    let object = &occurrence.object;
    (
        object.uid.clone(),
        object.namespace.clone(),
        object.name.clone(),
        occurrence.kind.name(),
        occurrence.reason.clone(),
    )
}

impl Aggregator {
    /// Adds an occurrence.
    pub(super) fn add(&mut self, occurrence: Occurrence) {
        let key = key(&occurrence);
        match self.0.get_mut(&key).filter(|s| occurrence.at.duration_since(s.occurrence.at) < REPEAT_INTERVAL) {
            Some(series) => {
                series.count = series.count.saturating_add(1);
                series.occurrence = occurrence;
                series.changed = true;
            }
            None => {
                self.evict(occurrence.at);
                let first = occurrence.at;
                self.0.insert(
                    key,
                    AggregatedEvent { occurrence, count: 1, first, name: None, written: None, changed: true },
                );
            }
        }
    }

    /// Makes room for another Event if the memory is full.
    fn evict(&mut self, now: Timestamp) {
        if self.0.len() < MAX_EVENTS {
            return;
        }
        self.0.retain(|_, s| now.duration_since(s.occurrence.at) < REPEAT_INTERVAL);
        if self.0.len() >= MAX_EVENTS
            && let Some(oldest) = self.0.iter().min_by_key(|(_, s)| s.occurrence.at).map(|(key, _)| key.clone())
        {
            self.0.remove(&oldest);
        }
    }

    /// Takes at most `limit` Events whose write is due, oldest first. They count as written.
    pub(super) fn due(&mut self, now: Timestamp, limit: usize) -> Vec<AggregatedEvent> {
        let is_due =
            |s: &AggregatedEvent| s.changed && s.written.is_none_or(|at| now.duration_since(at) >= WRITE_INTERVAL);
        let mut due: Vec<&mut AggregatedEvent> = self.0.values_mut().filter(|s| is_due(s)).collect();
        due.sort_by_key(|s| s.occurrence.at);
        due.truncate(limit);
        for series in &mut due {
            (series.written, series.changed) = (Some(now), false);
        }
        due.into_iter().map(|s| s.clone()).collect()
    }

    /// Whether any Event has to be written.
    pub(super) fn is_waiting(&self) -> bool {
        self.0.values().any(|s| s.changed)
    }

    /// Records the name of the Event object. Without a name the next repeat creates another one.
    pub(super) fn set_name(&mut self, occurrence: &Occurrence, name: Option<String>) {
        if let Some(series) = self.0.get_mut(&key(occurrence)) {
            series.name = name;
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;
    use crate::EventType;

    fn occurrence(name: &str, note: &str, second: i64) -> Occurrence {
        Occurrence {
            object: ObjectReference { name: Some(name.into()), ..ObjectReference::default() },
            kind: EventType::Warning,
            reason: "Failed".into(),
            note: note.into(),
            at: at(second),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn repeats_are_counted_and_written_every_ten_seconds_with_the_newest_note() {
        let mut aggregator = Aggregator::default();
        aggregator.add(occurrence("a", "one", 0));
        assert_eq!(aggregator.due(at(0), 9).len(), 1, "the first is written at once");
        for second in 1..6 {
            aggregator.add(occurrence("a", &second.to_string(), second));
        }
        assert!(aggregator.due(at(9), 9).is_empty() && aggregator.is_waiting());
        let due = aggregator.due(at(10), 9);
        assert_eq!((due.len(), due[0].count, due[0].occurrence.note.as_str(), due[0].first), (1, 6, "5", at(0)));
        assert!(!aggregator.is_waiting(), "nothing is written without news");
    }

    #[test]
    fn another_object_or_a_late_repeat_is_another_event() {
        let mut aggregator = Aggregator::default();
        aggregator.add(occurrence("a", "x", 0));
        aggregator.add(occurrence("b", "x", 0));
        assert_eq!(aggregator.due(at(0), 9).len(), 2);
        aggregator.add(occurrence("a", "x", 700));
        let due = aggregator.due(at(700), 9);
        assert_eq!((due.len(), due[0].count, due[0].first), (1, 1, at(700)));
    }

    #[test]
    fn rate_and_memory_are_bounded() {
        let mut aggregator = Aggregator::default();
        for n in 0..5000 {
            aggregator.add(occurrence(&n.to_string(), "x", n));
        }
        assert!(aggregator.0.len() <= MAX_EVENTS);
        let due = aggregator.due(at(5000), 5);
        assert_eq!(due.len(), 5);
        assert!(aggregator.is_waiting(), "the others wait for their turn");
        assert!(due.windows(2).all(|pair| pair[0].occurrence.at <= pair[1].occurrence.at));
    }
}
