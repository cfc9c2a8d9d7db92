//! Writes to a Server's object beside its status: its end, and requests.

use berth_core::{
    FINALIZER,
    api::{Request, Server},
};
use berth_runtime::{CallError as Error, Context, written};
use json_patch::{
    AddOperation, Patch as JsonPatch, PatchOperation, RemoveOperation, TestOperation, jsonptr::PointerBuf,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};

/// Deletes this very object.
pub(super) async fn delete(ctx: &Context, server: &Server) -> Result<(), Error> {
    let preconditions = Some(Preconditions { uid: server.uid(), resource_version: None });
    let params = DeleteParams { preconditions, ..DeleteParams::default() };
    let result = api(ctx, server).delete(&server.name_any(), &params).await;
    written(result.map_err(Error::call("delete the retired Server"))).map(drop)
}

/// Removes Berth's finalizer from this very object, wherever in the list it stands.
pub(super) async fn release(ctx: &Context, server: &Server) -> Result<(), Error> {
    let Some(patch) = release_patch(server) else { return Ok(()) };
    let params = PatchParams { field_manager: Some(ctx.executor.name().to_owned()), ..PatchParams::default() };
    let result = api(ctx, server).patch(&server.name_any(), &params, &Patch::Json::<()>(patch)).await;
    written(result.map_err(Error::call("remove the finalizer of the retired Server"))).map(drop)
}

/// Asks for another try of what has failed. It is not written to a Server that has changed in the meantime: perhaps a
/// person has asked for something.
pub(super) async fn retry(ctx: &Context, server: &Server, request: &Request) -> Result<(), Error> {
    let at = |tokens: [&'static str; 2]| PointerBuf::from_tokens(tokens);
    let (metadata, value) = (&server.metadata, serde_json::to_value(request).unwrap_or_default());
    let patch = JsonPatch(vec![
        PatchOperation::Test(TestOperation { path: at(["metadata", "uid"]), value: metadata.uid.clone().into() }),
        PatchOperation::Test(TestOperation {
            path: at(["metadata", "resourceVersion"]),
            value: metadata.resource_version.clone().into(),
        }),
        PatchOperation::Add(AddOperation { path: at(["spec", "retry"]), value }),
    ]);
    let params = PatchParams { field_manager: Some(ctx.executor.name().to_owned()), ..PatchParams::default() };
    let result = api(ctx, server).patch(&server.name_any(), &params, &Patch::Json::<()>(patch)).await;
    written(result.map_err(Error::call("ask for another try of the Server's failed task"))).map(drop)
}

fn api(ctx: &Context, server: &Server) -> Api<Server> {
    Api::namespaced(ctx.client.clone(), &server.namespace().unwrap_or_default())
}

fn release_patch(server: &Server) -> Option<JsonPatch> {
    let index = server.metadata.finalizers.as_ref()?.iter().position(|f| f == FINALIZER)?;
    let path = || PointerBuf::from_tokens(["metadata".to_owned(), "finalizers".to_owned(), index.to_string()]);
    Some(JsonPatch(vec![
        PatchOperation::Test(TestOperation {
            path: PointerBuf::from_tokens(["metadata", "uid"]),
            value: server.metadata.uid.clone().into(),
        }),
        PatchOperation::Test(TestOperation { path: path(), value: FINALIZER.into() }),
        PatchOperation::Remove(RemoveOperation { path: path() }),
    ]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_berths_finalizer_goes_and_only_from_where_it_was_seen() {
        let with = |finalizers: serde_json::Value| {
            json!({
                "apiVersion": "berth.dev/v1alpha1", "kind": "Server",
                "metadata": {"name": "s", "uid": "u", "finalizers": finalizers},
                "spec": {"machine": {"className": "local"}},
            })
        };
        let mut value = with(json!(["a", FINALIZER, "b"]));
        let server: Server = serde_json::from_value(value.clone()).unwrap();
        let patch = release_patch(&server).unwrap();
        json_patch::patch(&mut value, &patch).unwrap();
        assert_eq!(value["metadata"]["finalizers"], json!(["a", "b"]));
        let mut moved = with(json!([FINALIZER, "a"]));
        json_patch::patch(&mut moved, &patch).unwrap_err();
    }
}
