//! What one reconcile of a VMDeployment decides, without the API server: the pure part as a whole, for benches.

use berth_core::api::{Server, VMDeployment, VMDeploymentStatus, VMReplicaSet};
use k8s_openapi::jiff::Timestamp;

use crate::{
    assessment::Assessment,
    observed::ObservedDeployment,
    replica_set::{self, newest_app},
    rollout, stable, status,
};

/// The VMReplicaSet that a VMDeployment asks for, whose new Servers begin with the declared application.
#[must_use]
pub fn desired_set(deployment: &VMDeployment) -> VMReplicaSet {
    replica_set::desired(deployment, newest_app(deployment))
}

/// The status of the VMDeployment, how many Servers get another application next, and whether the set has to be changed. `set` controls
/// `servers`.
#[must_use]
pub fn plan(
    deployment: &VMDeployment,
    set: &VMReplicaSet,
    servers: &[&Server],
    now: Timestamp,
) -> (VMDeploymentStatus, usize, bool) {
    let observed = ObservedDeployment {
        deployment,
        set: Some(set),
        servers,
        missing_content: None,
        looks: &[],
        alarm_look: None,
        others: &[],
        awaited: &[],
        now,
    };
    let updates = rollout::next_updates(deployment, set, servers, None, now);
    let initial = stable::initial_app(&observed, &Assessment::of(&observed));
    let differs = replica_set::differs(Some(set), &replica_set::desired(deployment, initial));
    (status::compute(&observed).0, updates.servers.len(), differs)
}
