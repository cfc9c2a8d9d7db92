//! `AdmissionReview` of `admission.k8s.io/v1`, read without copying and written with a base64 patch.
//!
//! kube's own types do not fit: they decode the objects into owned trees, give no part of a review that does not decode as a
//! whole, and write the patch as an array of integers, which takes three times the bytes.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// The API version of every review that the webhook understands and of every response.
pub const API_VERSION: &str = "admission.k8s.io/v1";
/// The kind of the object around every request and every response.
pub const KIND: &str = "AdmissionReview";

/// A review as the apiserver sends it. Its objects stay JSON text unless `N` (new) and `O` (old) are other types.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a, N: Deserialize<'de>, O: Deserialize<'de>"))]
pub struct AdmissionReview<'a, N = &'a RawValue, O = &'a RawValue> {
    /// Must be [`API_VERSION`].
    #[serde(borrow, default)]
    pub api_version: Cow<'a, str>,
    /// Must be [`KIND`].
    #[serde(borrow, default)]
    pub kind: Cow<'a, str>,
    /// The request to decide on.
    #[serde(default = "none")]
    pub request: Option<AdmissionRequest<'a, N, O>>,
}

/// The request to decide on.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a, N: Deserialize<'de>, O: Deserialize<'de>"))]
pub struct AdmissionRequest<'a, N = &'a RawValue, O = &'a RawValue> {
    /// Identifies the request; the response repeats it.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// The resource that is written to.
    #[serde(borrow)]
    pub resource: GroupVersionResource<'a>,
    /// `status` for a write to the status; absent for a write to the object itself.
    #[serde(default)]
    pub sub_resource: Option<Cow<'a, str>>,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    #[serde(borrow)]
    pub operation: Cow<'a, str>,
    /// The user who writes.
    #[serde(borrow)]
    pub user_info: UserInfo<'a>,
    /// The object after the write; absent on deletion.
    #[serde(default = "none")]
    pub object: Option<N>,
    /// The object before the write; absent on creation.
    #[serde(default = "none")]
    pub old_object: Option<O>,
}

/// A default of `Option<T>` that needs no `T: Default`, as the plain `#[serde(default)]` would.
fn none<T>() -> Option<T> {
    None
}

/// A resource, by group, version and plural name.
#[derive(Deserialize)]
pub struct GroupVersionResource<'a> {
    /// API group; empty for the core group.
    #[serde(borrow, default)]
    pub group: Cow<'a, str>,
    /// API version, such as `v1alpha1`.
    #[serde(borrow)]
    pub version: Cow<'a, str>,
    /// Plural name, such as `servers`.
    #[serde(borrow)]
    pub resource: Cow<'a, str>,
}

/// The authenticated user.
#[derive(Deserialize)]
pub struct UserInfo<'a> {
    /// User name, such as `system:serviceaccount:berth-system:lb-controller`.
    #[serde(borrow)]
    pub username: Cow<'a, str>,
}

/// The response to a request. Only `uid` and `allowed` are always part of its JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdmissionResponse {
    /// The uid of the request; empty when the request had none that could be read.
    pub uid: String,
    /// The JSON Patch as JSON text; empty when nothing changes.
    pub patch: Vec<u8>,
    /// A warning that kubectl shows to its user.
    pub warning: Option<String>,
    /// Why the write is denied; `None` when it is allowed.
    pub denial: Option<Denial>,
}

/// Why a write is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// HTTP status code.
    pub code: u16,
    /// The cause in one CamelCase word, for programs and metrics.
    pub cause: &'static str,
    /// Path of the field that is wrong, if the denial is about a field.
    pub field: Option<String>,
    /// Human-readable explanation: the field, what is wrong with it, and what is allowed.
    pub message: String,
}

impl Denial {
    /// A denial with code 400, for a malformed request.
    #[must_use]
    pub fn bad_request(cause: &'static str, message: impl Into<String>) -> Self {
        Self { code: 400, cause, field: None, message: message.into() }
    }

