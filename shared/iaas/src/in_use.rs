//! Marks a MachineClass before machines are made of it.
//!
//! The mark is a finalizer: a class that has it stays as long as Servers name it, and its place cannot be changed. It is never
//! removed from a class that is not being deleted, and cannot be added to one that is. So a Server that exists when the API server
//! shows the class marked and not being deleted is found by everybody who looks for its Servers after the deletion was requested.

use berth_core::{CLASS_FINALIZER, api::MachineClass, protocol::GuardedPatch};
use berth_runtime::{ApiError, Context, written};
use kube::{Api, api::Patch};

use crate::unusable::UnusableClass;

/// How often the class may change while it is being marked, before the caller has to wait.
const TRIES: u32 = 3;

/// The class as the API server has it, marked.
///
/// # Errors
/// When it is gone or is being deleted, or the API server does not answer.
pub(crate) async fn mark(ctx: &Context, name: &str) -> Result<MachineClass, UnusableClass> {
    let api: Api<MachineClass> = Api::all(ctx.client.clone());
    for _ in 0..TRIES {
        let read = api.get_opt(name).await.map_err(ApiError::doing(format!("read MachineClass {name}")));
        let class = read.map_err(|error| unread(&error))?.ok_or_else(|| UnusableClass::not_found(name))?;
        if class.is_in_use() || class.is_being_deleted() {
            return Ok(class);
        }
        add(ctx, &class).await.map_err(|error| unread(&error))?;
    }
    let message = format!("MachineClass {name} changes too often to be marked as in use");
    Err(UnusableClass { reason: "ProviderUnavailable", message, is_temporary: true })
}

/// Marks this version of the class. Says whether it did.
///
/// # Errors
/// When the API server does not answer, or refuses.
pub async fn add(ctx: &Context, class: &MachineClass) -> Result<bool, ApiError> {
    let mut finalizers = class.metadata.finalizers.clone().unwrap_or_default();
    finalizers.push(CLASS_FINALIZER.to_owned());
    let patch = GuardedPatch::of_version(&class.metadata).add(&["metadata", "finalizers"], &finalizers);
    write(ctx, class, patch, "mark").await
}

/// Removes the mark from this version of the class. Says whether it did.
///
/// # Errors
/// When the API server does not answer, or refuses.
pub async fn remove(ctx: &Context, class: &MachineClass) -> Result<bool, ApiError> {
    let mut finalizers = class.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != CLASS_FINALIZER);
    let patch = GuardedPatch::of_version(&class.metadata).add(&["metadata", "finalizers"], &finalizers);
    write(ctx, class, patch, "release").await
}

async fn write(ctx: &Context, class: &MachineClass, patch: GuardedPatch, action: &str) -> Result<bool, ApiError> {
    let (api, name): (Api<MachineClass>, _) = (Api::all(ctx.client.clone()), class.name());
    let result = api.patch(name, &ctx.patch_params(), &Patch::Json::<()>(patch.build())).await;
    written(result.map_err(ApiError::doing(format!("{action} MachineClass {name}"))))
}

fn unread(error: &ApiError) -> UnusableClass {
    UnusableClass { reason: "ProviderUnavailable", message: error.to_string(), is_temporary: true }
}
