//! Which requests there were: who sent them, what they were about, and how they were answered.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, header::CONTENT_TYPE, request::Parts};
use serde_json::Value;

/// How many fields of a patch a kind of requests names.
const FIELDS: usize = 4;

/// A kind of requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKind {
    /// The program that sent it.
    pub program: String,
    /// The method and what is written or read, such as `PATCH servers/status: claim`.
    pub what: String,
    /// The status code of the answer.
    pub code: u16,
}

/// How many requests of each kind there were.
pub type RequestCounts = BTreeMap<RequestKind, u64>;

impl RequestKind {
    pub(crate) fn of(user: &str, head: &Parts, body: &[u8], code: u16) -> Self {
        let mut what = format!("{} {}", head.method, collection(head.uri.path()));
        let is_patch = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json-patch+json");
        if head.method == Method::PATCH && is_patch {
            let fields: Vec<String> = fields(body).into_iter().take(FIELDS).collect();
            what = format!("{what}: {}", fields.join(", "));
        }
        Self { program: user.rsplit(':').next().unwrap_or_default().to_owned(), what, code }
    }
}

/// The path of an object or a collection without namespace and name.
fn collection(path: &str) -> String {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let rest = parts.get(if parts.first() == Some(&"api") { 2 } else { 3 }..).unwrap_or_default();
    let rest = match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    match rest {
        [plural, _, subresource] => format!("{plural}/{subresource}"),
        [plural, ..] => (*plural).to_owned(),
        [] => String::new(),
    }
}

/// The fields that a JSON Patch writes, each by the second name of its path.
fn fields(patch: &[u8]) -> BTreeSet<String> {
    let patch: Vec<Value> = serde_json::from_slice(patch).unwrap_or_default();
    let written = patch.iter().filter(|operation| operation["op"] != "test");
    written
        .filter_map(|operation| {
            let mut names = operation["path"].as_str()?.split('/').skip(1);
            let (part, field) = (names.next()?, names.next());
            Some(field.unwrap_or(part).to_owned())
        })
        .collect()
}

/// How many requests of each kind there were since `before`.
#[must_use]
pub fn since(before: &RequestCounts, now: &RequestCounts) -> RequestCounts {
    let new = |(kind, count): (&RequestKind, &u64)| {
        let count = count - before.get(kind).copied().unwrap_or_default();
        (count > 0).then(|| (kind.clone(), count))
    };
    now.iter().filter_map(new).collect()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_kind_of_requests_says_who_writes_what() {
        let path = "/apis/berth.dev/v1alpha1/namespaces/default/servers/web-0/status";
        let request = Request::patch(path).header(CONTENT_TYPE, "application/json-patch+json").body(()).unwrap();
        let body =
            br#"[{"op":"test","path":"/metadata/uid","value":"u"},{"op":"add","path":"/status/claim","value":{}}]"#;
        let user = "system:serviceaccount:berth-system:lb-controller";
        let kind = RequestKind::of(user, &request.into_parts().0, body, 409);
        assert_eq!(
            (kind.program.as_str(), kind.what.as_str(), kind.code),
            ("lb-controller", "PATCH servers/status: claim", 409)
        );
    }

    #[test]
    fn a_path_is_that_of_its_collection() {
        for (path, expected) in [
            ("/api/v1/services", "services"),
            ("/api/v1/namespaces/default", "namespaces"),
            ("/api/v1/namespaces/default/services/web", "services"),
            ("/apis/berth.dev/v1alpha1/machineclasses/small", "machineclasses"),
            ("/apis/berth.dev/v1alpha1/namespaces/default/servers/web-0/status", "servers/status"),
        ] {
            assert_eq!(collection(path), expected, "{path}");
        }
    }
}
