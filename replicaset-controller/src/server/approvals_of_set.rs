//! Approvals of a Server's set, which count only for the set that the API server has now.

use berth_core::{
    api::{Approval, Server, VMReplicaSet},
    approvals::{GateSettlement, may_be_settled_by_set, settlement_by_set},
};
use berth_runtime::ApiError;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client};

/// What Approvals of the Server's set decide about its gates, by the set that the API server has now: an Approval that was
/// given for an older generation must not settle anything.
///
/// # Errors
/// When the set cannot be read.
pub async fn settlement_by_current_set<'a>(
    client: &Client,
    server: &Server,
    approvals: impl Iterator<Item = &'a Approval> + Clone + Send,
    now: Timestamp,
) -> Result<Option<GateSettlement>, ApiError> {
    let Some(owner) = server.owner().filter(|_| may_be_settled_by_set(server, &approvals, now)) else {
        return Ok(None);
    };
    let sets: Api<VMReplicaSet> = Api::namespaced(client.clone(), server.namespace());
    let read = sets.get_opt(&owner.name).await;
    let set = read.map_err(ApiError::doing(format!("read VMReplicaSet {}", owner.name)))?;
    Ok(set.and_then(|set| settlement_by_set(&set, server, &approvals, now)))
}
