//! Which Servers a roll-out changes next: those that get the new version, or those that are restarted as a baseline. Pure.

use std::collections::HashSet;

use berth_core::api::{RolloutProgress, Server, VMDeployment};
use k8s_openapi::jiff::Timestamp;

use crate::{
    baseline::{self, Restarts},
    count::RolloutCount,
    order, steps,
};

/// Which Servers a roll-out changes next.
#[derive(Clone, Debug)]
pub(crate) struct Choice<'a> {
    /// All Servers, in the order in which they get the new version.
    pub(crate) order: Vec<&'a Server>,
    /// The restarts, if they have their turn: then nothing else is changed.
    pub(crate) restarts: Option<Restarts<'a>>,
    /// Names of the Servers that were restarted in this attempt.
    restarted: HashSet<&'a str>,
    /// Names of the Servers that may be restarted next.
    candidates: HashSet<&'a str>,
    /// Whether the Servers that were restarted stay as they are, because others are left that can get the new version.
    spares_restarted: bool,
}

impl<'a> Choice<'a> {
    /// The Servers that have their turn, by what is recorded of the roll-out.
    pub(crate) fn of(
        deployment: &VMDeployment,
        count: &RolloutCount<'a>,
        servers: &[&'a Server],
        known: Option<&RolloutProgress>,
        now: Timestamp,
    ) -> Self {
        let mut order = order::in_order(deployment.spec.rollout.order, servers);
        let is_restarted = |server: &Server| baseline::is_restarted(server, known);
        let restarted: HashSet<&str> =
            count.old.iter().filter(|server| is_restarted(server)).map(|server| server.name()).collect();
        // What the steps before want comes first: a Server that was updated may be gone.
        let missing = steps::allowed(deployment, count).min(count.target()).saturating_sub(count.updated());
        let restarts = known.filter(|_| missing == 0);
        let restarts = restarts.and_then(|known| Restarts::of(deployment, count, known, now));
        let may_restart = restarts.as_ref().filter(|restarts| restarts.left() > 0);
        let candidates = may_restart.into_iter().flat_map(|restarts| &restarts.candidates);
        let candidates = candidates.map(|server| server.name()).collect();
        let mut spares_restarted = false;
        if !restarted.is_empty() {
            let others;
            (order, others) = restarted_last(&order, count, &restarted);
            spares_restarted = others > 0;
        }
        Self { order, restarts, restarted, candidates, spares_restarted }
    }

    /// Whether the Server was restarted as a baseline in this attempt.
    pub(crate) fn is_restarted(&self, server: &Server) -> bool {
        self.restarted.contains(server.name())
    }

    /// Whether the Server may be changed next, if it has not the new version.
    pub(crate) fn is_left(&self, server: &Server) -> bool {
        if self.restarts.is_some() {
            return self.candidates.contains(server.name());
        }
        !server.is_forced() && !self.is_spared(server)
    }

    /// Whether the Server does not get the new version yet, because the new version is compared with it.
    pub(crate) fn is_spared(&self, server: &Server) -> bool {
        self.spares_restarted && self.is_restarted(server)
    }
}

/// The Servers in the order in which they get the new version, so that there is something to compare it with as long as possible, and
/// how many are before those that were restarted. Those that the partition keeps stay the last ones.
fn restarted_last<'a>(
    order: &[&'a Server],
    count: &RolloutCount<'_>,
    restarted: &HashSet<&str>,
) -> (Vec<&'a Server>, usize) {
    let names: HashSet<&str> = count.old.iter().map(|server| server.name()).collect();
    let (old, new): (Vec<&Server>, Vec<&Server>) = order.iter().partition(|server| names.contains(server.name()));
    let (free, kept) = order::without_kept(&old, count.budget.partition);
    let (last, first): (Vec<&Server>, Vec<&Server>) = free.iter().partition(|server| restarted.contains(server.name()));
    let others = first.iter().filter(|server| !server.is_forced()).count();
    (new.into_iter().chain(first).chain(last).chain(kept.iter().copied()).collect(), others)
}
