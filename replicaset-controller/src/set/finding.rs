//! What was found out about the machine of an unreachable Server, and whether failover may go on then.
//!
//! That a Server is unreachable is the word of monitor-controller alone. Before a machine is rebooted, replaced or given up, its
//! provider is asked whether it runs, and if so replicaset-controller knocks at it by SSH. Then a fault of monitor-controller, or
//! of the network between it and the machines, destroys nothing.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::machines::MachineAtProvider;

/// How long it counts that nothing speaks against failover: long enough for the ledger to be written in between, and too short for
/// a machine to boot unnoticed.
const FRESH: SignedDuration = SignedDuration::from_secs(10);

/// What was found out about the machine of an unreachable Server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineFinding {
    /// The provider has none.
    Gone,
    /// The provider says that it does not run.
    Stopped,
    /// The provider says that it runs, and it does not answer by SSH.
    Silent,
    /// The provider says that it runs, and it answers by SSH: only monitor-controller cannot reach it.
    Answers,
    /// The provider does not say, and why.
    ProviderUnresponsive(String),
}

impl MachineFinding {
    /// What follows from the provider's word and, if the machine runs, from whether it answers by SSH.
    #[must_use]
    pub fn of(at_provider: Result<MachineAtProvider, String>, answers: bool) -> Self {
        match at_provider {
            Ok(MachineAtProvider::Gone) => Self::Gone,
            Ok(MachineAtProvider::Stopped) => Self::Stopped,
            Ok(MachineAtProvider::Running) if answers => Self::Answers,
            Ok(MachineAtProvider::Running) => Self::Silent,
            Err(error) => Self::ProviderUnresponsive(error),
        }
    }

    /// Whether nothing may be done about the machine.
    #[must_use]
    pub fn holds(&self) -> bool {
        matches!(self, Self::Answers | Self::ProviderUnresponsive(_))
    }
}

impl fmt::Display for MachineFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("its machine is gone"),
            Self::Stopped => f.write_str("its machine is stopped"),
            Self::Silent => f.write_str("its machine runs, but does not answer by SSH"),
            Self::Answers => f.write_str("its machine runs and answers by SSH"),
            Self::ProviderUnresponsive(error) => {
                write!(f, "its provider does not say what became of the machine: {error}")
            }
        }
    }
}

/// A finding, and for how long it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineAnswer {
    /// What was found.
    pub finding: MachineFinding,
    /// When.
    pub found_at: Timestamp,
    /// When it is looked again if the finding holds failover.
    pub ask_again_at: Timestamp,
}

impl MachineAnswer {
    /// Whether something may be done because of it: nothing speaks against that, and it is new enough.
    #[must_use]
    pub fn allows_failover(&self, now: Timestamp) -> bool {
        !self.finding.holds() && now.duration_since(self.found_at) <= FRESH
    }
}

/// The answers about unreachable Servers of a set that have come in, by name of the Server.
pub type MachineAnswers = BTreeMap<String, MachineAnswer>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_runs_and_answers_is_never_given_up() {
        use MachineAtProvider::{Gone, Running, Stopped};
        for (at_provider, answers, finding, holds) in [
            (Ok(Gone), false, MachineFinding::Gone, false),
            (Ok(Stopped), false, MachineFinding::Stopped, false),
            (Ok(Running), false, MachineFinding::Silent, false),
            (Ok(Running), true, MachineFinding::Answers, true),
            (Err("late".to_owned()), false, MachineFinding::ProviderUnresponsive("late".to_owned()), true),
            (Err("late".to_owned()), true, MachineFinding::ProviderUnresponsive("late".to_owned()), true),
        ] {
            let found = MachineFinding::of(at_provider, answers);
            assert_eq!((&found, found.holds()), (&finding, holds));
            let (now, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(11).unwrap());
            let answer = MachineAnswer { finding: found, found_at: now, ask_again_at: now };
            assert_eq!(answer.allows_failover(now), !holds, "{answer:?}");
            assert!(!answer.allows_failover(later), "what was found a while ago must be found again: {answer:?}");
        }
    }
}
