//! Manifests on disk: finds, reads and orders them, and adapts them to a control plane without a kubelet.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use kube::core::{DynamicObject, GroupVersionKind, TypeMeta};
use serde_json::{Value, json};

use crate::error::{ControlPlaneError, IoContext, Result};

/// The address at which the apiserver calls the webhooks of the installed configurations.
#[derive(Debug, Clone)]
pub struct WebhookEndpoint {
    /// `https://127.0.0.1:PORT`; the path comes from the manifest.
    pub url_base: String,
    /// The certificate of the authority that signed the webhook's certificate, as PEM.
    pub ca_pem: String,
}

/// An object of a manifest, with its file.
pub(crate) struct Manifest {
    pub(crate) file: PathBuf,
    pub(crate) object: DynamicObject,
}

impl Manifest {
    fn new(file: &Path, value: Value) -> Result<Self> {
        let failed = |reason: String| ControlPlaneError::Manifest { file: file.to_owned(), reason };
        let object: DynamicObject =
            serde_json::from_value(value).map_err(|e| failed(format!("not a Kubernetes object: {e}")))?;
        let complete =
            object.types.as_ref().is_some_and(|types| !types.kind.is_empty() && !types.api_version.is_empty());
        if !complete || object.metadata.name.is_none() {
            return Err(failed("an object needs apiVersion, kind and metadata.name".to_owned()));
        }
        Ok(Self { file: file.to_owned(), object })
    }

    fn types(&self) -> TypeMeta {
        self.object.types.clone().unwrap_or_default()
    }

    pub(crate) fn kind(&self) -> String {
        self.types().kind
    }

    pub(crate) fn gvk(&self) -> Result<GroupVersionKind> {
        let failed = |e: kube::core::gvk::ParseGroupVersionError| ControlPlaneError::Manifest {
            file: self.file.clone(),
            reason: e.to_string(),
        };
        GroupVersionKind::try_from(self.types()).map_err(failed)
    }

    /// Kind, namespace and name, for messages.
    pub(crate) fn title(&self) -> String {
        let meta = &self.object.metadata;
        let namespace = meta.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        format!("{} {namespace}{}", self.kind(), meta.name.as_deref().unwrap_or_default())
    }

    pub(crate) fn is_crd(&self) -> bool {
        self.kind() == "CustomResourceDefinition"
    }

    pub(crate) fn is_webhook_configuration(&self) -> bool {
        matches!(self.kind().as_str(), "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration")
    }

    /// Whether it has no effect without a kubelet, a network plugin or a controller that does not run here.
    pub(crate) fn needs_nodes(&self) -> bool {
        let kind = self.kind();
        let pods = ["Deployment", "DaemonSet", "StatefulSet", "Job", "CronJob", "Pod", "PodDisruptionBudget"];
        pods.contains(&kind.as_str()) || ["NetworkPolicy", "HorizontalPodAutoscaler"].contains(&kind.as_str())
    }

    /// Its place in the order: objects that others refer to come first, admission webhooks that could deny others last.
    fn rank(&self) -> u8 {
        match self.kind().as_str() {
            "CustomResourceDefinition" => 0,
            "Namespace" => 1,
            "ServiceAccount" => 2,
            "ClusterRole" | "Role" => 3,
            "ClusterRoleBinding" | "RoleBinding" => 4,
            "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => 6,
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => 7,
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => 8,
            _ => 5,
        }
    }

    /// Replaces the Services of its webhooks by a URL on loopback, because no pod serves these Services here.
    pub(crate) fn point_webhooks_at(&mut self, endpoint: &WebhookEndpoint) {
        for webhook in self.object.data["webhooks"].as_array_mut().into_iter().flatten() {
            let path = webhook["clientConfig"]["service"]["path"].as_str().unwrap_or_default();
            let url = format!("{}/{}", endpoint.url_base.trim_end_matches('/'), path.trim_start_matches('/'));
            webhook["clientConfig"] = json!({"url": url, "caBundle": BASE64_STANDARD.encode(&endpoint.ca_pem)});
        }
    }
}

