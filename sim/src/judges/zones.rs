//! One zone at a time, where that is declared: a Server gets new code only when in every other zone each Server that has it was well with
//! it, for as long as a zone bakes, or has failed, or is away.
//!
//! Judged is whether a Server was ever well with the code: one that gets sick afterwards holds up the other zones in Berth, and not here.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::{
    new_code::{NewCode, is_active},
    scene::Scene,
    view::{Place, text},
};

/// How long an order of zones has to be declared before it is judged: what had begun before is finished.
const BEGUN_BEFORE: Duration = Duration::from_mins(5);
/// Times in objects are in whole seconds.
const ROUNDING: Duration = Duration::from_secs(1);

/// What was declared, and how Servers got on.
#[derive(Default)]
pub(super) struct ZoneOrder {
    /// How far apart the clocks of two copies may be.
    pub(super) skew: Duration,
    /// Since when each VMDeployment declares its order of zones; none if it always has.
    declared: BTreeMap<Place, (Value, Option<Duration>)>,
    /// The application of each Server, and when it was first well with that.
    well: BTreeMap<Place, (Value, Option<Duration>)>,
}

impl ZoneOrder {
    /// Says so if this change touches a zone that does not have its turn.
    pub(super) fn broken(&mut self, scene: &Scene<'_>) -> Option<String> {
        match scene.plural {
            "vmdeployments" => self.note_order(scene),
            "servers" => {
                let wrong = self.out_of_turn(scene);
                self.note_server(scene);
                return wrong;
            }
            _ => {}
        }
        None
    }

    fn note_order(&mut self, scene: &Scene<'_>) {
        let Some(after) = scene.after else { return drop(self.declared.remove(scene.place)) };
        let spread = after["spec"]["rollout"]["spread"].clone();
        let since = scene.before.map(|_| scene.clock.elapsed());
        let known = self.declared.entry(scene.place.clone()).or_insert_with(|| (spread.clone(), since));
        if known.0 != spread {
            *known = (spread, since);
        }
    }

    fn note_server(&mut self, scene: &Scene<'_>) {
        let Some(after) = scene.after else { return drop(self.well.remove(scene.place)) };
        let app = &after["spec"]["app"];
        let known = self.well.entry(scene.place.clone()).or_insert_with(|| (app.clone(), None));
        if known.0 != *app {
            *known = (app.clone(), None);
        }
        let is_observed = after["status"]["observedGeneration"] == after["metadata"]["generation"];
        if is_observed && after["status"]["state"] == "Ready" {
            known.1.get_or_insert(scene.clock.elapsed());
        }
    }

    fn out_of_turn(&self, scene: &Scene<'_>) -> Option<String> {
        let NewCode { place, set, deployment, app, .. } = NewCode::of(scene)?;
        let spread = deployment.spec.rollout.spread.as_ref()?;
        let (_, since) = self.declared.get(&place)?;
        if since.is_some_and(|since| since + BEGUN_BEFORE > scene.clock.elapsed()) {
            return None;
        }
        let (after, key) = (scene.after?, spread.topology_key.as_str());
        let zone = |server: &Value| server["metadata"]["labels"][key].as_str().unwrap_or_default().to_owned();
        let open = zone(after);
        let bake = Duration::from_secs(spread.bake_seconds.unsigned_abs().into());
        let is_under_way = |place: &Place| {
            let well = self.well.get(place).and_then(|(_, well)| *well);
            well.is_none_or(|at| at + bake > scene.clock.elapsed() + self.skew + ROUNDING)
        };
        let mut others = scene.view.servers_of(&place, set).filter(|(_, server)| {
            is_active(server) && server["spec"]["app"] == after["spec"]["app"] && zone(server) != open
        });
        let (other, server) = others.find(|(place, server)| is_under_way(place) && is_in_action(server))?;
        Some(format!(
            "{} in zone {open:?} gets revision {}, and {} in zone {:?} has not been well with it for {} s",
            scene.place,
            app.effective_revision(),
            other.name,
            zone(server),
            bake.as_secs()
        ))
    }
}

/// Whether the Server's machine is there, nothing has failed on it, and no person forces it.
fn is_in_action(server: &Value) -> bool {
    let is_stalled = |condition: &Value| condition["type"] == "Stalled" && condition["status"] == "True";
    let mut conditions = server["status"]["conditions"].as_array().into_iter().flatten();
    matches!(text(server, "/status/state"), "Ready" | "Deploying")
        && server["spec"]["force"].is_null()
        && !conditions.any(is_stalled)
}
