//! From typed objects before and after the decision to a JSON Patch of only what changed.
//!
//! Comparing raw trees would mean to decode everything twice; comparing typed objects alone would write defaults that
//! the stored object does not have. So: typed fields are compared, and only those that differ are turned into trees and
//! compared member by member. Unknown members (of a newer version of the API) are in neither tree and stay.

use berth_core::api::{Approval, Server, ServerStatus};
use serde::Serialize;
use serde_json::Value;

/// A JSON Patch (RFC 6902) of `add`, `replace` and `remove`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Patch(Vec<Operation>);

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Operation {
    op: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
}

impl Patch {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The patch as JSON; empty when nothing changes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        if self.is_empty() { Vec::new() } else { serde_json::to_vec(self).unwrap_or_default() }
    }

    /// Sets a member of an object, whether it is there or not.
    fn add(&mut self, path: &str, value: Value) {
        self.0.push(Operation { op: "add", path: path.to_owned(), value: Some(value) });
    }

    /// Sets an element of an array that is there.
    fn replace(&mut self, path: &str, value: Value) {
        self.0.push(Operation { op: "replace", path: path.to_owned(), value: Some(value) });
    }

    fn remove(&mut self, path: &str) {
        self.0.push(Operation { op: "remove", path: path.to_owned(), value: None });
    }

    /// A field that may be absent: `null` and an empty list are written as absence, as the types are serialised.
    fn field<T: PartialEq + Serialize>(&mut self, path: &str, before: &T, after: &T) {
        if before == after {
            return;
        }
        let (before, after) = (tree(before), tree(after));
        match (is_absent(&before), is_absent(&after)) {
            (true, true) => {}
            (true, false) => self.add(path, after),
            (false, true) => self.remove(path),
            (false, false) => self.member(&mut path.to_owned(), &before, after),
        }
    }

    /// A member of an object that is there before and after.
    fn member(&mut self, path: &mut String, before: &Value, after: Value) {
        match (before, after) {
            (before, after) if *before == after => {}
            (Value::Object(before), Value::Object(after)) => self.object(path, before, after),
            (Value::Array(before), Value::Array(after)) => match kept(before, &after) {
                Some(dropped) => self.array(path, before, after, dropped),
                None => self.add(path, Value::Array(after)),
            },
            (_, after) => self.add(path, after),
        }
    }

    fn object(
        &mut self,
        path: &mut String,
        before: &serde_json::Map<String, Value>,
        after: serde_json::Map<String, Value>,
    ) {
        let gone = before.keys().filter(|key| !after.contains_key(*key));
        for key in gone {
            within(path, key, |path| self.remove(path));
        }
        for (key, value) in after {
            within(path, &key, |path| match before.get(&key) {
                Some(before) => self.member(path, before, value),
                None => self.add(path, value),
            });
        }
    }

    /// An array that lost `dropped` elements at its head, kept the others, and grew at its tail.
    fn array(&mut self, path: &mut String, before: &[Value], after: Vec<Value>, dropped: usize) {
        for _ in 0..dropped {
            within(path, "0", |path| self.remove(path));
        }
        let kept = &before[dropped..];
        for (index, value) in after.into_iter().enumerate() {
            match kept.get(index) {
                Some(before) => within(path, &index.to_string(), |path| self.element(path, before, value)),
                None => within(path, "-", |path| self.add(path, value)),
            }
        }
    }

    /// An element of an array: `add` would insert another.
    fn element(&mut self, path: &mut String, before: &Value, after: Value) {
        match (before, after) {
            (before, after) if *before == after => {}
            (Value::Object(before), Value::Object(after)) => self.object(path, before, after),
            (_, after) => self.replace(path, after),
        }
    }
}

