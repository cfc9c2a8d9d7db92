//! The example artifacts and manifests.

use std::{fs, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use berth_tests::{Archive, Artifacts, repository};
use tokio::process::Command;

/// The port that the manifests name.
pub(crate) const PORT: u16 = 18080;
/// The folder of kubectl's cache, beside the kubeconfig.
pub(crate) const KUBECTL_CACHE: &str = "kubectl-cache";
/// Time limit of a command of kubectl; it takes about a second.
const KUBECTL_TIMEOUT: Duration = Duration::from_mins(1);

/// Packs every folder of `examples/artifacts`; returns names and bytes of the archives, sorted by name.
pub(crate) fn pack() -> Result<Vec<(String, Vec<u8>)>> {
    let folder = repository().join("examples/artifacts");
    let mut packed = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        let name = format!("{}.tar", entry.file_name().to_string_lossy());
        packed.push((name, Archive::of_folder(&entry.path())?.build()?));
    }
    packed.sort();
    Ok(packed)
}

/// Serves the packed artifacts; returns `<digest>  <URL>` of each.
pub(crate) fn serve(artifacts: &Artifacts) -> Result<Vec<String>> {
    let served = pack()?.into_iter().map(|(name, bytes)| artifacts.put(&name, bytes));
    Ok(served.map(|artifact| format!("{}  {}", artifact.sha256, artifact.url)).collect())
}

/// Applies a manifest as a person would. kubectl's cache is beside the kubeconfig, not in the user's home, because another
/// control plane may get the same port later.
pub(crate) async fn apply(kubectl: &Path, kubeconfig: &Path, manifest: &Path) -> Result<String> {
    run(kubectl, kubeconfig, &["apply", "-f"], manifest).await
}

/// Patches the VMDeployment `web` with this file, as a person would.
pub(crate) async fn patch(kubectl: &Path, kubeconfig: &Path, patch: &Path) -> Result<String> {
    run(kubectl, kubeconfig, &["patch", "vmdeployment", "web", "--type=merge", "--patch-file"], patch).await
}

async fn run(kubectl: &Path, kubeconfig: &Path, arguments: &[&str], file: &Path) -> Result<String> {
    let shown = format!("kubectl {} {}", arguments.join(" "), file.display());
    let mut command = Command::new(kubectl);
    command.args(arguments).arg(file).arg("--kubeconfig").arg(kubeconfig);
    command.arg("--cache-dir").arg(kubeconfig.with_file_name(KUBECTL_CACHE));
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(KUBECTL_TIMEOUT, run)
        .await
        .with_context(|| format!("{shown}: not done within {KUBECTL_TIMEOUT:?}"))?
        .with_context(|| format!("run {}", kubectl.display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown}: {}", errors.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each artifact is in exactly one of the manifests, with its digest in the line below its URL.
    #[tokio::test]
    async fn the_manifests_name_the_artifacts_with_their_digests() {
        let artifacts = Artifacts::start(0).await.unwrap();
        let manifests = ["web.yaml", "web-v2.patch.yaml", "web-v3.patch.yaml"]
            .map(|name| fs::read_to_string(repository().join("examples").join(name)).unwrap())
            .join("\n");
        let lines: Vec<_> = manifests.lines().map(str::trim).collect();
        let packed = pack().unwrap();
        assert_eq!(packed.len(), 5);
        for (name, bytes) in packed {
            let sha256 = artifacts.put(&name, bytes).sha256;
            let url = format!("url: http://127.0.0.1:{PORT}/{name}");
            let at: Vec<_> = lines.iter().enumerate().filter(|(_, line)| **line == url).map(|(at, _)| at).collect();
            let [at] = at[..] else { panic!("{url}: expected once, found in {at:?}") };
            assert_eq!(lines[at + 1], format!("sha256: {sha256}"), "{name}: run `berth-demo --print-digests`");
        }
    }
}
