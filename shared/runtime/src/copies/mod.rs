//! The copies of the controllers, and what they say to each other.
//!
//! Each copy has a Lease in Berth's namespace, which it renews while it lives. From the Leases every copy sees which others there
//! are, and takes its share of work that need not be done twice ([`Copies::is_mine`]). It also reads there what the others say
//! ([`Copies::say`]): no program calls another. Nobody leads here (see [`Leader`](crate::Leader) for what needs it), and nothing becomes wrong when two copies see different Leases for a
//! moment: then something is done twice, or a little later.
//!
//! Own code instead of kube-runtime, which has no Leases: a copy counts by the time since its Lease was *seen* to change, so
//! that clocks do not matter.

mod keeper;
mod lease;
mod roster;
mod share;
mod state;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use berth_core::api::Executor;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::ObjectReference},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::Resource as _;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::{Context, TurnOrder};
use keeper::Keeper;
pub use lease::ControllerCopy;
use state::CopyState;

/// How often a Lease is renewed: three attempts before it no longer counts.
const RENEW: Duration = Duration::from_secs(10);

/// The copies of the controllers. Clones share one Lease.
#[derive(Clone)]
pub struct Copies(Arc<CopyState>);

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies").field("own", &self.0.own.name).finish_non_exhaustive()
    }
}

impl Copies {
    /// Keeps a Lease for this process until shutdown, and follows those of the others. From now on the context's
    /// [`Turns`](crate::Turns) follow from them. `tasks` are waited for at the end, so that the Lease is removed.
    #[must_use]
    pub fn start(ctx: &Context, tasks: &TaskTracker) -> Self {
        Self::start_with(ctx, tasks, RENEW)
    }

    /// The same, with another time between two renewals.
    #[must_use]
    pub fn start_with(ctx: &Context, tasks: &TaskTracker, renew: Duration) -> Self {
        let own = ControllerCopy {
            name: lease::name(ctx.executor, &ctx.holder),
            executor: ctx.executor,
            holder: ctx.holder.clone(),
            since: Some(MicroTime(ctx.clock.now())),
            notes: BTreeMap::new(),
        };
        let state = Arc::new(CopyState::new(own, ctx.identities.namespace.clone()));
        tasks.spawn(Keeper::new(ctx, Arc::clone(&state), renew).run());
        let copies = Self(state);
        ctx.turns.decided_by(copies.clone());
        copies
    }

    /// The copies of all controllers that count now, except this one.
    #[must_use]
    pub fn others(&self) -> Arc<Vec<ControllerCopy>> {
        Arc::clone(&self.0.others.borrow())
    }

    /// Says something to all other copies, or takes it back: an annotation of the Lease, which all notes together must not make
    /// larger than 200 kB. It is written at once if it is new.
    pub fn say(&self, note: &str, text: Option<String>) {
        let mut notes = self.0.notes.lock();
        if notes.get(note).cloned().flatten() != text {
            notes.insert(note.to_owned(), text);
            self.0.has_news.notify_one();
        }
    }

    /// Changes whenever another copy comes or goes, or says something else.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Vec<ControllerCopy>>> {
        self.0.others.subscribe()
    }

    /// This copy's Lease, for Events.
    #[must_use]
    pub fn reference(&self) -> ObjectReference {
        let mut lease = Lease::default();
        lease.metadata.name = Some(self.0.own.name.clone());
        lease.metadata.namespace = Some(self.0.namespace.clone());
        lease.object_ref(&())
    }
}

impl TurnOrder for Copies {
    /// As long as no other copy is known, every turn is this one's.
    fn is_mine(&self, uid: &str) -> bool {
        let own = &self.0.own;
        self.holder(own.executor, uid).as_ref() == Some(&own.holder)
    }

    fn holder(&self, executor: Executor, uid: &str) -> Option<String> {
        let others = self.0.others.borrow();
        let copies = others.iter().chain([&self.0.own]).filter(|copy| copy.executor == executor);
        let names = copies.clone().map(|copy| copy.name.as_str());
        let name = share::responsible(uid, names)?;
        copies.into_iter().find(|copy| copy.name == name).map(|copy| copy.holder.clone())
    }
}
