//! Guarantee 4: a machine is changed only by the copy that holds the Server's lock.

use std::time::Duration;

use super::{
    scene::Work,
    view::{text, time},
};

/// How much later than the lock's end a change may be seen.
const SLACK: Duration = Duration::from_secs(2);
/// How far the clock of a controller may be ahead or behind here. Nobody else gets the lock in the minute after its end.
const CLOCKS: Duration = Duration::from_secs(30);

/// Says why a change of a machine was not covered by a lock.
pub(super) fn work_without_lock(work: &Work<'_>) -> Option<String> {
    let Work { place, holder, .. } = work;
    let server = work.view.get("servers", place).filter(|server| text(server, "/metadata/uid") == work.uid);
    let Some(server) = server else { return Some(format!("{holder} changed the machine of {place}, which is gone")) };
    let lock = &server["status"]["lock"];
    let held_by = text(lock, "/holder");
    if held_by.is_empty() {
        return Some(format!("{holder} changed the machine of {place} without its lock"));
    }
    if held_by != *holder {
        return Some(format!("{holder} changed the machine of {place}, whose lock {held_by} holds"));
    }
    let duration = Duration::from_secs(lock["durationSeconds"].as_u64().unwrap_or_default());
    // What the lock says depends on the clock of a copy of the webhook. A renewal leaves what another copy wrote if that is later.
    let renewed = work.view.renewed_at(place)?.max(time(lock, "/renewedAt")?);
    // Who was handed a lock begins in the first half of its time, by its own clock, and works for its time at most before it renews it.
    // So does who did not hear that its claim was accepted, and finds the lock later.
    let is_new = lock["acquiredAt"] == lock["renewedAt"];
    let later = if work.view.is_handed_over(place) || is_new { duration / 2 + CLOCKS } else { Duration::ZERO };
    let end = renewed + later + duration + SLACK;
    let is_over = work.clock.elapsed() > end;
    is_over.then(|| format!("{holder} changed the machine of {place} after its lock had ended"))
}
