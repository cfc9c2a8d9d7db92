//! CRDs as a newer release of Berth could have them.

use serde_json::{Value, json};

use super::resources::BadDefinition;

/// A field of the Servers' `spec` that no release has.
pub(crate) const FIELD_FROM_THE_FUTURE: &str = "fromTheFuture";

/// A CustomResourceDefinition of Servers that has the field, too, as JSON, which is YAML as well.
pub(super) fn newer(crd: &str) -> Result<String, BadDefinition> {
    let mut crd: Value = serde_saphyr::from_str(crd).map_err(|error| BadDefinition::Yaml(error.to_string()))?;
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        let properties = version.pointer_mut("/schema/openAPIV3Schema/properties/spec/properties");
        let properties = properties.ok_or(BadDefinition::Missing("schema of spec"))?;
        properties[FIELD_FROM_THE_FUTURE] = json!({"type": "string"});
    }
    Ok(crd.to_string())
}
