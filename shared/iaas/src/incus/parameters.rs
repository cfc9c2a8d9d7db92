//! The `spec.parameters` of a MachineClass, read and validated before Incus is called.

use std::{collections::BTreeMap, path::PathBuf};

use reqwest::Url;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    driver::refuse_unknown_parameters,
    error::{ProviderError, Result},
};

/// All parameters; a class with any other is refused.
const KNOWN: [&str; 11] = [
    "endpoint",
    "project",
    "type",
    "profiles",
    "config",
    "devices",
    "imageServer",
    "target",
    "interface",
    "addressFamily",
    "hostKeyFiles",
];
/// Instance options that only Berth or Incus may set, with the reason.
const RESERVED: [(&str, &str); 4] = [
    ("user.berth.", "these are Berth's own tags"),
    ("volatile.", "these are Incus's own"),
    ("cloud-init.user-data", "Berth writes it; use cloud-init.vendor-data, which cloud-init merges with it"),
    (
        "user.user-data",
        "Berth writes cloud-init.user-data; use cloud-init.vendor-data, which cloud-init merges with it",
    ),
];

/// Address of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IncusEndpoint {
    /// A unix socket on this machine.
    Unix(PathBuf),
    /// HTTPS with a client certificate.
    Https(Url),
}

/// A kind of instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum InstanceType {
    /// A system container.
    #[default]
    Container,
    /// A virtual machine.
    VirtualMachine,
}

impl InstanceType {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::VirtualMachine => "virtual-machine",
        }
    }
}

/// Family of the address that a machine is reached by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AddressFamily {
    /// IPv4.
    #[default]
    Inet,
    /// IPv6.
    Inet6,
}

impl AddressFamily {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Inet6 => "inet6",
        }
    }
}

/// A server that images are downloaded from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ImageServer {
    /// Its URL.
    pub(super) url: String,
    /// Its protocol.
    #[serde(default)]
    pub(super) protocol: ImageProtocol,
    /// Its certificate in PEM, unless a known CA has signed it.
    pub(super) certificate: Option<String>,
}

/// The protocol of an image server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ImageProtocol {
    /// The format of `images.linuxcontainers.org`.
    #[default]
    Simplestreams,
    /// Another Incus.
    Incus,
}

impl ImageProtocol {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Simplestreams => "simplestreams",
            Self::Incus => "incus",
        }
    }
}

/// A value of Incus's configuration. Incus takes strings only; numbers and booleans, as in `limits.cpu: 2`, are converted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "must be a text, a number, true or false")]
enum Scalar {
    Text(String),
    Truth(bool),
    Number(serde_json::Number),
}

