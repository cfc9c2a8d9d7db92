//! What a request asks for.

use std::collections::BTreeMap;

use http::{Method, Uri};

use super::{failure::Failure, resources::Resource};

/// A subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subresource {
    Status,
    Scale,
}

/// What a request is about.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Position of the kind in the API server's list.
    pub(crate) resource: usize,
    /// Empty for all namespaces, and for kinds without namespaces.
    pub(crate) namespace: String,
    /// None for the collection.
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<Subresource>,
}

/// The parameters behind the question mark.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    pub(crate) fn of(uri: &Uri) -> Self {
        let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// A parameter with a value.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), Some("true" | "1"))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let parse =
            |text: &str| text.parse().map_err(|_| Failure::bad_request(format!("{name}: {text:?} is not a number")));
        self.text(name).map(parse).transpose()
    }
}

/// What the path names.
pub(crate) fn target(resources: &[Resource], path: &str) -> Result<Target, Failure> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return Err(Failure::no_such_path()),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, None, None),
        [plural, name] => (*plural, Some((*name).to_owned()), None),
        [plural, name, "status"] => (*plural, Some((*name).to_owned()), Some(Subresource::Status)),
        [plural, name, "scale"] => (*plural, Some((*name).to_owned()), Some(Subresource::Scale)),
        _ => return Err(Failure::no_such_path()),
    };
    let is_named = |r: &Resource| r.group == group && r.version == version && r.plural == plural;
    let resource = resources.iter().position(is_named).ok_or_else(Failure::no_such_path)?;
    let known = &resources[resource];
    let is_served = match subresource {
        Some(Subresource::Status) => known.has_status,
        Some(Subresource::Scale) => known.scale.is_some(),
        None => true,
    };
    if !is_served || known.is_namespaced == namespace.is_empty() && name.is_some() {
        return Err(Failure::no_such_path());
    }
    Ok(Target { resource, namespace: namespace.to_owned(), name, subresource })
}

/// Which document the client wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Whole,
    MetadataOnly,
}

/// The view that the header `Accept` names.
pub(crate) fn view(accept: &str) -> View {
    if accept.contains("as=PartialObjectMetadata") { View::MetadataOnly } else { View::Whole }
}

/// A request, read.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) parameters: Parameters,
    pub(crate) view: View,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
    pub(crate) user: String,
}
