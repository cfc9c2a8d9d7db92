//! Guarantee 5: the object of a retired Server disappears only after traffic and machine are gone, unless a person abandons it.
//! Whether monitoring still has a target is not seen here: monitor-controller listens nowhere in the world.

use super::{scene::Scene, view::text};

/// What is left of a Server whose object disappears. A Server that a restored etcd holds as it was before its machine was made may
/// leave the machine behind, as an orphan.
pub(super) fn too_early(scene: &Scene<'_>, is_forgotten: impl Fn(&str) -> bool) -> Option<String> {
    let (Some(server), None) = (scene.before, scene.after) else { return None };
    let is_abandoned = server["metadata"]["annotations"]["berth.dev/abandon"].is_string();
    if scene.plural != "servers" || is_abandoned {
        return None;
    }
    let uid = text(server, "/metadata/uid");
    let is_orphan = server["status"]["machine"].is_null() && is_forgotten(uid);
    if scene.simulation.has_machine(uid) && !is_orphan {
        return Some(format!("{} is gone, and its machine is not", scene.place));
    }
    scene.view.reaches(scene.place).then(|| format!("{} is gone, and clients are sent to it", scene.place))
}
