//! What the judges of roll-outs share: whether a change gives a Server new code, for which there are steps and zones.

use berth_core::api::{App, VMDeployment};
use serde::Deserialize as _;
use serde_json::Value;

use super::{scene::Scene, view::Place};

/// The end of the user name of deployment-controller.
const AUTHOR: &str = ":deployment-controller";

/// New code that a Server gets.
pub(super) struct NewCode<'a> {
    /// The place of the set and of its VMDeployment.
    pub(super) place: Place,
    pub(super) set: &'a Value,
    pub(super) deployment: VMDeployment,
    pub(super) app: App,
    /// Whether it is the stable code, which is only started anew.
    pub(super) is_restart: bool,
}

impl<'a> NewCode<'a> {
    /// The code that deployment-controller gives a Server with this change. None if it gives none, if the Server gets the stable code or
    /// the one that a person has gone back to, or if no code is stable yet.
    pub(super) fn of(scene: &Scene<'a>) -> Option<Self> {
        let (before, after) = (scene.before?, scene.after?);
        let is_changed = scene.plural == "servers" && before["spec"]["app"] != after["spec"]["app"];
        if !is_changed || !scene.author.ends_with(AUTHOR) {
            return None;
        }
        let (place, set) = scene.view.set_of(scene.place, before)?;
        let deployment = VMDeployment::deserialize(scene.view.get("vmdeployments", &place)?).ok()?;
        let app = App::deserialize(&after["spec"]["app"]).ok()?;
        let status = deployment.status.as_ref()?;
        let (stable, progress) = (status.stable_app.as_ref()?, status.rollout.as_ref()?);
        let requested = progress.restart.as_ref().map(|restart| &restart.id);
        let is_restart = requested.is_some() && app.restart.as_ref() == requested && stable.restart != app.restart;
        if progress.undone.is_some() || stable.is_same_code(&app) && !is_restart {
            return None;
        }
        let is_restart = stable.is_same_code(&app);
        Some(Self { place, set, deployment, app, is_restart })
    }
}

/// Whether the change of an object is one of deployment-controller.
pub(super) fn by_deployment_controller(scene: &Scene<'_>) -> bool {
    scene.author.ends_with(AUTHOR)
}

/// Whether the Server counts for its set.
pub(super) fn is_active(server: &Value) -> bool {
    let spec = &server["spec"];
    !super::view::is_being_deleted(server) && spec["offline"] != true && spec["retain"].is_null()
}
