//! Downloads the official releases: etcd, kube-apiserver and kubectl from an envtest archive, kube-controller-manager from
//! the Kubernetes release. A file gets the name of a program only after its checksum is verified.

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

use super::settings::{KUBERNETES_VERSION, Settings};

/// Time to connect: short, because without access to the internet a build follows.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause within a response, after which the download counts as stuck.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest download, in bytes: ten times the archive's 80 MB, so that a wrong URL does not fill the disk.
const MAX_DOWNLOAD_BYTES: u64 = 1 << 30;
/// Largest index or checksum, in bytes: they are read into memory, and have some 100 KB.
const MAX_TEXT_BYTES: u64 = 4 << 20;

/// The index of the envtest releases: archives by version and file name.
#[derive(Deserialize)]
struct ReleaseIndex {
    releases: BTreeMap<String, BTreeMap<String, ReleaseArchive>>,
}

#[derive(Deserialize)]
struct ReleaseArchive {
    hash: String,
}

/// Downloads the four programs into `dir`.
pub(super) async fn download(settings: &Settings, os: &str, arch: &str, dir: &Path) -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).build()?;
    let index = text(&client, &settings.envtest_index).await?;
    let (version, sha512) = newest(&index, os, arch).with_context(|| settings.envtest_index.clone())?;

    let archive = dir.join("archive.part");
    let name = format!("envtest-{version}-{os}-{arch}.tar.gz");
    let url = format!("{}/envtest-{version}/{name}", settings.envtest_releases);
    (settings.progress)(&format!("downloading {url}"));
    download_verified(&client, &url, &sha512, &archive).await?;
    unpack(&archive, dir).with_context(|| format!("unpack {url}"))?;
    fs::remove_file(&archive)?;

    let url = format!("{}/{KUBERNETES_VERSION}/bin/{os}/{arch}/kube-controller-manager", settings.kubernetes_releases);
    (settings.progress)(&format!("downloading {url}"));
    let sums = text(&client, &format!("{url}.sha512")).await?;
    let sha512 = sums.split_whitespace().next().unwrap_or_default();
    let part = dir.join("kube-controller-manager.part");
    download_verified(&client, &url, sha512, &part).await?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
    fs::rename(part, dir.join("kube-controller-manager"))?;
    let origin = format!("{name} and kube-controller-manager {KUBERNETES_VERSION}, downloaded\n");
    fs::write(dir.join("ORIGIN"), origin).context("write ORIGIN")
}

/// The newest envtest release of the minor version for this platform, and the SHA-512 of its archive.
fn newest(index: &str, os: &str, arch: &str) -> anyhow::Result<(String, String)> {
    let index: ReleaseIndex = serde_saphyr::from_str(index).context("not an index of envtest releases")?;
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
    let response = client.get(url).send().await.map_err(reqwest::Error::without_url);
    let response = response.with_context(|| format!("get {url}"))?;
    ensure!(response.status().is_success(), "get {url}: status {}", response.status());
    Ok(response)
}

async fn text(client: &reqwest::Client, url: &str) -> anyhow::Result<String> {
    let mut response = get(client, url).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.with_context(|| format!("get {url}"))? {
        bytes.extend_from_slice(&chunk);
        ensure!(bytes.len() as u64 <= MAX_TEXT_BYTES, "get {url}: more than {MAX_TEXT_BYTES} bytes");
    }
    String::from_utf8(bytes).with_context(|| format!("get {url}: not text"))
}

/// Downloads a file to `path` and verifies its checksum; leaves no file when it fails.
async fn download_verified(client: &reqwest::Client, url: &str, sha512: &str, path: &Path) -> anyhow::Result<()> {
    let result = async {
        let mut response = get(client, url).await?;
        let (mut file, mut digest, mut length) = (File::create(path)?, Sha512::new(), 0);
        while let Some(chunk) =
            response.chunk().await.with_context(|| format!("get {url}: cut off after {length} bytes"))?
        {
            length += chunk.len() as u64;
            ensure!(length <= MAX_DOWNLOAD_BYTES, "get {url}: more than {MAX_DOWNLOAD_BYTES} bytes");
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

/// Extracts the three programs from an envtest archive, whichever folders they are in, and nothing else.
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
        std::io::copy(&mut entry.take(MAX_DOWNLOAD_BYTES), &mut file)?;
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        wanted.swap_remove(found);
    }
    ensure!(wanted.is_empty(), "there is no {} inside", wanted.join(", no "));
    Ok(())
}
