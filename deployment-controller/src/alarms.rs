//! The alarms of a roll-out: when they are looked at, when the roll-out may begin, and what follows from one that fires. Pure.
//!
//! What was seen stands in `status.rollout.alarms` before anything follows from it. Nothing is rolled out on what was seen long ago, or
//! when it could not be seen at all.

use berth_core::{
    api::{AlarmProgress, Alarms, AlreadyFiring, FiredAlarms, Rollout, RolloutProgress},
    digest,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::held::Hold;

/// Reason: an alarm has begun to fire in the roll-out, or one that fires already holds its beginning.
pub(crate) const ALARM_FIRING: &str = "AlarmFiring";

/// Reason: it is not known whether the alarms fire.
const ALARMS_UNKNOWN: &str = "AlarmsUnknown";

/// What is seen is as good as new for so many intervals: a look may be late by the time that a reconcile waits for its turn.
const FRESH_INTERVALS: i32 = 3;

/// What a look at the alarms has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AlarmLook {
    /// Digest of the application whose roll-out it is about.
    pub(crate) app: String,
    /// The record that it was made for.
    pub(crate) of: AlarmProgress,
    /// When it was made.
    pub(crate) at: Timestamp,
    /// What there is to see.
    pub(crate) seen: Seen,
}

/// What there is to see of alarms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Names of those that fire.
    pub(crate) firing: Vec<String>,
    /// Why it is not known of all others that they do not.
    pub(crate) unknown: Option<String>,
}

/// Records that the alarms are looked at from now on. `is_gradual`: the first version and the stable one need no alarms.
pub(crate) fn begin(progress: &mut RolloutProgress, rollout: &Rollout, is_gradual: bool) {
    let Some(declared) = rollout.alarms.as_ref().filter(|_| is_gradual) else {
        progress.alarms = None;
        return;
    };
    if recorded(rollout, progress).is_none() {
        progress.alarms = Some(AlarmProgress {
            attempt: progress.retries,
            digest: digest::short(declared),
            looked_at: None,
            unknown: None,
            cleared_at: None,
            firing: Vec::new(),
            ignored: Vec::new(),
            fired: None,
        });
    }
}

/// The declared alarms with their record, if the record is about them.
pub(crate) fn recorded<'a>(
    rollout: &'a Rollout,
    progress: &'a RolloutProgress,
) -> Option<(&'a Alarms, &'a AlarmProgress)> {
    let (declared, known) = (rollout.alarms.as_ref()?, progress.alarms.as_ref()?);
    let is_it =
        known.attempt == progress.retries && known.digest == digest::short(declared) && progress.aborted.is_none();
    is_it.then_some((declared, known))
}

/// Counts the look, if it was made for what is recorded.
pub(crate) fn count(mut progress: RolloutProgress, rollout: &Rollout, look: Option<&AlarmLook>) -> RolloutProgress {
    let Some(look) = look.filter(|look| look.app == progress.digest) else { return progress };
    if let Some((declared, known)) = recorded(rollout, &progress)
        && *known == look.of
    {
        progress.alarms = Some(counted(declared, known, look));
    }
    progress
}

fn counted(declared: &Alarms, known: &AlarmProgress, look: &AlarmLook) -> AlarmProgress {
    let Seen { firing, unknown } = look.seen.clone();
    // As the API stores it: what is said of a fraction would change when it is read back.
    let at = Time(Timestamp::from_second(look.at.as_second()).unwrap_or(look.at));
    let is_begun = known.cleared_at.is_some();
    let may_begin = unknown.is_none() && (firing.is_empty() || declared.already_firing == AlreadyFiring::Ignore);
    let mut next = AlarmProgress { looked_at: Some(at.clone()), unknown, firing: firing.clone(), ..known.clone() };
    if !is_begun {
        if may_begin {
            (next.cleared_at, next.ignored) = (Some(at), firing);
        }
        return next;
    }
    // One that could not be seen has not ended.
    if next.unknown.is_none() {
        next.ignored.retain(|name| firing.contains(name));
    }
    let begun: Vec<String> = firing.into_iter().filter(|name| !next.ignored.contains(name)).collect();
    if next.fired.is_none() && !begun.is_empty() {
        next.fired = Some(FiredAlarms { names: begun, at });
    }
    next
}

