//! Judges the results of probes: when a machine is unreachable, when an application is healthy or unhealthy. Pure.

use berth_core::api::{HealthCheck, HealthState};
use k8s_openapi::jiff::Timestamp;

use crate::probe::ProbeResult;

/// How often the patience of a copy doubles whose failures others do not share: 16 times as long as declared is 8 minutes with
/// the defaults. Longer it must not wait: the others may be gone when the loss is real.
const MOST_DOUBLINGS: u32 = 4;

/// Results in a row that are all successes or all failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConsecutiveResults {
    /// Whether they are successes.
    pub(crate) success: bool,
    pub(crate) count: u32,
    /// Time of the first.
    pub(crate) since: Timestamp,
    /// Time of the last.
    pub(crate) last: Timestamp,
    /// Message of the last failure; empty for successes.
    pub(crate) message: String,
}

/// The verdict on an application's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HealthVerdict {
    pub(crate) state: HealthState,
    /// Time of the result that reached the threshold.
    pub(crate) since: Timestamp,
}

/// The verdict on whether a machine is reachable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReachabilityVerdict {
    /// There is no result yet, or failures have not lasted for the threshold.
    #[default]
    Undecided,
    /// The last probe succeeded.
    Reachable {
        /// Time of the first success in a row.
        since: Timestamp,
    },
    /// Probes have failed for at least the threshold.
    Unreachable {
        /// Time of the first failure in a row.
        since: Timestamp,
        /// Time of the last failure.
        observed_at: Timestamp,
        /// Message of the last failure.
        message: String,
    },
}

/// The results of one probe, as far as verdicts need them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProbeHistory {
    latest: Option<ConsecutiveResults>,
    health: Option<HealthVerdict>,
    /// Whether the application was found unhealthy, and no probe has succeeded since.
    was_unhealthy: bool,
    /// How often another copy has found the opposite of failures since the last success.
    contradictions: u32,
}

impl ProbeHistory {
    /// Records a result.
    pub(crate) fn record(&mut self, result: &ProbeResult, now: Timestamp) {
        let (success, message) = match result {
            ProbeResult::Success => (true, ""),
            ProbeResult::Failure(message) => (false, message.as_str()),
        };
        if success {
            (self.was_unhealthy, self.contradictions) = (false, 0);
        }
        match &mut self.latest {
            Some(latest) if latest.success == success => {
                latest.count = latest.count.saturating_add(1);
                latest.last = now;
                message.clone_into(&mut latest.message);
            }
            latest => {
                let message = message.to_owned();
                *latest = Some(ConsecutiveResults { success, count: 1, since: now, last: now, message });
            }
        }
    }

    /// The results since they last changed between success and failure; none before the first result.
    pub(crate) fn latest(&self) -> Option<&ConsecutiveResults> {
        self.latest.as_ref()
    }

    /// Forgets that the latest results were failures, and the verdict that they led to.
    pub(crate) fn forget_failures(&mut self) {
        self.latest = self.latest.take().filter(|latest| latest.success);
        self.health = self.health.filter(|verdict| verdict.state == HealthState::Healthy);
    }

    /// Forgets all results, and the verdict that they led to: it has to be reached anew.
    pub(crate) fn forget_results(&mut self) {
        (self.latest, self.health) = (None, None);
    }

    /// Another copy has found the opposite of the failures here. They are forgotten, and twice as many are needed from now on:
    /// two copies that see differently must not write against each other as fast as they can.
    pub(crate) fn contradict(&mut self) {
        self.forget_failures();
        self.contradictions = self.contradictions.saturating_add(1);
    }

    /// How many times as many failures are needed as declared.
    fn patience(&self) -> i64 {
        1 << self.contradictions.min(MOST_DOUBLINGS)
    }

    /// Whether the application was found unhealthy, and no probe has succeeded since; whatever was forgotten meanwhile.
    pub(crate) fn was_unhealthy(&self) -> bool {
        self.was_unhealthy
    }

    /// The verdict on health. It changes only when as many results in a row as the check's threshold say otherwise.
    pub(crate) fn health_verdict(&mut self, check: &HealthCheck) -> Option<HealthVerdict> {
        let latest = self.latest.as_ref()?;
        let (state, threshold) = if latest.success {
            (HealthState::Healthy, i64::from(check.success_threshold))
        } else {
            (HealthState::Unhealthy, i64::from(check.failure_threshold) * self.patience())
        };
        let is_known = self.health.is_some_and(|verdict| verdict.state == state);
        if !is_known && i64::from(latest.count) >= threshold {
            self.health = Some(HealthVerdict { state, since: latest.last });
            self.was_unhealthy = state == HealthState::Unhealthy;
        }
        self.health
    }
}

/// The verdict on reachability. A machine becomes unreachable when failures in a row span the threshold; a longer time if other
/// copies have found the opposite.
pub(crate) fn reachability_verdict(history: &ProbeHistory, threshold_seconds: i32) -> ReachabilityVerdict {
    let seconds = i64::from(threshold_seconds) * history.patience();
    match history.latest() {
        Some(latest) if latest.success => ReachabilityVerdict::Reachable { since: latest.since },
        Some(failures) if spans(failures, seconds) => ReachabilityVerdict::Unreachable {
            since: failures.since,
            observed_at: failures.last,
            message: failures.message.clone(),
        },
        None | Some(_) => ReachabilityVerdict::Undecided,
    }
}

