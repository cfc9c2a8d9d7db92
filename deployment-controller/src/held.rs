//! That and why nothing is rolled out. The vocabulary of what decides it.

/// How what a person can do is said.
pub(crate) const UNTIL_A_PERSON: &str = "no other Server is touched until another revision is declared, or a person requests Abort or \
                                         Promote (spec.rollout.request)";

/// Why nothing is rolled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    /// What ends it.
    pub(crate) by: HeldBy,
    /// What holds the roll-out, and what to do.
    pub(crate) message: String,
}

/// What ends a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldBy {
    /// A person, who holds it on purpose.
    Person,
    /// A person, because something is wrong: the reason of the condition `Stalled`.
    Failure(&'static str),
    /// Something else, and then the roll-out goes on by itself: the reason of the condition `Reconciling`.
    Event(&'static str),
}

impl Hold {
    /// A person holds it on purpose.
    pub(crate) fn paused(message: String) -> Self {
        Self { by: HeldBy::Person, message }
    }

    /// Something is wrong, and a person has to act.
    pub(crate) fn failed(reason: &'static str, message: String) -> Self {
        Self { by: HeldBy::Failure(reason), message }
    }

    /// It goes on by itself once something has happened.
    pub(crate) fn waiting(reason: &'static str, message: String) -> Self {
        Self { by: HeldBy::Event(reason), message }
    }

    /// Reason of the condition `Stalled`; none if nothing is wrong.
    pub(crate) fn stalled(&self) -> Option<&'static str> {
        match self.by {
            HeldBy::Failure(reason) => Some(reason),
            HeldBy::Person | HeldBy::Event(_) => None,
        }
    }

    /// Whether it goes on by itself.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.by, HeldBy::Event(_))
    }
}
