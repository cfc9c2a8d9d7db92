//! One look at all subsets after the other. Pure: the time is an argument.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use berth_core::{
    api::{Server, VMDeployment},
    traffic_split::Sides,
};
use tokio::time::Instant;

use super::rules::{self, Belongs};
use crate::member::ServerRef;

/// Namespace and name of a VMDeployment.
pub(super) type Key = (String, String);

/// How long a Server must have received traffic before others may leave a subset because it is there. The fact that it receives some is
/// stored before its load balancers send any, which takes them a moment, and proxies a second to be told.
const SETTLES_AFTER: Duration = Duration::from_secs(2);

/// What was seen until now.
#[derive(Default)]
pub(super) struct Look {
    /// Whether this is not the first look. What is there at first has settled.
    has_looked: bool,
    /// The subsets of each Server, by UID.
    belongs: BTreeMap<String, Belongs>,
    /// For each Server that stays in traffic, by UID: whether it is on the updated side, and from when on it counts there.
    staying: BTreeMap<String, (bool, Instant)>,
}

/// What a look has shown.
#[derive(Default)]
pub(super) struct Shown {
    /// By VMDeployment, how many Servers count on each side.
    pub(super) sides: BTreeMap<Key, Sides>,
    /// The Servers whose subsets have changed.
    pub(super) changed: Vec<ServerRef>,
    /// When to look again although nothing changes.
    pub(super) next: Option<Instant>,
}

impl Look {
    /// Looks at all Servers that name a subset.
    pub(super) fn at(
        &mut self,
        now: Instant,
        servers: impl IntoIterator<Item = Arc<Server>>,
        find: impl Fn(&Key) -> Option<Arc<VMDeployment>>,
    ) -> Shown {
        let (mut shown, mut before) = (Shown::default(), std::mem::take(self));
        self.has_looked = true;
        for (key, servers) in by_deployment(servers) {
            let Some(deployment) = find(&key) else { continue };
            let counts = |server: &Server, is_updated| {
                let from = before.counts_from(server, is_updated, now);
                self.staying.insert(server.uid().to_owned(), (is_updated, from));
                if from > now {
                    shown.next = Some(shown.next.map_or(from, |next| next.min(from)));
                }
                from <= now
            };
            let sides = rules::sides(servers.iter(), &deployment, counts);
            for server in servers {
                let belongs = rules::belongs(&server, &deployment, sides);
                if before.belongs.remove(server.uid()).is_some_and(|before| before != belongs) {
                    shown.changed.push(ServerRef::of(&server));
                }
                self.belongs.insert(server.uid().to_owned(), belongs);
            }
            shown.sides.insert(key, sides);
        }
        shown
    }

    fn counts_from(&self, server: &Server, is_updated: bool, now: Instant) -> Instant {
        match self.staying.get(server.uid()) {
            Some((side, from)) if *side == is_updated => *from,
            _ if self.has_looked => now + SETTLES_AFTER,
            _ => now,
        }
    }
}

/// The Servers that name a subset.
fn by_deployment(servers: impl IntoIterator<Item = Arc<Server>>) -> BTreeMap<Key, Vec<Arc<Server>>> {
    let mut found: BTreeMap<Key, Vec<Arc<Server>>> = BTreeMap::new();
    for server in servers.into_iter().filter(|server| rules::names_subset(server)) {
        if let Some(key) = rules::deployment_of(&server) {
            found.entry(key).or_default().push(server);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use berth_core::api::TrafficPhase::{Held, Serving};

    use super::*;
    use crate::subsets::rules::tests::{deployment, server};

    fn names(shown: &Shown) -> Vec<&str> {
        shown.changed.iter().map(|server| server.name.as_str()).collect()
    }

    #[test]
    fn others_leave_a_subset_some_time_after_the_first_one_is_there() {
        let deployment = Arc::new(deployment(None));
        let find = |_: &Key| Some(Arc::clone(&deployment));
        let stable = |n| server(n, "v1", Some("v1"), Serving);
        let with = |canary| vec![canary, stable(1), stable(2), stable(3)];
        let (mut look, begun) = (Look::default(), Instant::now());
        let at = |look: &mut Look, seconds, canary| look.at(begun + Duration::from_secs(seconds), with(canary), find);

        let first = at(&mut look, 0, server(0, "v2", Some("v2"), Held));
        assert_eq!((names(&first), first.next), (vec![], None));
        let serves = || server(0, "v2", Some("v2"), Serving);
        let second = at(&mut look, 10, serves());
        assert_eq!((names(&second), second.next), (vec![], Some(begun + Duration::from_secs(12))));
        assert_eq!(names(&at(&mut look, 11, serves())), Vec::<&str>::new());
        let third = at(&mut look, 12, serves());
        assert_eq!((names(&third), third.next), (vec!["web-1", "web-2", "web-3"], None));
        assert_eq!(third.sides.values().map(|s| (s.updated, s.stable)).collect::<Vec<_>>(), [(1, 3)]);

        let goes = at(&mut look, 13, server(0, "v1", Some("v2"), Serving));
        assert_eq!(names(&goes), ["web-1", "web-2", "web-3"], "they are back before it is drained");
    }

    #[test]
    fn what_is_there_at_the_first_look_counts_at_once() {
        let deployment = Arc::new(deployment(None));
        let canary = server(0, "v2", Some("v2"), Serving);
        let shown = Look::default().at(Instant::now(), vec![canary], |_: &Key| Some(Arc::clone(&deployment)));
        assert_eq!(shown.sides.values().map(|s| s.updated).collect::<Vec<_>>(), [1]);
    }
}
