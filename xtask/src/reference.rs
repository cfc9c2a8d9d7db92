//! Generates `docs/api.md`, the reference of the API, from the schemas of the CRDs.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// The introduction of the page.
const HEAD: &str = "\
# API reference

Group `berth.dev`, version `v1alpha1`. Generated from the types in `shared/core/src/api` by `cargo xtask generate`; do not
edit.

How to read the tables: `[]` stands for the elements of a list, `{}` for the values of a map; a field in **bold** is
required where the object around it is given. Rules are checked by the apiserver, with these messages. Who writes which
part of a Server is in [protocol.md](protocol.md).
";

/// The whole page.
pub(crate) fn render(crds: &[CustomResourceDefinition]) -> String {
    let mut page = HEAD.to_owned();
    for crd in crds {
        push_kind(&mut page, crd);
    }
    page
}

fn push_kind(page: &mut String, crd: &CustomResourceDefinition) {
    let names = &crd.spec.names;
    let short = names.short_names.iter().flatten().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let Some(version) = crd.spec.versions.first() else { return };
    let Some(schema) = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()) else { return };
    let about = schema.description.as_deref().unwrap_or_default();
    push(page, &format!("\n## {}\n\n{about}\n", names.kind));
    push(page, &format!("{} (`kubectl get {}`, short {short}).", crd.spec.scope, names.plural));
    if let Some(subresources) = &version.subresources {
        let scale = if subresources.scale.is_some() { " and `scale`" } else { "" };
        push(page, &format!("Subresources: `status`{scale}."));
    }
    let selectable: Vec<_> =
        version.selectable_fields.iter().flatten().map(|field| format!("`{}`", &field.json_path[1..])).collect();
    if !selectable.is_empty() {
        push(page, &format!("Field selectors: {}.", selectable.join(", ")));
    }
    for rule in own_rules(schema) {
        push(page, &format!("\nRule: {rule}."));
    }
    for part in ["spec", "status"] {
        let Some(schema) = schema.properties.as_ref().and_then(|properties| properties.get(part)) else { continue };
        push(page, &format!("\n### {}: `{part}`\n", names.kind));
        for rule in own_rules(schema) {
            push(page, &format!("Rule: {rule}.\n"));
        }
        push(page, "| field | type | default | meaning |\n| --- | --- | --- | --- |");
        fields(page, "", schema);
    }
}

/// A row for each field of `schema` and everything below it, depth first.
fn fields(page: &mut String, path: &str, schema: &JSONSchemaProps) {
    for (name, field) in schema.properties.iter().flatten() {
        let inside = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let required = schema.required.iter().flatten().any(|required| required == name);
        row(page, &inside, required, field);
        below(page, &inside, field);
    }
}

/// Rows for the members, elements or values of a field.
fn below(page: &mut String, path: &str, schema: &JSONSchemaProps) {
    fields(page, path, schema);
    if let Some(JSONSchemaPropsOrArray::Schema(element)) = &schema.items {
        below(page, &format!("{path}[]"), element);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &schema.additional_properties {
        below(page, &format!("{path}{{}}"), value);
    }
}

fn row(page: &mut String, path: &str, required: bool, schema: &JSONSchemaProps) {
    let name = if required { format!("**`{path}`**") } else { format!("`{path}`") };
    let default = schema.default.as_ref().map_or(String::new(), |default| format!("`{}`", default.0));
    let mut meaning = schema.description.clone().unwrap_or_default().replace('\n', " ");
    for rule in rules(schema) {
        let _ = write!(meaning, " Rule: {rule}.");
    }
    let cells = [name, type_of(schema), default, meaning].map(|cell| cell.replace('|', "\\|").trim().to_owned());
    push(page, &format!("| {} |", cells.join(" | ")));
}

/// The messages of a schema's rules, without those below it.
fn own_rules(schema: &JSONSchemaProps) -> impl Iterator<Item = &str> {
    schema.x_kubernetes_validations.iter().flatten().filter_map(|rule| rule.message.as_deref())
}

/// The messages of a field's rules, including those of its elements.
fn rules(schema: &JSONSchemaProps) -> Vec<&str> {
    let mut messages: Vec<_> = own_rules(schema).collect();
    if let Some(JSONSchemaPropsOrArray::Schema(element)) = &schema.items {
        messages.extend(rules(element));
    }
    messages
}

/// The type of a field with its limits, as text.
fn type_of(schema: &JSONSchemaProps) -> String {
    if let Some(values) = &schema.enum_ {
        let values = values.iter().filter_map(|value| value.0.as_str()).map(|value| format!("`{value}`"));
        return format!("one of {}", values.collect::<Vec<_>>().join(", "));
    }
    if schema.x_kubernetes_int_or_string == Some(true) {
        return "number or percentage".to_owned();
    }
    let name = match (schema.type_.as_deref(), &schema.items, &schema.additional_properties) {
        (Some("array"), Some(JSONSchemaPropsOrArray::Schema(element)), _) => format!("list of {}", type_of(element)),
        (Some("object"), _, Some(JSONSchemaPropsOrBool::Schema(value))) => format!("map of {}", type_of(value)),
        (Some("object"), ..) if schema.x_kubernetes_preserve_unknown_fields == Some(true) => "any object".to_owned(),
        (Some("string"), ..) if schema.format.as_deref() == Some("date-time") => "time".to_owned(),
        (Some(name), ..) => name.to_owned(),
        (None, ..) => "any".to_owned(),
    };
    [vec![name], limits(schema)].concat().join(", ")
}

fn limits(schema: &JSONSchemaProps) -> Vec<String> {
    let numbers = range(schema.minimum, schema.maximum, "");
    let lengths = range(schema.min_length, schema.max_length, " characters");
    let counts = range(schema.min_items, schema.max_items, " elements");
    let keys = schema.x_kubernetes_list_map_keys.as_ref().map(|keys| format!("unique by `{}`", keys.join("`, `")));
    let pattern = schema.pattern.as_ref().map(|pattern| format!("`{pattern}`"));
    [numbers, lengths, counts, keys, pattern].into_iter().flatten().collect()
}

fn range<N: PartialEq + std::fmt::Display>(least: Option<N>, most: Option<N>, unit: &str) -> Option<String> {
    match (least, most) {
        (Some(least), Some(most)) if least == most => Some(format!("{least}{unit}")),
        (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
        (Some(least), None) => Some(format!("at least {least}{unit}")),
        (None, Some(most)) => Some(format!("at most {most}{unit}")),
        (None, None) => None,
    }
}

fn push(page: &mut String, line: &str) {
    page.push_str(line);
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crds;

    #[test]
    fn rows_show_type_limits_default_rules_and_required_fields() {
        let page = render(&crds::all());
        let row = |start: &str| page.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}"));
        let replicas = row("| `replicas` |");
        assert!(replicas.contains("integer, 0 to 10000") && replicas.contains("`1`"), "{replicas}");
        let digest = row("| **`app.artifact.sha256`** |");
        assert!(digest.contains("64 characters") && digest.contains("SHA-256"), "{digest}");
        let packages = row("| `template.spec.packages` |");
        assert!(packages.contains("unique by `name`") && packages.contains("exactly one of apt"), "{packages}");
        assert!(row("| `state` |").contains("`Unknown`"));
        assert!(page.contains("Rule: an Approval is immutable"));
    }

    /// An unescaped `|` in a pattern would add a column.
    #[test]
    fn every_row_has_four_cells() {
        let page = render(&crds::all());
        for line in page.lines().filter(|line| line.starts_with('|')) {
            assert_eq!(line.replace("\\|", "").matches('|').count(), 5, "{line}");
        }
    }
}
