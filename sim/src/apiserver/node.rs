//! A structural schema, compiled: what each value may hold, which fields have defaults, and which rules there are.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{list_keys::keys, rule::Rule};

/// The schema of a value.
#[expect(clippy::struct_excessive_bools, reason = "each is a mark of its own that a schema has or not")]
pub(super) struct Node {
    pub(super) properties: BTreeMap<String, Node>,
    /// The schema of the values of a map.
    pub(super) values: Option<Box<Node>>,
    /// The schema of the entries of a list.
    pub(super) items: Option<Box<Node>>,
    /// The properties that have a default.
    defaults: Vec<(String, Value)>,
    is_nullable: bool,
    keeps_unknown: bool,
    /// What tells the entries of a list apart; nothing for other lists.
    pub(super) keys: Vec<String>,
    pub(super) rules: Vec<Rule>,
    /// Whether there are rules here or below.
    pub(super) has_rules: bool,
    /// Whether there are lists with keys here or below.
    pub(super) has_keys: bool,
}

impl Node {
    pub(super) fn new(schema: &Value) -> Self {
        let properties = schema["properties"].as_object().into_iter().flatten();
        let properties: BTreeMap<String, Self> =
            properties.map(|(name, schema)| (name.clone(), Self::new(schema))).collect();
        let part = |name: &str| schema.get(name).filter(|part| part.is_object()).map(|part| Box::new(Self::new(part)));
        let fields = schema["properties"].as_object().into_iter().flatten();
        let default = |(name, schema): (&String, &Value)| Some((name.clone(), schema.get("default")?.clone()));
        let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
        let mut node = Self {
            properties,
            values: part("additionalProperties"),
            items: part("items"),
            defaults: fields.filter_map(default).collect(),
            is_nullable: schema["nullable"] == true,
            keeps_unknown: schema["x-kubernetes-preserve-unknown-fields"] == true,
            keys: keys(schema).into_iter().map(str::to_owned).collect(),
            rules: rules.filter_map(Rule::new).collect(),
            has_rules: false,
            has_keys: false,
        };
        node.has_rules = !node.rules.is_empty() || node.parts().any(|part| part.has_rules);
        node.has_keys = !node.keys.is_empty() || node.parts().any(|part| part.has_keys);
        node
    }

    fn parts(&self) -> impl Iterator<Item = &Self> {
        self.properties.values().chain(self.values.as_deref()).chain(self.items.as_deref())
    }

    /// The schema of a field.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.values.as_deref())
    }

    /// Removes what the schema does not know, if `prunes`, and each null that it does not allow, and adds defaults.
    pub(super) fn complete(&self, value: &mut Value, prunes: bool) {
        match value {
            Value::Object(fields) => {
                let prunes = prunes && !self.keeps_unknown;
                fields.retain(|name, value| match self.properties.get(name) {
                    Some(node) => !value.is_null() || node.is_nullable,
                    None => !prunes || self.values.is_some(),
                });
                for (name, default) in &self.defaults {
                    if !fields.contains_key(name) {
                        fields.insert(name.clone(), default.clone());
                    }
                }
                for (name, value) in fields {
                    if let Some(node) = self.field(name) {
                        node.complete(value, prunes);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(node) = &self.items {
                    for item in items {
                        node.complete(item, prunes);
                    }
                }
            }
            _ => {}
        }
    }
}
