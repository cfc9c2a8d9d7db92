//! What the API's own history says about the time in which a machine was created. Pure.
//!
//! A machine without a Server is only an orphan if its Server was deleted. After etcd was restored from a backup, the Servers that
//! were created since the backup are missing, too, and their machines serve. So the collector keeps a mark in the API: until when
//! this history has been followed. A restored history has an old mark. The time between an old mark and now is a gap, and machines
//! that were created in a gap are only reported.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Clocks of providers may differ from that of the cluster by this much.
const CLOCK_MARGIN: SignedDuration = SignedDuration::from_mins(1);
/// Most gaps that are stored. Two restores a year fill it in four years; then the two oldest gaps become one.
const MOST_GAPS: usize = 8;

/// A time of which the API may have forgotten what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gap {
    /// Its start; none if it reaches back to the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<Timestamp>,
    /// Its end.
    pub(super) to: Timestamp,
}

/// The mark, and the gaps before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct History {
    /// Until when the history has been followed.
    pub(super) followed_until: Timestamp,
    /// Oldest first.
    pub(super) gaps: Vec<Gap>,
}

impl History {
    /// The history of an API without a mark: nothing is known about what happened before now.
    #[must_use]
    pub(super) fn begin(now: Timestamp) -> Self {
        Self { followed_until: now, gaps: vec![Gap { from: None, to: now }] }
    }

    /// The history that goes on until now. There is a gap if the stored mark is older than the one that this process `wrote`
    /// last, or older than `longest`, because then this history may have been restored.
    #[must_use]
    pub(super) fn advance(&self, wrote: Option<Timestamp>, longest: SignedDuration, now: Timestamp) -> Self {
        let is_restored = wrote.is_some_and(|wrote| self.followed_until < wrote);
        let mut gaps = self.gaps.clone();
        if is_restored || now.duration_since(self.followed_until) > longest {
            let from = self.followed_until.checked_sub(CLOCK_MARGIN).ok();
            gaps.push(Gap { from, to: now.checked_add(CLOCK_MARGIN).unwrap_or(now) });
        }
        while let [first, second, ..] = gaps.as_slice()
            && gaps.len() > MOST_GAPS
        {
            let both = Gap { from: first.from, to: second.to };
            gaps.splice(..2, [both]);
        }
        Self { followed_until: now.max(self.followed_until), gaps }
    }

    /// Whether the API would know a Server whose machine was created at this time, unless it was deleted.
    #[must_use]
    pub(super) fn covers(&self, created_at: Timestamp) -> bool {
        let is_in = |gap: &Gap| gap.from.is_none_or(|from| from <= created_at) && created_at <= gap.to;
        !self.gaps.iter().any(is_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: SignedDuration = SignedDuration::from_mins(30);

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    /// The history of a process that marks every ten minutes, until this minute.
    fn followed(until: i64) -> History {
        (1..=until / 10)
            .fold(History::begin(at(0)), |history, n| history.advance(Some(at((n - 1) * 10)), LONGEST, at(n * 10)))
    }

    #[test]
    fn only_what_was_created_before_the_first_mark_is_unknown() {
        let history = followed(100);
        for (minute, known) in [(-1000, false), (0, false), (1, true), (55, true), (100, true)] {
            assert_eq!(history.covers(at(minute)), known, "minute {minute}");
        }
    }

    #[test]
    fn after_a_restore_machines_that_are_newer_than_the_backup_are_unknown_for_good() {
        // The backup is of minute 100, it is restored at minute 250, and the controller was restarted.
        let mut history = followed(100).advance(None, LONGEST, at(250));
        for _ in 0..2 {
            for (minute, known) in [(90, true), (101, false), (175, false), (250, false), (252, true)] {
                assert_eq!(history.covers(at(minute)), known, "minute {minute}");
            }
            history = history.advance(Some(at(250)), LONGEST, at(260));
        }
    }

    #[test]
    fn a_process_that_saw_the_restore_notices_a_backup_of_any_age() {
        let restored = followed(100);
        let history = restored.advance(Some(at(110)), LONGEST, at(112));
        assert!(!history.covers(at(105)) && history.covers(at(90)));
        assert!(restored.advance(None, LONGEST, at(112)).covers(at(105)), "a new process goes by the age alone");
    }

    #[test]
    fn gaps_are_bounded_and_never_shrink() {
        let mut history = History::begin(at(0));
        let hours: Vec<i64> = (1..40).map(|n| n * 60).collect();
        for hour in &hours {
            history = history.advance(None, LONGEST, at(*hour));
        }
        assert_eq!(history.gaps.len(), MOST_GAPS);
        assert!(hours.iter().all(|hour| !history.covers(at(hour - 30))));
    }
}
