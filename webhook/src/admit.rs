//! From the body of a request to an answer: decode, decide, and say what changed. No I/O and no side effect, so a
//! dry run is answered like any other write.

use berth_core::{
    GROUP, VERSION,
    api::{Server, ServerSpec, ServerStatus, State},
    identity::{Author, Identities},
    lifecycle::{self, Refusal, RefusalReason},
};
use k8s_openapi::jiff::Timestamp;
use serde_json::value::RawValue;

use crate::{
    object::{self, RawServer, RawStatus, Undecodable},
    patch::{self, Stamps},
    review::{self, Answer, Denial, Request, Review},
};

/// The head of a review ends somewhere in these bytes.
const HEAD: usize = 2048;

/// An answer, and what the metrics say about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The answer.
    pub answer: Answer,
    /// What was written to.
    pub subject: Subject,
    /// For a status write that was allowed: the state before and after.
    pub transition: Option<(Option<State>, Option<State>)>,
}

/// What was written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A Server's declaration or metadata.
    Servers,
    /// A Server's status.
    ServerStatus,
    /// An Approval.
    Approvals,
    /// Something else, or it could not be read.
    #[default]
    Unknown,
}

impl Subject {
    /// Its name, for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Servers => "servers",
            Self::ServerStatus => "servers/status",
            Self::Approvals => "approvals",
            Self::Unknown => "unknown",
        }
    }

    fn of<N, O>(request: &Request<'_, N, O>) -> Result<Self, Denial> {
        let resource = &request.resource;
        let subject = match (&*resource.resource, request.sub_resource.as_deref().unwrap_or_default()) {
            ("servers", "") => Self::Servers,
            ("servers", "status") => Self::ServerStatus,
            ("approvals", "") => Self::Approvals,
            _ => Self::Unknown,
        };
        if resource.group == GROUP && resource.version == VERSION && subject != Self::Unknown {
            return Ok(subject);
        }
        let sub_resource = request.sub_resource.as_deref().map(|s| format!("/{s}")).unwrap_or_default();
        Err(Denial::bad_request(
            "UnknownKind",
            format!(
                "request.resource: this webhook decides about servers, servers/status and approvals of {GROUP}/{VERSION}, but was asked about {}{sub_resource} of {}/{}: remove that from the rules of the MutatingWebhookConfiguration",
                resource.resource, resource.group, resource.version
            ),
        ))
    }
}

/// Answers a request whose body was read completely.
#[must_use]
pub fn admit(body: &[u8], ids: &Identities, now: Timestamp) -> Verdict {
    admit_typed(body, ids, now).unwrap_or_else(|| admit_any(body, ids, now))
}

/// The short way, for a well-formed write to a Server's status, which is nearly every write: its objects are decoded
/// together with the review, instead of being skipped first. Whatever is unusual is left to [`admit_any`].
fn admit_typed(body: &[u8], ids: &Identities, now: Timestamp) -> Option<Verdict> {
    // The apiserver writes the head of the review before the objects.
    let text = std::str::from_utf8(body).ok()?;
    text.get(..HEAD).unwrap_or(text).find(r#""subResource":"status""#)?;
    let review: Review<'_, RawServer, RawStatus> = serde_json::from_str(text).ok()?;
    let request = review.request?;
    let is_understood = review.kind == review::KIND
        && review.api_version == review::API_VERSION
        && request.operation == "UPDATE"
        && Subject::of(&request).is_ok_and(|subject| subject == Subject::ServerStatus);
    if !is_understood {
        return None;
    }
    let author = Author::new(&*request.user_info.username);
    let uid = request.uid.into_owned();
    let outcome = status(request.object?, request.old_object?.status, &author, ids, now);
    Some(verdict(uid, Subject::ServerStatus, outcome))
}

fn admit_any(body: &[u8], ids: &Identities, now: Timestamp) -> Verdict {
    let review: Review<'_> = match serde_json::from_slice(body) {
        Ok(review) => review,
        Err(error) => return unreadable(body, format!("the body is no AdmissionReview: {error}")),
    };
    let Some(request) = review.request else {
        return unreadable(body, "request: missing; the body is no AdmissionReview that asks for something".into());
    };
    let uid = request.uid.clone().into_owned();
    if review.kind != review::KIND || review.api_version != review::API_VERSION {
        let message = format!(
            "apiVersion: only {} of {} is understood, but this is {} of {}: set admissionReviewVersions to [v1] in the MutatingWebhookConfiguration",
            review::KIND,
            review::API_VERSION,
            or_nothing(&review.kind),
            or_nothing(&review.api_version)
        );
        return denied(uid, Subject::Unknown, Denial::bad_request("UnknownVersion", message));
    }
    let subject = match Subject::of(&request) {
        Ok(subject) => subject,
        Err(denial) => return denied(uid, Subject::Unknown, denial),
    };
    let author = Author::new(&*request.user_info.username);
    verdict(uid, subject, decide(subject, &request, &author, ids, now))
}

