//! Who may do what: the shipped Roles and ClusterRoles, and their bindings.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    failure::Failure,
    request::{Call, Subresource, Target},
    resources::Resource,
};

/// The shipped manifests with rights.
const MANIFESTS: [&str; 5] = [
    include_str!("../../../deploy/base/deployment-controller.yaml"),
    include_str!("../../../deploy/base/lb-controller.yaml"),
    include_str!("../../../deploy/base/monitor-controller.yaml"),
    include_str!("../../../deploy/base/replicaset-controller.yaml"),
    include_str!("../../../deploy/base/webhook.yaml"),
];
/// How names of the users begin whose rights are those of the manifests. All others are people with all rights.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Why manifests with rights cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadRights {
    /// They are not YAML.
    #[error("a manifest with rights is not YAML: {0}")]
    Yaml(String),
    /// A binding names a role that is not there.
    #[error("there is no {0}")]
    NoRole(String),
}

/// The rights of all users.
pub(crate) struct Rbac(Vec<Grant>);

/// What a user may do because of one binding.
struct Grant {
    user: String,
    /// Where; none for the whole cluster.
    namespace: Option<String>,
    rules: Vec<Value>,
}

/// What somebody wants to do.
#[derive(Clone, Debug)]
pub(crate) struct Action<'a> {
    pub(crate) user: &'a str,
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    /// With its subresource, such as `servers/status`.
    pub(crate) resource: &'a str,
    /// Empty for the whole cluster.
    pub(crate) namespace: &'a str,
    /// Empty for a collection.
    pub(crate) name: &'a str,
}

impl Rbac {
    /// The rights that the shipped manifests give.
    pub(crate) fn shipped() -> Result<Self, BadRights> {
        let mut documents: Vec<Value> = Vec::new();
        for manifest in MANIFESTS {
            let read = serde_saphyr::from_multiple(manifest).map_err(|error| BadRights::Yaml(error.to_string()))?;
            documents.extend(read);
        }
        Self::of(&documents)
    }

    fn of(documents: &[Value]) -> Result<Self, BadRights> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut rules_of = BTreeMap::new();
        for role in
            documents.iter().filter(|document| matches!(text(&document["kind"]).as_str(), "Role" | "ClusterRole"))
        {
            let metadata = &role["metadata"];
            let key = (text(&role["kind"]), text(&metadata["namespace"]), text(&metadata["name"]));
            rules_of.insert(key, role["rules"].as_array().cloned().unwrap_or_default());
        }
        let mut grants = Vec::new();
        for binding in documents {
            let namespace = match binding["kind"].as_str() {
                Some("ClusterRoleBinding") => None,
                Some("RoleBinding") => Some(text(&binding["metadata"]["namespace"])),
                _ => continue,
            };
            let role = &binding["roleRef"];
            let of_role = if role["kind"] == "Role" { namespace.clone().unwrap_or_default() } else { String::new() };
            let key = (text(&role["kind"]), of_role, text(&role["name"]));
            let rules = rules_of.get(&key).ok_or_else(|| BadRights::NoRole(format!("{} {}", key.0, key.2)))?;
            for subject in binding["subjects"].as_array().into_iter().flatten() {
                let user = format!("{SERVICE_ACCOUNT}{}:{}", text(&subject["namespace"]), text(&subject["name"]));
                grants.push(Grant { user, namespace: namespace.clone(), rules: rules.clone() });
            }
        }
        Ok(Self(grants))
    }

    /// Whether this is allowed. People may do everything.
    pub(crate) fn allows(&self, action: &Action<'_>) -> bool {
        if !action.user.starts_with(SERVICE_ACCOUNT) {
            return true;
        }
        let of_user = self.0.iter().filter(|grant| grant.user == action.user);
        let mut here = of_user.filter(|grant| grant.namespace.as_ref().is_none_or(|there| there == action.namespace));
        here.any(|grant| grant.rules.iter().any(|rule| allows(rule, action)))
    }

    /// Refuses a request that its user has no right to, in the words of the API server.
    pub(super) fn check(&self, call: &Call, resource: &Resource, target: &Target) -> Result<(), Failure> {
        let plural = match target.subresource {
            None => resource.plural.clone(),
            Some(Subresource::Status) => format!("{}/status", resource.plural),
            Some(Subresource::Scale) => format!("{}/scale", resource.plural),
        };
        let verb = verb(call, target);
        // A list or watch of one object by its name is one of this object.
        let by_field = call.parameters.text("fieldSelector").and_then(|text| text.strip_prefix("metadata.name="));
        let name = target.name.as_deref().or(by_field).unwrap_or_default();
        let (group, namespace) = (resource.group.as_str(), target.namespace.as_str());
        let action = Action { user: &call.user, verb, group, resource: &plural, namespace, name };
        if self.allows(&action) {
            return Ok(());
        }
        let place = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {namespace:?}")
        };
        let what = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        Err(Failure::forbidden(format!(
            "{}{what} is forbidden: User {:?} cannot {verb} resource {plural:?} in API group {group:?} {place}",
            resource.qualified_plural(),
            call.user,
        )))
    }
}

fn verb(call: &Call, target: &Target) -> &'static str {
    match (call.method.as_str(), &target.name) {
        ("GET", Some(_)) => "get",
        ("GET", None) if call.parameters.flag("watch") => "watch",
        ("GET", None) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", Some(_)) => "delete",
        ("DELETE", None) => "deletecollection",
        _ => "",
    }
}

fn allows(rule: &Value, action: &Action<'_>) -> bool {
    let lists = |field: &str, value: &str| {
        rule[field].as_array().is_some_and(|list| list.iter().any(|entry| entry == "*" || entry == value))
    };
    let names = rule["resourceNames"].as_array().filter(|names| !names.is_empty());
    lists("verbs", action.verb)
        && lists("apiGroups", action.group)
        && lists("resources", action.resource)
        && names.is_none_or(|names| names.iter().any(|name| name == action.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONITOR: &str = "system:serviceaccount:berth-system:monitor-controller";
    const REPLICASETS: &str = "system:serviceaccount:berth-system:replicaset-controller";

    fn may(user: &str, verb: &str, (group, resource): (&str, &str), namespace: &str, name: &str) -> bool {
        Rbac::shipped().unwrap().allows(&Action { user, verb, group, resource, namespace, name })
    }

    #[test]
    fn a_program_may_do_what_its_manifest_says() {
        let (servers, status) = (("berth.dev", "servers"), ("berth.dev", "servers/status"));
        assert!(may(REPLICASETS, "create", servers, "default", ""));
        assert!(!may(MONITOR, "create", servers, "default", ""));
        assert!(may(MONITOR, "patch", status, "default", "web-0"));
        assert!(!may(MONITOR, "patch", servers, "default", "web-0"));
        assert!(may("ann", "delete", servers, "default", "web-0"), "people may do everything");
        assert!(!may("system:serviceaccount:default:default", "get", servers, "default", "web-0"));
    }

    #[test]
    fn a_right_counts_in_its_namespace_and_for_its_names() {
        let (maps, mark) = (("", "configmaps"), "replicaset-controller-orphans");
        assert!(may(REPLICASETS, "update", maps, "berth-system", mark));
        assert!(!may(REPLICASETS, "update", maps, "berth-system", "other"));
        assert!(!may(REPLICASETS, "update", maps, "default", mark));
        assert!(may(REPLICASETS, "get", ("", "secrets"), "berth-credentials", "x"));
        assert!(!may(REPLICASETS, "get", ("", "secrets"), "default", "x"));
    }
}
