//! What is remembered of the artifacts that are brought ahead: which ones are wanted where, and what became of it. Without I/O.

use std::{collections::BTreeMap, sync::Arc};

use berth_core::api::{App, Server};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::planner::Ahead;

/// A VMDeployment: its namespace and name.
pub(crate) type DeploymentKey = (String, String);

/// What is to be brought ahead, for each VMDeployment. What is not wanted any more is forgotten, so no more is kept than the
/// Servers of roll-outs that are under way.
#[derive(Debug, Default)]
pub(crate) struct StagingMemory {
    deployments: BTreeMap<DeploymentKey, WantedAhead>,
    /// Numbers the attempts, so that an end is not taken for that of a later one.
    attempts: u64,
}

#[derive(Debug)]
struct WantedAhead {
    app: Arc<App>,
    /// In the order in which they come.
    places: Vec<StagingPlace>,
}

/// A machine that an artifact is wanted on.
#[derive(Debug)]
struct StagingPlace {
    target: StagingTarget,
    progress: StagingProgress,
}

/// A Server, and which machine it has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StagingTarget {
    pub(crate) namespace: String,
    pub(crate) name: String,
    uid: String,
    machine: Option<String>,
}

impl StagingTarget {
    /// Whether it is this Server, with the machine that it has now.
    pub(crate) fn is_of(&self, server: &Server) -> bool {
        *self == Self::of(server)
    }

    fn of(server: &Server) -> Self {
        Self {
            namespace: server.namespace().to_owned(),
            name: server.name().to_owned(),
            uid: server.uid().to_owned(),
            machine: server.machine().and_then(|machine| machine.id.clone()),
        }
    }
}

#[derive(Debug)]
enum StagingProgress {
    Waits,
    UnderWay { attempt: u64, failures: u32, cancel: CancellationToken },
    IsThere,
    Failed { failures: u32, next: Instant },
}

/// One attempt to bring an artifact to a machine.
#[derive(Clone, Debug)]
pub(crate) struct StagingAttempt {
    pub(crate) app: Arc<App>,
    pub(crate) target: StagingTarget,
    /// Cancelled when it is not wanted any more.
    pub(crate) cancel: CancellationToken,
    /// How often it has failed before.
    pub(crate) failures: u32,
    deployment: DeploymentKey,
    number: u64,
}

impl StagingAttempt {
    /// For which VMDeployment it is.
    pub(crate) fn deployment(&self) -> &DeploymentKey {
        &self.deployment
    }
}

impl StagingMemory {
    /// From now on this is wanted; none: nothing. What is under way elsewhere is cancelled, unless it may still arrive in time.
    pub(crate) fn want(&mut self, deployment: DeploymentKey, wanted: Option<&Ahead<'_>>) {
        let known = self.deployments.remove(&deployment);
        let Some(wanted) = wanted else {
            return known.into_iter().for_each(WantedAhead::cancel);
        };
        let (app, places) = match known {
            Some(known) if *known.app == wanted.app => (known.app, known.places),
            other => {
                other.into_iter().for_each(WantedAhead::cancel);
                (Arc::new(wanted.app.clone()), Vec::new())
            }
        };
        let of_target = |place: StagingPlace| (place.target, place.progress);
        let mut known: BTreeMap<StagingTarget, StagingProgress> = places.into_iter().map(of_target).collect();
        let mut next = Vec::with_capacity(wanted.servers.len());
        for server in &wanted.servers {
            let target = StagingTarget::of(server);
            let progress = known.remove(&target).unwrap_or(StagingProgress::Waits);
            next.push(StagingPlace { target, progress });
        }
        for target in wanted.drained.iter().map(|server| StagingTarget::of(server)) {
            let place = known.remove(&target).map(|progress| StagingPlace { target, progress });
            next.extend(place.filter(StagingPlace::is_under_way));
        }
        for progress in known.into_values() {
            progress.cancel();
        }
        if !next.is_empty() {
            self.deployments.insert(deployment, WantedAhead { app, places: next });
        }
    }

