//! What happens in a run, and when: everything that is decided before it begins.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    Dice, Faults, Program,
    machine_mishaps::MachineMishap,
    mishaps::Mishap,
    people::{Act, Shape},
};

/// How long the world is watched after the last event, while faults still happen.
const AFTERWARDS: Duration = Duration::from_mins(2);

/// The share of runs in which etcd is restored. What people have decided is forgotten then, too, and no judge could tell what is
/// right: so people only do the usual things in them.
const RESTORES: f64 = 0.1;

/// One run, as its seed decides it, or as a shrinker or a person has made it. It is written as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Decides what is left to chance: what happens to each message, jitter, names.
    pub seed: u64,
    /// How many copies there are of each program.
    pub copies: BTreeMap<Program, usize>,
    /// How many Servers are declared at first, of each fleet.
    pub replicas: usize,
    /// The fleets.
    #[serde(default = "one_fleet", skip_serializing_if = "is_usual")]
    pub fleets: Vec<Shape>,
    /// What happens to messages and to calls of the provider.
    #[serde(default)]
    pub faults: Faults,
    /// What people do, and what happens to programs and machines; in the order of time.
    pub events: Vec<Event>,
}

/// Something that happens once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since the fleet was declared.
    pub at_ms: u64,
    /// Which fleet an act is about.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fleet: usize,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Happening {
    /// A person does something.
    Act(Act),
    /// Something goes wrong.
    Mishap(Mishap),
    /// Something goes wrong with a machine or with the provider.
    Machine(MachineMishap),
}

impl Schedule {
    /// The run of this seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let dice = Dice::new(seed);
        let copies = Program::ALL.map(|program| (program, dice.between(1, 2))).into();
        let replicas = dice.between(1, Act::MOST_SERVERS);
        let (faults, mut events) = (Faults::draw(&dice), Vec::new());
        let has_restore = dice.chance(RESTORES);
        let mut fleets: Vec<Shape> = if has_restore {
            one_fleet()
        } else {
            (0..if dice.chance(0.25) { 2 } else { 1 }).map(|_| Shape::draw(&dice)).collect()
        };
        // Not by the dice, so that the rest of each schedule stays as it was before this was possible.
        for shape in &mut fleets {
            shape.stages_ahead = seed.is_multiple_of(2) && !has_restore;
        }
        let subjects = if has_restore { Act::usual_subjects() } else { Act::draw_subjects(&dice) };
        let mut now = Duration::ZERO;
        for number in 1..=dice.between(3, 12) {
            now += dice.duration(Duration::from_millis(100), Duration::from_secs(dice.pick(&[1, 30, 180])));
            let act = Happening::Act(Act::draw(&dice, number, &subjects));
            events.push(Event { fleet: dice.between(0, fleets.len() - 1), ..Event::new(now, act) });
        }
        let mut mishaps = Mishap::draw(&dice, now + AFTERWARDS);
        if has_restore {
            mishaps.extend(Mishap::draw_restore(&dice, now + AFTERWARDS));
        }
        events.extend(mishaps.into_iter().map(|(at, mishap)| Event::new(at, Happening::Mishap(mishap))));
        let mishaps = MachineMishap::draw(&dice, now + AFTERWARDS);
        events.extend(mishaps.into_iter().map(|(at, mishap)| Event::new(at, Happening::Machine(mishap))));
        events.sort_by_key(|event| event.at_ms);
        Self { seed, copies, replicas, fleets, faults, events }
    }

    /// When the faults end, since the fleet was declared.
    pub(crate) fn end_of_faults(&self) -> Duration {
        self.events.last().map_or(Duration::ZERO, Event::at) + AFTERWARDS
    }
}

/// The fleet of a schedule that names none.
fn one_fleet() -> Vec<Shape> {
    vec![Shape::default()]
}

fn is_usual(fleets: &Vec<Shape>) -> bool {
    *fleets == one_fleet()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Event {
    fn new(at: Duration, what: Happening) -> Self {
        Self { at_ms: at.as_millis().try_into().unwrap_or(u64::MAX), fleet: 0, what }
    }

    pub(crate) fn at(&self) -> Duration {
        Duration::from_millis(self.at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_read_as_it_was_written() {
        for seed in 0..200 {
            let schedule = Schedule::draw(seed);
            let text = serde_json::to_string(&schedule).unwrap();
            assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule, "{text}");
            assert!(schedule.events.is_sorted_by_key(|event| event.at_ms), "{schedule:?}");
        }
    }
}
