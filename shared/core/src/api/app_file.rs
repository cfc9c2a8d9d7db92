//! Files of an application whose content is in ConfigMaps and Secrets.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::key_ref::{ConfigMapKeyRef, SecretKeyRef};

/// A file in the folder of the application. It has the place of a file that the artifact has there.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.configMapKeyRef) != has(self.secretKeyRef)")
        .message("app.files: the content of a file comes from exactly one of configMapKeyRef and secretKeyRef"),
    validation = Rule::new("self.path.split('/').all(part, part != '.' && part != '..' && !part.startsWith('-') && !part.startsWith('~') && !part.startsWith('.berth'))")
        .message("app.files: no part of a path is . or .., or begins with -, ~ or .berth"))]
pub struct AppFile {
    /// Path of the file, relative to the folder of the application.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[a-zA-Z0-9._+~-]+(/[a-zA-Z0-9._+~-]+)*$"))]
    pub path: String,
    /// Content from a ConfigMap. Every user on the machine may read the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<ConfigMapKeyRef>,
    /// Content from a Secret. Only the user who runs the application may read the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}
