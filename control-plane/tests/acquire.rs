//! Gets the programs: the order of the sources, downloads from a server on loopback, builds, and what stays out of the cache.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use berth_control_plane::acquire::{Assets, KUBERNETES_VERSION, Settings, acquire};
use flate2::{Compression, write::GzEncoder};
use parking_lot::Mutex;
use sha2::{Digest, Sha512};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// A file on the server: its content, and how much of it the server sends before it closes the connection.
#[derive(Clone)]
struct ServedFile {
    body: Vec<u8>,
    sent: usize,
}

/// Starts a server for these files that only understands GET.
async fn serve(files: BTreeMap<String, ServedFile>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let files = files.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await?);
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default();
                match files.get(path) {
                    Some(ServedFile { body, sent }) => {
                        let head =
                            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                        stream.write_all(head.as_bytes()).await?;
                        stream.write_all(&body[..*sent]).await?;
                    }
                    None => stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await?,
                }
                stream.shutdown().await
            });
        }
    });
    url
}

fn whole(body: impl Into<Vec<u8>>) -> ServedFile {
    let body = body.into();
    ServedFile { sent: body.len(), body }
}

fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn sha512(bytes: &[u8]) -> String {
    hex::encode(Sha512::digest(bytes))
}

/// An envtest archive as it is published, with these programs.
fn archive(programs: &[&str]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for program in programs {
        let content = format!("{program} of the release\n").repeat(1000);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, format!("controller-tools/envtest/{program}"), content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

const ARCHIVE: &str = "/releases/envtest-v1.36.12";

fn archive_path() -> String {
    format!("{ARCHIVE}/envtest-v1.36.12-linux-{}.tar.gz", arch())
}

fn manager_path() -> String {
    format!("/kubernetes/{KUBERNETES_VERSION}/bin/linux/{}/kube-controller-manager", arch())
}

/// All files of a valid release.
fn valid_release() -> BTreeMap<String, ServedFile> {
    let archive = archive(&["etcd", "kube-apiserver", "kubectl"]);
    let entry = |version: &str, hash: &str| {
        format!(
            "  {version}:\n    envtest-{version}-linux-{}.tar.gz:\n      hash: {hash}\n      selfLink: unused\n",
            arch()
        )
    };
    // The newest patch release of this minor version is v1.36.12: by number, not by letters.
    let index =
        ["releases:\n", &entry("v1.36.2", "aa"), &entry("v1.36.12", &sha512(&archive)), &entry("v1.37.0", "bb")]
            .concat();
    let manager = b"kube-controller-manager of the release".to_vec();
    BTreeMap::from([
        ("/index.yaml".to_owned(), whole(index)),
        (archive_path(), whole(archive)),
        (format!("{}.sha512", manager_path()), whole(sha512(&manager))),
        (manager_path(), whole(manager)),
    ])
}

struct TestSetup {
    settings: Settings,
    progress_lines: Arc<Mutex<Vec<String>>>,
    dir: TempDir,
}

impl TestSetup {
    /// An empty cache, no named folder, a server at `url`, and no Go.
    fn new(url: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let settings = Settings {
            assets: None,
            cache: dir.path().join("cache"),
            envtest_index: format!("{url}/index.yaml"),
            envtest_releases: format!("{url}/releases"),
            kubernetes_releases: format!("{url}/kubernetes"),
            go: dir.path().join("no-go").into(),
            progress: Arc::new(move |line| sink.lock().push(line.to_owned())),
        };
        Self { settings, progress_lines: lines, dir }
    }

    async fn with(files: BTreeMap<String, ServedFile>) -> Self {
        Self::new(&serve(files).await)
    }

    /// The content of the cache without its lock file.
    fn cached(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.settings.cache).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_none_or(|extension| extension != "lock")).collect()
    }

    fn write_program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Replaces Go by a script that records its calls and writes the program that it should build.
    fn use_fake_go(&mut self, script: &str) {
        let text = format!(
            "#!/bin/sh\necho \"$PWD $*\" >>'{}/calls'\nwhile [ \"$1\" != -o ]; do shift; done\n{script}\n",
            self.dir.path().display()
        );
        self.settings.go = self.write_program("go", &text).into();
    }

    fn go_calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

const BUILDS: &str =
    r#"grep -q '^module berth.dev/control-plane/' go.mod && test -s go.sum && echo built >"$2" && chmod +x "$2""#;

fn content(program: &Path) -> String {
    fs::read_to_string(program).unwrap()
}

fn assert_complete(assets: &Assets) {
    for program in assets.programs() {
        assert_eq!(fs::metadata(program).unwrap().permissions().mode() & 0o111, 0o111, "{}", program.display());
    }
}

#[tokio::test]
async fn a_valid_release_is_downloaded_once() {
    let mut setup = TestSetup::with(valid_release()).await;
    let found = acquire(&setup.settings).await.unwrap();
    assert_complete(&found);
    assert!(content(&found.kube_apiserver).starts_with("kube-apiserver of the release"));
    assert_eq!(content(&found.kube_controller_manager), "kube-controller-manager of the release");
    assert_eq!(setup.cached(), [found.folder().unwrap().to_owned()]);
    assert!(
        fs::read_dir(found.folder().unwrap()).unwrap().all(|f| !f.unwrap().path().to_string_lossy().ends_with(".part"))
    );

    // The second time they come from the cache, so no server is needed.
    setup.settings.envtest_index = "http://127.0.0.1:1/".to_owned();
    assert_eq!(acquire(&setup.settings).await.unwrap(), found);
}

/// Asserts that every source fails, that the message has the reason of the download, and that the cache stays empty.
async fn assert_refused(files: BTreeMap<String, ServedFile>, reason: &str) {
    let setup = TestSetup::with(files).await;
    let error = acquire(&setup.settings).await.unwrap_err().to_string();
    let line = error.lines().find(|line| line.contains("official release")).unwrap();
    assert!(line.contains(reason), "{error}");
    assert_eq!(setup.cached(), [] as [PathBuf; 0], "{error}");
}

#[tokio::test]
async fn a_download_that_is_cut_off_leaves_nothing() {
    for path in [archive_path(), manager_path()] {
        let mut files = valid_release();
        let file = files.get_mut(&path).unwrap();
        file.sent = file.body.len() / 2;
        let sent = file.sent;
        assert_refused(files, &format!("{path}: cut off after {sent} bytes")).await;
    }
}

#[tokio::test]
async fn a_download_with_a_wrong_digest_leaves_nothing() {
    for path in [archive_path(), manager_path()] {
        let mut files = valid_release();
        let body = &mut files.get_mut(&path).unwrap().body;
        let middle = body.len() / 2;
        body[middle] ^= 1;
        assert_refused(files, &format!("{path}: SHA-512 is ")).await;
    }
}

#[tokio::test]
async fn an_incomplete_release_leaves_nothing() {
    let mut files = valid_release();
    files.remove(&manager_path());
    assert_refused(files, "404").await;

    let mut files = valid_release();
    files.insert(format!("{}.sha512", manager_path()), whole(""));
    assert_refused(files, "published is \"\"").await;

    let without = archive(&["etcd", "kubectl"]);
    let index = format!(
        "releases:\n  v1.36.12:\n    envtest-v1.36.12-linux-{}.tar.gz:\n      hash: {}\n",
        arch(),
        sha512(&without)
    );
    let mut files = valid_release();
    files.insert("/index.yaml".into(), whole(index));
    files.insert(archive_path(), whole(without));
    assert_refused(files, "there is no kube-apiserver inside").await;

    assert_refused(BTreeMap::from([("/index.yaml".into(), whole("releases: {}"))]), "no release of v1.36 for linux-")
        .await;
    assert_refused(BTreeMap::from([("/index.yaml".into(), whole("<html>"))]), "not an index of envtest releases").await;
}

#[tokio::test]
async fn when_every_source_fails_the_error_comes_quickly_with_a_line_for_each() {
    let mut setup = TestSetup::new("http://127.0.0.1:1");
    setup.settings.assets = Some(setup.dir.path().join("named"));
    let begin = Instant::now();
    let error = acquire(&setup.settings).await.unwrap_err().to_string();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), 5, "{error}");
    assert!(lines[1].contains("KUBEBUILDER_ASSETS") && lines[1].contains("named has no etcd"), "{error}");
    assert!(lines[2].contains("cache: nothing at"), "{error}");
    assert!(lines[3].contains("official release") && lines[3].contains("127.0.0.1:1/index.yaml"), "{error}");
    assert!(lines[4].contains("Go modules") && lines[4].contains("no-go"), "{error}");
}

