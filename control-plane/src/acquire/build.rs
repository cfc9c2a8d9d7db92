//! Builds the programs from their Go modules, whose `go.mod` and `go.sum` pin every version and checksum.

use std::{
    fs,
    path::Path,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
};

use super::settings::{ETCD_VERSION, KUBERNETES_VERSION, Settings};

/// Longest build of one program; kube-apiserver takes six minutes on two cores, and longer on a busy machine.
const BUILD_TIMEOUT: Duration = Duration::from_hours(1);
/// How often a running build reports progress, so that it does not seem stuck.
const PROGRESS_PERIOD: Duration = Duration::from_secs(10);

struct GoProgram {
    name: &'static str,
    module: &'static str,
    package: &'static str,
}

const PROGRAMS: [GoProgram; 4] = [
    GoProgram { name: "etcd", module: "etcd", package: "go.etcd.io/etcd/server/v3" },
    GoProgram { name: "kube-apiserver", module: "kubernetes", package: "k8s.io/kubernetes/cmd/kube-apiserver" },
    GoProgram {
        name: "kube-controller-manager",
        module: "kubernetes",
        package: "k8s.io/kubernetes/cmd/kube-controller-manager",
    },
    GoProgram { name: "kubectl", module: "kubernetes", package: "k8s.io/kubernetes/cmd/kubectl" },
];

/// Name, `go.mod` and `go.sum` of each module: embedded, so that the program builds them outside of a checkout, too.
const MODULES: [(&str, &str, &str); 2] = [
    ("etcd", include_str!("../../go/etcd/go.mod"), include_str!("../../go/etcd/go.sum")),
    ("kubernetes", include_str!("../../go/kubernetes/go.mod"), include_str!("../../go/kubernetes/go.sum")),
];

/// Builds the four programs into `dir`.
pub(super) async fn build(settings: &Settings, dir: &Path) -> anyhow::Result<()> {
    // Inside `dir`, so that it is removed together with `dir` after an interrupted build.
    let source = tempfile::Builder::new().prefix("modules-").tempdir_in(dir).context("create a folder")?;
    for (name, go_mod, go_sum) in MODULES {
        let module = source.path().join(name);
        fs::create_dir(&module)?;
        fs::write(module.join("go.mod"), go_mod)?;
        fs::write(module.join("go.sum"), go_sum)?;
    }
    for (index, program) in PROGRAMS.iter().enumerate() {
        let begin = Instant::now();
        let doing = format!("building {} ({} of {})", program.name, index + 1, PROGRAMS.len());
        (settings.progress)(&format!("{doing} from its Go module; all four take about ten minutes on two cores, once"));
        go_build(settings, program, &source.path().join(program.module), dir, &doing)
            .await
            .with_context(|| program.name)?;
        (settings.progress)(&format!("built {} in {} s", program.name, begin.elapsed().as_secs()));
    }
    let origin = format!("Kubernetes {KUBERNETES_VERSION} and etcd {ETCD_VERSION}, built from their Go modules\n");
    fs::write(dir.join("ORIGIN"), origin).context("write ORIGIN")
}

async fn go_build(
    settings: &Settings,
    program: &GoProgram,
    module: &Path,
    dir: &Path,
    doing: &str,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut child = spawn_go(settings, program, module, dir)?;
    let report_progress = async {
        loop {
            tokio::time::sleep(PROGRESS_PERIOD).await;
            (settings.progress)(&format!("{doing}: {} s", begin.elapsed().as_secs()));
        }
    };
    let (status, stderr) = tokio::select! {
        ended = tokio::time::timeout(BUILD_TIMEOUT, output(&mut child)) => {
            ended.with_context(|| format!("`go build` did not end within {} s", BUILD_TIMEOUT.as_secs()))??
        }
        () = report_progress => bail!("the progress report ended"),
    };
    if !status.success() {
        let lines: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("go: downloading")).collect();
        bail!("`go build` ended with {status}: {}", lines[lines.len().saturating_sub(10)..].join(" | "));
    }
    Ok(())
}

fn spawn_go(settings: &Settings, program: &GoProgram, module: &Path, dir: &Path) -> anyhow::Result<Child> {
    Command::new(&settings.go)
        .args(["build", "-mod=readonly", "-trimpath", "-ldflags", &ldflags(program)])
        .arg("-o")
        .arg(dir.join(program.name))
        .arg(program.package)
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env_remove("GOFLAGS")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start `{}` (Go 1.26 or later is needed)", settings.go.display()))
}

/// Waits until a process has ended. Returns its status and its standard error.
async fn output(child: &mut Child) -> std::io::Result<(ExitStatus, String)> {
    let mut text = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_end(&mut text).await?;
    }
    let status = child.wait().await?;
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

/// Strips debug information, and gives Kubernetes its version, which clients query.
fn ldflags(program: &GoProgram) -> String {
    let mut parts = KUBERNETES_VERSION.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let v = "k8s.io/component-base/version";
    match program.module {
        "kubernetes" => {
            format!("-s -w -X {v}.gitVersion={KUBERNETES_VERSION} -X {v}.gitMajor={major} -X {v}.gitMinor={minor}")
        }
        _ => "-s -w".to_owned(),
    }
}
