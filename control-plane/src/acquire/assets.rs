//! The programs of a control plane on disk.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The names of the programs, in the order of the fields of [`Assets`].
const PROGRAMS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"];

/// The paths of the four programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assets {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub kube_apiserver: PathBuf,
    /// kube-controller-manager.
    pub kube_controller_manager: PathBuf,
    /// kubectl.
    pub kubectl: PathBuf,
}

impl Assets {
    pub(super) fn in_folder(dir: &Path) -> Self {
        let [etcd, kube_apiserver, kube_controller_manager, kubectl] = PROGRAMS.map(|name| dir.join(name));
        Self { etcd, kube_apiserver, kube_controller_manager, kubectl }
    }

    /// All four, in the order etcd, kube-apiserver, kube-controller-manager, kubectl.
    #[must_use]
    pub fn programs(&self) -> [&Path; 4] {
        [&self.etcd, &self.kube_apiserver, &self.kube_controller_manager, &self.kubectl]
    }

    /// The folder that holds all four programs; `None` if they are in different folders.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        let folder = self.etcd.parent()?;
        self.programs().iter().all(|program| program.parent() == Some(folder)).then_some(folder)
    }

    /// The names of the programs that are not there, or are not executable.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let present = self.programs().map(is_program);
        PROGRAMS.into_iter().zip(present).filter_map(|(name, present)| (!present).then_some(name)).collect()
    }

    /// These programs, with missing ones replaced by those of `other`.
    pub(super) fn or(self, other: Self) -> Self {
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