/// Reads the manifests of a folder in the order to apply them: those below its subfolders `crds` and `base` if it has them,
/// otherwise all below it.
pub(crate) fn read(dir: &Path) -> Result<Vec<Manifest>> {
    let mut roots: Vec<PathBuf> =
        ["crds", "base"].map(|name| dir.join(name)).into_iter().filter(|dir| dir.is_dir()).collect();
    if roots.is_empty() {
        roots.push(dir.to_owned());
    }
    let mut manifests = Vec::new();
    for root in roots {
        read_below(&root, &mut manifests)?;
    }
    manifests.sort_by_key(Manifest::rank); // stable, so that equal ranks stay sorted by path
    Ok(manifests)
}

fn read_below(dir: &Path, manifests: &mut Vec<Manifest>) -> Result<()> {
    let entries =
        fs::read_dir(dir).and_then(|entries| entries.map(|e| Ok(e?.path())).collect::<std::io::Result<Vec<_>>>());
    let mut paths = entries.doing(|| format!("read the manifests in {}", dir.display()))?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            read_below(&path, manifests)?;
        } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml") && name != "kustomization.yaml" {
            manifests.extend(read_file(&path)?);
        }
    }
    Ok(())
}

fn read_file(file: &Path) -> Result<Vec<Manifest>> {
    let text = fs::read_to_string(file).doing(|| format!("read {}", file.display()))?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
        .map_err(|e| ControlPlaneError::Manifest { file: file.to_owned(), reason: e.to_string() })?;
    let objects = documents.into_iter().filter(|document| !document.is_null());
    objects
        .flat_map(|document| match document {
            // A List holds objects; any other document is an object itself.
            Value::Object(mut map) if map.get("kind").is_some_and(|kind| kind == "List") => {
                map.remove("items").and_then(|items| serde_json::from_value(items).ok()).unwrap_or_default()
            }
            object => vec![object],
        })
        .map(|object| Manifest::new(file, object))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn object(kind: &str, name: &str) -> String {
        format!("apiVersion: v1\nkind: {kind}\nmetadata:\n  name: {name}\n")
    }

    #[test]
    fn manifests_are_read_in_the_order_to_apply_them() {
        let both =
            format!("---\n{}---\n{}---\n", object("MutatingWebhookConfiguration", "w"), object("RoleBinding", "b"));
        let dir = folder(&[
            ("base/a.yaml", &both),
            ("base/kustomization.yaml", "resources: []"),
            ("base/rbac/n.yaml", &object("Namespace", "ns")),
            ("base/rbac/r.yaml", &object("Role", "r")),
            ("crds/z.yaml", &object("CustomResourceDefinition", "z")),
            ("overlays/x.yaml", &object("Namespace", "not-read")),
            ("base/notes.txt", "no manifest"),
        ]);
        let titles: Vec<_> = read(dir.path()).unwrap().iter().map(Manifest::title).collect();
        let expected =
            ["CustomResourceDefinition z", "Namespace ns", "Role r", "RoleBinding b", "MutatingWebhookConfiguration w"];
        assert_eq!(titles, expected);
    }

    #[test]
    fn the_error_names_the_file_that_is_no_manifest() {
        for text in ["kind: Namespace\nmetadata: {name: x}", "a: [", "apiVersion: v1\nkind: Namespace\nmetadata: {}"] {
            let dir = folder(&[("bad.yaml", text)]);
            let error = read(dir.path()).err().unwrap().to_string();
            assert!(error.contains("bad.yaml"), "{error}");
        }
        assert!(read(Path::new("/nowhere")).err().unwrap().to_string().contains("/nowhere"));
    }

    #[test]
    fn webhooks_are_called_on_loopback() {
        let text = "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingWebhookConfiguration\nmetadata: {name: w}\n\
                    webhooks:\n- name: a\n  clientConfig: {service: {name: s, namespace: n, path: /mutate}, caBundle: Cg==}\n";
        let dir = folder(&[("w.yaml", text)]);
        let mut manifest = read(dir.path()).unwrap().remove(0);
        assert!(manifest.is_webhook_configuration());
        manifest.point_webhooks_at(&WebhookEndpoint { url_base: "https://127.0.0.1:1/".into(), ca_pem: "PEM".into() });
        let expected =
            json!([{"name": "a", "clientConfig": {"url": "https://127.0.0.1:1/mutate", "caBundle": "UEVN"}}]);
        assert_eq!(manifest.object.data["webhooks"], expected);
    }
}
