//! What must hold: the guarantees of the design.

use std::collections::HashMap;

use berth_core::api::{Server, State, TaskKind, TrafficPhase};
use stateright::{Model, Property};

use crate::{Berth, apiserver::is_settled, fingerprint, machine_actors::declared, world::World};

/// Names of the properties; they begin with the number of the guarantee.
pub(crate) const GUARANTEES: [&str; 6] = [
    "1: never two machines, and none without its Server",
    "2: traffic only while Ready and past the gate, or kept by the panic floor, and never while the machine is changed",
    "4: a task is carried out under the lock by its executor, and counted once",
    "5: the object goes last",
    "6: a person's decision is not undone",
    "8: the Server comes to rest, and is then as declared",
];

pub(crate) fn properties() -> Vec<Property<Berth>> {
    fn holds(world: &World, guarantee: u8) -> bool {
        world.violation.is_none_or(|violation| violation.guarantee != guarantee)
    }
    vec![
        Property::always(GUARANTEES[0], |_, world| {
            holds(world, 1) && world.machines.len() <= 1 && (world.object.is_some() || world.machines.is_empty())
        }),
        Property::always(GUARANTEES[1], |_, world| holds(world, 2)),
        Property::always(GUARANTEES[2], |_, world| holds(world, 4)),
        Property::always(GUARANTEES[3], |_, world| holds(world, 5)),
        Property::always(GUARANTEES[4], |_, world| holds(world, 6)),
        Property::always(GUARANTEES[5], |model: &Berth, world: &World| {
            world.server().is_none_or(|server| server.status.is_none() || is_bounded(server))
                && (world.violation.is_some() || !model.is_at_rest(world) || is_as_declared(model, world))
        }),
    ]
}

/// Faults are bounded, so the number of tasks and attempts must be, too.
fn is_bounded(server: &Server) -> bool {
    let Some(status) = &server.status else { return true };
    status.last_task_id.unwrap_or(0) < 80 && status.tasks.iter().all(|task| task.attempts < 20)
}

/// Whether a Server at rest is as declared, or waits for a person.
fn is_as_declared(model: &Berth, world: &World) -> bool {
    let Some(server) = world.server() else {
        return world.machines.is_empty() && world.endpoint.is_none();
    };
    let Some(status) = &server.status else { return false };
    let unreachable = world.machines.iter().any(|machine| !machine.alive);
    // A process that works on an unreachable machine keeps its lock.
    if crate::holder(world).is_some() && !unreachable || !is_settled(server) {
        return false;
    }
    let nobody_does = |executor| !model.processes.contains(&executor);
    if status.current_tasks().any(|task| server.is_open(task) && nobody_does(task.executor())) {
        return true;
    }
    let waits_for_a_person = !server.blocking_failures().is_empty()
        || status.current_tasks().any(|t| t.kind == TaskKind::Gate && server.is_open(t));
    if waits_for_a_person {
        return true;
    }
    if server.spec.offline || server.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let state = status.state;
    if let Some(force) = server.spec.force.as_ref().filter(|_| status.force.as_ref().is_some_and(|f| f.active)) {
        return state == Some(force.state);
    }
    if unreachable || server.spec.retain.is_some() {
        let may_serve = world.floor && server.spec.retain.is_none();
        return state == Some(State::Unknown) && (may_serve || !serves(world)) && world.machines.len() == 1;
    }
    if world.unhealthy {
        return state == Some(State::Deploying) && (world.floor || !serves(world));
    }
    let (package, code) = declared(server);
    state == Some(State::Ready)
        && world.machines.len() == 1
        && (world.machines[0].package, world.machines[0].code) == (package, code)
        && serves(world)
        && status.monitoring.is_some()
        && status.current_tasks().all(|task| task.phase.is_finished())
}

fn serves(world: &World) -> bool {
    world.endpoint.as_ref().is_some_and(|endpoint| endpoint.phase == TrafficPhase::Serving)
}

/// Returns the number of states if no path leads back to an earlier state: then every path ends, and the properties say where.
/// Otherwise returns a state on a cycle.
pub(crate) fn count_if_acyclic(model: &Berth) -> Result<usize, Box<World>> {
    #[derive(PartialEq)]
    enum Mark {
        OnPath,
        Done,
    }
    let mut marks = HashMap::new();
    let mut path: Vec<(u64, Vec<World>)> = Vec::new();
    let init = model.init_states().remove(0);
    marks.insert(fingerprint(&init), Mark::OnPath);
    path.push((fingerprint(&init), model.next_states(&init)));
    while let Some((here, next)) = path.last_mut() {
        let Some(world) = next.pop() else {
            marks.insert(*here, Mark::Done);
            path.pop();
            continue;
        };
        let print = fingerprint(&world);
        match marks.get(&print) {
            Some(Mark::OnPath) => return Err(Box::new(world)),
            Some(Mark::Done) => {}
            None => {
                marks.insert(print, Mark::OnPath);
                path.push((print, model.next_states(&world)));
            }
        }
    }
    Ok(marks.len())
}