#[tokio::test]
async fn a_named_folder_comes_first_and_missing_programs_come_from_other_sources() {
    let mut setup = TestSetup::with(valid_release()).await;
    for name in ["etcd", "kube-apiserver"] {
        setup.write_program(&format!("named/{name}"), "named");
    }
    let named = setup.dir.path().join("named");
    setup.settings.assets = Some(named.clone());
    let found = acquire(&setup.settings).await.unwrap();
    assert_eq!((found.etcd.parent(), found.kube_apiserver.parent()), (Some(&*named), Some(&*named)));
    assert!(content(&found.kubectl).starts_with("kubectl of the release"));
    assert_eq!(found.folder(), None);
    assert!(setup.progress_lines.lock()[0].contains("has no kube-controller-manager, no kubectl"));

    for name in ["kube-controller-manager", "kubectl"] {
        setup.write_program(&format!("named/{name}"), "named");
    }
    fs::remove_dir_all(&setup.settings.cache).unwrap();
    assert_eq!(acquire(&setup.settings).await.unwrap().folder(), Some(&*named));
    assert!(!setup.settings.cache.exists(), "no other source was used");
}

#[tokio::test]
async fn without_a_release_the_programs_are_built_once_for_parallel_callers() {
    let mut setup = TestSetup::new("http://127.0.0.1:1");
    setup.use_fake_go(&format!("sleep 0.1; {BUILDS}"));
    let (one, two) = tokio::join!(acquire(&setup.settings), acquire(&setup.settings));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one, two);
    assert_complete(&one);
    assert_eq!(fs::read_dir(one.folder().unwrap()).unwrap().count(), 5, "the programs and the file ORIGIN");
    let calls = setup.go_calls();
    assert_eq!(calls.len(), 4, "{calls:?}");
    assert!(
        calls[0].contains("/etcd build -mod=readonly -trimpath -ldflags -s -w -o ")
            && calls[0].ends_with("go.etcd.io/etcd/server/v3")
    );
    assert!(
        calls[1].contains(&format!("version.gitVersion={KUBERNETES_VERSION} "))
            && calls[1].ends_with("cmd/kube-apiserver")
    );
    let lines = setup.progress_lines.lock();
    let has_line = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(has_line("waiting for another download or build") && has_line("building kubectl (4 of 4)"), "{lines:?}");
}

