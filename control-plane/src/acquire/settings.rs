//! Where the programs come from.

use std::{env, ffi::OsString, fmt, io::Write, path::PathBuf, sync::Arc};

/// The Kubernetes version to build. Releases of its minor version are downloaded.
pub const KUBERNETES_VERSION: &str = "v1.36.3";
/// The etcd version to build: the one that this Kubernetes version is released with.
pub const ETCD_VERSION: &str = "v3.6.16";

/// The sources of the programs.
#[derive(Clone)]
pub struct Settings {
    /// A folder with the programs (`KUBEBUILDER_ASSETS`). Programs that it lacks come from the other sources.
    pub assets: Option<PathBuf>,
    /// The folder of the cache (`BERTH_CACHE`, else `XDG_CACHE_HOME/berth`, else `~/.cache/berth`).
    pub cache: PathBuf,
    /// The index of the envtest releases, which lists their SHA-512 (`BERTH_ENVTEST_INDEX`).
    pub envtest_index: String,
    /// The base address of the envtest releases (`BERTH_ENVTEST_RELEASES`).
    pub envtest_releases: String,
    /// The base address of the Kubernetes releases, for kube-controller-manager (`BERTH_KUBERNETES_RELEASES`).
    pub kubernetes_releases: String,
    /// The Go command to build with (`BERTH_GO`, else `go`).
    pub go: OsString,
    /// Receives the lines of progress.
    pub progress: Progress,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("assets", &self.assets).field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// A function that receives lines of progress.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

impl Settings {
    /// The settings of the environment. Progress goes to standard error without being captured by a test, because a build takes
    /// minutes and would look like a test that hangs.
    #[must_use]
    pub fn from_env() -> Self {
        let text = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
        let path = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = path("BERTH_CACHE")
            .or_else(|| path("XDG_CACHE_HOME").map(|dir| dir.join("berth")))
            .or_else(|| path("HOME").map(|dir| dir.join(".cache/berth")))
            .unwrap_or_else(|| env::temp_dir().join("berth-cache"));
        Self {
            assets: path("KUBEBUILDER_ASSETS"),
            cache,
            envtest_index: text(
                "BERTH_ENVTEST_INDEX",
                "https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml",
            ),
            envtest_releases: text(
                "BERTH_ENVTEST_RELEASES",
                "https://github.com/kubernetes-sigs/controller-tools/releases/download",
            ),
            kubernetes_releases: text("BERTH_KUBERNETES_RELEASES", "https://dl.k8s.io"),
            go: env::var_os("BERTH_GO").unwrap_or_else(|| "go".into()),
            progress: Arc::new(|line| {
                let _ = writeln!(std::io::stderr(), "control plane: {line}");
            }),
        }
    }
}
