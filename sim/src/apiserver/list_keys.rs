//! The keys of lists.

use serde_json::Value;

/// The keys by which the entries of a list are told apart; none when it has no keys.
pub(crate) fn keys(schema: &Value) -> Vec<&str> {
    let is_map = schema["x-kubernetes-list-type"] == "map";
    let keys = schema["x-kubernetes-list-map-keys"].as_array().filter(|_| is_map);
    keys.into_iter().flatten().filter_map(Value::as_str).collect()
}
