//! What is wrong with machines and their provider for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use berth_iaas::ProviderMachine;
use berth_machine::fake::FakeState;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::way::is_over;

/// How many earlier states of a machine are kept: an old disk is one of them.
const PAST: usize = 4;

/// What is wrong with machines and their provider. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Troubles(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Machines whose application answers with errors, by the UIDs of their Servers.
    sick: BTreeMap<String, Instant>,
    /// Revisions of the code that answer with errors, and on the machine of which Server; on all of them where none is named.
    bad_code: BTreeSet<(String, Option<String>)>,
    full_disks: BTreeMap<String, Instant>,
    /// Machines that have hung.
    hung: BTreeSet<String>,
    /// Earlier states of machines, the oldest first.
    past: BTreeMap<String, Vec<FakeState>>,
    provider: ProviderTroubles,
}

/// What is wrong with the provider.
#[derive(Default)]
struct ProviderTroubles {
    gone: Option<Instant>,
    full: Option<Instant>,
    slow: Option<(Instant, Duration)>,
    /// The next call of this name is answered as if there was nothing.
    lie: Option<ProviderLie>,
    /// Lists are answered as the first one in this time.
    behind: Option<Instant>,
    old_list: Option<Vec<ProviderMachine>>,
}

/// What a provider says once although it is not true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProviderLie {
    /// There is no such machine.
    NoMachine,
    /// There are no machines.
    EmptyList,
}

impl Troubles {
    pub(crate) fn make_sick(&self, uid: &str, until: Instant) {
        self.0.lock().sick.insert(uid.to_owned(), until);
    }

    pub(crate) fn is_sick(&self, uid: &str) -> bool {
        self.0.lock().sick.get(uid).is_some_and(|until| !is_over(Some(*until)))
    }

    /// This revision of the code answers with errors, on the machine of this Server or on all.
    pub(crate) fn spoil_code(&self, revision: &str, uid: Option<&str>) {
        self.0.lock().bad_code.insert((revision.to_owned(), uid.map(str::to_owned)));
    }

    /// Whether this revision of the code answers with errors on the machine of this Server.
    pub(crate) fn is_bad_code(&self, revision: &str, uid: &str) -> bool {
        let bad = &self.0.lock().bad_code;
        [None, Some(uid.to_owned())].into_iter().any(|on| bad.contains(&(revision.to_owned(), on)))
    }

    pub(crate) fn fill_disk(&self, uid: &str, until: Instant) {
        self.0.lock().full_disks.insert(uid.to_owned(), until);
    }

    pub(crate) fn has_full_disk(&self, uid: &str) -> bool {
        self.0.lock().full_disks.get(uid).is_some_and(|until| !is_over(Some(*until)))
    }

    pub(crate) fn hang(&self, uid: &str) {
        self.0.lock().hung.insert(uid.to_owned());
    }

    /// Whether the machine has ever hung.
    pub(crate) fn has_hung(&self, uid: &str) -> bool {
        self.0.lock().hung.contains(uid)
    }

    /// Keeps what a machine was like.
    pub(crate) fn remember(&self, uid: &str, state: FakeState) {
        let mut inner = self.0.lock();
        let past = inner.past.entry(uid.to_owned()).or_default();
        past.push(state);
        if past.len() > PAST {
            past.remove(0);
        }
    }

    /// What a machine was like once; a new machine if nothing is known.
    pub(crate) fn past(&self, uid: &str, number: usize) -> FakeState {
        let inner = self.0.lock();
        let past = inner.past.get(uid).map_or(&[][..], Vec::as_slice);
        past.get(number % past.len().max(1)).cloned().unwrap_or_default()
    }

    pub(crate) fn take_provider_away(&self, until: Instant) {
        self.0.lock().provider.gone = Some(until);
    }

    pub(crate) fn is_provider_there(&self) -> bool {
        is_over(self.0.lock().provider.gone)
    }

    pub(crate) fn fill_provider(&self, until: Instant) {
        self.0.lock().provider.full = Some(until);
    }

    pub(crate) fn is_provider_full(&self) -> bool {
        !is_over(self.0.lock().provider.full)
    }

    /// Answers of the provider take up to so long.
    pub(crate) fn slow_provider(&self, until: Instant, most: Duration) {
        self.0.lock().provider.slow = Some((until, most));
    }

    pub(crate) fn slowness(&self) -> Option<Duration> {
        self.0.lock().provider.slow.filter(|(until, _)| !is_over(Some(*until))).map(|(_, most)| most)
    }

    pub(crate) fn lie_once(&self, lie: ProviderLie) {
        self.0.lock().provider.lie = Some(lie);
    }

    /// Whether the provider says this now, which is not true.
    pub(crate) fn takes_lie(&self, lie: ProviderLie) -> bool {
        self.0.lock().provider.lie.take_if(|next| *next == lie).is_some()
    }

    pub(crate) fn delay_lists(&self, until: Instant) {
        let mut inner = self.0.lock();
        (inner.provider.behind, inner.provider.old_list) = (Some(until), None);
    }

    /// The list as the provider shows it.
    pub(crate) fn shown(&self, list: Vec<ProviderMachine>) -> Vec<ProviderMachine> {
        let mut inner = self.0.lock();
        if is_over(inner.provider.behind) {
            return list;
        }
        inner.provider.old_list.get_or_insert(list).clone()
    }

    /// Ends everything that lasts.
    pub(crate) fn end(&self) {
        let mut inner = self.0.lock();
        (inner.sick, inner.full_disks, inner.provider) = Default::default();
    }
}
