//! One run: people change a fleet while things go wrong; then nothing goes wrong any more, and everything has to end well.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    Dice, Faults, Program, ProgramCopy, World,
    judges::{asks_for_a_person, machines_without_server, unfinished},
    people::Person,
};

/// The most that a fleet may take to become as declared once nothing goes wrong: retries are five minutes apart at most, and
/// a Server may wait for several.
const PATIENCE: Duration = Duration::from_hours(1);
/// How long a world at rest is watched.
const REST: Duration = Duration::from_mins(2);
/// How often a wait looks again.
const LOOK: Duration = Duration::from_secs(1);

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The seed that repeats it.
    pub seed: u64,
    /// What was wrong; none when everything held.
    pub finding: Option<String>,
    /// What happened, in order: what people did, what crashed, and each request to the API server.
    pub log: Vec<String>,
    /// How long it took, in the time of the world.
    pub elapsed: Duration,
}

/// Plays the run of this seed.
///
/// # Panics
/// When one of Berth's programs panics.
#[must_use]
pub fn play(seed: u64) -> Outcome {
    let dice = Dice::new(seed);
    let faults = Faults::draw(&dice);
    World::run(seed, faults.clone(), move |world| async move {
        world.note(format!("seed {seed}: {faults:?}"));
        let story = Story { copies: Vec::new(), names: 0, dice, faults };
        let finding = story.tell(&world).await.err();
        Outcome { seed, finding, log: world.api.log(), elapsed: world.clock.elapsed() }
    })
}

struct Story {
    copies: Vec<(Program, ProgramCopy)>,
    /// How many copies were started, which numbers them.
    names: usize,
    dice: Dice,
    faults: Faults,
}

impl Story {
    async fn tell(mut self, world: &World) -> Result<(), String> {
        let mut person = Person::new(world.person("ann"), &self.dice);
        for program in Program::ALL {
            for _ in 0..self.dice.between(1, 2) {
                self.start(world, program)?;
            }
        }
        person.declare(&self.faults).await.map_err(|error| format!("the fleet is refused: {error}"))?;
        self.troubled_times(world, &mut person).await?;
        world.note("nothing goes wrong from now on");
        world.end_faults();
        self.copies.iter().for_each(|(_, copy)| copy.set_blind(false));
        self.ends_well(world, &mut person).await?;
        rests(world).await?;
        person.remove().await.map_err(|error| format!("the fleet cannot be removed: {error}"))?;
        self.ends_well(world, &mut person).await?;
        judge(world)
    }

    /// People act, and copies crash.
    async fn troubled_times(&mut self, world: &World, person: &mut Person) -> Result<(), String> {
        for _ in 0..self.dice.between(3, 12) {
            let pause =
                self.dice.duration(Duration::from_millis(100), Duration::from_secs(self.dice.pick(&[1, 30, 180])));
            self.wait(world, pause).await?;
            let act = person.act().await.map_err(|error| format!("a person is refused: {error}"))?;
            world.note(format!("a person {act}"));
        }
        self.wait(world, Duration::from_mins(2)).await
    }

    /// Lets time pass, in which copies and machines crash, and monitors become blind.
    async fn wait(&mut self, world: &World, duration: Duration) -> Result<(), String> {
        let end = Instant::now() + duration;
        loop {
            let Faults { crash_interval, machine_crash_interval, blindness, .. } = self.faults;
            let until = |mean: Duration| {
                (!mean.is_zero()).then(|| Instant::now() + self.dice.duration(Duration::ZERO, mean * 2))
            };
            let next = [until(crash_interval), until(machine_crash_interval), until(blindness)];
            let at = next.iter().flatten().min().copied().unwrap_or(end).min(end);
            sleep_until(at).await;
            judge(world)?;
            if at == end {
                return Ok(());
            }
            match next.iter().position(|next| *next == Some(at)) {
                Some(0) => self.crash_one(world)?,
                Some(1) => self.crash_machine(world),
                _ => self.change_sight(world),
            }
        }
    }

    fn crash_machine(&self, world: &World) {
        let machines = world.simulation.owners();
        if !machines.is_empty() {
            let uid = &machines[self.dice.between(0, machines.len() - 1)];
            world.note(format!("the machine of {uid} crashes"));
            world.simulation.crash(uid);
        }
    }

    /// A copy of monitor-controller loses its sight, or gets it back.
    fn change_sight(&self, world: &World) {
        let is_blind = self.dice.chance(0.5);
        if let Some((_, copy)) = self.copies.iter().find(|(program, _)| *program == Program::MonitorController) {
            world.note(format!("a copy of monitor-controller {}", if is_blind { "is blind" } else { "sees" }));
            copy.set_blind(is_blind);
        }
    }

    fn crash_one(&mut self, world: &World) -> Result<(), String> {
        let (program, copy) = self.copies.remove(self.dice.between(0, self.copies.len() - 1));
        world.note(format!("{program:?} crashes"));
        copy.crash();
        self.start(world, program)
    }

    fn start(&mut self, world: &World, program: Program) -> Result<(), String> {
        self.names += 1;
        let copy = world.start(program, &format!("copy-{}", self.names));
        self.copies.push((program, copy.map_err(|error| format!("{program:?} does not start: {error}"))?));
        Ok(())
    }

    /// Waits until the fleet is as declared. If that needs a person, the fleet has to say so, and a person helps once.
    async fn ends_well(&self, world: &World, person: &mut Person) -> Result<(), String> {
        for attempt in 0..2 {
            let wanted = person.wanted().clone();
            let finished = async {
                while unfinished(world, &wanted).is_some() {
                    sleep(LOOK).await;
                }
            };
            if timeout(PATIENCE / 2, finished).await.is_ok() {
                return judge(world);
            }
            if attempt == 0 {
                if !asks_for_a_person(world) {
                    break;
                }
                let help = person.repair().await.map_err(|error| format!("a repair is refused: {error}"))?;
                world.note(format!("a person {help}"));
            }
        }
        let stuck = unfinished(world, person.wanted()).unwrap_or_default();
        Err(format!("{} min after the last fault: {stuck}", PATIENCE.as_secs() / 60))
    }
}

/// What must hold at any time.
fn judge(world: &World) -> Result<(), String> {
    let finding = world.findings.first().or_else(|| machines_without_server(world));
    finding.map_or(Ok(()), Err)
}

/// A fleet at rest writes nothing.
async fn rests(world: &World) -> Result<(), String> {
    // What is on its way may arrive: Events are written within some seconds.
    sleep(REST).await;
    let before = world.api.writes();
    sleep(REST).await;
    let written = world.api.writes() - before;
    if written == 0 { Ok(()) } else { Err(format!("{written} writes in {} s of rest", REST.as_secs())) }
}
