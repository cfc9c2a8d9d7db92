//! The identity of this cluster at providers that several clusters may share.

use berth_runtime::{ApiError, Backoff, Context};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

/// It is as old as the cluster, and nobody can delete it.
const NAMESPACE: &str = "kube-system";

/// Attempts that may be answered with something else than the UID: the rights may have been installed a moment ago.
const MOST_ANSWERS: u32 = 8;

/// The identity of this cluster: the name that a person gave it, otherwise the UID of its namespace `kube-system`, which no other
/// cluster has. Waits until the API server answers; none at shutdown.
///
/// # Errors
/// When the API server answers, but does not tell it, as without the right to read the namespace.
pub async fn identity(ctx: &Context, name: Option<&str>) -> Result<Option<String>, ApiError> {
    if let Some(name) = name {
        return Ok(Some(name.to_owned()));
    }
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let mut failures = 0_u32;
    loop {
        let read = tokio::select! {
            biased;
            read = api.get(NAMESPACE) => read.map_err(ApiError::doing(format!("read the UID of Namespace {NAMESPACE}"))),
            () = ctx.shutdown.cancelled() => return Ok(None),
        };
        match read {
            Ok(namespace) => return Ok(namespace.metadata.uid),
            Err(error) if !error.is_unavailable() && failures >= MOST_ANSWERS => return Err(error),
            Err(error) => tracing::warn!(%error, "the identity of the cluster is not known yet"),
        }
        failures = failures.saturating_add(1);
        tokio::time::sleep(Backoff::RECONCILE.delay(failures)).await;
    }
}
