//! What goes wrong with programs and machines, once and at a certain moment.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::{Dice, Program, ProgramCopy, World, link::Link};

/// Something that goes wrong. Numbers choose among what there is at that moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mishap {
    /// A copy ends in the middle of what it does, and another one is started.
    CopyCrashes {
        /// Which copy.
        copy: usize,
    },
    /// Nothing reaches a copy or leaves it for a while. Then it goes on with its old knowledge.
    CopyHangs {
        /// Which copy.
        copy: usize,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// A copy and the API server do not reach each other for a while. The copy reaches everything else.
    CopyIsParted {
        /// Which copy.
        copy: usize,
        /// How long, in milliseconds.
        for_ms: u64,
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
const KINDS: [Kind; 5] = [
    (&[20, 60, 300], |dice| Mishap::CopyCrashes { copy: dice.between(0, 99) }),
    (&[60, 300], |dice| Mishap::CopyHangs { copy: dice.between(0, 99), for_ms: some_time(dice) }),
    (&[60, 300], |dice| Mishap::CopyIsParted { copy: dice.between(0, 99), for_ms: some_time(dice) }),
    (&[120, 600], |dice| Mishap::MachineCrashes { machine: dice.between(0, 99) }),
    (&[60, 300], |dice| Mishap::SightChanges { copy: dice.between(0, 99), is_blind: dice.chance(0.5) }),
];

/// How long something lasts, in milliseconds: shorter and longer than what Berth waits for, which is 10 s for the API server, 30 s
/// for a Lease, and 90 s for a lock that is not renewed.
fn some_time(dice: &Dice) -> u64 {
    let longest = Duration::from_secs(dice.pick(&[10, 45, 120, 300]));
    dice.duration(Duration::from_secs(1), longest).as_millis().try_into().unwrap_or_default()
}

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

/// Does this after so many milliseconds.
fn after(ms: u64, act: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        sleep(Duration::from_millis(ms)).await;
        act();
    });
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
            Mishap::CopyHangs { copy, for_ms } => {
                let (program, link) = self.link(copy);
                world.note(format!("{program:?} hangs for {for_ms} ms"));
                link.set_hanging(true);
                after(for_ms, move || link.set_hanging(false));
            }
            Mishap::CopyIsParted { copy, for_ms } => {
                let (program, link) = self.link(copy);
                world.note(format!("{program:?} does not reach the API server for {for_ms} ms"));
                link.set_parted(true);
                after(for_ms, move || link.set_parted(false));
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
        self.copies.iter().for_each(|(_, copy)| copy.recover());
    }

    fn link(&self, copy: usize) -> (Program, Link) {
        let (program, copy) = &self.copies[copy % self.copies.len()];
        (*program, copy.link().clone())
    }

    fn copies_of(&self, wanted: Program) -> impl Iterator<Item = &ProgramCopy> {
        self.copies.iter().filter(move |(program, _)| *program == wanted).map(|(_, copy)| copy)
    }
}
