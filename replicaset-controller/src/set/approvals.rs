//! What a set says about the approvals that its Servers wait for.

use std::collections::BTreeMap;

use berth_core::{
    api::{Executor, GatePoint, Server, VMReplicaSet},
    lifecycle::open_tasks,
};

use super::members;

/// How many of the Servers wait for an approval, and how one Approval is given for as many of them as it can be.
pub(super) fn waiting(set: &VMReplicaSet, servers: &[&Server]) -> Option<String> {
    let mut groups: BTreeMap<(GatePoint, i64), usize> = BTreeMap::new();
    let mut alone = 0;
    for server in servers {
        for gate in open_tasks(server, Executor::Person).filter_map(|task| task.gate) {
            match members::generation_of_gate(set, server, gate) {
                Some(generation) => *groups.entry((gate, generation)).or_default() += 1,
                None => alone += 1,
            }
        }
    }
    let total: usize = groups.values().sum::<usize>() + alone;
    let Some(((gate, generation), count)) = groups.into_iter().max_by_key(|(_, count)| *count) else {
        return (alone > 0).then(|| format!("{} an approval each", wait(alone)));
    };
    let set = set.metadata.name.as_deref().unwrap_or_default();
    let others = total - count;
    let more = if others > 0 { format!(" ({others} more wait at other gates)") } else { String::new() };
    Some(format!(
        "{} an approval of {gate}: create an Approval with target: {{kind: VMReplicaSet, name: {set}, generation: \
         {generation}}} and gate: {gate}{more}",
        wait(count)
    ))
}

fn wait(count: usize) -> String {
    if count == 1 { "1 Server waits for".to_owned() } else { format!("{count} Servers wait for") }
}
