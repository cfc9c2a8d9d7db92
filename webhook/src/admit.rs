//! From the body of a request to a response: decode it, decide, and describe what changed. There is no I/O and no side
//! effect, so a dry run gets the same response as any other write.

use berth_core::{
    GROUP, VERSION,
    api::{Server, ServerSpec, ServerStatus, State},
    identity::{Author, Identities},
    lifecycle::{self, Refusal, RefusalReason},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;

use crate::{
    decode::{self, DecodeError, RawServer, RawStatus},
    patch::{self, StampedFields},
    review::{self, AdmissionRequest, AdmissionResponse, AdmissionReview, Denial},
};

/// Bytes of a review within which its `subResource` is looked for. The apiserver writes only short fields before it.
const REVIEW_HEAD_BYTES: usize = 2048;

/// A response, and what the metrics count about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// The response to the apiserver.
    pub response: AdmissionResponse,
    /// The resource that was written to.
    pub resource: ReviewedResource,
    /// The state before and after an allowed status write; `None` for every other request.
    pub transition: Option<(Option<State>, Option<State>)>,
    /// For an allowed status write: how far this copy's clock is behind the time in the Server's lock, which some copy has
    /// written; `None` without a lock.
    pub clock_behind: Option<SignedDuration>,
}

/// The resource that a request writes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReviewedResource {
    /// A Server's spec or metadata.
    Servers,
    /// A Server's status.
    ServerStatus,
    /// An Approval.
    Approvals,
    /// A VMDeployment.
    Deployments,
    /// A resource that the webhook does not decide about, or a request that could not be read.
    #[default]
    Unknown,
}

impl ReviewedResource {
    /// Resource and subresource as RBAC rules name them; the value of the metrics' label `resource`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Servers => "servers",
            Self::ServerStatus => "servers/status",
            Self::Approvals => "approvals",
            Self::Deployments => "vmdeployments",
            Self::Unknown => "unknown",
        }
    }

    fn of<N, O>(request: &AdmissionRequest<'_, N, O>) -> Result<Self, Denial> {
        let asked = &request.resource;
        let resource = match (&*asked.resource, request.sub_resource.as_deref().unwrap_or_default()) {
            ("servers", "") => Self::Servers,
            ("servers", "status") => Self::ServerStatus,
            ("approvals", "") => Self::Approvals,
            ("vmdeployments", "") => Self::Deployments,
            _ => Self::Unknown,
        };
        if asked.group == GROUP && asked.version == VERSION && resource != Self::Unknown {
            return Ok(resource);
        }
        let sub_resource = request.sub_resource.as_deref().map(|s| format!("/{s}")).unwrap_or_default();
        Err(Denial::bad_request(
            "UnknownKind",
            format!(
                "request.resource: this webhook decides about servers, servers/status, approvals and vmdeployments of {GROUP}/{VERSION}, but was asked about {}{sub_resource} of {}/{}: remove that resource from the rules of the MutatingWebhookConfiguration",
                asked.resource, asked.group, asked.version
            ),
        ))
    }
}

/// Responds to a request whose body was read completely.
#[must_use]
pub fn admit(body: &[u8], ids: &Identities, now: Timestamp) -> Admission {
    admit_status_write(body, ids, now).unwrap_or_else(|| admit_any(body, ids, now))
}

/// The fast path for a well-formed write to a Server's status, which is nearly every write: decodes the objects together
/// with the review, instead of skipping over them first. Returns `None` for anything else, which [`admit_any`] handles.
fn admit_status_write(body: &[u8], ids: &Identities, now: Timestamp) -> Option<Admission> {
    let text = std::str::from_utf8(body).ok()?;
    text.get(..REVIEW_HEAD_BYTES).unwrap_or(text).find(r#""subResource":"status""#)?;
    let review: AdmissionReview<'_, RawServer, RawStatus> = serde_json::from_str(text).ok()?;
    let request = review.request?;
    let is_understood = review.kind == review::KIND
        && review.api_version == review::API_VERSION
        && request.operation == "UPDATE"
        && ReviewedResource::of(&request).is_ok_and(|resource| resource == ReviewedResource::ServerStatus);
    if !is_understood {
        return None;
    }
    let author = Author::new(&*request.user_info.username);
    let uid = request.uid.into_owned();
    let result = update_status(request.object?, request.old_object?.status, &author, ids, now);
    Some(admission(uid, ReviewedResource::ServerStatus, result))
}

/// How far this copy's clock is behind what another copy has written into the lock; zero if it is not.
fn clock_behind(stored: &ServerStatus, now: Timestamp) -> Option<SignedDuration> {
    let renewed_at = stored.lock.as_ref()?.renewed_at.0;
    Some(renewed_at.duration_since(now).max(SignedDuration::ZERO))
}

fn admit_any(body: &[u8], ids: &Identities, now: Timestamp) -> Admission {
    let review: AdmissionReview<'_> = match serde_json::from_slice(body) {
        Ok(review) => review,
        Err(error) => return malformed(body, format!("the body is not an AdmissionReview: {error}")),
    };
    let Some(request) = review.request else {
        return malformed(body, "request: missing; the body is not an AdmissionReview with a request".into());
    };
    let uid = request.uid.clone().into_owned();
    if review.kind != review::KIND || review.api_version != review::API_VERSION {
        return denied(uid, ReviewedResource::Unknown, unknown_version(&review.kind, &review.api_version));
    }
    let resource = match ReviewedResource::of(&request) {
        Ok(resource) => resource,
        Err(denial) => return denied(uid, ReviewedResource::Unknown, denial),
    };
    let author = Author::new(&*request.user_info.username);
    admission(uid, resource, decide(resource, &request, &author, ids, now))
}

