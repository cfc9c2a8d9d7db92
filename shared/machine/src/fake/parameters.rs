//! The parameters of an operation, read back from its standard input.

use std::collections::BTreeMap;

use crate::error::{MachineError, Result};

/// The parameters of an operation, by name.
#[derive(Debug, Default)]
pub(super) struct FakeParameters(BTreeMap<String, String>);

impl FakeParameters {
    /// Reads shell assignments with values in single quotes, as a shell would.
    pub(super) fn parse(stdin: &str) -> Result<Self> {
        let mut parameters = BTreeMap::new();
        let mut rest = stdin;
        while !rest.is_empty() {
            let parsed = rest.split_once("='").and_then(|(name, quoted)| {
                let end = quoted.match_indices('\'').map(|(at, _)| at).find(|at| quoted[at + 1..].starts_with('\n'))?;
                Some((name, &quoted[..end], &quoted[end + 2..]))
            });
            let (name, value, next) =
                parsed.ok_or_else(|| MachineError::Answer(format!("not an assignment: {rest:?}")))?;
            parameters.insert(name.to_owned(), value.replace(r"'\''", "'"));
            rest = next;
        }
        Ok(Self(parameters))
    }

    /// The parameter's value, or an empty string.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Whether the operation has this parameter.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The values of `<prefix>_<number>_<field>`, as many as the parameter `count` says.
    pub(super) fn numbered(&self, count: &str, prefix: &str, field: &str) -> Vec<&str> {
        let count = self.get(count).parse().unwrap_or(0);
        (0..count).map(|number: usize| self.get(&format!("{prefix}_{number}_{field}"))).collect()
    }
}
