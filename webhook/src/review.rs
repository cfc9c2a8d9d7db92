//! The envelope: `AdmissionReview` of `admission.k8s.io/v1`, read without copying and written with a base64 patch.
//!
//! kube's own types are not used here because they decode the objects into owned trees, fail as a whole, and write the
//! patch as an array of integers, three times the bytes.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// The API version of the reviews that are understood and of every answer.
pub const API_VERSION: &str = "admission.k8s.io/v1";
/// The kind of both.
pub const KIND: &str = "AdmissionReview";

/// A review as it came in. Its objects are still text, unless other types are asked for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a, N: Deserialize<'de>, O: Deserialize<'de>"))]
pub struct Review<'a, N = &'a RawValue, O = &'a RawValue> {
    /// Must be [`API_VERSION`].
    #[serde(borrow, default)]
    pub api_version: Cow<'a, str>,
    /// Must be [`KIND`].
    #[serde(borrow, default)]
    pub kind: Cow<'a, str>,
    /// What is asked.
    #[serde(default = "none")]
    pub request: Option<Request<'a, N, O>>,
}

/// What is asked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a, N: Deserialize<'de>, O: Deserialize<'de>"))]
pub struct Request<'a, N = &'a RawValue, O = &'a RawValue> {
    /// Goes back with the answer.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// What is written to.
    #[serde(borrow)]
    pub resource: Resource<'a>,
    /// `status` for a write to the status.
    #[serde(default)]
    pub sub_resource: Option<Cow<'a, str>>,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    #[serde(borrow)]
    pub operation: Cow<'a, str>,
    /// Who writes.
    #[serde(borrow)]
    pub user_info: UserInfo<'a>,
    /// The object as it is to be.
    #[serde(default = "none")]
    pub object: Option<N>,
    /// The object as it is.
    #[serde(default = "none")]
    pub old_object: Option<O>,
}

/// What serde's `default` would only give for types that have one themselves.
fn none<T>() -> Option<T> {
    None
}

/// A resource.
#[derive(Deserialize)]
pub struct Resource<'a> {
    /// Its group.
    #[serde(borrow, default)]
    pub group: Cow<'a, str>,
    /// Its version.
    #[serde(borrow)]
    pub version: Cow<'a, str>,
    /// Its plural name.
    #[serde(borrow)]
    pub resource: Cow<'a, str>,
}

/// The authenticated user.
#[derive(Deserialize)]
pub struct UserInfo<'a> {
    /// The name.
    #[serde(borrow)]
    pub username: Cow<'a, str>,
}

/// An answer. Nothing but `uid` and `allowed` is written when there is nothing else to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The request's uid; empty when the request had none that could be read.
    pub uid: String,
    /// The JSON Patch, as JSON; empty when nothing changes.
    pub patch: Vec<u8>,
    /// Shown to the person who wrote.
    pub warning: Option<String>,
    /// Why the write is denied; allowed when there is none.
    pub denial: Option<Denial>,
}

/// Why a write is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// HTTP status code.
    pub code: u16,
    /// The cause in one word, for machines and metrics.
    pub cause: &'static str,
    /// The field, where one is to blame.
    pub field: Option<String>,
    /// For people: field, what is wrong, what is allowed.
    pub message: String,
}

impl Denial {
    /// The write is malformed: 400.
    #[must_use]
    pub fn bad_request(cause: &'static str, message: impl Into<String>) -> Self {
        Self { code: 400, cause, field: None, message: message.into() }
    }

    /// The reason as the Kubernetes API conventions name it.
    ///
    /// Never `Conflict`: on that word the apiserver repeats the write five times, although it cannot succeed.
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
struct Envelope<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<[&'a str; 1]>,
}

#[derive(Serialize)]
struct Status<'a> {
    #[serde(rename = "status")]
    outcome: &'static str,
    code: u16,
    reason: &'static str,
    message: &'a str,
    details: Details<'a>,
}

#[derive(Serialize)]
struct Details<'a> {
    causes: [Cause<'a>; 1],
}

#[derive(Serialize)]
struct Cause<'a> {
    reason: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl Answer {
    /// A denial.
    #[must_use]
    pub fn denied(uid: impl Into<String>, denial: Denial) -> Self {
        Self { uid: uid.into(), denial: Some(denial), ..Self::default() }
    }

    /// The answer as the body of the HTTP response.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        if self.denial.is_none() && self.warning.is_none() && !self.patch.is_empty() {
            return self.encode_patch();
        }
        let patch = (self.denial.is_none() && !self.patch.is_empty()).then(|| BASE64_STANDARD.encode(&self.patch));
        let envelope = Envelope {
            api_version: API_VERSION,
            kind: KIND,
            response: Response {
                uid: &self.uid,
                allowed: self.denial.is_none(),
                patch_type: patch.is_some().then_some("JSONPatch"),
                patch,
                status: self.denial.as_ref().map(status),
                warnings: self.warning.as_deref().map(|warning| [warning]),
            },
        };
        // Strings, numbers and a fixed structure: there is nothing in it that JSON could not say.
        serde_json::to_vec(&envelope).unwrap_or_default()
    }

    /// The same, for what nearly every answer is: base64 needs no escaping, and looking through it for what does
    /// takes longer than making it.
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

fn status(denial: &Denial) -> Status<'_> {
    Status {
        outcome: "Failure",
        code: denial.code,
        reason: denial.status_reason(),
        message: &denial.message,
        details: Details {
            causes: [Cause { reason: denial.cause, message: &denial.message, field: denial.field.as_deref() }],
        },
    }
}

/// The uid of a review that could not be read as a whole: cut off, mistyped or with trailing nonsense.
///
/// The apiserver writes the uid first, and shows an answer's message only when the uid is the one it asked with.
#[must_use]
pub fn find_uid(body: &[u8]) -> Option<String> {
    let mut uid = None;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    // The outcome is what was found before the error.
    let _ = Seek { path: &["request", "uid"], found: &mut uid }.deserialize(&mut deserializer);
    uid
}

/// Walks down a path of member names to a string.
struct Seek<'s> {
    path: &'s [&'static str],
    found: &'s mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            *self.found = Some(String::deserialize(deserializer)?);
            return Ok(());
        }
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((wanted, rest)) = self.path.split_first() else { return Ok(()) };
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == *wanted {
                map.next_value_seed(Seek { path: rest, found: self.found })?;
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
    fn the_uid_is_found_before_whatever_is_broken() {
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
    fn both_ways_of_writing_a_patch_give_the_same_text() {
        let short = Answer { uid: "a\"b".into(), patch: b"[]".to_vec(), ..Answer::default() };
        let long = Answer { warning: Some("w".into()), ..short.clone() };
        let text = |answer: &Answer| String::from_utf8(answer.encode()).unwrap();
        assert_eq!(text(&short), text(&long).replace(r#","warnings":["w"]"#, ""));
        assert!(text(&short).contains(r#""uid":"a\"b","#), "{}", text(&short));
    }

    #[test]
    fn an_allowed_answer_without_changes_says_only_that() {
        let answer = Answer { uid: "u1".into(), ..Answer::default() };
        let text = String::from_utf8(answer.encode()).unwrap();
        assert_eq!(
            text,
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u1","allowed":true}}"#
        );
    }
}
