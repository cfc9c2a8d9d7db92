//! Admission: every write to a Server or an Approval passes through one of these functions.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::{SignedDuration, Timestamp},
};

use super::{
    apply_decision::apply_decision,
    claim, force, guard,
    refusal::{Refusal, RefusalReason},
    report, summary, trust,
};
use crate::{
    FINALIZER,
    api::{
        Approval, ApprovalDecision, Approver, Executor, Outcome, Request, RolloutRequest, Server, ServerSpec,
        ServerStatus, TargetKind, Task, TaskKind, TaskPhase, TrafficPhase,
    },
    identity::{Author, Identities},
};

/// With this annotation, whose value says why, a person abandons a Server: its finalizer may be removed although traffic,
/// monitoring or a machine are left, which somebody has to clean up by other means.
pub const ABANDON_ANNOTATION: &str = "berth.dev/abandon";

/// How long an approval for a whole set counts when it does not say so itself: a day's work, but not for whatever comes later.
const APPROVAL_LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// Admits the creation of a Server: adds the finalizer, and stamps force and requests with user and time.
pub fn admit_create(mut new: Server, author: &Author, now: Timestamp) -> Result<Server, Refusal> {
    let finalizers = new.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    stamp_requests(None, &mut new.spec, author, now);
    Ok(new)
}

/// Admits a write to a Server's declaration or metadata: guards the finalizer and the fields that only people change, and
/// stamps force and requests with user and time.
pub fn admit_update(
    old: &Server,
    mut new: Server,
    author: &Author,
    ids: &Identities,
    now: Timestamp,
) -> Result<Server, Refusal> {
    check_people_only_fields(old, &new.spec, author, ids)?;
    check_finalizer(old, &new)?;
    stamp_requests(Some(&old.spec), &mut new.spec, author, now);
    Ok(new)
}

/// Admits a write to a Server's status: the protocol between the webhook and the controllers, see `docs/protocol.md`.
pub fn admit_status(
    old: &Server,
    mut new: Server,
    author: &Author,
    ids: &Identities,
    now: Timestamp,
) -> Result<Server, Refusal> {
    let now = whole_seconds(now);
    let executor = ids.executor(author);
    let before = old.known_status();
    let status = new.status.get_or_insert_default();
    let (claim, report) = (status.claim.take(), status.report.take());
    guard::check(before, status, executor)?;
    guard::check_facts(&new, before)?;
    let proof = match &report {
        Some(report) => {
            let executor = guard::executor_of(executor, "status.report")?;
            report::carry_out(&mut new, report, executor, now)?
        }
        None => trust::Proof::default(),
    };
    trust::update(before, new.status.get_or_insert_default(), proof);
    apply_decision(&mut new, &author.username, now);
    begin_drain(before, new.status.get_or_insert_default(), now);
    let epoch = new.known_status().epoch;
    let is_release = claim.as_ref().is_some_and(|claim| claim.duration_seconds == 0);
    match (claim, report) {
        (Some(claim), _) => {
            let executor = guard::executor_of(executor, "status.claim")?;
            claim::carry_out(&mut new, &claim, executor, now)?;
        }
        (None, Some(report)) if report.outcome == Outcome::Succeeded => {
            claim::hand_over(&mut new, &report.successors, now);
        }
        (None, _) => {}
    }
    // The released task may be one for an older declaration: every later claim of it would be refused. And the work that
    // begins may begin a new epoch, in which health has to be proven by another task.
    if is_release || new.known_status().epoch != epoch {
        apply_decision(&mut new, &author.username, now);
    }
    summary::summarise(&mut new, now);
    Ok(new)
}

/// A HoldTraffic that the decision on the word of lb-controller that the Server drains has made has begun: nobody needs to report it.
fn begin_drain(before: &ServerStatus, status: &mut ServerStatus, now: Timestamp) {
    let drains = |status: &ServerStatus| status.traffic.as_ref().is_some_and(|t| t.phase == TrafficPhase::Draining);
    if drains(before) || !drains(status) {
        return;
    }
    let known = before.last_task_id.unwrap_or(0);
    let open = status.current_tasks().filter(|task| !task.phase.is_finished());
    let Some(step) = open.map(|task| task.step).min() else { return };
    let is_new = |task: &&mut Task| {
        task.id > known && task.kind == TaskKind::HoldTraffic && task.phase == TaskPhase::Pending && task.step == step
    };
    if let Some(task) = status.tasks.iter_mut().find(is_new) {
        (task.phase, task.attempts, task.started_at) = (TaskPhase::Running, 1, Some(Time(now)));
        "draining".clone_into(&mut task.message);
    }
}

