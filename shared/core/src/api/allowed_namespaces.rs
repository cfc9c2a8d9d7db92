//! Which namespaces may use an object that is cluster-scoped.

/// Whether the list has this namespace. No list allows all of them.
pub(super) fn allows(allowed: Option<&Vec<String>>, namespace: &str) -> bool {
    allowed.is_none_or(|allowed| allowed.iter().any(|name| name == namespace))
}
