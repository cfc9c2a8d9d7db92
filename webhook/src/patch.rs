//! The JSON Patch of what a decision changed.
//!
//! To compare raw JSON trees, the webhook would have to decode everything twice; to compare typed objects alone, it would
//! write defaults that the stored object does not have. So it compares typed fields, and turns only those that differ into
//! trees, which it compares member by member. Unknown members (of a newer version of the API) are in neither tree, so the
//! patch leaves them alone.

use berth_core::api::{Approval, Force, Request, RolloutRequest, Server, ServerStatus};
use serde::Serialize;
use serde_json::{Map, Value};

/// Bytes that the first operation reserves: most patches of a status fit.
const INITIAL_CAPACITY: usize = 2048;

/// A JSON Patch (RFC 6902) of `add`, `replace` and `remove` operations, serialized one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchWriter(Vec<u8>);

#[derive(Serialize)]
struct OperationJson<'a, T> {
    op: &'static str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a T>,
}

impl PatchWriter {
    /// Whether the patch changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The patch as JSON text; empty when it changes nothing.
    #[must_use]
    pub fn encode(mut self) -> Vec<u8> {
        if !self.is_empty() {
            self.0.push(b']');
        }
        self.0
    }

    fn push<T: Serialize>(&mut self, op: &'static str, path: &str, value: Option<&T>) {
        if self.is_empty() {
            self.0.reserve(INITIAL_CAPACITY);
        }
        self.0.push(if self.is_empty() { b'[' } else { b',' });
        // Writing to memory cannot fail, and every type of the API can be serialized.
        let _ = serde_json::to_writer(&mut self.0, &OperationJson { op, path, value });
    }

    /// Sets a member of an object, whether or not it exists.
    fn add<T: Serialize>(&mut self, path: &str, value: &T) {
        self.push("add", path, Some(value));
    }

    /// Removes `managedFields`. Once an object has none, the apiserver does not track its fields again before the first
    /// server-side apply.
    pub fn remove_managed_fields(&mut self) {
        self.remove("/metadata/managedFields");
    }

    fn remove(&mut self, path: &str) {
        self.push::<()>("remove", path, None);
    }

    /// A field that may be absent.
    fn field<T: PartialEq + Serialize>(&mut self, path: &str, before: Option<&T>, after: Option<&T>) {
        match (before, after) {
            (None, None) => {}
            (None, Some(after)) => self.add(path, after),
            (Some(_), None) => self.remove(path),
            (Some(before), Some(after)) if before == after => {}
            (Some(before), Some(after)) => self.member(&mut path.to_owned(), &tree(before), &tree(after)),
        }
    }

    /// A list that is left out when it is empty.
    fn list<T: PartialEq + Serialize>(
        &mut self,
        path: &str,
        before: &[T],
        after: &[T],
        is_same: impl Fn(&T, &T) -> bool,
    ) {
        match (before, after) {
            (before, after) if before == after => {}
            (_, []) => self.remove(path),
            (before, after) => self.array(&mut path.to_owned(), before, after, is_same),
        }
    }

    /// A member that the object has before and after.
    fn member(&mut self, path: &mut String, before: &Value, after: &Value) {
        match (before, after) {
            (before, after) if before == after => {}
            (Value::Object(before), Value::Object(after)) => self.object(path, before, after),
            (Value::Array(before), Value::Array(after)) => self.array(path, before, after, is_same),
            (_, after) => self.add(path, after),
        }
    }

    fn object(&mut self, path: &mut String, before: &Map<String, Value>, after: &Map<String, Value>) {
        for key in before.keys().filter(|key| !after.contains_key(*key)) {
            with_member(path, key, |path| self.remove(path));
        }
        for (key, value) in after {
            with_member(path, key, |path| match before.get(key) {
                Some(before) => self.member(path, before, value),
                None => self.add(path, value),
            });
        }
    }

    /// An array that differs. If some elements were kept, in their order, patches these one by one, removes the others and
    /// appends the new ones; otherwise replaces the whole array.
    fn array<T: PartialEq + Serialize>(
        &mut self,
        path: &mut String,
        before: &[T],
        after: &[T],
        is_same: impl Fn(&T, &T) -> bool,
    ) {
        let mut rest = after.iter().peekable();
        let kept: Vec<_> = before.iter().map(|before| rest.next_if(|after| is_same(before, after))).collect();
        if kept.iter().all(Option::is_none) {
            self.add(path, &after);
            return;
        }
        let mut index = 0;
        for (before, kept) in before.iter().zip(kept) {
            with_member(path, &index.to_string(), |path| match kept {
                Some(after) => self.element(path, before, after),
                None => self.remove(path),
            });
            index += usize::from(kept.is_some());
        }
        for value in rest {
            with_member(path, "-", |path| self.add(path, value));
        }
    }

    /// An element of an array, which takes `replace` because `add` would insert another element.
    fn element<T: PartialEq + Serialize>(&mut self, path: &mut String, before: &T, after: &T) {
        if before == after {
            return;
        }
        match (tree(before), tree(after)) {
            (Value::Object(before), Value::Object(after)) => self.object(path, &before, &after),
            (_, after) => self.push("replace", path, Some(&after)),
        }
    }
}

