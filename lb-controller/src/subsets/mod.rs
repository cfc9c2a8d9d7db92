//! Which Servers are in the backends for a subset (`subset: Updated`, `subset: Stable`).
//!
//! It follows from what each Server runs, from the roll-out of its VMDeployment, and from who else receives traffic (`rules.rs`).
//! Nothing is written for it. A Server gets another version only out of traffic, so that it changes its side while no backend sends it
//! any. What changes while it serves is only whether a subset would be empty, or overloaded, without it: then it comes or goes without
//! being drained, because nothing is done to its machine and its open requests finish. It comes before the last others go (`look.rs`), and
//! goes some time after others have come.

mod look;
mod rules;

use std::{collections::BTreeMap, future::pending, pin::pin, sync::Arc, time::Duration};

use berth_core::{
    api::{Server, VMDeployment},
    traffic_split::Sides,
};
use berth_runtime::{Cache, Context};
use futures::{StreamExt as _, channel::mpsc::UnboundedSender, future::join};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use crate::member::ServerRef;
use look::{Key, Look};
pub use rules::Belongs;

/// How long changes of Servers are collected before the subsets are looked at. The last Servers of a subset are drained a write or two
/// after their new version is declared, and the others should be there before.
const WINDOW: Duration = Duration::from_millis(20);

/// Changes that are taken at once.
const CHUNK: usize = 1024;

/// The subsets of all Servers. Clones share them. The default knows no VMDeployment: there, all Servers are in both.
#[derive(Clone, Default)]
pub struct Subsets(Option<Arc<Inner>>);

struct Inner {
    servers: Cache<Server>,
    deployments: Cache<VMDeployment>,
    /// By VMDeployment, how many Servers stay in traffic on each side.
    sides: Mutex<BTreeMap<Key, Sides>>,
}

impl Subsets {
    /// The subsets of these Servers.
    #[must_use]
    pub fn new(servers: &Cache<Server>, deployments: &Cache<VMDeployment>) -> Self {
        let (servers, deployments) = (servers.clone(), deployments.clone());
        Self(Some(Arc::new(Inner { servers, deployments, sides: Mutex::default() })))
    }

    /// Returns when it is known which Servers and VMDeployments there are.
    pub async fn ready(&self) {
        if let Some(inner) = &self.0 {
            join(inner.servers.ready(), inner.deployments.ready()).await;
        }
    }

    /// The subsets that the Server is in.
    #[must_use]
    pub fn of(&self, server: &Server) -> Belongs {
        let known = || {
            let inner = self.0.as_ref().filter(|_| rules::names_subset(server))?;
            let key = rules::deployment_of(server)?;
            let deployment = inner.deployments.get(Some(&key.0), &key.1)?;
            Some(rules::belongs(server, &deployment, inner.sides_of(&key, &deployment)))
        };
        known().unwrap_or(Belongs::BOTH)
    }

    /// How many Servers of the VMDeployment stay in traffic on each side, and have for a moment.
    #[must_use]
    pub fn sides(&self, deployment: &VMDeployment) -> Sides {
        let key = (deployment.namespace().to_owned(), deployment.name().to_owned());
        self.0.as_ref().map_or(Sides { updated: 0, stable: 0 }, |inner| inner.sides_of(&key, deployment))
    }

    /// Sends the Servers whose subsets have changed, until shutdown.
    pub(crate) async fn follow(self, ctx: Context, changed: UnboundedSender<ServerRef>) {
        let Some(inner) = self.0 else { return };
        let mut servers = pin!(inner.servers.changes().ready_chunks(CHUNK));
        let mut deployments = pin!(inner.deployments.changes().ready_chunks(CHUNK));
        let (mut look, mut next) = (Look::default(), None);
        loop {
            tokio::select! {
                biased;
                () = ctx.shutdown.cancelled() => return,
                Some(_) = deployments.next() => {}
                Some(_) = servers.next() => {}
                () = until(next) => {}
            }
            let begun = Instant::now();
            let all = inner.servers.store().state();
            let find = |(namespace, name): &Key| inner.deployments.get(Some(namespace), name);
            let seen = look.at(begun, all, find);
            *inner.sides.lock() = seen.sides;
            for server in seen.changed {
                // The controller stops listening only at shutdown.
                let _ = changed.unbounded_send(server);
            }
            next = seen.next;
            // In a large fleet that changes all the time, it takes no more than a fifth of a processor.
            sleep(WINDOW.max(begun.elapsed() * 4)).await;
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

impl Inner {
    fn sides_of(&self, key: &Key, deployment: &VMDeployment) -> Sides {
        if let Some(sides) = self.sides.lock().get(key) {
            return *sides;
        }
        let all = self.servers.store().state();
        let own = all.iter().filter(|server| rules::deployment_of(server).as_ref() == Some(key));
        let sides = rules::sides(own, deployment, |_, _| true);
        *self.sides.lock().entry(key.clone()).or_insert(sides)
    }
}