fn admission(uid: String, resource: ReviewedResource, result: Result<Allowed, Denial>) -> Admission {
    match result {
        Ok(Allowed { patch, transition, warning, clock_behind }) => Admission {
            response: AdmissionResponse { uid, patch, warning, denial: None },
            resource,
            transition,
            clock_behind,
        },
        Err(denial) => denied(uid, resource, denial),
    }
}

fn malformed(body: &[u8], message: String) -> Admission {
    let uid = review::find_uid(body).unwrap_or_default();
    denied(uid, ReviewedResource::Unknown, Denial::bad_request("Malformed", message))
}

fn denied(uid: String, resource: ReviewedResource, denial: Denial) -> Admission {
    Admission { response: AdmissionResponse::denied(uid, denial), resource, ..Admission::default() }
}

fn unknown_version(kind: &str, api_version: &str) -> Denial {
    let message = format!(
        "apiVersion: this webhook understands only {} of {}, but got {} of {}: set admissionReviewVersions to [v1] in the MutatingWebhookConfiguration",
        review::KIND,
        review::API_VERSION,
        or_empty(kind),
        or_empty(api_version)
    );
    Denial::bad_request("UnknownVersion", message)
}

fn or_empty(text: &str) -> &str {
    if text.is_empty() { "(empty)" } else { text }
}

/// What the response to an allowed write says.
#[derive(Default)]
struct Allowed {
    patch: Vec<u8>,
    transition: Option<(Option<State>, Option<State>)>,
    warning: Option<String>,
    clock_behind: Option<SignedDuration>,
}

fn decide(
    resource: ReviewedResource,
    request: &AdmissionRequest<'_>,
    author: &Author,
    ids: &Identities,
    now: Timestamp,
) -> Result<Allowed, Denial> {
    match (resource, &*request.operation) {
        (ReviewedResource::Servers, "CREATE") => create(request, author, now),
        (ReviewedResource::Servers, "UPDATE") => update(request, author, ids, now),
        (ReviewedResource::ServerStatus, "UPDATE") => {
            let new = decode::raw_server(object(request)?)?;
            let old = decode::status(old_object(request)?).map_err(in_stored_object)?;
            update_status(new, old, author, ids, now)
        }
        (ReviewedResource::Approvals, "CREATE") => create_approval(request, author, now),
        (ReviewedResource::Deployments, "CREATE" | "UPDATE") => write_deployment(request, author, now),
        (resource, operation) => Ok(Allowed {
            warning: Some(format!(
                "Berth's webhook has nothing to decide on {operation} of {}: remove it from the rules of the MutatingWebhookConfiguration",
                resource.as_str()
            )),
            ..Allowed::default()
        }),
    }
}

/// The apiserver does not call the webhook for a creation on which there is nothing to decide: see the `matchConditions`
/// of `deploy/base/webhook-configuration.yaml`.
fn create(request: &AdmissionRequest<'_>, author: &Author, now: Timestamp) -> Result<Allowed, Denial> {
    let new = decode::server(object(request)?)?;
    let stamped = StampedFields::of(&new);
    let admitted = lifecycle::admit_create(new, author, now)?;
    Ok(Allowed { patch: stamped.patch(&admitted).encode(), ..Allowed::default() })
}

fn update(
    request: &AdmissionRequest<'_>,
    author: &Author,
    ids: &Identities,
    now: Timestamp,
) -> Result<Allowed, Denial> {
    let (old, new) = match (decode::server(old_object(request)?), decode::server(object(request)?)) {
        (Ok(old), new) => (old, new?),
        (Err(error), _) if ids.executor(author).is_some() => return Err(in_stored_object(error)),
        (Err(error), Ok(new)) => (decodable_part(old_object(request)?, &new, error)?, new),
        (Err(_), Err(error)) => return update_undecodable(request, error),
    };
    let stamped = StampedFields::of(&new);
    let admitted = lifecycle::admit_update(&old, new, author, ids, now)?;
    Ok(Allowed { patch: stamped.patch(&admitted).encode(), ..Allowed::default() })
}

