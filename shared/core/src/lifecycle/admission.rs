//! Admission: the one door through which every write goes.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};

use super::{
    claim, facts, force, guard,
    refusal::{Refusal, RefusalReason},
    report,
    settle::settle,
    summary,
    tasks::blocking_failures,
    trust,
};
use crate::{
    FINALIZER,
    api::{Approval, Approver, Executor, Request, Server, ServerSpec, TaskKind},
    identity::{Author, Identities},
};

/// With this annotation (its value says why) a person gives a Server up: its finalizer may go although traffic,
/// monitoring or a machine are left, and somebody else has to clear those away.
pub const ABANDON_ANNOTATION: &str = "berth.dev/abandon";

/// A Server's creation: adds the finalizer and stamps a person's wishes.
pub fn admit_create(mut new: Server, author: &Author, now: Timestamp) -> Result<Server, Refusal> {
    let finalizers = new.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    stamp(None, &mut new.spec, author, now);
    Ok(new)
}

/// A write to a Server's declaration or metadata: stamps a person's wishes and guards the finalizer.
pub fn admit_update(
    old: &Server,
    mut new: Server,
    author: &Author,
    ids: &Identities,
    now: Timestamp,
) -> Result<Server, Refusal> {
    check_person(old, &new.spec, author, ids)?;
    check_finalizer(old, &new)?;
    stamp(Some(&old.spec), &mut new.spec, author, now);
    Ok(new)
}

/// A write to a Server's status: the protocol between the webhook and the controllers, see `docs/protocol.md`.
pub fn admit_status(
    old: &Server,
    mut new: Server,
    author: &Author,
    ids: &Identities,
    now: Timestamp,
) -> Result<Server, Refusal> {
    let now = whole_seconds(now);
    let executor = ids.executor(author);
    let before = facts::status(old);
    let status = new.status.get_or_insert_default();
    let (claim, report) = (status.claim.take(), status.report.take());
    guard::check(before, status, executor)?;
    guard::check_facts(&new, before)?;
    let proof = match report {
        Some(report) => {
            let executor = guard::executor_of(executor, "status.report")?;
            report::carry_out(&mut new, &report, executor, now)?
        }
        None => trust::Proof::default(),
    };
    trust::review(before, new.status.get_or_insert_default(), proof);
    settle(&mut new, &author.username, now);
    if let Some(claim) = claim {
        let executor = guard::executor_of(executor, "status.claim")?;
        claim::carry_out(&mut new, &claim, executor, now)?;
    }
    summary::summarise(&mut new, now);
    Ok(new)
}

/// An Approval's creation: who and when, whatever was written there.
#[must_use]
pub fn admit_approval(mut new: Approval, author: &Author, now: Timestamp) -> Approval {
    new.spec.approver = Some(Approver { username: author.username.clone(), at: Time(whole_seconds(now)) });
    new
}

/// The API stores whole seconds: deciding with more would differ from deciding on what was stored.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// What only a person changes. replicaset-controller may ask for another try when a cause was repaired elsewhere, but not
/// after a person said no.
fn check_person(before: &Server, new: &ServerSpec, author: &Author, ids: &Identities) -> Result<(), Refusal> {
    let Some(executor) = ids.executor(author) else { return Ok(()) };
    let old = &before.spec;
    let may_retry = executor == Executor::ReplicasetController && !was_refused(before);
    let touched = [
        ("spec.force", old.force != new.force),
        ("spec.retry", old.retry != new.retry && !may_retry),
        ("spec.offline", old.offline && !new.offline),
    ];
    match touched.into_iter().find(|(_, changed)| *changed) {
        Some((field, _)) => {
            let message = format!("only a person changes this, not {executor}");
            Err(Refusal::new(RefusalReason::NotAPerson, field, message))
        }
        None => Ok(()),
    }
}

fn was_refused(server: &Server) -> bool {
    blocking_failures(server).iter().any(|failed| failed.kind == TaskKind::Gate)
}

/// Whether Berth's finalizer is taken away although nobody has given the Server up.
#[must_use]
pub fn loses_finalizer(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    let has = |metadata: &ObjectMeta| metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
    let abandoned = new.annotations.iter().flatten().any(|(key, why)| key == ABANDON_ANNOTATION && !why.is_empty());
    has(old) && !has(new) && !abandoned
}

fn check_finalizer(old: &Server, new: &Server) -> Result<(), Refusal> {
    if !loses_finalizer(&old.metadata, &new.metadata) {
        return Ok(());
    }
    let left = facts::leftovers(old);
    if left.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalReason::CleanupIncomplete,
        "metadata.finalizers",
        format!(
            "{FINALIZER} stays until nothing is left of the Server; there is still: {}. To give it up all the same, say why in the annotation {ABANDON_ANNOTATION}",
            left.join(", ")
        ),
    ))
}

/// Stamps force and requests with who and when. What a person wrote once keeps its stamp when it is written again.
fn stamp(old: Option<&ServerSpec>, spec: &mut ServerSpec, author: &Author, now: Timestamp) {
    let (who, when) = (Some(author.username.clone()), Some(Time(whole_seconds(now))));
    let declaration = spec.force.is_some().then(|| force::declaration(spec));
    if let Some(force) = &mut spec.force {
        let known = old.and_then(|o| o.force.as_ref()).filter(|o| o.state == force.state && o.reason == force.reason);
        match known {
            Some(known) => known.clone_into(force),
            None => (force.by, force.at, force.declaration) = (who.clone(), when.clone(), declaration),
        }
    }
    let stamped = |request: &Request| Request { by: who.clone(), at: when.clone(), ..request.clone() };
    spec.retry = again(old.and_then(|o| o.retry.as_ref()), spec.retry.as_ref(), stamped);
    spec.reboot = again(old.and_then(|o| o.reboot.as_ref()), spec.reboot.as_ref(), stamped);
}

/// The request, stamped if it is new.
fn again(known: Option<&Request>, asked: Option<&Request>, stamped: impl Fn(&Request) -> Request) -> Option<Request> {
    let asked = asked?;
    Some(known.filter(|known| known.id == asked.id).cloned().unwrap_or_else(|| stamped(asked)))
}