fn tree<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Calls `call` with the path extended by one member, escaped as RFC 6901 asks.
fn with_member(path: &mut String, key: &str, call: impl FnOnce(&mut String)) {
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

/// Whether two elements of a list are the same item: their key is equal, or they are equal where the list has no key.
fn is_same(before: &Value, after: &Value) -> bool {
    match ["id", "type", "name"].into_iter().find_map(|key| Some((before.get(key)?, after.get(key)?))) {
        Some((before, after)) => before == after,
        None => before == after,
    }
}

/// Compares every field. A field that is added to the type but not here is a compile error.
macro_rules! fields {
    ($patch:ident, $before:expr, $after:expr, $root:literal, $type:ident {
        $($field:ident => $name:literal),* $(,)?
    } lists { $($list:ident => $list_name:literal by $is_same:expr),* $(,)? }) => {{
        let (before, after): (&$type, &$type) = ($before, $after);
        let $type { $($field: _,)* $($list: _),* } = before;
        $($patch.field(concat!($root, "/", $name), before.$field.as_ref(), after.$field.as_ref());)*
        $($patch.list(concat!($root, "/", $list_name), &before.$list, &after.$list, $is_same);)*
    }};
}

/// The patch for a write to a Server's status. `before` is the status as it was sent.
#[must_use]
pub fn status(before: Option<&ServerStatus>, after: Option<&ServerStatus>) -> PatchWriter {
    let mut patch = PatchWriter::default();
    match (before, after) {
        (Some(before), Some(after)) => fields!(patch, before, after, "/status", ServerStatus {
            observed_generation => "observedGeneration",
            state => "state",
            state_since => "stateSince",
            waiting_for => "waitingFor",
            last_task_id => "lastTaskID",
            first_task_id => "firstTaskID",
            lock => "lock",
            previous_state => "previousState",
            came_from => "cameFrom",
            epoch => "epoch",
            force => "force",
            observed_retry => "observedRetry",
            observed_reboot => "observedReboot",
            machine => "machine",
            environment => "environment",
            app => "app",
            traffic => "traffic",
            reachability => "reachability",
            health => "health",
            monitoring => "monitoring",
            claim => "claim",
            report => "report",
        } lists {
            tasks => "tasks" by |before, after| before.id == after.id,
            history => "history" by String::eq,
            transitions => "transitions" by |before, after| before == after,
            conditions => "conditions" by |before, after| before.type_ == after.type_,
        }),
        (before, after) => patch.field("/status", before, after),
    }
    patch
}

/// The patch for a write to a VMDeployment: author and time of the request about its roll-out.
#[must_use]
pub fn rollout_request(before: Option<&RolloutRequest>, after: Option<&RolloutRequest>) -> PatchWriter {
    let mut patch = PatchWriter::default();
    patch.field("/spec/rollout/request", before, after);
    patch
}

/// The fields that the webhook may change on a write to the Server itself, as they were sent.
pub struct StampedFields {
    finalizers: Option<Vec<String>>,
    force: Option<Force>,
    retry: Option<Request>,
    reboot: Option<Request>,
}

impl StampedFields {
    /// Copies the fields of a Server as it was sent.
    #[must_use]
    pub fn of(server: &Server) -> Self {
        Self {
            finalizers: server.metadata.finalizers.clone(),
            force: server.spec.force.clone(),
            retry: server.spec.retry.clone(),
            reboot: server.spec.reboot.clone(),
        }
    }

    /// The patch for a write to the Server itself: finalizers, and the author and time of `force`, `retry` and `reboot`.
    #[must_use]
    pub fn patch(&self, after: &Server) -> PatchWriter {
        let mut patch = PatchWriter::default();
        let before = self.finalizers.as_deref().unwrap_or_default();
        let finalizers = after.metadata.finalizers.as_deref().unwrap_or_default();
        patch.list("/metadata/finalizers", before, finalizers, String::eq);
        patch.field("/spec/force", self.force.as_ref(), after.spec.force.as_ref());
        patch.field("/spec/retry", self.retry.as_ref(), after.spec.retry.as_ref());
        patch.field("/spec/reboot", self.reboot.as_ref(), after.spec.reboot.as_ref());
        patch
    }
}

/// The patch for the creation of an Approval: its author and time, and until when it counts.
#[must_use]
pub fn approval(before: &Approval, after: &Approval) -> PatchWriter {
    let mut patch = PatchWriter::default();
    patch.field("/spec/approver", before.spec.approver.as_ref(), after.spec.approver.as_ref());
    patch.field("/spec/expiresAt", before.spec.expires_at.as_ref(), after.spec.expires_at.as_ref());
    patch
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Trees with lists of keyed objects, lists of plain values, and names that must be escaped.
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
        fn applying_the_patch_gives_the_tree_after(before in trees(), after in trees()) {
            let mut patch = PatchWriter::default();
            patch.member(&mut "/root".to_owned(), &before, &after);
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
    fn a_list_that_loses_its_head_and_grows_is_patched_element_by_element() {
        let before = json!([{"id": 1, "p": "x"}, {"id": 2, "p": "x"}, {"id": 3, "p": "x"}]);
        let after = json!([{"id": 2, "p": "y"}, {"id": 3, "p": "x"}, {"id": 4, "p": "z"}]);
        let mut patch = PatchWriter::default();
        patch.member(&mut "/tasks".to_owned(), &before, &after);
        let expected = json!([
            {"op": "remove", "path": "/tasks/0"},
            {"op": "add", "path": "/tasks/0/p", "value": "y"},
            {"op": "add", "path": "/tasks/-", "value": {"id": 4, "p": "z"}},
        ]);
        assert_eq!(serde_json::from_slice::<Value>(&patch.encode()).unwrap(), expected);
    }
}
