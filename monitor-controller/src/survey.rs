//! How many machines this process reaches at the moment. Pure.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use berth_core::second_opinion::{AffectedSet, MAX_SAMPLE, MAX_SETS, SampledServer};

/// Fewer lost machines than this are never blindness: in a small fleet a share says nothing.
const LEAST_LOST: usize = 3;

/// A round of probes is waited for at most this long: a Server with a period of an hour must not hold up all others. It is
/// the default time after which a machine counts as unreachable.
const LONGEST_ROUND: Duration = Duration::from_secs(30);

/// A machine that ought to be reachable: it runs, and the last fact says that it is reachable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// The Server's set.
    pub(crate) set: Option<String>,
    pub(crate) look: Look,
}

/// How such a machine looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Within this time it is probed once, and the probe has ended.
    pub(crate) round: Duration,
    /// Whether the latest probe failed.
    pub(crate) is_lost: bool,
    /// Whether the probes have failed for so long that the machine counts as unreachable.
    pub(crate) is_unreachable: bool,
}

/// How many of the machines that ought to be reachable are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    pub(crate) targets: usize,
    /// Those whose latest probe failed.
    pub(crate) lost: usize,
    /// Those of the lost that count as unreachable by now: what keeps their fact from being written is a doubt.
    pub(crate) unreachable: usize,
    /// Within this time every target is probed once.
    pub(crate) round: Duration,
}

impl Survey {
    pub(crate) fn of(looks: impl IntoIterator<Item = Look>) -> Self {
        let mut survey = Self::default();
        for look in looks {
            survey.targets += 1;
            survey.lost += usize::from(look.is_lost);
            survey.unreachable += usize::from(look.is_unreachable);
            survey.round = survey.round.max(look.round.min(LONGEST_ROUND));
        }
        survey
    }

    /// Whether so many machines are lost at once that this process may be blind: several, and more than `share` percent.
    pub(crate) fn is_suspicious(&self, share: u8) -> bool {
        self.lost >= LEAST_LOST && self.lost * 100 > self.targets * usize::from(share)
    }
}

/// Some of the lost machines, others for each question, so that no unlucky choice lasts.
pub(crate) fn sample(targets: &[Target], question: &str) -> Vec<SampledServer> {
    let lost = targets.iter().filter(|target| target.look.is_lost);
    let mut lost: Vec<_> = lost.map(|target| (order(question, &target.uid), target)).collect();
    lost.sort_by_key(|(order, target)| (*order, &target.uid));
    lost.truncate(MAX_SAMPLE);
    let sampled = |target: &Target| SampledServer {
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        uid: target.uid.clone(),
    };
    lost.into_iter().map(|(_, target)| sampled(target)).collect()
}

/// The sets with lost machines, those with the most first.
pub(crate) fn affected_sets(targets: &[Target]) -> Vec<AffectedSet> {
    let mut sets: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for target in targets {
        if let Some(set) = &target.set {
            let (watched, lost) = sets.entry((&target.namespace, set)).or_default();
            *watched += 1;
            *lost += usize::from(target.look.is_lost);
        }
    }
    let affected = sets.into_iter().filter(|(_, (_, lost))| *lost > 0);
    let mut affected: Vec<_> = affected
        .map(|((namespace, name), (targets, lost))| AffectedSet {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            targets,
            lost,
        })
        .collect();
    affected.sort_by_key(|set| Reverse(set.lost));
    affected.truncate(MAX_SETS);
    affected
}

fn order(question: &str, uid: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (question, uid).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
pub(crate) fn targets(count: usize, lost: usize) -> Vec<Target> {
    let target = |n: usize| Target {
        namespace: "ns".into(),
        name: format!("web-{n}"),
        uid: format!("u-{n}"),
        set: Some(if n.is_multiple_of(2) { "even" } else { "odd" }.into()),
        look: Look { round: Duration::from_secs(12), is_lost: n < lost, is_unreachable: false },
    };
    (0..count).map(target).collect()
}

#[cfg(test)]
pub(crate) fn survey(count: usize, lost: usize) -> Survey {
    Survey::of(targets(count, lost).iter().map(|target| target.look))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn several_lost_machines_and_more_than_the_share_are_suspicious() {
        let suspicious = [(3, 3), (9, 3), (1000, 301)];
        let common = [(2, 2), (4, 2), (10, 3), (1000, 300)];
        for (count, lost) in suspicious.into_iter().chain(common) {
            let expected = suspicious.contains(&(count, lost));
            assert_eq!(survey(count, lost).is_suspicious(30), expected, "{lost} of {count}");
        }
        assert!(!survey(10, 10).is_suspicious(100), "a share of 100 % turns it off");
    }

    #[test]
    fn a_round_is_that_of_the_slowest_probe_within_limits() {
        assert_eq!(survey(3, 0).round, Duration::from_secs(12));
        let slow = Look { round: Duration::from_hours(1), is_lost: false, is_unreachable: false };
        assert_eq!(Survey::of([targets(1, 0)[0].look, slow]).round, LONGEST_ROUND);
    }

    #[test]
    fn the_sets_with_lost_machines_are_named_with_the_most_first() {
        let sets = affected_sets(&targets(5, 3));
        let found: Vec<_> = sets.iter().map(|set| (set.name.as_str(), set.lost, set.targets)).collect();
        assert_eq!(found, [("even", 2, 3), ("odd", 1, 2)]);
        assert_eq!(affected_sets(&targets(5, 1)).len(), 1);
    }

    proptest! {
        #[test]
        fn a_sample_is_of_lost_machines_without_repeats_and_as_large_as_possible(count in 0..60usize, lost in 0..60usize, id: u64) {
            let (lost, all) = (lost.min(count), targets(count, lost));
            let sampled = sample(&all, &id.to_string());
            prop_assert_eq!(sampled.len(), lost.min(MAX_SAMPLE));
            let uids: std::collections::BTreeSet<_> = sampled.iter().map(|server| &server.uid).collect();
            prop_assert_eq!(uids.len(), sampled.len());
            prop_assert!(all.iter().filter(|target| uids.contains(&target.uid)).all(|target| target.look.is_lost));
        }
    }
}
