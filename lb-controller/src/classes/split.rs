//! The weights of Servers while a roll-out splits the traffic between versions. Pure.
//!
//! deployment-controller writes the share once for each step; the weights follow from it and from who receives traffic, and are computed
//! anew with each look. No Server is written for that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use berth_core::{
    api::{RolloutProgress, Server, TrafficPhase, VMDeployment, VMReplicaSet},
    object::controlling_owner,
    traffic_split::{Sides, load_factor},
};
use k8s_openapi::jiff::Timestamp;

use super::{driver::EntryKey, view::entries_of};
use crate::{member::ServerRef, plan, subsets::Subsets};

/// The Servers of a backend that belong to one VMDeployment, on both sides.
#[derive(Default)]
struct Group {
    updated: BTreeSet<EntryKey>,
    stable: BTreeSet<EntryKey>,
}

/// The weights of entries whose VMDeployment splits the traffic, instead of those that their Servers declare. `find` gives the
/// VMDeployment of a namespace and name. In a backend for a subset all run the same version, so that nothing is split.
pub(super) fn weights(
    class: &str,
    servers: &[Arc<Server>],
    subsets: &Subsets,
    find: impl Fn(&str, &str) -> Option<Arc<VMDeployment>>,
    now: Timestamp,
) -> BTreeMap<EntryKey, u16> {
    let mut groups: BTreeMap<(String, String, String), Group> = BTreeMap::new();
    for server in servers {
        let Some((name, progress)) = split_of(server, &find) else { continue };
        let Some(desired) = plan::desired(server, now, subsets.of(server)) else { continue };
        if desired.phase != TrafficPhase::Serving {
            continue;
        }
        let entries = entries_of(class, &ServerRef::of(server), Some(&desired));
        for key in entries.into_keys().filter(|key| desired.subset_of(class, &key.backend).is_none()) {
            let of = (server.namespace().to_owned(), name.clone(), key.backend.clone());
            let group = groups.entry(of).or_default();
            if is_updated(server, &progress) {
                group.updated.insert(key)
            } else {
                group.stable.insert(key)
            };
        }
    }
    let weights = groups.into_iter().flat_map(|((namespace, name, _), group)| {
        let deployment = find(&namespace, &name);
        deployment.and_then(|deployment| weights_of(&deployment, group)).unwrap_or_default()
    });
    weights.collect()
}

/// The name and the roll-out of the Server's VMDeployment, if that splits the traffic. The set of a VMDeployment has its name.
fn split_of(
    server: &Server,
    find: impl Fn(&str, &str) -> Option<Arc<VMDeployment>>,
) -> Option<(String, RolloutProgress)> {
    let name = &controlling_owner::<VMReplicaSet>(&server.metadata)?.name;
    let deployment = find(server.namespace(), name)?;
    let progress = deployment.status.as_ref()?.rollout.clone()?;
    progress.weight.is_some().then(|| (name.clone(), progress))
}

/// Whether the Server declares the application that is being rolled out.
fn is_updated(server: &Server, progress: &RolloutProgress) -> bool {
    server.spec.app.as_ref().is_some_and(|app| progress.is_about(app))
}

fn weights_of(deployment: &VMDeployment, Group { updated, stable }: Group) -> Option<BTreeMap<EntryKey, u16>> {
    let percent = deployment.status.as_ref()?.rollout.as_ref()?.weight?;
    let size = |side: &BTreeSet<EntryKey>| u32::try_from(side.len()).unwrap_or(u32::MAX);
    let sides = Sides { updated: size(&updated), stable: size(&stable) };
    let share = sides.share(percent, load_factor(deployment.spec.rollout.max_load_factor.as_deref()))?;
    let (new, old) = sides.weights(share);
    let weights = updated.into_iter().map(|key| (key, new)).chain(stable.into_iter().map(|key| (key, old)));
    Some(weights.collect())
}

#[cfg(test)]
mod tests {
    use berth_core::digest;
    use serde_json::{Value, json};

    use super::*;
    use crate::subsets::Belongs;

    fn server(n: usize, revision: &str, phase: &str) -> Arc<Server> {
        let backends = json!([{"class": "edge", "name": "web", "port": 80}]);
        let app = json!({"name": "web", "revision": revision, "command": "./run", "artifact": {"url": "http://a/b", "sha256": "a".repeat(64)}});
        let owner = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "name": "web", "uid": "s", "controller": true});
        Arc::new(berth_testing::server(json!({
            "metadata": {"name": format!("web-{n}"), "uid": format!("uid-{n}"), "ownerReferences": [owner]},
            "spec": {"app": app, "traffic": {"backends": backends}},
            "status": {"state": "Ready", "traffic": {"phase": phase, "backends": backends, "address": format!("10.0.0.{n}")}},
        })))
    }

    fn deployment(weight: &Value) -> Arc<VMDeployment> {
        let digest = digest::short(server(0, "v2", "Held").spec.app.as_ref().unwrap());
        let status = json!({"rollout": {"digest": digest, "healthyReplicas": 1, "weight": weight}});
        let value = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "VMDeployment", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"machine": {"className": "c"}}},
                     "app": server(0, "v2", "Held").spec.app}, "status": status});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn split(servers: &[Arc<Server>], weight: &Value) -> Vec<u16> {
        let deployment = deployment(weight);
        let find = |_: &str, name: &str| (name == "web").then(|| Arc::clone(&deployment));
        let weights = weights("edge", servers, &Subsets::default(), find, Timestamp::UNIX_EPOCH);
        let of = |server: &Arc<Server>| {
            let desired = plan::desired(server, Timestamp::UNIX_EPOCH, Belongs::BOTH);
            let entries = entries_of("edge", &ServerRef::of(server), desired.as_ref());
            entries.keys().next().and_then(|key| weights.get(key).copied()).unwrap_or(999)
        };
        servers.iter().map(of).collect()
    }

    #[test]
    fn the_share_is_the_declared_one_whoever_serves() {
        let mut servers = vec![server(1, "v1", "Serving"), server(2, "v1", "Serving"), server(3, "v2", "Serving")];
        let [old, same, new] = split(&servers, &json!(10)).try_into().unwrap();
        assert_eq!(old, same);
        let share = f64::from(new) / f64::from(new + 2 * old);
        assert!((share - 0.1).abs() < 0.005, "{share}");
        servers.push(server(4, "v1", "Held"));
        assert_eq!(split(&servers, &json!(10)), [old, old, new, 999], "who gets no traffic does not count");
        assert_eq!(split(&servers, &json!(0)), [100, 100, 0, 999]);
        assert_eq!(split(&servers, &Value::Null), [999; 4], "no split");
        assert_eq!(split(&servers[2..3], &json!(10)), [999], "nobody else is there");
    }
}
