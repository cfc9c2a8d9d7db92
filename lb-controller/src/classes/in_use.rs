//! A class that is in use stays until its load balancer has nothing of Berth's any more.
//!
//! The mark is a finalizer, as for MachineClasses: the copy in charge sets it before the first change, and removes it from a class that is to
//! be deleted once no Server names the class and no process shows an entry. Until then the class is followed as ever, so that Servers can
//! leave it.

use std::sync::Arc;

use berth_core::{
    CLASS_FINALIZER,
    api::{BalancerClass, Server},
    protocol::GuardedPatch,
};
use berth_runtime::{ApiError, Context, written};
use kube::{Api, api::Patch};

use super::view::View;

/// Whether the class has the mark.
pub(super) fn is_marked(class: &BalancerClass) -> bool {
    class.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == CLASS_FINALIZER)
}

/// Whether its deletion was requested.
pub(super) fn is_being_deleted(class: &BalancerClass) -> bool {
    class.metadata.deletion_timestamp.is_some()
}

/// Why a class that is to be deleted stays; none if it may go. `servers` are those that name it. Processes that come and ask need not
/// do so: they have been told of each removal.
pub(super) fn stays(servers: &[Arc<Server>], view: &View, are_asked: bool) -> Option<String> {
    if let Some(first) = servers.iter().min_by_key(|server| (server.namespace(), server.name())) {
        let (count, namespace, name) = (servers.len(), first.namespace(), first.name());
        return Some(format!(
            "it is to be deleted, and {count} Servers use it, such as {namespace}/{name}: retire them, or name another backend \
             in spec.traffic.backends"
        ));
    }
    if !are_asked && view.processes.is_empty() {
        return Some("it is to be deleted, and its processes were not read yet".to_owned());
    }
    let failed = view.counted().find_map(|(name, process)| Some((name, &process.failed.as_ref()?.0)));
    if let Some((name, why)) = failed.filter(|_| !are_asked) {
        return Some(format!(
            "it is to be deleted, and {name} may still have entries, because it does not answer: {why}"
        ));
    }
    let left = view.servers().len();
    (left > 0).then(|| format!("it is to be deleted, and entries of {left} Servers are being removed"))
}

/// Marks the class, or removes the mark. Says whether it did: not if the class has changed.
pub(super) async fn mark(ctx: &Context, class: &BalancerClass, is_in_use: bool) -> Result<bool, ApiError> {
    let mut finalizers = class.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != CLASS_FINALIZER);
    if is_in_use {
        finalizers.push(CLASS_FINALIZER.to_owned());
    }
    let patch = GuardedPatch::of_version(&class.metadata).add(&["metadata", "finalizers"], &finalizers);
    let (api, name): (Api<BalancerClass>, _) = (Api::all(ctx.client.clone()), class.name());
    let result = api.patch(name, &ctx.patch_params(), &Patch::Json::<()>(patch.build())).await;
    let action = if is_in_use { "mark" } else { "release" };
    written(result.map_err(ApiError::doing(format!("{action} BalancerClass {name}"))))
}

#[cfg(test)]
mod tests {
    use berth_core::api::{TrafficPhase, UnreachablePolicy, WhenUnreachable};
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::classes::driver::{Entry, EntryKey, Shown, ShownEntry};

    fn view(process: Result<Shown, String>) -> View {
        let mut view = View::default();
        view.record("10.0.0.7:9443", process, Timestamp::UNIX_EPOCH);
        view
    }

    fn with_entry() -> Shown {
        let entry = Entry { address: "10.0.0.1".into(), port: 80, weight: 100, phase: TrafficPhase::Held };
        let key = EntryKey { backend: "web".into(), name: "berth:shop:web-0:uid:digest".into() };
        Shown {
            backends: ["web".to_owned()].into(),
            entries: [(key, ShownEntry { entry, requests: Some(0) })].into(),
            ..Shown::default()
        }
    }

    #[test]
    fn a_class_stays_while_servers_name_it_or_entries_may_be_left() {
        let server = Arc::new(berth_testing::server(json!({"metadata": {"namespace": "shop"}})));
        let says = |servers: &[Arc<Server>], view: &View, words: &str| {
            let why = stays(servers, view, false).unwrap_or_default();
            assert!(why.contains(words), "{why}");
        };
        says(&[server], &view(Ok(Shown::default())), "1 Servers use it, such as shop/web-0: retire them");
        says(&[], &View::default(), "were not read yet");
        says(
            &[],
            &view(Err("timed out".into())),
            "10.0.0.7:9443 may still have entries, because it does not answer: timed out",
        );
        says(&[], &view(Ok(with_entry())), "entries of 1 Servers are being removed");
        assert_eq!(stays(&[], &view(Ok(Shown::default())), false), None);
    }

    #[test]
    fn a_process_that_may_be_ignored_holds_up_nothing() {
        let mut gone = view(Err("timed out".into()));
        let policy = UnreachablePolicy { after_seconds: 30, then: WhenUnreachable::Proceed };
        gone.ignore(policy, Timestamp::from_second(30).unwrap());
        assert_eq!(stays(&[], &gone, false), None);
        assert_eq!(stays(&[], &View::default(), true), None, "no proxy asks any more");
    }
}
