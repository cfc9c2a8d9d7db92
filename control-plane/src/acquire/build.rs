//! Builds the programs from their Go modules, whose `go.mod` and `go.sum` pin every version and checksum.

use std::{
    fs,
    path::Path,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::{io::AsyncReadExt, process::Command};

use super::{ETCD_VERSION, KUBERNETES_VERSION, Settings};

/// The longest that one program may take; kube-apiserver needs six minutes on two cores.
const BUILD_TIMEOUT: Duration = Duration::from_hours(1);
/// How often a build that goes on says so.
const TELL: Duration = Duration::from_secs(10);

struct Program {
    name: &'static str,
    module: &'static str,
    package: &'static str,
}

const PROGRAMS: [Program; 4] = [
    Program { name: "etcd", module: "etcd", package: "go.etcd.io/etcd/server/v3" },
    Program { name: "kube-apiserver", module: "kubernetes", package: "k8s.io/kubernetes/cmd/kube-apiserver" },
    Program {
        name: "kube-controller-manager",
        module: "kubernetes",
        package: "k8s.io/kubernetes/cmd/kube-controller-manager",
    },
    Program { name: "kubectl", module: "kubernetes", package: "k8s.io/kubernetes/cmd/kubectl" },
];

/// Embedded, so that a program far from its source can build too.
const MODULES: [(&str, &str, &str); 2] = [
    ("etcd", include_str!("../../go/etcd/go.mod"), include_str!("../../go/etcd/go.sum")),
    ("kubernetes", include_str!("../../go/kubernetes/go.mod"), include_str!("../../go/kubernetes/go.sum")),
];

/// Fills `dir` with the four programs.
pub(super) async fn build(settings: &Settings, dir: &Path) -> anyhow::Result<()> {
    // Inside, so that whoever clears away an interrupted build clears this away too; gone when this function ends.
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
    program: &Program,
    module: &Path,
    dir: &Path,
    doing: &str,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut child = Command::new(&settings.go)
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
        .with_context(|| format!("start `{}` (Go 1.26 or later is needed)", settings.go.display()))?;
    let mut stderr = child.stderr.take();
    let output = async {
        let mut text = Vec::new();
        if let Some(stderr) = &mut stderr {
            stderr.read_to_end(&mut text).await?;
        }
        let status = child.wait().await?;
        std::io::Result::Ok((status, String::from_utf8_lossy(&text).into_owned()))
    };
    let tell = async {
        loop {
            tokio::time::sleep(TELL).await;
            (settings.progress)(&format!("{doing}: {} s", begin.elapsed().as_secs()));
        }
    };
    let (status, text): (ExitStatus, String) = tokio::select! {
        output = tokio::time::timeout(BUILD_TIMEOUT, output) => {
            output.with_context(|| format!("`go build` did not end within {} s", BUILD_TIMEOUT.as_secs()))??
        }
        () = tell => bail!("the ticker ended"),
    };
    if !status.success() {
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("go: downloading")).collect();
        bail!("`go build` ended with {status}: {}", lines[lines.len().saturating_sub(10)..].join(" | "));
    }
    Ok(())
}

/// Without debug information; Kubernetes with its version, which clients ask for.
fn ldflags(program: &Program) -> String {
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