#[tokio::test]
async fn a_build_that_fails_or_is_interrupted_leaves_nothing() {
    let mut setup = TestSetup::new("http://127.0.0.1:1");
    setup.use_fake_go(&format!("case $2 in */kubectl) echo 'no space left' >&2; exit 1;; esac; {BUILDS}"));
    let error = acquire(&setup.settings).await.unwrap_err().to_string();
    assert!(error.contains("kubectl: `go build` ended with exit status: 1: no space left"), "{error}");
    assert_eq!(setup.cached(), [] as [PathBuf; 0]);

    // The caller is dropped while the second program is being built.
    setup.use_fake_go(&format!("case $2 in */kube-apiserver) exec sleep 60;; esac; {BUILDS}"));
    let calls = setup.go_calls().len();
    let second = async {
        while setup.go_calls().len() < calls + 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        result = acquire(&setup.settings) => panic!("ended: {result:?}"),
        () = second => {}
    }
    assert_eq!(setup.cached(), [] as [PathBuf; 0]);

    // The next builder removes what a killed one has left.
    let left =
        setup.settings.cache.join(format!(".kubernetes-{KUBERNETES_VERSION}-etcd-v3.6.16-linux-{}.part-x", arch()));
    fs::create_dir(&left).unwrap();
    setup.use_fake_go(BUILDS);
    let found = acquire(&setup.settings).await.unwrap();
    assert_eq!(setup.cached(), [found.folder().unwrap().to_owned()]);
}
