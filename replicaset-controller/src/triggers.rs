//! Which objects are reconciled because another object has changed.

use std::sync::Arc;

use berth_core::api::{Approval, MachineClass, Server, TargetKind, VMReplicaSet};
use berth_runtime::{Cache, Cached, ServerIndex};
use futures::{Stream, StreamExt as _, stream};
use kube::runtime::reflector::{ObjectRef, Store};

use crate::set::zone_index::ZoneIndex;

/// The Servers whose MachineClass has changed.
pub(crate) fn servers_of_class(
    classes: &Cache<MachineClass>,
    servers: Store<Server>,
) -> impl Stream<Item = ObjectRef<Server>> + Send + use<> {
    objects_of_class(classes, servers, |server| &server.spec.machine.class_name)
}

/// The sets whose MachineClass has changed.
pub(crate) fn sets_of_class(
    classes: &Cache<MachineClass>,
    sets: Store<VMReplicaSet>,
) -> impl Stream<Item = ObjectRef<VMReplicaSet>> + Send + use<> {
    objects_of_class(classes, sets, |set| &set.spec.template.spec.machine.class_name)
}

fn objects_of_class<K: Cached>(
    classes: &Cache<MachineClass>,
    store: Store<K>,
    class_of: fn(&K) -> &str,
) -> impl Stream<Item = ObjectRef<K>> + Send + use<K> {
    classes.changes().flat_map(move |change| {
        let class = change.object().name();
        let objects = store.state();
        let of_class = objects.iter().filter(|object| class_of(object) == class);
        stream::iter(of_class.map(|object| ObjectRef::from_obj(&**object)).collect::<Vec<_>>())
    })
}

/// The Servers that a changed Approval is about: one Server, or all Servers of a set.
pub(crate) fn servers_of_approval(
    approvals: &Cache<Approval>,
    servers: Store<Server>,
) -> impl Stream<Item = ObjectRef<Server>> + Send + use<> {
    approvals.changes().flat_map(move |change| {
        let approval = change.object();
        let (target, namespace) = (&approval.spec.target, approval.namespace());
        let is_of_set = |server: &Server| {
            server.namespace() == namespace && server.owner().is_some_and(|owner| owner.name == target.name)
        };
        let keys = match target.kind {
            TargetKind::Server => vec![ObjectRef::new(&target.name).within(namespace)],
            TargetKind::VMReplicaSet => {
                let servers = servers.state();
                servers.iter().filter(|server| is_of_set(server)).map(|server| ObjectRef::from_obj(&**server)).collect()
            }
        };
        stream::iter(keys)
    })
}

/// The sets that changed Servers belong to, and those whose failover is held, or no longer held, because of the change. Keeps
/// both indexes up to date.
pub(crate) fn sets_of_servers(
    servers: &Cache<Server>,
    index: Arc<ServerIndex>,
    zones: Arc<ZoneIndex>,
) -> impl Stream<Item = ObjectRef<VMReplicaSet>> + Send + use<> {
    servers.changes().flat_map(move |change| {
        let concerned = zones.follow(&change);
        stream::iter(index.follow(&change).into_iter().chain(concerned))
    })
}
