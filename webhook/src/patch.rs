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
                kept if kept.iter().all(|kept| !kept) => self.add(path, Value::Array(after)),
                kept => self.array(path, before, after, &kept),
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

    /// An array that lost elements, kept the others in their order, and grew at its tail.
    fn array(&mut self, path: &mut String, before: &[Value], after: Vec<Value>, kept: &[bool]) {
        let mut after = after.into_iter();
        let mut index = 0;
        for (before, kept) in before.iter().zip(kept) {
            match kept.then(|| after.next()).flatten() {
                Some(after) => {
                    within(path, &index.to_string(), |path| self.element(path, before, after));
                    index += 1;
                }
                None => within(path, &index.to_string(), |path| self.remove(path)),
            }
        }
        for value in after {
            within(path, "-", |path| self.add(path, value));
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

/// Which elements of `before` are the first ones of `after`, in the same order. When none is, the list is written anew.
fn kept(before: &[Value], after: &[Value]) -> Vec<bool> {
    let mut after = after.iter().peekable();
    before.iter().map(|b| after.next_if(|a| is_same(b, a)).is_some()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Trees with lists of keyed objects, of plain values, and names that have to be escaped.
    fn trees() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..4).prop_map(Value::from), Just(json!("text"))];
        leaf.prop_recursive(3, 24, 5, |inner| {
            let keys = prop::sample::select(vec!["id", "type", "a/b", "c~d", "e"]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(keys, inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn applying_the_patch_gives_the_other_tree(before in trees(), after in trees()) {
            let mut patch = Patch::default();
            patch.member(&mut "/root".to_owned(), &before, after.clone());
            prop_assert_eq!(patch.is_empty(), before == after);
            let mut object = json!({"root": before});
            if !patch.is_empty() {
                let patch: json_patch::Patch = serde_json::from_slice(&patch.encode()).unwrap();
                json_patch::patch(&mut object, &patch).unwrap();
            }
            prop_assert_eq!(object, json!({"root": after}));
        }
    }

    #[test]
    fn a_list_that_moves_on_is_patched_element_by_element() {
        let before = json!([{"id": 1, "p": "x"}, {"id": 2, "p": "x"}, {"id": 3, "p": "x"}]);
        let after = json!([{"id": 2, "p": "y"}, {"id": 3, "p": "x"}, {"id": 4, "p": "z"}]);
        let mut patch = Patch::default();
        patch.member(&mut "/tasks".to_owned(), &before, after);
        let expected = json!([
            {"op": "remove", "path": "/tasks/0"},
            {"op": "add", "path": "/tasks/0/p", "value": "y"},
            {"op": "add", "path": "/tasks/-", "value": {"id": 4, "p": "z"}},
        ]);
        assert_eq!(serde_json::to_value(&patch).unwrap(), expected);
    }
}