/// Why the roll-out has failed; none if it has not.
pub(crate) fn failure(rollout: &Rollout, progress: &RolloutProgress) -> Option<String> {
    let (declared, known) = recorded(rollout, progress)?;
    let fired = known.fired.as_ref()?;
    Some(format!(
        "{} of MonitoringClass {} began to fire in the roll-out, which was seen at {}",
        named(&fired.names),
        declared.source,
        fired.at.0
    ))
}

/// A person accepts what has fired: what fires still is ignored until it has ended.
pub(crate) fn accept(progress: &mut RolloutProgress) {
    if let Some(known) = &mut progress.alarms
        && known.fired.take().is_some()
    {
        known.ignored.clone_from(&known.firing);
    }
}

/// When they are looked at next; none if they are not.
pub(crate) fn next_look(rollout: &Rollout, progress: &RolloutProgress) -> Option<Timestamp> {
    let (declared, known) = recorded(rollout, progress)?;
    if known.fired.is_some() {
        return None;
    }
    let Some(last) = &known.looked_at else { return Some(Timestamp::MIN) };
    last.0.checked_add(intervals(declared, 1)).ok()
}

/// Why nothing is rolled out because of the alarms; none if they allow it. Without a record nothing was seen. `is_gradual`: the first
/// version and the stable one need no alarms.
pub(crate) fn hold(
    rollout: &Rollout,
    progress: Option<&RolloutProgress>,
    is_gradual: bool,
    now: Timestamp,
) -> Option<Hold> {
    let declared = rollout.alarms.as_ref().filter(|_| is_gradual)?;
    let known = progress.and_then(|progress| recorded(rollout, progress)).map(|(_, known)| known);
    if let Some(failure) = progress.and_then(|progress| failure(rollout, progress)) {
        return Some(Hold::failed(ALARM_FIRING, format!("{failure}; {}", crate::held::UNTIL_A_PERSON)));
    }
    let names = named(&declared.names);
    let looked_at = known.and_then(|known| known.looked_at.as_ref()).map(|at| at.0);
    let Some((known, looked_at)) = known.zip(looked_at) else {
        return Some(Hold::waiting(ALARMS_UNKNOWN, format!("the first look at {names}")));
    };
    let without = "to go on without, remove spec.rollout.alarms";
    if let Some(unknown) = &known.unknown {
        let message = format!("the state of {names} is not known: {unknown}; {without}");
        return Some(Hold::waiting(ALARMS_UNKNOWN, message));
    }
    if known.cleared_at.is_none() {
        let message = format!(
            "{} of MonitoringClass {} to end: a roll-out begins only then \
             (spec.rollout.alarms.alreadyFiring)",
            named(&known.firing),
            declared.source
        );
        return Some(Hold::waiting(ALARM_FIRING, message));
    }
    let is_fresh = looked_at.checked_add(intervals(declared, FRESH_INTERVALS)).is_ok_and(|until| now <= until);
    let late = || format!("a look at {names}: the last one was at {looked_at}");
    (!is_fresh).then(|| Hold::waiting(ALARMS_UNKNOWN, late()))
}

fn intervals(declared: &Alarms, n: i32) -> SignedDuration {
    SignedDuration::from_secs(i64::from(declared.interval_seconds.max(1)) * i64::from(n))
}

fn named(names: &[String]) -> String {
    let plural = if names.len() == 1 { "alarm" } else { "alarms" };
    format!("{plural} {}", names.join(", "))
}

#[cfg(test)]
#[path = "alarms_tests.rs"]
mod tests;
