//! The official releases: etcd, kube-apiserver and kubectl from an envtest archive, kube-controller-manager from the
//! Kubernetes release. Nothing unverified gets a name that anything would run.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha512};

use super::{KUBERNETES_VERSION, Settings};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest silence in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// The most that one download may take on disk, in bytes; the archive has about 80 MB.
const LARGEST: u64 = 1 << 30;
/// The most that an index or a checksum may have, in bytes.
const LARGEST_TEXT: u64 = 4 << 20;

#[derive(Deserialize)]
struct Index {
    releases: BTreeMap<String, BTreeMap<String, Archive>>,
}

#[derive(Deserialize)]
struct Archive {
    hash: String,
}

/// Fills `dir` with the four programs.
pub(super) async fn download(settings: &Settings, os: &str, arch: &str, dir: &Path) -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).build()?;
    let index = text(&client, &settings.envtest_index).await?;
    let (version, sha512) = newest(&index, os, arch).with_context(|| settings.envtest_index.clone())?;

    let archive = dir.join("archive.part");
    let name = format!("envtest-{version}-{os}-{arch}.tar.gz");
    let url = format!("{}/envtest-{version}/{name}", settings.envtest_releases);
    (settings.progress)(&format!("downloading {url}"));
    verified(&client, &url, &sha512, &archive).await?;
    unpack(&archive, dir).with_context(|| format!("unpack {url}"))?;
    fs::remove_file(&archive)?;

    let url = format!("{}/{KUBERNETES_VERSION}/bin/{os}/{arch}/kube-controller-manager", settings.kubernetes_releases);
    (settings.progress)(&format!("downloading {url}"));
    let sums = text(&client, &format!("{url}.sha512")).await?;
    let sha512 = sums.split_whitespace().next().unwrap_or_default();
    let part = dir.join("kube-controller-manager.part");
    verified(&client, &url, sha512, &part).await?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
    fs::rename(part, dir.join("kube-controller-manager"))?;
    let origin = format!("{name} and kube-controller-manager {KUBERNETES_VERSION}, downloaded\n");
    fs::write(dir.join("ORIGIN"), origin).context("write ORIGIN")
}

/// The newest envtest release of our minor version for this platform, and the SHA-512 of its archive.
fn newest(index: &str, os: &str, arch: &str) -> anyhow::Result<(String, String)> {
    let index: Index = serde_saphyr::from_str(index).context("not an index of envtest releases")?;
    let minor = KUBERNETES_VERSION.rsplit_once('.').map_or(KUBERNETES_VERSION, |(minor, _)| minor);
    let ours = index.releases.into_iter().filter_map(|(version, mut archives)| {
        let patch: u32 = version.strip_prefix(minor)?.strip_prefix('.')?.parse().ok()?;
        let archive = archives.remove(&format!("envtest-{version}-{os}-{arch}.tar.gz"))?;
        Some((patch, version, archive.hash))
    });
    let newest = ours.max_by_key(|(patch, ..)| *patch);
    newest.map(|(_, version, hash)| (version, hash)).with_context(|| format!("no release of {minor} for {os}-{arch}"))
}

async fn get(client: &reqwest::Client, url: &str) -> anyhow::Result<reqwest::Response> {
    let answer = client.get(url).send().await.map_err(reqwest::Error::without_url);
    let answer = answer.with_context(|| format!("get {url}"))?;
    ensure!(answer.status().is_success(), "get {url}: answered {}", answer.status());
    Ok(answer)
}

async fn text(client: &reqwest::Client, url: &str) -> anyhow::Result<String> {
    let mut answer = get(client, url).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.with_context(|| format!("get {url}"))? {
        bytes.extend_from_slice(&chunk);
        ensure!(bytes.len() as u64 <= LARGEST_TEXT, "get {url}: more than {LARGEST_TEXT} bytes");
    }
    String::from_utf8(bytes).with_context(|| format!("get {url}: not text"))
}

/// Downloads to `path`; there is no file when it fails.
async fn verified(client: &reqwest::Client, url: &str, sha512: &str, path: &Path) -> anyhow::Result<()> {
    let result = async {
        let mut answer = get(client, url).await?;
        let (mut file, mut digest, mut length) = (File::create(path)?, Sha512::new(), 0);
        while let Some(chunk) =
            answer.chunk().await.with_context(|| format!("get {url}: cut off after {length} bytes"))?
        {
            length += chunk.len() as u64;
            ensure!(length <= LARGEST, "get {url}: more than {LARGEST} bytes");
            digest.update(&chunk);
            file.write_all(&chunk).with_context(|| format!("write {}", path.display()))?;
        }
        let found = hex::encode(digest.finalize());
        if !found.eq_ignore_ascii_case(sha512) {
            bail!("get {url}: SHA-512 is {found}, published is {sha512:?}");
        }
        Ok(())
    };
    let result = result.await;
    if result.is_err() {
        let _ = fs::remove_file(path);
    }
    result
}

/// Takes the three programs out of an envtest archive, wherever they are inside, and nothing else.
fn unpack(archive: &Path, dir: &Path) -> anyhow::Result<()> {
    let mut wanted = vec!["etcd", "kube-apiserver", "kubectl"];
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(archive)?));
    for entry in archive.entries()? {
        let entry = entry?;
        let path = entry.path()?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let Some(found) = wanted.iter().position(|wanted| *wanted == name) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let mut file = File::create(dir.join(&name))?;
        std::io::copy(&mut entry.take(LARGEST), &mut file)?;
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        wanted.swap_remove(found);
    }
    ensure!(wanted.is_empty(), "there is no {} inside", wanted.join(", no "));
    Ok(())
}
