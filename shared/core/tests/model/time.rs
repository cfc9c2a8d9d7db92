//! Time that passes: the stored object stays as it is, and its times are in the past.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use berth_testing::start;

use crate::{
    holder,
    world::{Actor, Snapshot, Version, World},
};

/// Time passes until the lock has expired. Its holder notices no later than the webhook, whichever copy of it judges: that is what
/// the margin for clocks that differ is for. A call of a process that has crashed has reached the provider by then, or never will.
pub(crate) fn expire(world: &mut World) -> Option<()> {
    let holder = holder(world).filter(|_| !world.call)?;
    let mut server = world.server()?.clone();
    server.status.as_mut()?.lock.as_mut()?.renewed_at = Time(Timestamp::UNIX_EPOCH);
    let is_working = |actor: &&mut Actor| actor.holder() == holder && actor.job.is_some();
    if let Some(actor) = world.actors.iter_mut().find(is_working) {
        actor.job.as_mut()?.lock_is_valid = false;
        world.faults.slow = world.faults.slow.checked_sub(1)?;
    }
    not_a_write(world, server);
    Some(())
}

/// Whether a task must wait before it may begin.
pub(crate) fn has_to_wait(world: &World) -> bool {
    world.server().is_some_and(|server| server.tasks().iter().any(|task| task.earliest_begin() > Some(start())))
}

/// Time passes until every task may begin.
pub(crate) fn await_not_before(world: &mut World) -> Option<()> {
    let mut server = world.server()?.clone();
    for time in server.status.as_mut()?.tasks.iter_mut().filter_map(|task| task.not_before.as_mut()) {
        time.0 = Timestamp::UNIX_EPOCH;
    }
    not_a_write(world, server);
    Some(())
}

/// No watch reports it.
fn not_a_write(world: &mut World, server: berth_core::api::Server) {
    let rv = world.rv;
    world.object = Some(Snapshot { version: Version::new(server), rv });
}