/// Decodes what it can of a stored Server that does not decode as a whole, so that a person can repair it: its metadata,
/// and its status, which says what still has to be cleaned up. The old requests and force count as absent, so that the new
/// ones are stamped with their author.
fn decodable_part(old: &RawValue, new: &Server, error: DecodeError) -> Result<Server, Denial> {
    let metadata = decode::metadata(old).map_err(in_stored_object)?;
    let spec = ServerSpec { force: None, retry: None, reboot: None, ..new.spec.clone() };
    match decode::status(old) {
        Ok(status) => Ok(Server { metadata, spec, status }),
        Err(_) if lifecycle::loses_finalizer(&metadata, &new.metadata) => Err(finalizer_must_stay(error)),
        Err(_) => Ok(Server { metadata, spec, status: None }),
    }
}

/// Allows a write to a Server that did not decode before and still does not, so that others can change its metadata.
/// Berth's finalizer must stay, because what is left to clean up is not known.
fn update_undecodable(request: &AdmissionRequest<'_>, error: DecodeError) -> Result<Allowed, Denial> {
    let (old, new) = (decode::metadata(old_object(request)?), decode::metadata(object(request)?));
    let (Ok(old), Ok(new)) = (old, new) else { return Err(in_stored_object(error)) };
    if lifecycle::loses_finalizer(&old, &new) {
        return Err(finalizer_must_stay(error));
    }
    let warning = format!("Berth cannot read this Server and does nothing about it: {error}");
    Ok(Allowed { warning: Some(warning), ..Allowed::default() })
}

fn finalizer_must_stay(error: DecodeError) -> Denial {
    let denial = in_stored_object(error);
    let message = format!(
        "{}, so what is left of it is not known: repair it, or give it up by setting the annotation {} to the reason",
        denial.message,
        lifecycle::ABANDON_ANNOTATION
    );
    Denial { message, ..denial }
}

/// Takes only the status of the old object: the apiserver copies everything else from the old object into the new one.
fn update_status(
    new: RawServer,
    old: Option<ServerStatus>,
    author: &Author,
    ids: &Identities,
    now: Timestamp,
) -> Result<Allowed, Denial> {
    // Controllers write to a Server a dozen times before it is Ready, and managedFields cost the apiserver a good part of
    // each of these writes.
    let drop_managed_fields = ids.executor(author).is_some() && new.has_needless_managed_fields();
    let new = Server::from(new);
    let old = Server { metadata: new.metadata.clone(), spec: new.spec.clone(), status: old };
    let before = new.status.clone();
    let admitted = lifecycle::admit_status(&old, new, author, ids, now)?;
    let state = |server: &Server| server.status.as_ref().and_then(|status| status.state);
    let mut patch = patch::status(before.as_ref(), admitted.status.as_ref());
    if drop_managed_fields {
        patch.remove_managed_fields();
    }
    Ok(Allowed {
        patch: patch.encode(),
        transition: Some((state(&old), state(&admitted))),
        clock_behind: old.status.as_ref().and_then(|status| clock_behind(status, now)),
        ..Allowed::default()
    })
}

fn create_approval(request: &AdmissionRequest<'_>, author: &Author, now: Timestamp) -> Result<Allowed, Denial> {
    let new = decode::approval(object(request)?)?;
    let before = new.clone();
    let admitted = lifecycle::admit_approval(new, author, now);
    Ok(Allowed { patch: patch::approval(&before, &admitted).encode(), ..Allowed::default() })
}

/// Stamps a person's request about a roll-out, and leaves everything else alone. A stored VMDeployment that cannot be read counts as
/// one without a request.
fn write_deployment(request: &AdmissionRequest<'_>, author: &Author, now: Timestamp) -> Result<Allowed, Denial> {
    let new = decode::rollout_request(object(request)?)?;
    let old = request.old_object.and_then(|old| decode::rollout_request(old).ok().flatten());
    let stamped = lifecycle::stamp_rollout_request(old.as_ref(), new.as_ref(), author, now);
    let patch = patch::rollout_request(new.as_ref(), stamped.as_ref());
    Ok(Allowed { patch: patch.encode(), ..Allowed::default() })
}

fn object<'a>(request: &AdmissionRequest<'a>) -> Result<&'a RawValue, Denial> {
    request.object.ok_or_else(|| Denial::bad_request("Malformed", "request.object: missing"))
}

fn old_object<'a>(request: &AdmissionRequest<'a>) -> Result<&'a RawValue, Denial> {
    let missing = || Denial::bad_request("Malformed", "request.oldObject: missing, although this is an update");
    request.old_object.ok_or_else(missing)
}

/// The denial for a stored object that does not decode: its author is not the one who is writing now.
fn in_stored_object(error: DecodeError) -> Denial {
    let mut denial = Denial::from(error);
    denial.message.push_str("; it is the stored object that cannot be read");
    denial
}

impl From<DecodeError> for Denial {
    fn from(error: DecodeError) -> Self {
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
