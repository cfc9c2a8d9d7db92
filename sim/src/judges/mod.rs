//! What must hold in the world, whatever Berth believes: judged on the machines that exist, on what runs on them, on what a
//! client of the load balancer would see, and on what people have written.
//!
//! The [court](court::Court) sees each change of an object as it happens, and each change of a machine. It asks one judge after the other.

mod budget;
pub(crate) mod court;
mod decisions;
mod end;
mod failover;
mod fleet;
mod gates;
mod lock;
mod machines;
mod new_code;
mod orphans;
mod said;
pub(crate) mod scene;
mod steps;
mod stuck;
mod tasks;
#[cfg(test)]
mod tests;
mod view;
mod zones;

pub(crate) use self::{
    fleet::{asks_for_a_person, is_held, unexplained, unfinished},
    orphans::{has_orphans, machines_without_server},
};
