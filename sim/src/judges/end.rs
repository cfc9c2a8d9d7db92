//! Guarantee 5: the object of a retired Server disappears only after traffic and machine are gone, unless a person abandons it.
//! Whether monitoring still has a target is not seen here: monitor-controller listens nowhere in the world.

use super::{scene::Scene, view::text};

/// What is left of a Server whose object disappears.
pub(super) fn too_early(scene: &Scene<'_>) -> Option<String> {
    let (Some(server), None) = (scene.before, scene.after) else { return None };
    let is_abandoned = server["metadata"]["annotations"]["berth.dev/abandon"].is_string();
    if scene.plural != "servers" || is_abandoned {
        return None;
    }
    let uid = text(server, "/metadata/uid");
    if scene.simulation.has_machine(uid) {
        return Some(format!("{} is gone, and its machine is not", scene.place));
    }
    scene.view.reaches(scene.place).then(|| format!("{} is gone, and clients are sent to it", scene.place))
}
