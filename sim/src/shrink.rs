//! Makes the schedule of a run that went wrong as short as it can, so that a person sees what matters.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Faults, Judge, Schedule, Shape, play};

/// Looks for a shorter run in which the same judge finds something, for so long.
///
/// It tries runs without one kind of fault, with one copy of each program, with fewer Servers, and without some events: first half
/// of them, in the end single ones ("Simplifying and isolating failure-inducing input", Zeller and Hildebrandt, 2002). Each try is a whole run.
#[must_use]
pub fn shrink(schedule: &Schedule, judge: Judge, limit: Duration) -> Schedule {
    let begun = Instant::now();
    shrink_with(schedule, |tried| {
        (begun.elapsed() < limit).then(|| play(tried).finding.is_some_and(|finding| finding.judge == judge))
    })
}

/// The shortest schedule that `fails`, as far as it is found before `fails` returns none.
fn shrink_with(schedule: &Schedule, fails: impl Fn(&Schedule) -> Option<bool>) -> Schedule {
    let mut shortest = schedule.clone();
    loop {
        let before = shortest.clone();
        for pass in [without_events, without_faults, with_fewer_copies, with_simpler_fleets] {
            if pass(&mut shortest, &fails).is_none() {
                return shortest;
            }
        }
        if shortest == before {
            return shortest;
        }
    }
}

/// Takes this one if it fails.
fn attempt(shortest: &mut Schedule, tried: Schedule, fails: &impl Fn(&Schedule) -> Option<bool>) -> Option<bool> {
    let is_shorter = fails(&tried)?;
    if is_shorter {
        *shortest = tried;
    }
    Some(is_shorter)
}

fn without_events(shortest: &mut Schedule, fails: &impl Fn(&Schedule) -> Option<bool>) -> Option<()> {
    let mut size = shortest.events.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        while from < shortest.events.len() {
            let mut tried = shortest.clone();
            tried.events.drain(from..(from + size).min(shortest.events.len()));
            if !attempt(shortest, tried, fails)? {
                from += size;
            }
        }
        size /= 2;
    }
    Some(())
}

fn without_faults(shortest: &mut Schedule, fails: &impl Fn(&Schedule) -> Option<bool>) -> Option<()> {
    let harmless = serde_json::to_value(Faults::default()).unwrap_or_default();
    for path in rates(&harmless) {
        let mut faults = serde_json::to_value(&shortest.faults).unwrap_or_default();
        let (Some(rate), Some(none)) = (faults.pointer_mut(&path), harmless.pointer(&path)) else { continue };
        if rate == none {
            continue;
        }
        *rate = none.clone();
        let Ok(faults) = serde_json::from_value(faults) else { continue };
        attempt(shortest, Schedule { faults, ..shortest.clone() }, fails)?;
    }
    Some(())
}

/// The JSON Pointers of everything that may happen more or less often.
fn rates(faults: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    for (name, rate) in faults.as_object().into_iter().flatten() {
        match rate.as_object() {
            // Durations are objects, too.
            Some(inner) if !inner.contains_key("secs") => {
                paths.extend(inner.keys().map(|inner| format!("/{name}/{inner}")));
            }
            _ => paths.push(format!("/{name}")),
        }
    }
    paths
}

fn with_fewer_copies(shortest: &mut Schedule, fails: &impl Fn(&Schedule) -> Option<bool>) -> Option<()> {
    for program in shortest.copies.clone().into_keys() {
        let mut tried = shortest.clone();
        if tried.copies.insert(program, 1) != Some(1) {
            attempt(shortest, tried, fails)?;
        }
    }
    for replicas in 1..shortest.replicas {
        if attempt(shortest, Schedule { replicas, ..shortest.clone() }, fails)? {
            break;
        }
    }
    Some(())
}

fn with_simpler_fleets(shortest: &mut Schedule, fails: &impl Fn(&Schedule) -> Option<bool>) -> Option<()> {
    for number in (0..shortest.fleets.len()).rev() {
        if shortest.fleets.len() > 1 {
            let mut tried = shortest.clone();
            tried.fleets.remove(number);
            if attempt(shortest, tried, fails)? {
                continue;
            }
        }
        let mut tried = shortest.clone();
        if tried.fleets[number] != Shape::default() {
            tried.fleets[number] = Shape::default();
            attempt(shortest, tried, fails)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{mishaps::Mishap, people::Act, schedule::Happening};

    fn crashes(schedule: &Schedule) -> bool {
        schedule.events.iter().any(|event| matches!(event.what, Happening::Mishap(Mishap::CopyCrashes { .. })))
    }

    fn scales(schedule: &Schedule) -> bool {
        schedule.events.iter().any(|event| matches!(event.what, Happening::Act(Act::Scale { .. })))
    }

    fn long() -> Schedule {
        (0..1_000)
            .map(Schedule::draw)
            .find(|drawn| crashes(drawn) && scales(drawn) && drawn.faults.refusals > 0.0)
            .unwrap()
    }

    #[test]
    fn what_does_not_matter_is_left_out() {
        let schedule = long();
        let shortest =
            shrink_with(&schedule, |tried| Some(crashes(tried) && scales(tried) && tried.faults.refusals > 0.0));
        assert_eq!(shortest.events.len(), 2, "{shortest:?}");
        assert!(crashes(&shortest) && scales(&shortest), "{shortest:?}");
        assert_eq!(shortest.faults, Faults { refusals: schedule.faults.refusals, ..Faults::default() });
        assert!(shortest.copies.values().all(|copies| *copies == 1), "{shortest:?}");
        assert_eq!(shortest.replicas, 1);
        assert_eq!(shortest.fleets, [Shape::default()]);
        assert_eq!(shortest.seed, schedule.seed);
    }

    #[test]
    fn when_time_is_over_the_best_so_far_is_kept() {
        let (schedule, left) = (long(), Cell::new(3));
        let shortest = shrink_with(&schedule, |tried| {
            left.set(left.get() - 1);
            (left.get() > 0).then(|| crashes(tried))
        });
        assert!(crashes(&shortest), "{shortest:?}");
        assert!(shortest.events.len() <= schedule.events.len());
        assert_eq!(left.get(), 0);
    }
}