fn verdict(uid: String, subject: Subject, outcome: Result<Outcome, Denial>) -> Verdict {
    match outcome {
        Ok(Outcome { patch, transition, warning }) => {
            Verdict { answer: Answer { uid, patch, warning, denial: None }, subject, transition }
        }
        Err(denial) => denied(uid, subject, denial),
    }
}

fn unreadable(body: &[u8], message: String) -> Verdict {
    let uid = review::find_uid(body).unwrap_or_default();
    denied(uid, Subject::Unknown, Denial::bad_request("Malformed", message))
}

fn denied(uid: String, subject: Subject, denial: Denial) -> Verdict {
    Verdict { answer: Answer::denied(uid, denial), subject, transition: None }
}

fn or_nothing(text: &str) -> &str {
    if text.is_empty() { "(nothing)" } else { text }
}

#[derive(Default)]
struct Outcome {
    patch: Vec<u8>,
    transition: Option<(Option<State>, Option<State>)>,
    warning: Option<String>,
}

fn decide(
    subject: Subject,
    request: &Request<'_>,
    author: &Author,
    ids: &Identities,
    now: Timestamp,
) -> Result<Outcome, Denial> {
    match (subject, &*request.operation) {
        (Subject::Servers, "CREATE") => create(request, author, now),
        (Subject::Servers, "UPDATE") => update(request, author, ids, now),
        (Subject::ServerStatus, "UPDATE") => {
            let new = object::raw_server(object(request)?)?;
            let old = object::status(old_object(request)?).map_err(stored)?;
            status(new, old, author, ids, now)
        }
        (Subject::Approvals, "CREATE") => approval(request, author, now),
        (subject, operation) => Ok(Outcome {
            warning: Some(format!(
                "Berth's webhook has nothing to decide on {operation} of {}: remove it from the rules of the MutatingWebhookConfiguration",
                subject.as_str()
            )),
            ..Outcome::default()
        }),
    }
}

/// The apiserver does not ask about a creation on which there is nothing to decide: see the `matchConditions` of
/// `deploy/base/webhook-configuration.yaml`.
fn create(request: &Request<'_>, author: &Author, now: Timestamp) -> Result<Outcome, Denial> {
    let new = object::server(object(request)?)?;
    let stamps = Stamps::of(&new);
    let admitted = lifecycle::admit_create(new, author, now)?;
    Ok(Outcome { patch: stamps.patch(&admitted).encode(), ..Outcome::default() })
}

fn update(request: &Request<'_>, author: &Author, ids: &Identities, now: Timestamp) -> Result<Outcome, Denial> {
    let (old, new) = match (object::server(old_object(request)?), object::server(object(request)?)) {
        (Ok(old), new) => (old, new?),
        (Err(error), _) if ids.executor(author).is_some() => return Err(stored(error)),
        (Err(error), Ok(new)) => (readable(old_object(request)?, &new, error)?, new),
        (Err(_), Err(error)) => return unreadable_still(request, error),
    };
    let stamps = Stamps::of(&new);
    let admitted = lifecycle::admit_update(&old, new, author, ids, now)?;
    Ok(Outcome { patch: stamps.patch(&admitted).encode(), ..Outcome::default() })
}

