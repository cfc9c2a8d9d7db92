//! Judging probes: when a machine counts as unreachable, when an application as healthy or unhealthy. Pure.

use berth_core::api::{HealthCheck, HealthState};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It succeeded.
    Good,
    /// It failed, and how.
    Bad(String),
}

/// An unbroken run of equal findings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streak {
    /// Whether they are good.
    pub good: bool,
    /// How many there are.
    pub count: u32,
    /// When the first was found.
    pub since: Timestamp,
    /// When the last was found.
    pub last: Timestamp,
    /// What the last said; empty when it was good.
    pub message: String,
}

/// The findings of one kind of probe of one Server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track {
    streak: Option<Streak>,
    health: Option<(HealthState, Timestamp)>,
}

impl Track {
    /// Takes in a finding.
    pub fn observe(&mut self, finding: &Finding, now: Timestamp) {
        let (good, message) = match finding {
            Finding::Good => (true, ""),
            Finding::Bad(message) => (false, message.as_str()),
        };
        match &mut self.streak {
            Some(streak) if streak.good == good => {
                streak.count = streak.count.saturating_add(1);
                streak.last = now;
                message.clone_into(&mut streak.message);
            }
            _ => self.streak = Some(Streak { good, count: 1, since: now, last: now, message: message.to_owned() }),
        }
    }

    /// The findings since they last changed; nothing before the first probe.
    #[must_use]
    pub fn streak(&self) -> Option<&Streak> {
        self.streak.as_ref()
    }

    /// The verdict on health, and since when it holds. It changes only when as many findings in a row as the
    /// threshold asks for say otherwise.
    pub fn health(&mut self, check: &HealthCheck) -> Option<(HealthState, Timestamp)> {
        let streak = self.streak.as_ref()?;
        let (state, threshold) = if streak.good {
            (HealthState::Healthy, check.success_threshold)
        } else {
            (HealthState::Unhealthy, check.failure_threshold)
        };
        let settled = self.health.as_ref().is_some_and(|(known, _)| *known == state);
        if !settled && i64::from(streak.count) >= i64::from(threshold) {
            self.health = Some((state, streak.last));
        }
        self.health
    }
}

/// Whether the machine can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing is known yet, or failures have not lasted long enough.
    Undecided,
    /// The last probe succeeded; since when they do.
    Reachable(Timestamp),
    /// Probes have failed for at least the threshold.
    Unreachable {
        /// When the first of them failed.
        since: Timestamp,
        /// When the last of them failed.
        observed: Timestamp,
        /// What it said.
        message: String,
    },
}

/// The verdict on reachability, and after how long to look again though no probe brings news: a failing machine
/// becomes unreachable by the passing of time, but only a failed probe after the threshold proves it, so the next
/// probe must come no later than then.
#[must_use]
pub fn reachability(track: &Track, threshold_seconds: i32, now: Timestamp) -> (Reach, Option<SignedDuration>) {
    let Some(streak) = track.streak() else { return (Reach::Undecided, None) };
    if streak.good {
        return (Reach::Reachable(streak.since), None);
    }
    // The API stores whole seconds: what is written must meet the threshold there, too.
    let lasted = streak.last.as_second() - streak.since.as_second();
    if lasted >= i64::from(threshold_seconds) {
        let (since, observed) = (streak.since, streak.last);
        return (Reach::Unreachable { since, observed, message: streak.message.clone() }, None);
    }
    let due = SignedDuration::from_secs(streak.since.as_second() + i64::from(threshold_seconds))
        - SignedDuration::from_millis(now.as_millisecond());
    (Reach::Undecided, Some(due.max(SignedDuration::ZERO)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn bad() -> Finding {
        Finding::Bad("connection refused".into())
    }

    fn check(success: i32, failure: i32) -> HealthCheck {
        serde_json::from_value(serde_json::json!({
            "tcpSocket": {"port": 1}, "successThreshold": success, "failureThreshold": failure
        }))
        .unwrap()
    }

    #[test]
    fn health_changes_at_its_thresholds_and_keeps_its_time() {
        let (check, mut track) = (check(2, 3), Track::default());
        assert_eq!(track.health(&check), None);
        let mut seen = Vec::new();
        let findings = [Finding::Good, Finding::Good, bad(), bad(), Finding::Good, bad(), bad(), bad(), Finding::Good];
        for (n, finding) in (0..).zip(findings) {
            track.observe(&finding, at(n));
            seen.push(track.health(&check));
        }
        let healthy = Some((HealthState::Healthy, at(1)));
        let sick = Some((HealthState::Unhealthy, at(7)));
        assert_eq!(seen, [None, healthy, healthy, healthy, healthy, healthy, healthy, sick, sick]);
    }

    #[test]
    fn a_machine_is_unreachable_when_failures_span_the_threshold() {
        let mut track = Track::default();
        assert_eq!(reachability(&track, 30, at(0)), (Reach::Undecided, None));
        track.observe(&bad(), at(0));
        assert_eq!(reachability(&track, 30, at(1)), (Reach::Undecided, Some(SignedDuration::from_secs(29))));
        track.observe(&bad(), at(29));
        assert_eq!(
            reachability(&track, 30, at(40)),
            (Reach::Undecided, Some(SignedDuration::ZERO)),
            "time alone proves nothing"
        );
        track.observe(&bad(), at(30));
        let (reach, again) = reachability(&track, 30, at(30));
        assert_eq!(again, None);
        assert_eq!(reach, Reach::Unreachable { since: at(0), observed: at(30), message: "connection refused".into() });
        track.observe(&Finding::Good, at(31));
        assert_eq!(reachability(&track, 30, at(32)).0, Reach::Reachable(at(31)));
    }

    #[test]
    fn one_good_probe_begins_the_count_anew() {
        let mut track = Track::default();
        for (second, finding) in [(0, bad()), (20, Finding::Good), (25, bad()), (50, bad())] {
            track.observe(&finding, at(second));
        }
        assert_eq!(reachability(&track, 30, at(50)).0, Reach::Undecided);
    }

    proptest! {
        /// An unhealthy verdict never comes with fewer failures in a row than the threshold, a healthy one never with
        /// fewer successes, and looking twice changes nothing.
        #[test]
        fn verdicts_need_their_thresholds(success in 1..5i32, failure in 1..5i32, findings in proptest::collection::vec(any::<bool>(), 1..60)) {
            let (check, mut track) = (check(success, failure), Track::default());
            let mut before = None;
            for (n, good) in findings.iter().enumerate() {
                let second = i64::try_from(n).unwrap();
                track.observe(&if *good { Finding::Good } else { bad() }, at(second));
                let verdict = track.health(&check);
                prop_assert_eq!(verdict, track.health(&check));
                if verdict != before {
                    let (state, since) = verdict.unwrap();
                    prop_assert_eq!(since, at(second));
                    let run = findings[..=n].iter().rev().take_while(|f| **f == *good).count();
                    let threshold = if state == HealthState::Healthy { success } else { failure };
                    prop_assert_eq!(*good, state == HealthState::Healthy);
                    prop_assert_eq!(run, usize::try_from(threshold).unwrap());
                }
                before = verdict;
            }
        }
    }
}
