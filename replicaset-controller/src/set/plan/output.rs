//! What a plan asks for.

use berth_core::{
    api::{PendingServer, Server, VMReplicaSet},
    ledger::Ledger,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

/// What has to be done about a set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan<'a> {
    /// What has to be written to the set's status before anything is done.
    pub ledgers: SetLedgers,
    /// Names of the Servers to create, all of which stand in `ledgers.creating`.
    pub create: Vec<String>,
    /// The Servers to remove, because the set has too many.
    pub retire: Vec<&'a Server>,
    /// The Servers to remove, because their machine has to be another one.
    pub replace: Vec<&'a Server>,
    /// The Servers that get the template's environment.
    pub update: Vec<&'a Server>,
    /// The drifted Servers that are reported, so that they are repaired.
    pub repair: Vec<&'a Server>,
    /// What is done about unreachable Servers.
    pub failover: FailoverPlan,
    /// Servers whose machine has yet to be replaced.
    pub to_replace: usize,
    /// Why the set makes no progress.
    pub blockers: Vec<Blocker>,
    /// When there is something to do even if nothing happens before.
    pub requeue_at: Option<Timestamp>,
}

impl Plan<'_> {
    /// Whether nothing has to be done, except perhaps that the status has to be written.
    #[must_use]
    pub fn has_no_action(&self) -> bool {
        let Self { create, retire, replace, update, repair, failover, .. } = self;
        create.is_empty()
            && retire.is_empty()
            && replace.is_empty()
            && update.is_empty()
            && repair.is_empty()
            && failover.has_no_action()
    }

    /// Whether it depends on machines being created.
    #[must_use]
    pub fn needs_machines(&self) -> bool {
        !self.create.is_empty() || self.to_replace > 0 || self.failover.gives_up_machines()
    }
}

/// The guarded parts of the set's status: they are written before something is done, by a write that tests the set's
/// `resourceVersion`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetLedgers {
    /// `status.creating`.
    pub creating: Vec<PendingServer>,
    /// `status.disturbed`.
    pub disturbed: Ledger,
    /// `status.lastDisturbedAt`.
    pub last_disturbed_at: Option<Time>,
}

impl SetLedgers {
    /// Those that the set's status holds.
    #[must_use]
    pub fn of(set: &VMReplicaSet) -> Self {
        let (creating, last_disturbed_at) = match &set.status {
            Some(status) => (status.creating.clone(), status.last_disturbed_at.clone()),
            None => (Vec::new(), None),
        };
        Self { creating, disturbed: Ledger::of(set), last_disturbed_at }
    }
}

/// What failover does next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailoverPlan {
    /// Servers to reboot, and the id of the request, which is the same for the same loss.
    pub reboot: Vec<(String, String)>,
    /// Servers to remove, so that others are created. Their provider is asked first.
    pub replace: Vec<String>,
    /// Servers to retain for diagnosis until then, so that others are created.
    pub retain: Vec<(String, Timestamp)>,
    /// By how much `replicas` is lowered. The set then has too many Servers, and those in the ledger are removed first.
    pub shrink: i32,
    /// Retained Servers whose time is over.
    pub expired: Vec<String>,
    /// Why the brake holds, if it does: too many Servers are unreachable, whether or not their turn has come.
    pub brake: Option<Brake>,
    /// Servers whose provider has to be asked, and whose machine has to be knocked at, before anything is done about them.
    pub ask: Vec<String>,
    /// Whether it depends on the answer what the set says. Until then its conditions stay as they are: a controller that has just
    /// started must not take back what another one has reported.
    pub awaits_answer: bool,
    /// Servers whose turn has come, and about which nothing is done.
    pub held: Vec<Hold>,
}

/// Why the brake of failover holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brake {
    /// Reason of a condition.
    pub reason: &'static str,
    /// Human-readable explanation: which Servers are held, and what to do.
    pub message: String,
}

/// A Server that failover does nothing about, although its turn has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Name of the Server.
    pub server: String,
    /// Why: a reason of conditions and of the metric.
    pub reason: &'static str,
}

impl FailoverPlan {
    /// Whether nothing has to be done.
    #[must_use]
    pub fn has_no_action(&self) -> bool {
        let Self { reboot, replace, retain, shrink, expired, brake: _, ask: _, awaits_answer: _, held: _ } = self;
        reboot.is_empty() && replace.is_empty() && retain.is_empty() && *shrink == 0 && expired.is_empty()
    }

    /// Whether other machines have to take the place of some.
    #[must_use]
    pub fn gives_up_machines(&self) -> bool {
        !self.replace.is_empty() || !self.retain.is_empty()
    }
}

/// Why a set makes no progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// What it means for the set.
    pub effect: Effect,
    /// Reason of the condition.
    pub reason: &'static str,
    /// Human-readable explanation: what is wrong, and what to do.
    pub message: String,
}

/// What a [`Blocker`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A person is needed: condition `Stalled`.
    Stalled,
    /// The roll-out begins nothing more: condition `Progressing` is False.
    Held,
    /// It may pass by itself.
    Delayed,
    /// The set goes on meanwhile: only `waitingFor` says so.
    Noted,
}

impl Blocker {
    pub(crate) fn new(effect: Effect, reason: &'static str, message: impl Into<String>) -> Self {
        Self { effect, reason, message: message.into() }
    }
}

/// Reason: more Servers than `maxFailed` are Stalled with the new template.
pub const TOO_MANY_FAILED: &str = "TooManyFailed";
/// Reason: more Servers are unreachable than the brake of failover allows.
pub const TOO_MANY_UNKNOWN: &str = "TooManyUnknown";
/// Reason: more Servers of a class and zone are unreachable, in all sets together, than the brake across sets allows.
pub const TOO_MANY_UNKNOWN_IN_ZONE: &str = "TooManyUnknownInZone";
/// Reason: the provider does not say what became of a machine.
pub const PROVIDER_UNRESPONSIVE: &str = "ProviderUnresponsive";