/// The earliest time at which a failed probe proves that the machine is unreachable. The passing of time alone proves nothing.
/// None unless the machine is failing and the verdict is still open.
pub(crate) fn unreachable_at(history: &ProbeHistory, threshold_seconds: i32) -> Option<Timestamp> {
    let failures = history.latest().filter(|latest| !latest.success)?;
    let seconds = i64::from(threshold_seconds) * history.patience();
    let at = failures.since.as_second() + seconds;
    (!spans(failures, seconds)).then(|| Timestamp::from_second(at).unwrap_or(Timestamp::MAX))
}

/// Whether the results span this many seconds. The API stores whole seconds: the fact must meet the threshold there, too.
fn spans(results: &ConsecutiveResults, seconds: i64) -> bool {
    results.last.as_second() - results.since.as_second() >= seconds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn failed() -> ProbeResult {
        ProbeResult::Failure("connection refused".into())
    }

    fn verdict(state: HealthState, since: i64) -> HealthVerdict {
        HealthVerdict { state, since: at(since) }
    }

    fn check(success: i32, failure: i32) -> HealthCheck {
        serde_json::from_value(serde_json::json!({
            "tcpSocket": {"port": 1}, "successThreshold": success, "failureThreshold": failure
        }))
        .unwrap()
    }

    #[test]
    fn health_changes_at_its_thresholds_and_keeps_its_time() {
        let (check, mut history) = (check(2, 3), ProbeHistory::default());
        assert_eq!(history.health_verdict(&check), None);
        let mut verdicts = Vec::new();
        let results = [
            ProbeResult::Success,
            ProbeResult::Success,
            failed(),
            failed(),
            ProbeResult::Success,
            failed(),
            failed(),
            failed(),
            ProbeResult::Success,
        ];
        for (n, result) in (0..).zip(results) {
            history.record(&result, at(n));
            verdicts.push(history.health_verdict(&check));
        }
        let healthy = Some(verdict(HealthState::Healthy, 1));
        let unhealthy = Some(verdict(HealthState::Unhealthy, 7));
        assert_eq!(verdicts, [None, healthy, healthy, healthy, healthy, healthy, healthy, unhealthy, unhealthy]);
    }

    #[test]
    fn a_machine_is_unreachable_when_failures_span_the_threshold() {
        let mut history = ProbeHistory::default();
        let verdict = |history: &ProbeHistory| (reachability_verdict(history, 30), unreachable_at(history, 30));
        assert_eq!(verdict(&history), (ReachabilityVerdict::Undecided, None));
        for second in [0, 29] {
            history.record(&failed(), at(second));
            assert_eq!(verdict(&history), (ReachabilityVerdict::Undecided, Some(at(30))), "time alone proves nothing");
        }
        history.record(&failed(), at(30));
        let message = "connection refused".into();
        let unreachable = ReachabilityVerdict::Unreachable { since: at(0), observed_at: at(30), message };
        assert_eq!(verdict(&history), (unreachable, None));
        history.record(&ProbeResult::Success, at(31));
        assert_eq!(verdict(&history), (ReachabilityVerdict::Reachable { since: at(31) }, None));
    }

    #[test]
    fn one_success_restarts_the_count_of_failures() {
        let mut history = ProbeHistory::default();
        for (second, result) in [(0, failed()), (20, ProbeResult::Success), (25, failed()), (50, failed())] {
            history.record(&result, at(second));
        }
        assert_eq!(reachability_verdict(&history, 30), ReachabilityVerdict::Undecided);
    }

    proptest! {
        /// An unhealthy verdict never comes with fewer failures in a row than the threshold, a healthy one never with
        /// fewer successes, and asking twice changes nothing.
        #[test]
        fn verdicts_need_their_thresholds(success in 1..5i32, failure in 1..5i32, results in proptest::collection::vec(any::<bool>(), 1..60)) {
            let (check, mut history) = (check(success, failure), ProbeHistory::default());
            let mut before = None;
            for (n, good) in results.iter().enumerate() {
                let second = i64::try_from(n).unwrap();
                history.record(&if *good { ProbeResult::Success } else { failed() }, at(second));
                let verdict = history.health_verdict(&check);
                prop_assert_eq!(verdict, history.health_verdict(&check));
                if verdict != before {
                    let HealthVerdict { state, since } = verdict.unwrap();
                    prop_assert_eq!(since, at(second));
                    let run = results[..=n].iter().rev().take_while(|f| **f == *good).count();
                    let threshold = if state == HealthState::Healthy { success } else { failure };
                    prop_assert_eq!(*good, state == HealthState::Healthy);
                    prop_assert_eq!(run, usize::try_from(threshold).unwrap());
                }
                before = verdict;
            }
        }
    }
}