    /// The reason as the Kubernetes API conventions name it.
    ///
    /// It is never `Conflict`: on that reason the apiserver retries the write five times, although it cannot succeed.
    #[must_use]
    pub fn status_reason(&self) -> &'static str {
        match self.code {
            400 => "BadRequest",
            403 => "Forbidden",
            413 => "RequestEntityTooLarge",
            422 => "Invalid",
            504 => "Timeout",
            _ => "InternalError",
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReviewJson<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: ResponseJson<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseJson<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StatusJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<[&'a str; 1]>,
}

#[derive(Serialize)]
struct StatusJson<'a> {
    #[serde(rename = "status")]
    outcome: &'static str,
    code: u16,
    reason: &'static str,
    message: &'a str,
    details: DetailsJson<'a>,
}

#[derive(Serialize)]
struct DetailsJson<'a> {
    causes: [CauseJson<'a>; 1],
}

#[derive(Serialize)]
struct CauseJson<'a> {
    reason: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl AdmissionResponse {
    /// The response that denies a request.
    #[must_use]
    pub fn denied(uid: impl Into<String>, denial: Denial) -> Self {
        Self { uid: uid.into(), denial: Some(denial), ..Self::default() }
    }

    /// The body of the HTTP response: a review with this response.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        if self.denial.is_none() && self.warning.is_none() && !self.patch.is_empty() {
            return self.encode_patch();
        }
        let patch = (self.denial.is_none() && !self.patch.is_empty()).then(|| BASE64_STANDARD.encode(&self.patch));
        let review = ReviewJson {
            api_version: API_VERSION,
            kind: KIND,
            response: ResponseJson {
                uid: &self.uid,
                allowed: self.denial.is_none(),
                patch_type: patch.is_some().then_some("JSONPatch"),
                patch,
                status: self.denial.as_ref().map(status),
                warnings: self.warning.as_deref().map(|warning| [warning]),
            },
        };
        // Strings and numbers in a fixed structure always serialize.
        serde_json::to_vec(&review).unwrap_or_default()
    }

    /// Encodes a response that only has a patch, which is nearly every response. Base64 needs no escaping, and to search it
    /// for characters that do takes longer than to encode it.
    fn encode_patch(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.uid.len() + self.patch.len().div_ceil(3) * 4);
        out.extend_from_slice(
            format!(r#"{{"apiVersion":"{API_VERSION}","kind":"{KIND}","response":{{"uid":"#).as_bytes(),
        );
        let _ = serde_json::to_writer(&mut out, &self.uid);
        out.extend_from_slice(br#","allowed":true,"patchType":"JSONPatch","patch":""#);
        out.extend_from_slice(BASE64_STANDARD.encode(&self.patch).as_bytes());
        out.extend_from_slice(br#""}}"#);
        out
    }
}

fn status(denial: &Denial) -> StatusJson<'_> {
    StatusJson {
        outcome: "Failure",
        code: denial.code,
        reason: denial.status_reason(),
        message: &denial.message,
        details: DetailsJson {
            causes: [CauseJson { reason: denial.cause, message: &denial.message, field: denial.field.as_deref() }],
        },
    }
}

/// Finds the uid of a review that does not decode as a whole, for example because it is cut off.
///
/// The apiserver writes the uid first, and shows the message of a response only if the response repeats that uid.
#[must_use]
pub fn find_uid(body: &[u8]) -> Option<String> {
    let mut uid = None;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    // An error is expected; what was found before it counts.
    let _ = StringAtPath { path: &["request", "uid"], found: &mut uid }.deserialize(&mut deserializer);
    uid
}

/// Follows a path of member names down to a string.
struct StringAtPath<'s> {
    path: &'s [&'static str],
    found: &'s mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for StringAtPath<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            *self.found = Some(String::deserialize(deserializer)?);
            return Ok(());
        }
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for StringAtPath<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((wanted, rest)) = self.path.split_first() else { return Ok(()) };
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == *wanted {
                map.next_value_seed(StringAtPath { path: rest, found: self.found })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uid_is_found_in_a_review_that_is_broken_after_it() {
        for (body, uid) in [
            (r#"{"kind":"AdmissionReview","request":{"uid":"u1","object":{"a":"#, Some("u1")),
            (r#"{"request":{"resource":7,"uid":"u1"}}"#, Some("u1")),
            (r#"{"request":{"uid":"u1"},"request":5}"#, Some("u1")),
            (r#"{"request":{"uid":5}}"#, None),
            (r#"{"request":[]}"#, None),
            (r#"{"uid":"u2"}"#, None),
            ("", None),
            ("[]", None),
        ] {
            assert_eq!(find_uid(body.as_bytes()).as_deref(), uid, "{body}");
        }
    }

    #[test]
    fn both_encoders_of_a_patch_give_the_same_text() {
        let short = AdmissionResponse { uid: "a\"b".into(), patch: b"[]".to_vec(), ..AdmissionResponse::default() };
        let long = AdmissionResponse { warning: Some("w".into()), ..short.clone() };
        let text = |response: &AdmissionResponse| String::from_utf8(response.encode()).unwrap();
        assert_eq!(text(&short), text(&long).replace(r#","warnings":["w"]"#, ""));
        assert!(text(&short).contains(r#""uid":"a\"b","#), "{}", text(&short));
    }

    #[test]
    fn an_allowed_response_without_changes_has_only_uid_and_allowed() {
        let response = AdmissionResponse { uid: "u1".into(), ..AdmissionResponse::default() };
        let text = String::from_utf8(response.encode()).unwrap();
        assert_eq!(
            text,
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u1","allowed":true}}"#
        );
    }
}