    /// Whether the artifact is at the Server, or the latest attempt to bring it there has failed.
    pub(crate) fn is_known(&self, deployment: &DeploymentKey, app: &App, server: &Server) -> bool {
        let target = StagingTarget::of(server);
        let wanted = self.deployments.get(deployment).filter(|wanted| *wanted.app == *app);
        let place = wanted.and_then(|wanted| wanted.places.iter().find(|place| place.target == target));
        place.is_some_and(|place| match place.progress {
            StagingProgress::IsThere | StagingProgress::Failed { .. } => true,
            StagingProgress::Waits => false,
            StagingProgress::UnderWay { failures, .. } => failures > 0,
        })
    }

    /// Forgets the VMDeployments that are gone.
    pub(crate) fn retain(&mut self, exists: impl Fn(&DeploymentKey) -> bool) {
        let gone: Vec<DeploymentKey> = self.deployments.keys().filter(|key| !exists(key)).cloned().collect();
        gone.iter().filter_map(|key| self.deployments.remove(key)).for_each(WantedAhead::cancel);
    }

    /// The next attempt whose time has come, of the VMDeployment for which the fewest are under way: one whose machines hang holds up no
    /// other one for long.
    pub(crate) fn begin(&mut self, now: Instant) -> Option<StagingAttempt> {
        let all = self.deployments.iter_mut();
        let (key, wanted) =
            all.filter(|(_, wanted)| wanted.has_due(now)).min_by_key(|(_, wanted)| wanted.under_way())?;
        let place = wanted.places.iter_mut().find(|place| place.is_due(now))?;
        self.attempts += 1;
        let (failures, cancel) = (place.failures(), CancellationToken::new());
        place.progress = StagingProgress::UnderWay { attempt: self.attempts, failures, cancel: cancel.clone() };
        Some(StagingAttempt {
            app: wanted.app.clone(),
            target: place.target.clone(),
            cancel,
            failures,
            deployment: key.clone(),
            number: self.attempts,
        })
    }

    /// What became of an attempt: the artifact is there, or the next attempt is made at this time.
    pub(crate) fn end(&mut self, attempt: &StagingAttempt, next: Option<Instant>) {
        let Some(wanted) = self.deployments.get_mut(&attempt.deployment) else { return };
        let is_it = |place: &&mut StagingPlace| matches!(&place.progress, StagingProgress::UnderWay { attempt: number, .. } if *number == attempt.number);
        let Some(place) = wanted.places.iter_mut().find(is_it) else { return };
        place.progress = match next {
            None => StagingProgress::IsThere,
            Some(next) => StagingProgress::Failed { failures: attempt.failures.saturating_add(1), next },
        };
    }

    /// When the next attempt is due, if none is now.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let places = self.deployments.values().flat_map(|wanted| &wanted.places);
        places
            .filter_map(|place| match place.progress {
                StagingProgress::Failed { next, .. } => Some(next),
                StagingProgress::Waits | StagingProgress::UnderWay { .. } | StagingProgress::IsThere => None,
            })
            .min()
    }

    /// To how many Servers the artifact could not be brought at the latest attempt.
    pub(crate) fn failing(&self) -> usize {
        let places = self.deployments.values().flat_map(|wanted| &wanted.places);
        places.filter(|place| place.failures() > 0).count()
    }
}

impl WantedAhead {
    fn cancel(self) {
        for place in self.places {
            place.progress.cancel();
        }
    }

    fn has_due(&self, now: Instant) -> bool {
        self.places.iter().any(|place| place.is_due(now))
    }

    fn under_way(&self) -> usize {
        self.places.iter().filter(|place| place.is_under_way()).count()
    }
}

impl StagingProgress {
    fn cancel(self) {
        if let Self::UnderWay { cancel, .. } = self {
            cancel.cancel();
        }
    }
}

impl StagingPlace {
    fn is_under_way(&self) -> bool {
        matches!(self.progress, StagingProgress::UnderWay { .. })
    }

    fn is_due(&self, now: Instant) -> bool {
        match self.progress {
            StagingProgress::Waits => true,
            StagingProgress::Failed { next, .. } => next <= now,
            StagingProgress::UnderWay { .. } | StagingProgress::IsThere => false,
        }
    }

    fn failures(&self) -> u32 {
        match self.progress {
            StagingProgress::UnderWay { failures, .. } | StagingProgress::Failed { failures, .. } => failures,
            StagingProgress::Waits | StagingProgress::IsThere => 0,
        }
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
