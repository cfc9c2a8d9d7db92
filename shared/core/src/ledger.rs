//! The ledger of a set in memory: `status.disturbed`, in its order.
//!
//! Two controllers share one budget without talking to each other, so each enters a Server in the ledger before it changes the
//! Server, by a write that tests the set's `resourceVersion`. Each controller removes only entries on its own axes, because it
//! does not know what the other one is waiting for.

use std::collections::HashSet;

use indexmap::IndexSet;

use crate::api::{Axis, LedgerEntry, VMReplicaSet};

/// The Servers of a set that Berth disturbs, in the order in which they were entered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger(IndexSet<LedgerEntry>);

impl Ledger {
    /// The ledger that the set's status holds.
    #[must_use]
    pub fn of(set: &VMReplicaSet) -> Self {
        set.status.iter().flat_map(|status| &status.disturbed).cloned().collect()
    }

    /// The entries, as the set's status stores them.
    #[must_use]
    pub fn to_status(&self) -> Vec<LedgerEntry> {
        self.0.iter().cloned().collect()
    }

    /// The entries.
    pub fn iter(&self) -> impl Iterator<Item = &LedgerEntry> {
        self.0.iter()
    }

    /// Names of the Servers that are entered on this axis, in the order of the ledger.
    pub fn on(&self, axis: Axis) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |entry| entry.axis == axis).map(|entry| entry.server.as_str())
    }

    /// Names of the Servers that are entered on any axis.
    #[must_use]
    pub fn servers(&self) -> HashSet<&str> {
        self.0.iter().map(|entry| entry.server.as_str()).collect()
    }

    /// Enters a Server. Entering it on the same axis again changes nothing.
    pub fn enter(&mut self, server: impl Into<String>, axis: Axis) {
        self.0.insert(LedgerEntry::new(server, axis));
    }

    /// Keeps only the entries that `stays` holds for.
    pub fn retain(&mut self, stays: impl FnMut(&LedgerEntry) -> bool) {
        self.0.retain(stays);
    }
}

impl FromIterator<LedgerEntry> for Ledger {
    fn from_iter<I: IntoIterator<Item = LedgerEntry>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}
