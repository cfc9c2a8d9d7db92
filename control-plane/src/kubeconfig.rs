//! Kubeconfig files and clients.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::{
    error::{ControlPlaneError, IoContext, Result},
    pki::CertificateAndKey,
};

/// How long it may take to connect: loopback is fast, but the machine may be busy.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take: half of the apiserver's own limit of 60 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The user of a kubeconfig, in the form of its `user` entry.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    name: String,
    user: Value,
}

impl Identity {
    pub(crate) fn certificate(name: &str, pair: &CertificateAndKey) -> Self {
        let encode = |pem: &str| BASE64_STANDARD.encode(pem);
        let user = json!({"client-certificate-data": encode(&pair.certificate), "client-key-data": encode(&pair.key)});
        Self { name: name.to_owned(), user }
    }

    pub(crate) fn token(name: &str, token: &str) -> Self {
        Self { name: name.to_owned(), user: json!({"token": token}) }
    }

    /// Another user, whom this one impersonates.
    pub(crate) fn impersonating(&self, name: &str, groups: &[&str]) -> Self {
        let mut user = self.user.clone();
        user["as"] = json!(name);
        user["as-groups"] = json!(groups);
        Self { name: name.to_owned(), user }
    }
}

/// The apiserver's address, and the authority that signed its certificate.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) url: String,
    pub(crate) ca_pem: String,
}

impl Cluster {
    fn kubeconfig(&self, identity: &Identity, namespace: Option<&str>) -> Value {
        let mut context = json!({"cluster": "berth", "user": identity.name});
        if let Some(namespace) = namespace {
            context["namespace"] = json!(namespace);
        }
        let ca = BASE64_STANDARD.encode(&self.ca_pem);
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "berth", "cluster": {"server": self.url, "certificate-authority-data": ca}}],
            "users": [{"name": identity.name, "user": identity.user}],
            "contexts": [{"name": "berth", "context": context}],
            "current-context": "berth",
        })
    }

    /// Writes a kubeconfig that only this user can read (mode 0600), replacing an existing one.
    pub(crate) fn write(&self, path: PathBuf, identity: &Identity, namespace: Option<&str>) -> Result<PathBuf> {
        let yaml = serde_saphyr::to_string(&self.kubeconfig(identity, namespace))
            .map_err(|e| ControlPlaneError::Kubeconfig { user: identity.name.clone(), reason: e.to_string() })?;
        replace(&path, yaml.as_bytes()).doing(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// A client that reports failures at once: no built-in retries, 5 s to connect, 30 s for a call.
    pub(crate) async fn client(&self, identity: &Identity) -> Result<Client> {
        let failed = |reason: String| ControlPlaneError::Kubeconfig { user: identity.name.clone(), reason };
        let kubeconfig: Kubeconfig =
            serde_json::from_value(self.kubeconfig(identity, None)).map_err(|e| failed(e.to_string()))?;
        let options = KubeConfigOptions::default();
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| failed(e.to_string()))?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        berth_runtime::connect(config, CALL_TIMEOUT).map_err(|e| failed(format!("{e:#}")))
    }
}

/// Replaces a file by renaming a new one, so that a reader sees the old or the new content.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    std::fs::rename(fresh, path)
}
