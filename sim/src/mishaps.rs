//! What goes wrong with programs and machines, once and at a certain moment.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Dice, Program, ProgramCopy, World};

/// Something that goes wrong. Numbers choose among what there is at that moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mishap {
    /// A copy ends in the middle of what it does, and another one is started.
    CopyCrashes {
        /// Which copy.
        copy: usize,
    },
    /// A machine ends, and its provider says so.
    MachineCrashes {
        /// Which machine.
        machine: usize,
    },
    /// A copy of monitor-controller loses its way to all machines, or gets it back.
    SightChanges {
        /// Which copy of monitor-controller.
        copy: usize,
        /// Whether it sees none.
        is_blind: bool,
    },
}

/// One of the kinds of mishaps, drawn by what and how often.
type Kind = (&'static [u64], fn(&Dice) -> Mishap);

/// The mean times between mishaps, in seconds, of which a run has one of each kind, or none.
const KINDS: [Kind; 3] = [
    (&[20, 60, 300], |dice| Mishap::CopyCrashes { copy: dice.between(0, 99) }),
    (&[120, 600], |dice| Mishap::MachineCrashes { machine: dice.between(0, 99) }),
    (&[60, 300], |dice| Mishap::SightChanges { copy: dice.between(0, 99), is_blind: dice.chance(0.5) }),
];

impl Mishap {
    /// Draws which mishaps there are until `end`, and when. A run draws which kinds exist at all.
    pub(crate) fn draw(dice: &Dice, end: Duration) -> Vec<(Duration, Self)> {
        let mut mishaps = Vec::new();
        for (intervals, mishap) in KINDS {
            if dice.chance(0.5) {
                continue;
            }
            let mean = Duration::from_secs(dice.pick(intervals));
            let mut at = dice.duration(Duration::ZERO, mean * 2);
            while at < end {
                mishaps.push((at, mishap(dice)));
                at += dice.duration(Duration::ZERO, mean * 2);
            }
        }
        mishaps
    }
}

/// The copies that run.
pub(crate) struct Cast {
    copies: Vec<(Program, ProgramCopy)>,
    /// How many copies were started, which numbers them.
    started: usize,
}

impl Cast {
    pub(crate) fn new() -> Self {
        Self { copies: Vec::new(), started: 0 }
    }

    pub(crate) fn start(&mut self, world: &World, program: Program) -> Result<(), String> {
        self.started += 1;
        let copy = world.start(program, &format!("copy-{}", self.started));
        self.copies.push((program, copy.map_err(|error| format!("{program:?} does not start: {error}"))?));
        Ok(())
    }

    /// Lets this happen.
    pub(crate) fn befall(&mut self, world: &World, mishap: &Mishap) -> Result<(), String> {
        match *mishap {
            Mishap::CopyCrashes { copy } => {
                let (program, copy) = self.copies.remove(copy % self.copies.len());
                world.note(format!("{program:?} crashes"));
                copy.crash();
                self.start(world, program)?;
            }
            Mishap::MachineCrashes { machine } => {
                let machines = world.simulation.owners();
                if !machines.is_empty() {
                    let uid = &machines[machine % machines.len()];
                    world.note(format!("the machine of {uid} crashes"));
                    world.simulation.crash(uid);
                }
            }
            Mishap::SightChanges { copy, is_blind } => {
                let monitors: Vec<_> = self.copies_of(Program::MonitorController).collect();
                world.note(format!("a copy of monitor-controller {}", if is_blind { "is blind" } else { "sees" }));
                monitors[copy % monitors.len()].set_blind(is_blind);
            }
        }
        Ok(())
    }

    /// Ends what lasts.
    pub(crate) fn recover(&self) {
        self.copies.iter().for_each(|(_, copy)| copy.set_blind(false));
    }

    fn copies_of(&self, wanted: Program) -> impl Iterator<Item = &ProgramCopy> {
        self.copies.iter().filter(move |(program, _)| *program == wanted).map(|(_, copy)| copy)
    }
}
