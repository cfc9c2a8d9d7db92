//! How many more Servers there may be of a class with `maxMachines`.

use berth_core::api::{MachineClass, Server, VMReplicaSet};
use berth_runtime::Cache;

use crate::{server::TOO_MANY_MACHINES, set::machines::NoMachines};

/// Namespaces in a message: enough to begin with, few enough to read.
const NAMES: usize = 5;

/// Counts the Servers of classes, by the cache. Two sets may see the same room at once: the Servers that are too many get no
/// machine then.
#[derive(Clone)]
pub struct ClassRooms {
    classes: Cache<MachineClass>,
    servers: Cache<Server>,
}

impl ClassRooms {
    /// For the classes and Servers in these caches.
    #[must_use]
    pub fn new(classes: &Cache<MachineClass>, servers: &Cache<Server>) -> Self {
        Self { classes: classes.clone(), servers: servers.clone() }
    }

    /// Why the set must not create as many Servers as it wants to; none if it may.
    #[must_use]
    pub fn lack(&self, set: &VMReplicaSet, wanted: usize) -> Option<NoMachines> {
        let class = self.classes.get(None, &set.spec.template.spec.machine.class_name)?;
        let max = class.max_machines()?;
        let servers = self.servers.store().state();
        let counting: Vec<&Server> = servers.iter().map(AsRef::as_ref).filter(|server| class.counts(server)).collect();
        let room = max.saturating_sub(counting.len());
        (wanted > room).then(|| NoMachines {
            reason: TOO_MANY_MACHINES,
            message: message(&class, max, &counting),
            is_temporary: false,
            room,
        })
    }
}

fn message(class: &MachineClass, max: usize, counting: &[&Server]) -> String {
    let mut namespaces = std::collections::BTreeMap::<&str, usize>::new();
    for server in counting {
        *namespaces.entry(server.namespace()).or_default() += 1;
    }
    let mut largest: Vec<(&str, usize)> = namespaces.into_iter().collect();
    largest.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    let more = if largest.len() > NAMES { ", ..." } else { "" };
    let shares: Vec<String> = largest.iter().take(NAMES).map(|(name, count)| format!("{name} {count}")).collect();
    format!(
        "MachineClass {}: spec.maxMachines is {max}, and there are {} Servers of it (by namespace: {}{more}): raise it, or \
         retire some of these; the set goes on by itself",
        class.name(),
        counting.len(),
        if shares.is_empty() { "none".to_owned() } else { shares.join(", ") },
    )
}