/// What can be read of a stored Server that cannot be read as a whole, so that it can be repaired: its metadata, and its
/// status, which says what is left of it. Nothing is taken for granted of what people wished.
fn readable(old: &RawValue, new: &Server, error: Undecodable) -> Result<Server, Denial> {
    let metadata = object::metadata(old).map_err(stored)?;
    let spec = ServerSpec { force: None, retry: None, reboot: None, ..new.spec.clone() };
    match object::status(old) {
        Ok(status) => Ok(Server { metadata, spec, status }),
        Err(_) if lifecycle::loses_finalizer(&metadata, &new.metadata) => Err(kept(error)),
        Err(_) => Ok(Server { metadata, spec, status: None }),
    }
}

/// A write to a Server that could not be read and still cannot. It is let through, so that others can clean up, but for
/// Berth's finalizer: what is left of the Server is not known.
fn unreadable_still(request: &Request<'_>, error: Undecodable) -> Result<Outcome, Denial> {
    let (old, new) = (object::metadata(old_object(request)?), object::metadata(object(request)?));
    let (Ok(old), Ok(new)) = (old, new) else { return Err(stored(error)) };
    if lifecycle::loses_finalizer(&old, &new) {
        return Err(kept(error));
    }
    let warning = format!("Berth cannot read this Server and does nothing about it: {error}");
    Ok(Outcome { warning: Some(warning), ..Outcome::default() })
}

/// The finalizer stays on a Server that cannot be read.
fn kept(error: Undecodable) -> Denial {
    let denial = stored(error);
    let message = format!(
        "{}, so what is left of it is not known: repair it, or give it up by saying why in the annotation {}",
        denial.message,
        lifecycle::ABANDON_ANNOTATION
    );
    Denial { message, ..denial }
}

/// Of the old object only the status is read: the apiserver takes everything else from it into the new one.
fn status(
    new: RawServer,
    old: Option<ServerStatus>,
    author: &Author,
    ids: &Identities,
    now: Timestamp,
) -> Result<Outcome, Denial> {
    // Programs alone write to a Server that a controller has created, a dozen times until it is Ready. Telling who wrote
    // which of its fields costs the apiserver a good part of each such write.
    let untrack = ids.executor(author).is_some() && new.is_tracked_in_vain();
    let new = Server::from(new);
    let old = Server { metadata: new.metadata.clone(), spec: new.spec.clone(), status: old };
    let before = new.status.clone();
    let admitted = lifecycle::admit_status(&old, new, author, ids, now)?;
    let state = |server: &Server| server.status.as_ref().and_then(|status| status.state);
    let patch = patch::status(before.as_ref(), admitted.status.as_ref());
    Ok(Outcome {
        patch: if untrack { patch.untrack() } else { patch }.encode(),
        transition: Some((state(&old), state(&admitted))),
        warning: None,
    })
}

fn approval(request: &Request<'_>, author: &Author, now: Timestamp) -> Result<Outcome, Denial> {
    let new = object::approval(object(request)?)?;
    let before = new.spec.approver.clone();
    let admitted = lifecycle::admit_approval(new, author, now);
    Ok(Outcome { patch: patch::approver(before.as_ref(), &admitted).encode(), ..Outcome::default() })
}

fn object<'a>(request: &Request<'a>) -> Result<&'a RawValue, Denial> {
    request.object.ok_or_else(|| Denial::bad_request("Malformed", "request.object: missing"))
}

fn old_object<'a>(request: &Request<'a>) -> Result<&'a RawValue, Denial> {
    let missing = || Denial::bad_request("Malformed", "request.oldObject: missing, although this is an update");
    request.old_object.ok_or_else(missing)
}

/// What is wrong with an object that is stored already.
fn stored(error: Undecodable) -> Denial {
    let mut denial = Denial::from(error);
    denial.message.push_str("; it is the stored object that cannot be read");
    denial
}

impl From<Undecodable> for Denial {
    fn from(error: Undecodable) -> Self {
        Self { code: 422, cause: "Undecodable", message: error.to_string(), field: Some(error.field) }
    }
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.reason {
            RefusalReason::Malformed | RefusalReason::UnknownTask => 422,
            _ => 403,
        };
        Self { code, cause: refusal.reason.as_str(), message: refusal.to_string(), field: Some(refusal.field) }
    }
}
