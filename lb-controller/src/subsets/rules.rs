//! Which Servers are in a subset. Pure.

use std::sync::Arc;

use berth_core::{
    api::{App, Backend, RolloutProgress, Server, Subset, TrafficPhase, VMDeployment, VMReplicaSet},
    object::controlling_owner,
    traffic_split::{Sides, load_factor},
};

/// The subsets that a Server is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belongs {
    /// Whether it is in [`Subset::Updated`].
    pub updated: bool,
    /// Whether it is in [`Subset::Stable`].
    pub stable: bool,
}

impl Belongs {
    /// In both, as each Server is while no roll-out is under way.
    pub const BOTH: Self = Self { updated: true, stable: true };

    /// Whether the Server is in the backends for this subset.
    #[must_use]
    pub fn to(self, subset: Option<Subset>) -> bool {
        match subset {
            None => true,
            Some(Subset::Updated) => self.updated,
            Some(Subset::Stable) => self.stable,
        }
    }
}

/// Namespace and name of the VMDeployment that a Server belongs to. The set of a VMDeployment has its name.
pub(super) fn deployment_of(server: &Server) -> Option<(String, String)> {
    let owner = controlling_owner::<VMReplicaSet>(&server.metadata)?;
    Some((server.namespace().to_owned(), owner.name.clone()))
}

/// Whether any backend of the Server is for a subset, by its declaration or as registered.
pub(super) fn names_subset(server: &Server) -> bool {
    let fact = server.status.as_ref().and_then(|status| status.traffic.as_ref());
    let registered = fact.into_iter().flat_map(|fact| &fact.backends);
    let declared = server.spec.traffic.iter().flat_map(|traffic| &traffic.backends);
    let is_for_subset = |backend: &Backend| backend.subset.is_some();
    registered.chain(declared).any(is_for_subset)
}

/// Whether the Server receives traffic and will go on with the version that it runs.
pub(super) fn stays_in_traffic(server: &Server) -> bool {
    let has_traffic = server.promised_traffic() == Some(TrafficPhase::Serving);
    has_traffic && !server.must_retire() && runs_declared(server)
}

/// Whether the Server runs the version that is being rolled out, or was rolled out last. One that is about to get another version still
/// runs the one before.
pub(super) fn is_updated(server: &Server, progress: &RolloutProgress) -> bool {
    let declares = server.spec.app.as_ref().is_some_and(|app| progress.is_about(app));
    declares == (runs_declared(server) || !runs_any(server))
}

fn runs_any(server: &Server) -> bool {
    server.status.as_ref().is_some_and(|status| status.app.is_some())
}

fn runs_declared(server: &Server) -> bool {
    let fact = server.status.as_ref().and_then(|status| status.app.as_ref());
    let is_it = |app: &App| {
        fact.is_some_and(|fact| {
            fact.revision == app.effective_revision() && Some(&fact.digest) == server.spec.app_digest().as_ref()
        })
    };
    server.spec.app.as_ref().is_none_or(is_it)
}

/// The subsets of a Server, if so many Servers of its VMDeployment stay in traffic.
pub(super) fn belongs(server: &Server, deployment: &VMDeployment, sides: Sides) -> Belongs {
    let Some(progress) = deployment.status.as_ref().and_then(|status| status.rollout.as_ref()) else {
        return Belongs::BOTH;
    };
    let (is_updated, is_split) = (is_updated(server, progress), progress.weight.is_some());
    let most = load_factor(deployment.spec.rollout.max_load_factor.as_deref());
    // The steps with a weight are over, or there is nothing to roll out.
    let is_over = !is_split && deployment.spec.rollout.steps.iter().any(|step| step.weight.is_some());
    let (all, stable) = (f64::from(sides.updated) + f64::from(sides.stable), f64::from(sides.stable));
    let is_overloaded = !is_split && all > most * stable;
    Belongs {
        updated: is_updated || sides.updated == 0,
        stable: !is_updated || sides.stable == 0 || is_overloaded || is_over,
    }
}

/// How many Servers of a VMDeployment stay in traffic, on both sides: those that count. `counts` is asked whether one does on its side.
pub(super) fn sides<'a>(
    servers: impl Iterator<Item = &'a Arc<Server>>,
    deployment: &VMDeployment,
    mut counts: impl FnMut(&Server, bool) -> bool,
) -> Sides {
    let mut sides = Sides { updated: 0, stable: 0 };
    let Some(progress) = deployment.status.as_ref().and_then(|status| status.rollout.as_ref()) else { return sides };
    for server in servers.filter(|server| stays_in_traffic(server)) {
        let is_updated = is_updated(server, progress);
        if counts(server, is_updated) {
            let side = if is_updated { &mut sides.updated } else { &mut sides.stable };
            *side += 1;
        }
    }
    sides
}

#[cfg(test)]
#[path = "rules_tests.rs"]
pub(super) mod tests;
