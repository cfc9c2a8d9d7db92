//! One run: people change a fleet while things go wrong; then nothing goes wrong any more, and everything has to end well.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    Finding, Judge, Schedule, World,
    judges::{asks_for_a_person, machines_without_server, unfinished},
    mishaps::Cast,
    people::Person,
    schedule::Happening,
};

/// The most that a fleet may take to become as declared once nothing goes wrong: retries are five minutes apart at most, and
/// a Server may wait for several.
const PATIENCE: Duration = Duration::from_hours(1);
/// How long a world at rest is watched.
const REST: Duration = Duration::from_mins(2);
/// How often a wait looks again.
const LOOK: Duration = Duration::from_secs(1);

/// What became of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What was wrong; none when everything held.
    pub finding: Option<Finding>,
    /// What happened, in order: what people did, what crashed, and each request to the API server.
    pub log: Vec<String>,
    /// How long it took, in the time of the world.
    pub elapsed: Duration,
}

/// Plays this run.
///
/// # Panics
/// When one of Berth's programs panics.
#[must_use]
pub fn play(schedule: &Schedule) -> Outcome {
    World::run(schedule.seed, schedule.faults.clone(), |world| async move {
        world.note(format!("seed {}: {:?}", schedule.seed, schedule.faults));
        let finding = tell(schedule, &world).await.err();
        Outcome { finding, log: world.api.log(), elapsed: world.clock.elapsed() }
    })
}

async fn tell(schedule: &Schedule, world: &World) -> Result<(), Finding> {
    let (mut person, mut cast) = (Person::new(world.person("ann"), schedule.replicas), Cast::new());
    for (&program, &copies) in &schedule.copies {
        for _ in 0..copies {
            cast.start(world, program).map_err(story)?;
        }
    }
    person.declare(&schedule.faults).await.map_err(|error| story(format!("the fleet is refused: {error}")))?;
    troubled_times(schedule, world, &mut person, &mut cast).await?;
    world.note("nothing goes wrong from now on");
    world.end_faults();
    cast.recover();
    ends_well(world, &mut person).await?;
    rests(world).await?;
    person.remove().await.map_err(|error| story(format!("the fleet cannot be removed: {error}")))?;
    ends_well(world, &mut person).await?;
    judge(world)
}

/// People act, and things go wrong.
async fn troubled_times(
    schedule: &Schedule,
    world: &World,
    person: &mut Person,
    cast: &mut Cast,
) -> Result<(), Finding> {
    let begun = Instant::now();
    for event in &schedule.events {
        sleep_until(begun + event.at()).await;
        judge(world)?;
        match &event.what {
            Happening::Act(act) => {
                let done = person.act(act).await.map_err(|error| story(format!("{act:?} is refused: {error}")))?;
                world.note(format!("a person {done}"));
            }
            Happening::Mishap(mishap) => cast.befall(world, mishap).map_err(story)?,
        }
    }
    sleep_until(begun + schedule.end_of_faults()).await;
    judge(world)
}

/// Waits until the fleet is as declared. If that needs a person, the fleet has to say so, and a person helps once.
async fn ends_well(world: &World, person: &mut Person) -> Result<(), Finding> {
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
            let help = person.repair().await.map_err(|error| story(format!("a repair is refused: {error}")))?;
            world.note(format!("a person {help}"));
        }
    }
    let stuck = unfinished(world, person.wanted()).unwrap_or_default();
    Err(Finding::new(Judge::Liveness, format!("{} min after the last fault: {stuck}", PATIENCE.as_secs() / 60)))
}

fn story(text: String) -> Finding {
    Finding::new(Judge::Story, text)
}

/// What must hold at any time.
fn judge(world: &World) -> Result<(), Finding> {
    let finding = world.finding().or_else(|| machines_without_server(world)).or_else(|| world.court.silent());
    finding.map_or(Ok(()), Err)
}

/// A fleet at rest writes nothing.
async fn rests(world: &World) -> Result<(), Finding> {
    // What is on its way may arrive: Events are written within some seconds.
    sleep(REST).await;
    let before = world.api.writes();
    sleep(REST).await;
    let written = world.api.writes() - before;
    if written == 0 {
        return Ok(());
    }
    Err(Finding::new(Judge::Rest, format!("{written} writes in {} s of rest", REST.as_secs())))
}
