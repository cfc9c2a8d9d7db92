//! Which weights an HTTPRoute should have, and the write that sets them. Pure.
//!
//! `rules` and `backendRefs` of an HTTPRoute are atomic lists to server-side apply: whoever applies one weight would own all rules. So the
//! write is a JSON Patch of single weights, which tests that the route has not changed since it was read.

use berth_core::{
    api::{HttpRoute, VMDeployment},
    protocol::GuardedPatch,
    traffic_split::{Sides, load_factor},
};
use kube::core::DynamicObject;
use serde_json::Value;

/// The annotation by which the owner of an HTTPRoute lets a VMDeployment of its namespace set weights.
pub const WEIGHTS_OF: &str = "berth.dev/weights-of";

/// The sum of the two weights.
const ALL: i32 = 100;

/// The weight of the Service with the newest version, of 100. The share is that of `status.rollout.weight`, but no Server gets more than
/// `maxLoadFactor` times its even share. While traffic is not split, everything goes to the other Service: it has all Servers then.
pub(super) fn canary_weight(deployment: &VMDeployment, sides: Sides) -> i32 {
    let rollout = deployment.status.as_ref().and_then(|status| status.rollout.as_ref());
    let Some(percent) = rollout.and_then(|rollout| rollout.weight) else { return 0 };
    let most = load_factor(deployment.spec.rollout.max_load_factor.as_deref());
    let share = sides.share(percent, most).unwrap_or(if sides.updated == 0 { 0.0 } else { 1.0 });
    #[expect(clippy::cast_possible_truncation, reason = "from 0 to 100")]
    let weight = (share * f64::from(ALL)).round() as i32;
    weight
}

/// A rule of a route that sends requests to both Services.
struct Split {
    /// Which rule.
    rule: usize,
    /// Which backend of the rule is which Service, and the weight that it has.
    stable: (usize, i64),
    canary: (usize, i64),
}

/// The write that gives the route this weight; none if it has it. The error says why it cannot be written, and what to do.
pub(super) fn write(
    route: &DynamicObject,
    deployment: &VMDeployment,
    declared: &HttpRoute,
    canary: i32,
) -> Result<Option<GuardedPatch>, String> {
    let name = &declared.name;
    let allowed = route.metadata.annotations.as_ref().and_then(|all| all.get(WEIGHTS_OF));
    let wanted = deployment.name();
    if allowed.is_none_or(|allowed| allowed != wanted) {
        let found = allowed.map_or("has none".to_owned(), |other| format!("has {other:?}"));
        return Err(format!(
            "HTTPRoute {name} does not let its weights be changed: set its annotation {WEIGHTS_OF} to {wanted:?}, it {found}"
        ));
    }
    let splits = splits(route, declared)?;
    let mut patch = GuardedPatch::of_version(&route.metadata);
    let mut differs = false;
    for Split { rule, stable, canary: newest } in splits {
        let weights = [(stable, &declared.stable_service, ALL - canary), (newest, &declared.canary_service, canary)];
        for ((backend, found), service, weight) in weights {
            if found == i64::from(weight) {
                continue;
            }
            let (rule, backend) = (rule.to_string(), backend.to_string());
            let field = |name| ["spec", "rules", &rule, "backendRefs", &backend, name];
            patch = patch.test(&field("name"), service).add(&field("weight"), &weight);
            differs = true;
        }
    }
    Ok(differs.then_some(patch))
}

/// The rules that send requests to both Services.
fn splits(route: &DynamicObject, declared: &HttpRoute) -> Result<Vec<Split>, String> {
    let HttpRoute { name, stable_service, canary_service } = declared;
    let rules = route.data["spec"]["rules"].as_array().map_or(&[][..], Vec::as_slice);
    let mut found = Vec::new();
    for (rule, value) in rules.iter().enumerate() {
        let backends = value["backendRefs"].as_array().map_or(&[][..], Vec::as_slice);
        let to = |service: &str| -> Vec<(usize, i64)> {
            let all = backends.iter().enumerate().filter(|(_, backend)| is_service(backend, route, service));
            all.map(|(at, backend)| (at, backend["weight"].as_i64().unwrap_or(1))).collect()
        };
        match (to(stable_service).as_slice(), to(canary_service).as_slice()) {
            ([], _) | (_, []) => {}
            ([stable], [canary]) => found.push(Split { rule, stable: *stable, canary: *canary }),
            _ => {
                return Err(format!(
                    "rule {} of HTTPRoute {name} names Service {stable_service} or {canary_service} more than once: which \
                     weight is meant? Name each once",
                    rule + 1
                ));
            }
        }
    }
    if found.is_empty() {
        return Err(format!(
            "no rule of HTTPRoute {name} has both Services, {stable_service} and {canary_service}, in its backendRefs: add \
             them to the rules that are to be split"
        ));
    }
    Ok(found)
}

/// Whether a backend is this Service of the route's namespace.
fn is_service(backend: &Value, route: &DynamicObject, service: &str) -> bool {
    let is = |field: &str, default: &str, wanted: &str| backend[field].as_str().unwrap_or(default) == wanted;
    let namespace = route.metadata.namespace.as_deref().unwrap_or_default();
    is("group", "", "")
        && is("kind", "Service", "Service")
        && is("namespace", namespace, namespace)
        && is("name", "", service)
}

#[cfg(test)]
#[path = "weights_tests.rs"]
mod tests;
