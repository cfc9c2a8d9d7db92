//! Repeats of an Event are one Event with a count.

use std::collections::HashMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::Notice;

/// Least time between two writes of the same Event.
const INTERVAL: SignedDuration = SignedDuration::from_secs(10);
/// A repeat after this time is a new Event.
const FORGET: SignedDuration = SignedDuration::from_mins(10);
/// Events that are remembered.
const REMEMBERED: usize = 4096;

/// What makes two notices the same Event.
type Key = (Option<String>, Option<String>, Option<String>, &'static str, String);

/// An Event to write.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// The newest notice.
    pub(super) notice: Notice,
    /// How often it happened.
    pub(super) count: i32,
    /// When it happened first.
    pub(super) first: Timestamp,
    /// The Event's name, once it was created.
    pub(super) name: Option<String>,
    written: Option<Timestamp>,
    changed: bool,
}

/// Counts notices, and says which Events are to be written.
#[derive(Debug, Default)]
pub(super) struct Book(HashMap<Key, Series>);

fn key(notice: &Notice) -> Key {
    let object = &notice.object;
    (object.uid.clone(), object.namespace.clone(), object.name.clone(), notice.kind.name(), notice.reason.clone())
}

impl Book {
    /// Enters a notice.
    pub(super) fn enter(&mut self, notice: Notice) {
        let key = key(&notice);
        match self.0.get_mut(&key).filter(|s| notice.at.duration_since(s.notice.at) < FORGET) {
            Some(series) => {
                series.count = series.count.saturating_add(1);
                series.notice = notice;
                series.changed = true;
            }
            None => {
                self.make_room(notice.at);
                let first = notice.at;
                self.0.insert(key, Series { notice, count: 1, first, name: None, written: None, changed: true });
            }
        }
    }

    fn make_room(&mut self, now: Timestamp) {
        if self.0.len() < REMEMBERED {
            return;
        }
        self.0.retain(|_, s| now.duration_since(s.notice.at) < FORGET);
        if self.0.len() >= REMEMBERED
            && let Some(oldest) = self.0.iter().min_by_key(|(_, s)| s.notice.at).map(|(key, _)| key.clone())
        {
            self.0.remove(&oldest);
        }
    }

    /// At most `most` Events whose write is due, the oldest first. They count as written.
    pub(super) fn due(&mut self, now: Timestamp, most: usize) -> Vec<Series> {
        let is_due = |s: &Series| s.changed && s.written.is_none_or(|at| now.duration_since(at) >= INTERVAL);
        let mut due: Vec<&mut Series> = self.0.values_mut().filter(|s| is_due(s)).collect();
        due.sort_by_key(|s| s.notice.at);
        due.truncate(most);
        for series in &mut due {
            (series.written, series.changed) = (Some(now), false);
        }
        due.into_iter().map(|s| s.clone()).collect()
    }

    /// Whether any Event waits to be written.
    pub(super) fn is_waiting(&self) -> bool {
        self.0.values().any(|s| s.changed)
    }

    /// The Event has this name now; without one the next repeat creates it anew.
    pub(super) fn named(&mut self, notice: &Notice, name: Option<String>) {
        if let Some(series) = self.0.get_mut(&key(notice)) {
            series.name = name;
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;
    use crate::EventType;

    fn notice(name: &str, note: &str, second: i64) -> Notice {
        Notice {
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
        let mut book = Book::default();
        book.enter(notice("a", "one", 0));
        assert_eq!(book.due(at(0), 9).len(), 1, "the first is written at once");
        for second in 1..6 {
            book.enter(notice("a", &second.to_string(), second));
        }
        assert!(book.due(at(9), 9).is_empty() && book.is_waiting());
        let due = book.due(at(10), 9);
        assert_eq!((due.len(), due[0].count, due[0].notice.note.as_str(), due[0].first), (1, 6, "5", at(0)));
        assert!(!book.is_waiting(), "nothing is written without news");
    }

    #[test]
    fn another_object_is_another_event_and_a_late_repeat_is_new() {
        let mut book = Book::default();
        book.enter(notice("a", "x", 0));
        book.enter(notice("b", "x", 0));
        assert_eq!(book.due(at(0), 9).len(), 2);
        book.enter(notice("a", "x", 700));
        let due = book.due(at(700), 9);
        assert_eq!((due.len(), due[0].count, due[0].first), (1, 1, at(700)));
    }

    #[test]
    fn the_rate_and_the_memory_are_bounded() {
        let mut book = Book::default();
        for n in 0..5000 {
            book.enter(notice(&n.to_string(), "x", n));
        }
        assert!(book.0.len() <= REMEMBERED);
        let due = book.due(at(5000), 5);
        assert_eq!(due.len(), 5);
        assert!(book.is_waiting(), "the others wait for their turn");
        assert!(due.windows(2).all(|pair| pair[0].notice.at <= pair[1].notice.at));
    }
}
