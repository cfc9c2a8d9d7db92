//! The share of the traffic that a roll-out gives the newest application, by steps with `weight`. Pure.
//!
//! The share is written to `status.rollout.weight` and lb-controller splits the traffic. With steps of that kind, the newest application
//! begins with no traffic at all, and an aborted one gets none.

use berth_core::{
    api::{HttpRouteStatus, Rollout, RolloutProgress},
    traffic_split::{Sides, load_factor},
};

use crate::{count::RolloutCount, rollout_record::index};

/// The share that the newest application should get now, in percent; none if traffic is not split.
pub(crate) fn weight(rollout: &Rollout, progress: &RolloutProgress, is_gradual: bool) -> Option<i32> {
    if !is_gradual || rollout.steps.iter().all(|step| step.weight.is_none()) {
        return None;
    }
    if progress.aborted.is_some() {
        return Some(0);
    }
    let step = index(progress);
    let begun = rollout.steps.iter().take(step + 1);
    (step < rollout.steps.len()).then(|| begun.filter_map(|step| step.weight).next_back().unwrap_or(0))
}

/// What a step with a weight waits for.
pub(crate) struct Obstacle {
    /// Whether it waits for a person.
    pub(crate) needs_person: bool,
    /// What is wrong, or under way.
    pub(crate) message: String,
}

/// What a step with this weight waits for; none when it is done, which it is as soon as its weight is written, and the routes follow it.
pub(crate) fn obstacle(
    weight: i32,
    rollout: &Rollout,
    progress: &RolloutProgress,
    count: &RolloutCount<'_>,
    routes: &[HttpRouteStatus],
) -> Option<Obstacle> {
    let obstacle = |needs_person, message| Some(Obstacle { needs_person, message });
    let size = |servers: usize| u32::try_from(servers).unwrap_or(u32::MAX);
    let sides = Sides { updated: size(count.proven), stable: size(count.old.len()) };
    let most = load_factor(rollout.max_load_factor.as_deref());
    let load = sides.load(weight);
    if weight > 0 && sides.updated == 0 {
        let revision = count.newest.effective_revision();
        return obstacle(false, format!("weight {weight}: no Server is well with revision {revision}"));
    }
    if sides.stable > 0 && load > most {
        let message = format!(
            "weight {weight} with {} of {} Servers updated would give one Server {load:.1} times its share, at most {most} may \
             be (spec.rollout.maxLoadFactor): update more Servers before, or change the weight",
            sides.updated,
            sides.updated.saturating_add(sides.stable),
        );
        return obstacle(true, message);
    }
    if progress.weight != Some(weight) {
        return obstacle(false, format!("weight {weight} is being set"));
    }
    rollout.http_routes.iter().find_map(|route| {
        let known = routes.iter().find(|known| known.name == route.name);
        match known.map(|known| (known.weight, known.problem.as_ref())) {
            Some((_, Some(problem))) => obstacle(true, format!("weight {weight}: {problem}")),
            Some((shown, None)) if shown == Some(weight) => None,
            _ => obstacle(false, format!("weight {weight} is being set in HTTPRoute {}", route.name)),
        }
    })
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