fn tree<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn is_absent(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// Calls with the path one member longer (RFC 6901).
fn within(path: &mut String, key: &str, call: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('/');
    for c in key.chars() {
        match c {
            '~' => path.push_str("~0"),
            '/' => path.push_str("~1"),
            c => path.push(c),
        }
    }
    call(path);
    path.truncate(length);
}

/// How many elements were dropped at the head, if what is left stands in the same order at the head of `after`.
/// Then single elements are patched; otherwise the array is written anew.
fn kept(before: &[Value], after: &[Value]) -> Option<usize> {
    let dropped = before.iter().position(|b| after.first().is_some_and(|a| is_same(b, a)))?;
    let kept = &before[dropped..];
    (kept.len() <= after.len() && kept.iter().zip(after).all(|(b, a)| is_same(b, a))).then_some(dropped)
}

/// Whether two elements of a list mean the same thing: by the key of the list, or else by being equal.
fn is_same(before: &Value, after: &Value) -> bool {
    match ["id", "type", "name"].into_iter().find_map(|key| Some((before.get(key)?, after.get(key)?))) {
        Some((before, after)) => before == after,
        None => before == after,
    }
}

/// Compares every field; a field that is added to the type and forgotten here does not compile.
macro_rules! fields {
    ($patch:ident, $before:expr, $after:expr, $root:literal, $type:ident { $($field:ident => $name:literal),* $(,)? }) => {{
        let (before, after): (&$type, &$type) = ($before, $after);
        let $type { $($field: _),* } = before;
        $($patch.field(concat!($root, "/", $name), &before.$field, &after.$field);)*
    }};
}

/// The patch of a write to a Server's status. `before` is the object as it was sent.
#[must_use]
pub fn status(before: Option<&ServerStatus>, after: Option<&ServerStatus>) -> Patch {
    let mut patch = Patch::default();
    match (before, after) {
        (None, None) => {}
        (None, Some(after)) => patch.add("/status", tree(after)),
        (Some(_), None) => patch.remove("/status"),
        (Some(before), Some(after)) => fields!(patch, before, after, "/status", ServerStatus {
            observed_generation => "observedGeneration",
            state => "state",
            state_since => "stateSince",
            waiting_for => "waitingFor",
            last_task_id => "lastTaskID",
            first_task_id => "firstTaskID",
            tasks => "tasks",
            lock => "lock",
            transitions => "transitions",
            epoch => "epoch",
            force => "force",
            observed_retry => "observedRetry",
            machine => "machine",
            environment => "environment",
            app => "app",
            traffic => "traffic",
            reachability => "reachability",
            health => "health",
            monitoring => "monitoring",
            conditions => "conditions",
            claim => "claim",
            report => "report",
        }),
    }
    patch
}

/// What the webhook may change on a write to the Server itself; kept aside while the rest goes through the decision.
pub struct Stamps {
    finalizers: Option<Vec<String>>,
    force: Option<berth_core::api::Force>,
    retry: Option<berth_core::api::Retry>,
}

impl Stamps {
    /// The stamps of a Server as it was sent.
    #[must_use]
    pub fn of(server: &Server) -> Self {
        Self {
            finalizers: server.metadata.finalizers.clone(),
            force: server.spec.force.clone(),
            retry: server.spec.retry.clone(),
        }
    }

    /// The patch of a write to the Server itself: finalizers, and who forced and retried when.
    #[must_use]
    pub fn patch(&self, after: &Server) -> Patch {
        let mut patch = Patch::default();
        patch.field("/metadata/finalizers", &self.finalizers, &after.metadata.finalizers);
        patch.field("/spec/force", &self.force, &after.spec.force);
        patch.field("/spec/retry", &self.retry, &after.spec.retry);
        patch
    }
}

/// The patch of an Approval's creation: who decided, and when.
#[must_use]
pub fn approver(before: Option<&berth_core::api::Approver>, after: &Approval) -> Patch {
    let mut patch = Patch::default();
    patch.field("/spec/approver", &before, &after.spec.approver.as_ref());
    patch
}