impl Scalar {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Truth(truth) => truth.to_string(),
            Self::Number(number) => number.to_string(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DeclaredParameters {
    endpoint: String,
    #[serde(default = "default_name")]
    project: String,
    #[serde(default, rename = "type")]
    instance_type: InstanceType,
    #[serde(default = "default_profiles")]
    profiles: Vec<String>,
    #[serde(default)]
    config: BTreeMap<String, Scalar>,
    #[serde(default)]
    devices: BTreeMap<String, BTreeMap<String, Scalar>>,
    image_server: Option<ImageServer>,
    target: Option<String>,
    interface: Option<String>,
    #[serde(default)]
    address_family: AddressFamily,
    #[serde(default = "default_host_key_files")]
    host_key_files: Vec<String>,
}

fn default_name() -> String {
    "default".into()
}

fn default_profiles() -> Vec<String> {
    vec![default_name()]
}

fn default_host_key_files() -> Vec<String> {
    ["ed25519", "ecdsa", "rsa"].map(|kind| format!("/etc/ssh/ssh_host_{kind}_key.pub")).into()
}

/// The validated parameters of a class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct IncusParameters {
    /// Address of the API.
    pub(super) endpoint: IncusEndpoint,
    /// Incus project of the instances.
    pub(super) project: String,
    /// Kind of the instances.
    pub(super) instance_type: InstanceType,
    /// Profiles; later ones override earlier ones.
    pub(super) profiles: Vec<String>,
    /// Instance options.
    pub(super) config: BTreeMap<String, String>,
    /// Devices by name.
    pub(super) devices: BTreeMap<String, BTreeMap<String, String>>,
    /// Where images are downloaded from; none for images on the server itself.
    pub(super) image_server: Option<ImageServer>,
    /// Cluster member or `@group` on which instances are created.
    pub(super) target: Option<String>,
    /// Network device whose address is used; none for the first that has one.
    pub(super) interface: Option<String>,
    /// Family of the address that is used.
    pub(super) address_family: AddressFamily,
    /// Files on the machine that may hold its public SSH host key; the first that exists is read.
    pub(super) host_key_files: Vec<String>,
}

impl IncusParameters {
    /// Reads `spec.parameters`.
    pub(super) fn read(class: &berth_core::api::MachineClassSpec) -> Result<Self> {
        refuse_unknown_parameters(class, &KNOWN)?;
        let declared = decode(&class.parameters)?;
        let texts = |map: BTreeMap<String, Scalar>| map.into_iter().map(|(key, value)| (key, value.text())).collect();
        let parameters = Self {
            endpoint: endpoint(&declared.endpoint)?,
            project: declared.project,
            instance_type: declared.instance_type,
            profiles: declared.profiles,
            config: texts(declared.config),
            devices: declared.devices.into_iter().map(|(name, device)| (name, texts(device))).collect(),
            image_server: declared.image_server,
            target: declared.target,
            interface: declared.interface,
            address_family: declared.address_family,
            host_key_files: declared.host_key_files,
        };
        parameters.refuse_reserved()?;
        parameters.refuse_empty()?;
        Ok(parameters)
    }

    fn refuse_reserved(&self) -> Result<()> {
        for (prefix, why) in RESERVED {
            if let Some(key) = self.config.keys().find(|key| key.starts_with(prefix)) {
                return Err(wrong(&format!("config.{key}"), &format!("may not be set: {why}")));
            }
        }
        Ok(())
    }

    fn refuse_empty(&self) -> Result<()> {
        if self.project.is_empty() {
            return Err(wrong("project", "must not be empty; leave it out for the project default"));
        }
        if self.host_key_files.is_empty() || self.host_key_files.iter().any(|path| !path.starts_with('/')) {
            return Err(wrong("hostKeyFiles", "must be absolute paths of public keys on the machine, at least one"));
        }
        match &self.image_server {
            Some(server) if !server.url.starts_with("https://") => {
                Err(wrong("imageServer.url", &format!("{:?} must begin with https://", server.url)))
            }
            _ => Ok(()),
        }
    }
}

/// Decodes the parameters. Messages of serde do not name the field at the beginning, so that its path is put there.
fn decode(parameters: &Map<String, Value>) -> Result<DeclaredParameters> {
    serde_path_to_error::deserialize(Value::Object(parameters.clone())).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { String::new() } else { format!(".{path}") };
        ProviderError::Configuration(format!("spec.parameters{field}: {}", error.into_inner()))
    })
}

fn wrong(field: &str, why: &str) -> ProviderError {
    ProviderError::Configuration(format!("spec.parameters.{field}: {why}"))
}

