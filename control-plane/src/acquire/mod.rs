//! Gets the programs of a control plane: from a folder that is named, from the cache, from the official releases, or by
//! building them.

mod build;
mod cache;
mod download;

use std::{
    env,
    ffi::OsString,
    fmt,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};

use crate::error::{Error, Result};

/// The Kubernetes version that is built, and whose minor version is downloaded.
pub const KUBERNETES_VERSION: &str = "v1.36.3";
/// The etcd version that is built.
pub const ETCD_VERSION: &str = "v3.6.16";

const PROGRAMS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"];

/// Where the four programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assets {
    /// The store.
    pub etcd: PathBuf,
    /// The API.
    pub kube_apiserver: PathBuf,
    /// The controllers.
    pub kube_controller_manager: PathBuf,
    /// The person's tool.
    pub kubectl: PathBuf,
}

impl Assets {
    fn in_folder(dir: &Path) -> Self {
        let [etcd, kube_apiserver, kube_controller_manager, kubectl] = PROGRAMS.map(|name| dir.join(name));
        Self { etcd, kube_apiserver, kube_controller_manager, kubectl }
    }

    /// All four, in the order etcd, kube-apiserver, kube-controller-manager, kubectl.
    #[must_use]
    pub fn programs(&self) -> [&Path; 4] {
        [&self.etcd, &self.kube_apiserver, &self.kube_controller_manager, &self.kubectl]
    }

    /// The one folder that holds all four, if they are in one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        let folder = self.etcd.parent()?;
        self.programs().iter().all(|program| program.parent() == Some(folder)).then_some(folder)
    }

    fn missing(&self) -> Vec<&'static str> {
        let present = self.programs().map(is_program);
        PROGRAMS.into_iter().zip(present).filter_map(|(name, present)| (!present).then_some(name)).collect()
    }

    /// These, with those that are missing taken from `other`.
    fn or(self, other: Self) -> Self {
        let pick = |mine: PathBuf, other| if is_program(&mine) { mine } else { other };
        Self {
            etcd: pick(self.etcd, other.etcd),
            kube_apiserver: pick(self.kube_apiserver, other.kube_apiserver),
            kube_controller_manager: pick(self.kube_controller_manager, other.kube_controller_manager),
            kubectl: pick(self.kubectl, other.kubectl),
        }
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Where to look for the programs.
#[derive(Clone)]
pub struct Settings {
    /// A folder with the programs (`KUBEBUILDER_ASSETS`); those it lacks are taken from the other ways.
    pub assets: Option<PathBuf>,
    /// The folder of the cache (`BERTH_CACHE`, else `XDG_CACHE_HOME/berth`, else `~/.cache/berth`).
    pub cache: PathBuf,
    /// The index of the envtest releases, which lists their SHA-512 (`BERTH_ENVTEST_INDEX`).
    pub envtest_index: String,
    /// The base address of the envtest releases (`BERTH_ENVTEST_RELEASES`).
    pub envtest_releases: String,
    /// The base address of the Kubernetes releases, for kube-controller-manager (`BERTH_KUBERNETES_RELEASES`).
    pub kubernetes_releases: String,
    /// The Go command (`BERTH_GO`, else `go`).
    pub go: OsString,
    /// Where progress is told, line by line.
    pub progress: Progress,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("assets", &self.assets).field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// Receives lines of progress.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

impl Settings {
    /// The settings of the environment, with progress on standard error (also from inside a test, whose captured output
    /// would leave a person wondering for the minutes that a build takes).
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

/// Gets the programs. The ways, in this order: the named folder, the cache, the official releases (checksums verified),
/// a build from the Go modules. What is downloaded or built stays in the cache; of parallel callers, one does the work.
///
/// # Errors
/// [`Error::Acquire`] with one line for each way.
pub async fn acquire(settings: &Settings) -> Result<Assets> {
    let mut reasons = Vec::new();
    let named = settings.assets.as_deref().map(Assets::in_folder);
    match &named {
        None => reasons.push("KUBEBUILDER_ASSETS: not set".to_owned()),
        Some(named) if named.missing().is_empty() => return Ok(named.clone()),
        Some(named) => {
            let dir = named.etcd.parent().unwrap_or(Path::new("")).display();
            let reason = format!("KUBEBUILDER_ASSETS: {dir} has no {}", named.missing().join(", no "));
            (settings.progress)(&format!("{reason}; looking further for that"));
            reasons.push(reason);
        }
    }
    let found = match cached_or_fetched(settings, &mut reasons).await {
        Ok(found) => found,
        Err(error) => {
            reasons.push(format!("{error:#}"));
            return Err(Error::Acquire { reasons });
        }
    };
    Ok(match named {
        Some(named) => named.or(found),
        None => found,
    })
}

async fn cached_or_fetched(settings: &Settings, reasons: &mut Vec<String>) -> anyhow::Result<Assets> {
    let (os, arch) = platform()?;
    let key = format!("kubernetes-{KUBERNETES_VERSION}-etcd-{ETCD_VERSION}-{os}-{arch}");
    let entry = cache::Entry::new(&settings.cache, &key);
    if let Some(found) = entry.complete() {
        return Ok(found);
    }
    reasons.push(format!("cache: nothing at {}", entry.dir().display()));
    let lock = entry.lock(&settings.progress).await.with_context(|| format!("cache {}", settings.cache.display()))?;
    if let Some(found) = entry.complete() {
        return Ok(found); // by the one that held the lock
    }
    let fresh = lock.fresh()?;
    match download::download(settings, os, arch, fresh.path()).await {
        Ok(()) => return lock.publish(fresh),
        Err(error) => reasons.push(format!("official release: {error:#}")),
    }
    let fresh = lock.fresh()?;
    (settings.progress)(&format!("no release to be had ({}); building", reasons.last().map_or("", |r| r)));
    build::build(settings, fresh.path()).await.context("build from the Go modules")?;
    lock.publish(fresh)
}

/// Operating system and architecture as Go names them.
fn platform() -> anyhow::Result<(&'static str, &'static str)> {
    let arch = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("platform: nothing is known about {other}; name a folder with KUBEBUILDER_ASSETS"),
    };
    if env::consts::OS != "linux" {
        bail!("platform: only Linux is supported, this is {}", env::consts::OS);
    }
    Ok((env::consts::OS, arch))
}
