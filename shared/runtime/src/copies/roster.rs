//! Which copies there are: those whose Lease was seen to change lately. No I/O.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};
use tokio::time::Instant;

use super::lease::{ControllerCopy, counts_for};

/// After so many times the duration of a Lease without a renewal its copy has crashed, and the Lease is removed.
const GARBAGE_AFTER: u32 = 10;

/// The Leases of all copies. Their age is the time since this process saw them change: clocks are never compared.
#[derive(Debug, Default)]
pub(super) struct Roster {
    by_name: HashMap<String, Seen>,
    /// The names in the list that is being read; none while there is no such list.
    listed: Option<HashSet<String>>,
}

#[derive(Debug)]
struct Seen {
    copy: ControllerCopy,
    renewed: Option<MicroTime>,
    counts_for: Duration,
    /// When this process saw it change.
    at: Instant,
    /// To remove this very version.
    lease: Lease,
}

impl Roster {
    /// A new list begins: what it does not contain is gone.
    pub(super) fn list_begins(&mut self) {
        self.listed = Some(HashSet::new());
    }

    /// The list is complete.
    pub(super) fn list_ends(&mut self) {
        if let Some(listed) = self.listed.take() {
            self.by_name.retain(|name, _| listed.contains(name));
        }
    }

    /// Takes a Lease as it is now. Only a renewal makes it younger.
    pub(super) fn observe(&mut self, lease: Lease, now: Instant) {
        let Some(copy) = ControllerCopy::of(&lease) else { return };
        if let Some(listed) = &mut self.listed {
            listed.insert(copy.name.clone());
        }
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        let known = self.by_name.get(&copy.name).filter(|seen| seen.renewed == renewed);
        let at = known.map_or(now, |seen| seen.at);
        let seen = Seen { renewed, counts_for: counts_for(&lease), at, lease, copy };
        self.by_name.insert(seen.copy.name.clone(), seen);
    }

    /// The Lease was deleted: its copy has ended.
    pub(super) fn remove(&mut self, lease: &Lease) {
        if let Some(name) = &lease.metadata.name {
            self.by_name.remove(name);
        }
    }

    /// The copies that count now, by name, without `own`, which is this process, and without those that another one has replaced.
    pub(super) fn others(&self, own: &ControllerCopy, now: Instant) -> Vec<ControllerCopy> {
        let live = self.by_name.values().filter(|seen| now.duration_since(seen.at) < seen.counts_for);
        let live: Vec<&ControllerCopy> = live.map(|seen| &seen.copy).filter(|copy| copy.name != own.name).collect();
        let is_replaced = |copy: &ControllerCopy| own.replaces(copy) || live.iter().any(|newer| newer.replaces(copy));
        let mut copies: Vec<_> = live.iter().filter(|copy| !is_replaced(copy)).map(|copy| (*copy).clone()).collect();
        copies.sort_by(|a, b| a.name.cmp(&b.name));
        copies
    }

    /// The Leases of copies that have crashed long ago.
    pub(super) fn garbage(&self, own: &str, now: Instant) -> Vec<Lease> {
        let is_old = |seen: &&Seen| now.duration_since(seen.at) > seen.counts_for * GARBAGE_AFTER;
        let old = self.by_name.values().filter(is_old).filter(|seen| seen.copy.name != own);
        old.map(|seen| seen.lease.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use berth_core::api::Executor;
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::copies::lease;

    const DURATION: Duration = Duration::from_secs(30);

    /// The Lease of a copy; `renewed` is the time of its clock, which may be anything.
    fn lease_of(name: &str, renewed: i64) -> Lease {
        let copy = ControllerCopy {
            name: name.into(),
            executor: Executor::MonitorController,
            holder: format!("monitor-controller/{name}"),
            since: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            notes: [("berth.dev/x".to_owned(), "1".to_owned())].into(),
        };
        lease::new(&copy, "ns", DURATION, Timestamp::from_second(renewed).unwrap())
    }

    fn copy(name: &str) -> ControllerCopy {
        ControllerCopy::of(&lease_of(name, 0)).unwrap()
    }

    fn names(copies: &[ControllerCopy]) -> Vec<&str> {
        copies.iter().map(|copy| copy.name.as_str()).collect()
    }

    #[test]
    fn a_copy_counts_for_as_long_as_its_lease_was_seen_to_change_whatever_its_clock_says() {
        let (mut roster, start) = (Roster::default(), Instant::now());
        roster.observe(lease_of("old-clock", 0), start);
        roster.observe(lease_of("new-clock", 9_000_000_000), start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(names(&roster.others(&copy("me"), at(29))), ["new-clock", "old-clock"]);
        // The same version again, as after a new list, makes nothing younger; a renewal does, also by a clock that went back.
        roster.observe(lease_of("old-clock", 0), at(29));
        roster.observe(lease_of("new-clock", 5), at(29));
        assert_eq!(names(&roster.others(&copy("me"), at(31))), ["new-clock"]);
        assert_eq!(
            names(&roster.others(&copy("new-clock"), at(31))),
            Vec::<&str>::new(),
            "this process is not another one"
        );
        assert_eq!(roster.garbage("me", at(299)).len(), 0);
        let garbage = roster.garbage("new-clock", at(400));
        assert_eq!(garbage.iter().filter_map(|l| l.metadata.name.as_deref()).collect::<Vec<_>>(), ["old-clock"]);
    }

    #[test]
    fn what_a_new_list_does_not_contain_and_what_is_deleted_is_gone_at_once() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        for name in ["a", "b", "c"] {
            roster.observe(lease_of(name, 1), now);
        }
        roster.list_begins();
        roster.observe(lease_of("a", 1), now);
        roster.observe(lease_of("b", 1), now);
        assert_eq!(roster.others(&copy("me"), now).len(), 3, "the list is not complete yet");
        roster.list_ends();
        assert_eq!(names(&roster.others(&copy("me"), now)), ["a", "b"]);
        roster.remove(&lease_of("a", 1));
        assert_eq!(names(&roster.others(&copy("me"), now)), ["b"]);
        assert_eq!(roster.others(&copy("me"), now)[0].notes["berth.dev/x"], "1");
        let mut foreign = lease_of("d", 1);
        foreign.metadata.labels = None;
        roster.observe(foreign, now);
        assert_eq!(names(&roster.others(&copy("me"), now)), ["b"]);
    }

    #[test]
    fn a_restarted_container_replaces_the_process_before_it() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        let (first, second) = ("pod-1-0123456789abcdef", "pod-1-fedcba9876543210");
        roster.observe(lease_of(first, 1), now);
        roster.observe(lease_of("pod-2-0123456789abcdef", 1), now);
        assert_eq!(names(&roster.others(&copy("me"), now)), [first, "pod-2-0123456789abcdef"]);
        let own = ControllerCopy::of(&lease_of(second, 5)).unwrap();
        assert_eq!(names(&roster.others(&own, now)), ["pod-2-0123456789abcdef"], "for itself");
        roster.observe(lease_of(second, 5), now);
        assert_eq!(names(&roster.others(&copy("me"), now)), [second, "pod-2-0123456789abcdef"], "for others");
        // Without a name of their own, processes are told apart by the random part alone.
        let mut nameless = Roster::default();
        nameless.observe(lease_of("0123456789abcdef", 1), now);
        nameless.observe(lease_of("fedcba9876543210", 5), now);
        assert_eq!(nameless.others(&copy("me"), now).len(), 2);
    }
}
