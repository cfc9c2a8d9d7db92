//! Where the code of an application comes from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An archive or a program to download, and the digest that it must have.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// URL from which the machine downloads the artifact.
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub url: String,
    /// SHA-256 of the artifact in lower-case hexadecimal. An artifact with another digest is not deployed.
    #[schemars(length(equal = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: String,
    /// What the artifact is. Without it, an archive of any of these formats is recognised by its content. A machine needs zstd to
    /// unpack a `.tar.zst`, and unzip or python3 to unpack a `.zip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ArtifactFormat>,
    /// Secret with the credentials for the URL, in the namespace of the Server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ArtifactSecret>,
}

/// A Secret with the key `token`, which is sent as a bearer token, or with the keys `username` and `password` (the type
/// `kubernetes.io/basic-auth`). They are sent to the server of the URL only. Over `http://` everybody on the way can read them.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactSecret {
    /// Name of the Secret. deployment-controller needs the right to `get` it.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// What an artifact is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum ArtifactFormat {
    /// An archive, `.tar`.
    Tar,
    /// An archive, `.tar.gz`.
    TarGz,
    /// An archive, `.tar.zst`.
    TarZst,
    /// An archive, `.zip`.
    Zip,
    /// One program. It becomes the only file in the folder of the release, named after the application: `./<app.name>`.
    Binary,
}

impl ArtifactFormat {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tar => "Tar",
            Self::TarGz => "TarGz",
            Self::TarZst => "TarZst",
            Self::Zip => "Zip",
            Self::Binary => "Binary",
        }
    }
}
