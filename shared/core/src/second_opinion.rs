//! The second opinion: what a copy of monitor-controller asks when it loses many machines at once, what the others answer, and what
//! follows from that.
//!
//! A question and the opinions on it are annotations of the Leases of the copies. Whoever can look at machines answers: the
//! other copies of monitor-controller by their own probes, and replicaset-controller over SSH.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use crate::api::Executor;

/// Annotation of a Lease: the [`Question`] of a copy that may be blind.
pub const QUESTION: &str = "berth.dev/question";
/// Annotation of a Lease: the [`Opinion`]s of a copy on the questions of others, a list.
pub const OPINIONS: &str = "berth.dev/opinions";

/// Machines that a question names at most: enough to tell blindness from an outage, and few enough to be looked at in seconds.
pub const MAX_SAMPLE: usize = 10;
/// Sets that a question names at most: so many fit into an annotation, whatever their names.
pub const MAX_SETS: usize = 200;

/// Machines were lost at once: do others reach them?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// Tells this question from others; the answers name it.
    pub id: String,
    /// Since when so many machines are lost.
    pub since: Time,
    /// What others have said so far.
    pub opinion: SecondOpinion,
    /// Some of the lost machines: those to look at.
    pub sample: Vec<SampledServer>,
    /// The sets of the lost machines.
    pub sets: Vec<AffectedSet>,
}

/// A Server whose machine is lost to the copy that asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampledServer {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// A set with machines that are lost to the copy that asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AffectedSet {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How many of its machines are watched and should be reachable.
    pub targets: usize,
    /// How many of these are lost.
    pub lost: usize,
}

/// What one copy has found when it looked at the machines of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opinion {
    /// The question.
    pub id: String,
    /// Machines that it reached.
    pub reached: usize,
    /// Machines that it did not reach.
    pub lost: usize,
}

/// What the other copies say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecondOpinion {
    /// Nobody has looked yet who could confirm the loss.
    #[default]
    Missing,
    /// Others reach the machines: the copy that asks is blind.
    Contradicts,
    /// replicaset-controller does not reach most of them either: they are really lost.
    Agrees,
}

impl SecondOpinion {
    /// What these opinions say on the question with this id.
    ///
    /// Somebody who reaches the machines outweighs everybody who does not. Only replicaset-controller can confirm a loss: another
    /// copy of monitor-controller may be blind for the same reason, such as a network policy or a node that both are on.
    #[must_use]
    pub fn of<'o>(id: &str, opinions: impl IntoIterator<Item = (Executor, &'o Opinion)>) -> Self {
        let mut result = Self::Missing;
        for (executor, opinion) in opinions.into_iter().filter(|(_, opinion)| opinion.id == id) {
            if opinion.reached > 0 && opinion.reached >= opinion.lost {
                return Self::Contradicts;
            }
            if opinion.lost > opinion.reached && executor == Executor::ReplicasetController {
                result = Self::Agrees;
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opinion(id: &str, reached: usize, lost: usize) -> Opinion {
        Opinion { id: id.into(), reached, lost }
    }

    #[test]
    fn who_reaches_the_machines_outweighs_who_does_not_and_only_replicaset_controller_confirms() {
        let (monitor, replicaset) = (Executor::MonitorController, Executor::ReplicasetController);
        let table: [(&[(Executor, Opinion)], SecondOpinion); 9] = [
            (&[], SecondOpinion::Missing),
            (&[(replicaset, opinion("other", 0, 10))], SecondOpinion::Missing),
            (&[(replicaset, opinion("q", 0, 0))], SecondOpinion::Missing),
            (&[(monitor, opinion("q", 0, 10))], SecondOpinion::Missing),
            (&[(replicaset, opinion("q", 0, 10))], SecondOpinion::Agrees),
            (&[(replicaset, opinion("q", 4, 6))], SecondOpinion::Agrees),
            (&[(replicaset, opinion("q", 5, 5))], SecondOpinion::Contradicts),
            (&[(replicaset, opinion("q", 0, 10)), (monitor, opinion("q", 9, 0))], SecondOpinion::Contradicts),
            (&[(replicaset, opinion("q", 8, 2)), (replicaset, opinion("q", 0, 10))], SecondOpinion::Contradicts),
        ];
        for (opinions, expected) in table {
            for reversed in [false, true] {
                let mut all: Vec<_> = opinions.iter().map(|(executor, opinion)| (*executor, opinion)).collect();
                if reversed {
                    all.reverse();
                }
                assert_eq!(SecondOpinion::of("q", all), expected, "{opinions:?}");
            }
        }
    }

    #[test]
    fn a_question_fits_into_an_annotation_whatever_the_names() {
        let long = |n: usize| "n".repeat(n);
        let sampled = SampledServer { namespace: long(63), name: long(253), uid: long(36) };
        let set = AffectedSet { namespace: long(63), name: long(253), targets: 100_000, lost: 100_000 };
        let question = Question {
            id: long(64),
            since: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
            opinion: SecondOpinion::Contradicts,
            sample: vec![sampled; MAX_SAMPLE],
            sets: vec![set; MAX_SETS],
        };
        let text = serde_json::to_string(&question).unwrap();
        assert!(text.len() < 100_000, "the API server takes 256 kB of annotations: {}", text.len());
        assert_eq!(serde_json::from_str::<Question>(&text).unwrap(), question);
    }
}