/// Admits the creation of an Approval: records user and time, over whatever the client sent, and until when it counts.
#[must_use]
pub fn admit_approval(mut new: Approval, author: &Author, now: Timestamp) -> Approval {
    let now = whole_seconds(now);
    new.spec.approver = Some(Approver { username: author.username.clone(), at: Time(now) });
    let is_open_ended = new.spec.target.kind == TargetKind::VMReplicaSet
        && new.spec.decision == ApprovalDecision::Approve
        && new.spec.expires_at.is_none();
    if is_open_ended {
        new.spec.expires_at = now.checked_add(APPROVAL_LIFETIME).ok().map(Time);
    }
    new
}

/// The API stores whole seconds. A decision on fractions of a second would differ from a decision on the stored time.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Refuses changes by controllers to fields that only people change, and to the declaration of a Server that a person has forced,
/// which may have happened since the controller has read it. replicaset-controller may retry when the cause of a
/// failure was repaired elsewhere, but not after a person has refused a gate.
fn check_people_only_fields(
    before: &Server,
    new: &ServerSpec,
    author: &Author,
    ids: &Identities,
) -> Result<(), Refusal> {
    let Some(executor) = ids.executor(author) else { return Ok(()) };
    let old = &before.spec;
    let may_retry = executor == Executor::ReplicasetController && !has_refused_gate(before);
    let changes = [
        ("spec.force", old.force != new.force),
        ("spec.retry", old.retry != new.retry && !may_retry),
        ("spec.offline", old.offline && !new.offline),
        // The write would end the force.
        ("spec", before.is_forced() && force::declaration(old) != force::declaration(new)),
    ];
    match changes.into_iter().find(|(_, changed)| *changed) {
        Some((field, _)) => {
            let message = match field {
                "spec" => format!(
                    "a person has forced this Server: {executor} leaves it as it is until spec.force is removed"
                ),
                _ => format!("only a person changes this, not {executor}"),
            };
            Err(Refusal::new(RefusalReason::NotAPerson, field, message))
        }
        None => Ok(()),
    }
}

fn has_refused_gate(server: &Server) -> bool {
    server.refused_gates().next().is_some()
}

/// Whether the write removes Berth's finalizer from a Server that was not abandoned.
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
    let leftovers = old.leftovers();
    let why = if !leftovers.is_empty() {
        format!("until nothing is left of the Server; there is still: {}", leftovers.join(", "))
    } else if !old.is_being_deleted() {
        // What was sent for a Server that is gone may arrive when etcd has been restored, and the Server lives again.
        "until the Server is deleted".to_owned()
    } else {
        return Ok(());
    };
    let message = format!(
        "{FINALIZER} stays {why}. To abandon the Server nevertheless, say why in the annotation {ABANDON_ANNOTATION}"
    );
    Err(Refusal::new(RefusalReason::CleanupIncomplete, "metadata.finalizers", message))
}

/// Stamps force and requests with user and time. One that was stamped before keeps its stamp when it is written again.
fn stamp_requests(old: Option<&ServerSpec>, spec: &mut ServerSpec, author: &Author, now: Timestamp) {
    let (user, time) = (Some(author.username.clone()), Some(Time(whole_seconds(now))));
    let declaration = spec.force.is_some().then(|| force::declaration(spec));
    if let Some(force) = &mut spec.force {
        let known = old.and_then(|o| o.force.as_ref()).filter(|o| o.state == force.state && o.reason == force.reason);
        match known {
            Some(known) => known.clone_into(force),
            None => (force.by, force.at, force.declaration) = (user.clone(), time.clone(), declaration),
        }
    }
    let stamped = |request: &Request| Request { by: user.clone(), at: time.clone(), ..request.clone() };
    spec.retry = known_or_new(old.and_then(|o| o.retry.as_ref()), spec.retry.as_ref(), stamped);
    spec.reboot = known_or_new(old.and_then(|o| o.reboot.as_ref()), spec.reboot.as_ref(), stamped);
}

/// Stamps a request about a roll-out with user and time. One that was stamped before keeps its stamp when it is written again.
#[must_use]
pub fn stamp_rollout_request(
    known: Option<&RolloutRequest>,
    written: Option<&RolloutRequest>,
    author: &Author,
    now: Timestamp,
) -> Option<RolloutRequest> {
    let written = written?;
    let (by, at) = match known.filter(|known| known.id == written.id) {
        Some(known) => (known.by.clone(), known.at.clone()),
        None => (Some(author.username.clone()), Some(Time(whole_seconds(now)))),
    };
    Some(RolloutRequest { by, at, ..written.clone() })
}

/// The known request if the written one has its id, and the written one with a new stamp otherwise.
fn known_or_new(
    known: Option<&Request>,
    written: Option<&Request>,
    stamped: impl Fn(&Request) -> Request,
) -> Option<Request> {
    let written = written?;
    Some(known.filter(|known| known.id == written.id).cloned().unwrap_or_else(|| stamped(written)))
}