fn endpoint(text: &str) -> Result<IncusEndpoint> {
    const FORM: &str = "must be unix:///PATH of the socket or https://HOST:PORT";
    let refuse = || wrong("endpoint", &format!("{text:?} {FORM}"));
    if let Some(path) = text.strip_prefix("unix://") {
        return if path.starts_with('/') { Ok(IncusEndpoint::Unix(path.into())) } else { Err(refuse()) };
    }
    let url = Url::parse(text).map_err(|_| refuse())?;
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if url.scheme() != "https" || !url.has_host() || !bare || !url.username().is_empty() || url.password().is_some() {
        return Err(refuse());
    }
    Ok(IncusEndpoint::Https(url))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(parameters: &Value) -> Result<IncusParameters> {
        let class = json!({"provider": "incus", "parameters": parameters});
        IncusParameters::read(&serde_json::from_value(class).unwrap())
    }

    #[test]
    fn the_admission_policy_lists_the_same_parameters() {
        let policy = include_str!("../../../../deploy/base/machine-classes.yaml");
        let policy = policy.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(policy.contains(&format!("\"incus\": {KNOWN:?}")), "deploy/base/machine-classes.yaml");
    }

    #[test]
    fn all_parameters_except_the_endpoint_have_defaults() {
        let parameters = read(&json!({"endpoint": "unix:///run/incus/unix.socket"})).unwrap();
        assert_eq!(parameters.endpoint, IncusEndpoint::Unix("/run/incus/unix.socket".into()));
        assert_eq!((parameters.project.as_str(), parameters.instance_type), ("default", InstanceType::Container));
        assert_eq!(parameters.profiles, ["default"]);
        assert_eq!(parameters.host_key_files[0], "/etc/ssh/ssh_host_ed25519_key.pub");
    }

    #[test]
    fn numbers_and_booleans_in_the_configuration_become_strings() {
        let parameters = read(&json!({
            "endpoint": "https://incus.example:8443",
            "type": "virtual-machine",
            "config": {"limits.cpu": 2, "security.secureboot": false, "limits.memory": "1GiB"},
            "devices": {"root": {"type": "disk", "path": "/", "pool": "default", "size": "10GiB"}},
            "imageServer": {"url": "https://images.linuxcontainers.org"},
        }))
        .unwrap();
        let config: Vec<_> = parameters.config.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(config, ["limits.cpu=2", "limits.memory=1GiB", "security.secureboot=false"]);
        assert_eq!(parameters.image_server.unwrap().protocol, ImageProtocol::Simplestreams);
    }

    #[test]
    fn a_mistake_is_explained_with_the_field_and_what_is_allowed() {
        let with = |more: Value| {
            let mut all = json!({"endpoint": "unix:///s"});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        for (parameters, field, allowed) in [
            (json!({}), "spec.parameters", "missing field `endpoint`"),
            (json!({"endpoint": "http://h"}), "spec.parameters.endpoint", "unix:///PATH"),
            (json!({"endpoint": "unix://relative"}), "spec.parameters.endpoint", "unix:///PATH"),
            (json!({"endpoint": "https://u:p@h:8443"}), "spec.parameters.endpoint", "https://HOST:PORT"),
            (json!({"endpoint": "https://h/1.0"}), "spec.parameters.endpoint", "https://HOST:PORT"),
            (with(json!({"sizes": 1})), "spec.parameters.sizes", "endpoint, project, type"),
            (with(json!({"type": "pod"})), "spec.parameters.type", "`container` or `virtual-machine`"),
            (with(json!({"profiles": "default"})), "spec.parameters.profiles", "a sequence"),
            (with(json!({"project": ""})), "spec.parameters.project", "must not be empty"),
            (with(json!({"config": {"user.berth.uid": "x"}})), "spec.parameters.config.user.berth.uid", "own tags"),
            (with(json!({"config": {"cloud-init.user-data": "x"}})), "cloud-init.user-data", "vendor-data"),
            (with(json!({"config": {"a": {}}})), "spec.parameters.config.a", "must be a text, a number"),
            (with(json!({"imageServer": {"url": "http://h"}})), "spec.parameters.imageServer.url", "https://"),
            (
                with(json!({"imageServer": {"url": "https://h", "x": 1}})),
                "spec.parameters.imageServer",
                "unknown field",
            ),
            (with(json!({"addressFamily": "ipv4"})), "spec.parameters.addressFamily", "`inet` or `inet6`"),
            (with(json!({"hostKeyFiles": ["key.pub"]})), "spec.parameters.hostKeyFiles", "absolute"),
        ] {
            let error = read(&parameters).unwrap_err();
            assert!(matches!(error, ProviderError::Configuration(_)), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(field) && text.contains(allowed), "{parameters}: {text}");
        }
    }
}
