//! The approvals that a set's Servers wait for.

use std::collections::BTreeMap;

use berth_core::api::{Executor, GatePoint, Server, VMReplicaSet};

/// How many Servers wait for an approval, and how to give one Approval for as many of them as possible.
pub(super) fn waiting(set: &VMReplicaSet, servers: &[&Server]) -> Option<String> {
    let mut groups: BTreeMap<(GatePoint, i64), usize> = BTreeMap::new();
    let mut single = 0;
    for server in servers {
        for gate in server.open_tasks(Executor::Person).filter_map(|task| task.gate) {
            match set.generation_of_gate(server, gate) {
                Some(generation) => *groups.entry((gate, generation)).or_default() += 1,
                None => single += 1,
            }
        }
    }
    let extent = |gate| if gate == GatePoint::DestroyMachine { ", servers: [their names] or maxServers" } else { "" };
    let total: usize = groups.values().sum::<usize>() + single;
    let Some(((gate, generation), count)) = groups.into_iter().max_by_key(|(_, count)| *count) else {
        return (single > 0).then(|| format!("{} an approval each", servers_wait_for(single)));
    };
    let others = total - count;
    let more = if others > 0 { format!(" ({others} more wait at other gates)") } else { String::new() };
    Some(format!(
        "{} an approval of {gate}: create an Approval with target: {{kind: VMReplicaSet, name: {}, generation: \
         {generation}}} and gate: {gate}{}{more}",
        servers_wait_for(count),
        set.name(),
        extent(gate)
    ))
}

fn servers_wait_for(count: usize) -> String {
    if count == 1 { "1 Server waits for".to_owned() } else { format!("{count} Servers wait for") }
}
