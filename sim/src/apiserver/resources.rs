//! The kinds of objects that the API server serves: Berth's CRDs, as shipped, and the built-in kinds that Berth uses.

use serde_json::Value;

use super::schema::Schema;

/// A kind of objects.
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) kind: String,
    pub(crate) is_namespaced: bool,
    /// Whether `status` is written through a subresource of its own.
    pub(crate) has_status: bool,
    /// Where the subresource `scale` finds its fields; none when there is none.
    pub(crate) scale: Option<ScalePaths>,
    /// Whether the API server counts the changes of the declaration in `metadata.generation`.
    pub(crate) has_generation: bool,
    /// JSON pointers of the fields that a field selector may name, beside name and namespace.
    pub(crate) selectable: Vec<String>,
    /// The schema of a CRD. Built-in kinds have none here: they are stored as they are written.
    pub(crate) schema: Option<Schema>,
}

/// JSON pointers of the fields of the subresource `scale`.
pub(crate) struct ScalePaths {
    pub(crate) replicas: String,
    pub(crate) status_replicas: String,
}

impl Resource {
    /// The `apiVersion` of its objects.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The name that messages give to the kind, such as `servers.berth.dev`.
    pub(crate) fn qualified_plural(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The name that messages give to an object's kind, such as `Server.berth.dev`.
    pub(crate) fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }
}

/// Why a CustomResourceDefinition cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BadDefinition {
    /// It is not YAML.
    #[error("the CustomResourceDefinition is not YAML: {0}")]
    Yaml(String),
    /// A field is missing or has another type than expected.
    #[error("the CustomResourceDefinition has no {0}")]
    Missing(&'static str),
    /// The schema cannot be compiled.
    #[error("the schema of {kind} cannot be used: {message}")]
    Schema {
        /// The kind that the CustomResourceDefinition defines.
        kind: String,
        /// What is wrong.
        message: String,
    },
}

/// The kind that a CustomResourceDefinition, in YAML, defines with its stored version.
pub(crate) fn from_crd(yaml: &str) -> Result<Resource, BadDefinition> {
    let crd: Value = serde_saphyr::from_str(yaml).map_err(|error| BadDefinition::Yaml(error.to_string()))?;
    let text = |pointer: &str, name| {
        crd.pointer(pointer).and_then(Value::as_str).map(str::to_owned).ok_or(BadDefinition::Missing(name))
    };
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
    let version = versions.and_then(|versions| versions.iter().find(|version| version["storage"] == true));
    let version = version.ok_or(BadDefinition::Missing("stored version"))?;
    let kind = text("/spec/names/kind", "kind")?;
    let schema = version.pointer("/schema/openAPIV3Schema").ok_or(BadDefinition::Missing("schema"))?;
    let schema = Schema::new(schema).map_err(|message| BadDefinition::Schema { kind: kind.clone(), message })?;
    let subresources = &version["subresources"];
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    Ok(Resource {
        group: text("/spec/group", "group")?,
        version: version["name"].as_str().unwrap_or_default().to_owned(),
        plural: text("/spec/names/plural", "plural name")?,
        kind,
        is_namespaced: crd["spec"]["scope"] == "Namespaced",
        has_status: !subresources["status"].is_null(),
        scale: scale_paths(&subresources["scale"]),
        has_generation: true,
        selectable: fields.filter_map(|field| Some(pointer(field["jsonPath"].as_str()?))).collect(),
        schema: Some(schema),
    })
}

fn scale_paths(scale: &Value) -> Option<ScalePaths> {
    Some(ScalePaths {
        replicas: pointer(scale["specReplicasPath"].as_str()?),
        status_replicas: pointer(scale["statusReplicasPath"].as_str()?),
    })
}

/// The JSON pointer of a JSON path like `.status.state`.
fn pointer(json_path: &str) -> String {
    json_path.replace('.', "/")
}

/// The built-in kinds that Berth uses.
pub(crate) fn built_in() -> Vec<Resource> {
    let kind = |group: &str, version: &str, plural: &str, kind: &str| Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        kind: kind.to_owned(),
        is_namespaced: true,
        has_status: false,
        scale: None,
        has_generation: false,
        selectable: Vec::new(),
        schema: None,
    };
    vec![
        Resource { is_namespaced: false, ..kind("", "v1", "namespaces", "Namespace") },
        kind("", "v1", "configmaps", "ConfigMap"),
        kind("", "v1", "secrets", "Secret"),
        kind("", "v1", "events", "Event"),
        kind("apps", "v1", "controllerrevisions", "ControllerRevision"),
        Resource { has_status: true, ..kind("", "v1", "services", "Service") },
        kind("coordination.k8s.io", "v1", "leases", "Lease"),
        Resource { has_generation: true, ..kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice") },
    ]
}
