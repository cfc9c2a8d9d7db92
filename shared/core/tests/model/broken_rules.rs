//! Rules of the webhook that are broken on purpose: the shipped rules decide on an object that hides what they must not see.

use berth_core::{
    api::{Server, TaskKind, TrafficPhase},
    lifecycle::RefusalReason,
};
use berth_testing::Denied;

use crate::{
    Mutation,
    apiserver::{self, Write, executor},
};

/// The answer of the broken webhook to a write, to which the shipped one has given this answer.
pub(crate) fn admit(
    mutation: Mutation,
    old: &Server,
    snapshot: &Server,
    write: &Write,
    shipped: Result<Server, Denied>,
) -> Result<Server, Denied> {
    let seeing = |seen: &Server| apiserver::admit(seen, snapshot, write, executor(&write.holder));
    match (mutation, &shipped) {
        (Mutation::SkipGates, _) => {
            let mut seen = old.clone();
            seen.spec.gates.clear();
            seeing(&seen).map(|new| Server { spec: old.spec.clone(), ..new })
        }
        (Mutation::OmitHoldTraffic, shipped)
            if write.traffic.is_none() && shipped.as_ref().map_or(true, plans_to_hold) =>
        {
            let mut seen = old.clone();
            if let Some(fact) = seen.status.as_mut().and_then(|status| status.traffic.as_mut()) {
                fact.phase = TrafficPhase::Held;
            }
            seeing(&seen).map(|new| with_traffic_of(old, new))
        }
        (Mutation::IgnoreNotBefore, Err(Denied::Refused(refusal))) if refusal.reason == RefusalReason::NotOpen => {
            let mut seen = old.clone();
            let tasks = seen.status.iter_mut().flat_map(|status| &mut status.tasks);
            tasks.for_each(|task| task.not_before = None);
            seeing(&seen)
        }
        _ => shipped,
    }
}

fn plans_to_hold(server: &Server) -> bool {
    server.tasks().iter().any(|task| task.kind == TaskKind::HoldTraffic && !task.phase.is_finished())
}

fn with_traffic_of(old: &Server, mut new: Server) -> Server {
    if let (Some(before), Some(status)) = (&old.status, &mut new.status) {
        status.traffic.clone_from(&before.traffic);
    }
    new
}
