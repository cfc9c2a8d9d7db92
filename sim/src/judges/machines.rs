//! Guarantee 1: one Server never has two machines.

use super::scene::Scene;

/// Machines of which there is more than one for the same Server. Looked for whenever a Server changes: its machine is made
/// between two of its changes.
pub(super) fn several_for_one_server(scene: &Scene<'_>) -> Option<String> {
    if scene.plural != "servers" {
        return None;
    }
    let twice = scene.simulation.first_with_several()?;
    Some(format!("the Server {twice} has two machines"))
}
