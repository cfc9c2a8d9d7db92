//! Tests of the plan: each phase by itself, failover, and random worlds with several copies of the controllers.

mod failover;
mod failover_holds;
mod failover_worlds;
mod fleets;
mod left_over;
mod people;
mod phases;
mod rollouts;
