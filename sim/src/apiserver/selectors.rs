//! Label and field selectors.

use serde_json::Value;

use super::{failure::Failure, request::Parameters, resources::Resource};

/// The objects of a collection that a request selects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    requirements: Vec<Requirement>,
}

/// One condition on an object.
#[derive(Clone, Debug)]
struct Requirement {
    /// The fields that lead to the value.
    path: Vec<String>,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Exists,
    Absent,
    /// Of a label, only one that exists is equal; a field that is absent counts as the empty text.
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl Selector {
    /// The selectors of a request.
    pub(crate) fn of(parameters: &Parameters, resource: &Resource) -> Result<Self, Failure> {
        let mut requirements = Vec::new();
        for term in parameters.text("labelSelector").map(terms).unwrap_or_default() {
            requirements.push(label(&term)?);
        }
        for term in parameters.text("fieldSelector").map(terms).unwrap_or_default() {
            requirements.push(field(&term, resource)?);
        }
        Ok(Self { requirements })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(object))
    }
}

impl Requirement {
    fn matches(&self, object: &Value) -> bool {
        let value = self.path.iter().try_fold(object, |value, field| value.get(field)).and_then(Value::as_str);
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|wanted| wanted != value)),
        }
    }
}

/// The terms of a selector. Commas in parentheses separate values.
fn terms(selector: &str) -> Vec<String> {
    let (mut terms, mut depth) = (vec![String::new()], 0);
    for character in selector.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if character == ',' && depth == 0 {
            terms.push(String::new());
        } else if let Some(term) = terms.last_mut() {
            term.push(character);
        }
    }
    terms.iter().map(|term| term.trim().to_owned()).filter(|term| !term.is_empty()).collect()
}

fn label(term: &str) -> Result<Requirement, Failure> {
    let list = |text: &str| text.trim().trim_matches(['(', ')']).split(',').map(|v| v.trim().to_owned()).collect();
    let (name, test) = if let Some((name, value)) = term.split_once("!=") {
        (name, Test::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (name, Test::In(vec![value.trim().to_owned()]))
    } else if let Some((name, values)) = term.split_once(" notin ") {
        (name, Test::NotIn(list(values)))
    } else if let Some((name, values)) = term.split_once(" in ") {
        (name, Test::In(list(values)))
    } else if let Some(name) = term.strip_prefix('!') {
        (name, Test::Absent)
    } else {
        (term, Test::Exists)
    };
    let name = name.trim();
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(Failure::bad_request(format!("unable to parse requirement: {term:?}")));
    }
    Ok(Requirement { path: ["metadata", "labels", name].map(str::to_owned).to_vec(), test })
}

/// A field selector compares with `=`, `==` and `!=`. An absent field is the empty text.
fn field(term: &str, resource: &Resource) -> Result<Requirement, Failure> {
    let (name, value, is_equal) = if let Some((name, value)) = term.split_once("!=") {
        (name, value, false)
    } else if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (name, value, true)
    } else {
        return Err(Failure::bad_request(format!("invalid selector: {term:?}; can't understand {term:?}")));
    };
    let pointer = format!("/{}", name.trim().replace('.', "/"));
    let is_known =
        matches!(name.trim(), "metadata.name" | "metadata.namespace") || resource.selectable.contains(&pointer);
    if !is_known {
        return Err(Failure::bad_request(format!("field label not supported: {}", name.trim())));
    }
    let test = match (is_equal, value.is_empty()) {
        (true, true) => Test::Absent,
        (false, true) => Test::Exists,
        (true, false) => Test::In(vec![value.to_owned()]),
        (false, false) => Test::NotIn(vec![value.to_owned()]),
    };
    Ok(Requirement { path: name.trim().split('.').map(str::to_owned).collect(), test })
}
