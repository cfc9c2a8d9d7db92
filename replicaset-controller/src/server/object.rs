//! Writes to a Server's object beside its status: its end, and the request for another attempt.

use berth_core::{
    FINALIZER,
    api::{Request, Server},
    protocol::GuardedPatch,
};
use berth_runtime::{ApiError, Context, written};
use kube::{
    Api,
    api::{DeleteParams, Patch, Preconditions},
};

/// Deletes this very object. Says whether that was done.
pub(super) async fn delete(ctx: &Context, server: &Server) -> Result<bool, ApiError> {
    let preconditions = Some(Preconditions { uid: server.metadata.uid.clone(), resource_version: None });
    let params = DeleteParams { preconditions, ..DeleteParams::default() };
    let result = api(ctx, server).delete(server.name(), &params).await;
    written(result.map_err(ApiError::doing(format!("delete the retired Server {}", server.name()))))
}

/// Removes Berth's finalizer from this very object. Says whether that was done.
pub(super) async fn remove_finalizer(ctx: &Context, server: &Server) -> Result<bool, ApiError> {
    match without_finalizer(server) {
        Some(patch) => write(ctx, server, patch, "remove the finalizer of the retired Server").await,
        None => Ok(true),
    }
}

/// Requests another attempt at failed tasks. Nothing is written to a Server that has changed in the meantime: a person may
/// have requested something. Says whether it was written.
pub(super) async fn request_retry(ctx: &Context, server: &Server, request: &Request) -> Result<bool, ApiError> {
    let patch = GuardedPatch::of_version(&server.metadata).add(&["spec", "retry"], request);
    write(ctx, server, patch, "request another attempt at the failed task of Server").await
}

async fn write(ctx: &Context, server: &Server, patch: GuardedPatch, action: &str) -> Result<bool, ApiError> {
    let patch = Patch::Json::<()>(patch.build());
    let result = api(ctx, server).patch(server.name(), &ctx.patch_params(), &patch).await;
    written(result.map_err(ApiError::doing(format!("{action} {}", server.name()))))
}

fn api(ctx: &Context, server: &Server) -> Api<Server> {
    Api::namespaced(ctx.client.clone(), server.namespace())
}

/// Tests the finalizer at its index: it may have moved in the list.
fn without_finalizer(server: &Server) -> Option<GuardedPatch> {
    let index = server.metadata.finalizers.as_ref()?.iter().position(|f| f == FINALIZER)?.to_string();
    let path = ["metadata", "finalizers", &index];
    Some(GuardedPatch::of(&server.metadata).test(&path, FINALIZER).remove(&path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_berths_finalizer_is_removed_and_only_from_where_it_was_read() {
        let with = |finalizers: [&str; 3]| berth_testing::server(json!({"metadata": {"finalizers": finalizers}}));
        let server = with(["a", FINALIZER, "b"]);
        let patch = without_finalizer(&server).unwrap().build();
        let mut value = serde_json::to_value(&server).unwrap();
        json_patch::patch(&mut value, &patch).unwrap();
        assert_eq!(value["metadata"]["finalizers"], json!(["a", "b"]));
        let mut moved = serde_json::to_value(with([FINALIZER, "a", "b"])).unwrap();
        json_patch::patch(&mut moved, &patch).unwrap_err();
    }
}
