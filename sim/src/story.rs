//! One run: people change a fleet while things go wrong; then nothing goes wrong any more, and everything has to end well.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    Finding, Judge, Program, Schedule, World,
    coverage::Coverage,
    judges::{asks_for_a_person, has_orphans, is_held, machines_without_server, unexplained, unfinished},
    machine_mishaps::recover,
    mishaps::{Cast, Mishap},
    people::People,
    schedule::Happening,
};

/// The most that a fleet may take to become as declared once nothing goes wrong: retries are five minutes apart at most, and
/// a Server may wait for several.
const PATIENCE: Duration = Duration::from_hours(1);
/// How long what is on its way may take to arrive: Events take some seconds, and an entry of drift stays in the ledger for two minutes
/// after its repair was asked for.
const SETTLING: Duration = Duration::from_mins(5);
/// How long a world at rest is watched.
const REST: Duration = Duration::from_mins(2);
/// How often people look for gates at which they are waited for.
const AGREE: Duration = Duration::from_secs(30);
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
    /// What was tried.
    pub coverage: Coverage,
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
        if let Some(finding) = &finding {
            world.note(format!("{finding}; what is stored then:"));
            world.api.note_stored(&["vmdeployments", "vmreplicasets", "servers", "endpointslices"]);
        }
        Outcome {
            finding,
            log: world.api.log(),
            elapsed: world.clock.elapsed(),
            coverage: world.faults.coverage.clone(),
        }
    })
}

async fn tell(schedule: &Schedule, world: &World) -> Result<(), Finding> {
    let (ann, bob) = (world.person("ann"), world.person("bob"));
    let (mut people, mut cast) = (People::new(ann, bob, &schedule.fleets, schedule.replicas), Cast::new());
    for (&program, &copies) in &schedule.copies {
        for _ in 0..copies {
            cast.start(world, program).map_err(story)?;
        }
    }
    people.declare().await.map_err(|error| story(format!("the fleet is refused: {error}")))?;
    troubled_times(schedule, world, &mut people, &mut cast).await?;
    world.note("nothing goes wrong from now on");
    world.end_faults();
    cast.recover(world);
    recover(world);
    if is_held(world, people.fleets()) {
        is_as_decided(world, &people).await?;
        let words = people.give_way().await.map_err(|error| story(format!("people cannot give way: {error}")))?;
        world.note(format!("a person {words}"));
    }
    ends_well(world, &mut people).await?;
    rests(world, schedule).await?;
    people.remove().await.map_err(|error| story(format!("the fleet cannot be removed: {error}")))?;
    ends_well(world, &mut people).await?;
    judge(world)
}

/// People act, and things go wrong.
async fn troubled_times(
    schedule: &Schedule,
    world: &World,
    people: &mut People,
    cast: &mut Cast,
) -> Result<(), Finding> {
    let begun = Instant::now();
    for event in &schedule.events {
        sleep_until(begun + event.at()).await;
        judge(world)?;
        world.faults.coverage.count(kind(&event.what), &world.api);
        match &event.what {
            Happening::Act(act) => {
                let done = people.act(event.fleet, act).await?;
                world.note(format!("a person {done}"));
            }
            Happening::Mishap(mishap) => {
                cast.befall(world, mishap).map_err(story)?;
                if matches!(mishap, Mishap::EtcdIsRestored { .. }) {
                    let again = people.declare_again().await;
                    again.map_err(|error| story(format!("declaring again is refused: {error}")))?;
                }
            }
            Happening::Machine(mishap) => mishap.befall(world),
        }
    }
    sleep_until(begun + schedule.end_of_faults()).await;
    judge(world)
}

/// Waits until each fleet is as declared, or kept from that by a decision of a person, which it names.
async fn is_as_decided(world: &World, people: &People) -> Result<(), Finding> {
    let settled = async {
        while unexplained(world, people.fleets()).is_some() {
            sleep(LOOK).await;
        }
    };
    if timeout(PATIENCE / 2, settled).await.is_ok() {
        return judge(world);
    }
    judge(world)?;
    let stuck = unexplained(world, people.fleets()).unwrap_or_default();
    let minutes = PATIENCE.as_secs() / 120;
    Err(Finding::new(
        Judge::Liveness,
        format!("{minutes} min after the last fault, beside a person's decision: {stuck}"),
    ))
}

/// Waits until the fleets are as declared, while people agree at gates. If it needs more of a person, the fleets have to say so, and
/// a person helps once.
async fn ends_well(world: &World, people: &mut People) -> Result<(), Finding> {
    for attempt in 0..2 {
        if timeout(PATIENCE / 2, finished(world, people)).await.is_ok_and(|finished| finished.is_ok()) {
            return judge(world);
        }
        judge(world)?;
        if attempt == 0 {
            if !asks_for_a_person(world) {
                break;
            }
            let help = people.repair().await.map_err(|error| story(format!("a repair is refused: {error}")))?;
            world.note(format!("a person {help}"));
        }
    }
    let stuck = unfinished(world, people.fleets()).unwrap_or_default();
    Err(Finding::new(Judge::Liveness, format!("{} min after the last fault: {stuck}", PATIENCE.as_secs() / 60)))
}

async fn finished(world: &World, people: &mut People) -> kube::Result<()> {
    let mut agree_at = Instant::now();
    while unfinished(world, people.fleets()).is_some() {
        if Instant::now() >= agree_at {
            agree_at = Instant::now() + AGREE;
            let words = people.agree().await?;
            if !words.is_empty() {
                world.note(format!("a person {words}"));
            }
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// What an event is called in statistics.
fn kind(happening: &Happening) -> &'static str {
    match happening {
        Happening::Act(_) => "act of a person",
        Happening::Mishap(mishap) => mishap.kind(),
        Happening::Machine(mishap) => mishap.kind(),
    }
}

fn story(text: String) -> Finding {
    Finding::new(Judge::Story, text)
}

/// What must hold at any time.
fn judge(world: &World) -> Result<(), Finding> {
    let finding = world
        .finding()
        .or_else(|| machines_without_server(world))
        .or_else(|| world.court.silent())
        .or_else(|| world.future_fields.lost(&world.api));
    finding.map_or(Ok(()), Err)
}

/// A fleet at rest writes nothing. Of orphans each copy that looks for them tells.
async fn rests(world: &World, schedule: &Schedule) -> Result<(), Finding> {
    sleep(SETTLING).await;
    let before = world.api.writes();
    sleep(REST).await;
    let written = world.api.writes() - before;
    let copies = schedule.copies.get(&Program::ReplicasetController).copied().unwrap_or_default();
    let tellers = if has_orphans(world) { u64::try_from(copies).unwrap_or(u64::MAX) } else { 0 };
    if written <= tellers {
        return Ok(());
    }
    Err(Finding::new(Judge::Rest, format!("{written} writes in {} s of rest", REST.as_secs())))
}
