//! Stories of roll-outs: the shipped programs, people and mishaps in the simulated world, and what a reader sees of it.
//!
//! Each story is told in a fixed order, and has to be as in `logs/`. Then it is told in drawn orders, with two copies of each program and
//! a crash, and has to come to the same end. The judges watch all the time.
#![cfg(test)]

mod chronicle;
mod going_back;
mod going_out;
mod golden;
mod mishaps;
mod stage;
