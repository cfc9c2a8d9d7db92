//! The rules that a model can break: the checker has to find each of them.

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    None,
    /// The webhook allows a claim although another holder has the lock.
    IgnoreLock,
    /// lb-controller lets traffic through before it has reported so.
    ReleaseFirst,
    /// lb-controller does not rewrite an endpoint whose phase is right already, so that older decisions can still overwrite it.
    NoFence,
    /// The webhook accepts a report on a finished task.
    CountTwice,
    /// The webhook allows the removal of the finalizer, and replicaset-controller removes it too early.
    NoFinalizerGuard,
    /// The webhook ignores a force.
    IgnoreForce,
    /// A lock never expires.
    LockForever,
    /// The webhook still trusts what was read when work on the machine begins.
    KeepTrust,
    /// A script does not wait until nothing of an earlier one runs on the machine.
    NoMachineLock,
    /// The panic floor also keeps Servers in traffic that are held deliberately.
    FloorForAll,
    /// The webhook plans no gates.
    SkipGates,
    /// The webhook leaves HoldTraffic out of its plans.
    OmitHoldTraffic,
    /// The webhook allows a claim before the task's `notBefore`.
    IgnoreNotBefore,
    /// A process that is restarted has the name that it had before.
    SameName,
    /// replicaset-controller enters a Server in an Approval that has changed since it was read.
    UnguardedEntry,
}
