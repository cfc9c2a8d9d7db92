//! The three programs of the control plane: their arguments, ports and readiness.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rand::RngExt;

use crate::{
    Options,
    acquire::Assets,
    error::{Error, Result},
    process::{Launch, POLL, Process},
};

/// A program of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The store. Its data survive a kill and a restart.
    Etcd,
    /// The API.
    Apiserver,
    /// The garbage collector, the namespace controller, and the aggregation of `ClusterRole`s.
    ControllerManager,
}

/// The ports of one control plane, kept across restarts of its parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) apiserver: u16,
    pub(crate) controller_manager: u16,
}

impl Ports {
    /// Two ports that are free now.
    pub(crate) fn find() -> Result<Self> {
        Ok(Self { apiserver: free_port()?, controller_manager: free_port()? })
    }
}

/// A port of 127.0.0.1 that is free now, and that this process has not given away before: two that start at the same time
/// never get the same one.
///
/// It lies below the range from which Linux serves outgoing connections (32768 and up), so that no connection takes it while
/// a program that listens on it restarts.
///
/// # Errors
/// When none is free between 20000 and 32000.
pub fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let port = (0..1000)
        .map(|_| rand::rng().random_range(20_000..32_000))
        .find(|port| !given.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| Error::Io {
            doing: "find a free loopback port between 20000 and 32000".to_owned(),
            source: std::io::ErrorKind::AddrInUse.into(),
        })?;
    given.insert(port);
    Ok(port)
}

/// etcd listens on unix sockets in its own folder: no port to collide on, and nobody else can reach it.
const ETCD_CLIENT: &str = "unix://client:0";
const ETCD_PEER: &str = "unix://peer:0";
pub(crate) const ETCD_SOCKET: &str = "client:0";

pub(crate) fn etcd(assets: &Assets, dir: &Path) -> Launch {
    Launch::new("etcd", &assets.etcd).current_dir(dir).args([
        "--name=berth".to_owned(),
        "--data-dir=etcd-data".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--listen-client-urls={ETCD_CLIENT}"),
        format!("--advertise-client-urls={ETCD_CLIENT}"),
        format!("--listen-peer-urls={ETCD_PEER}"),
        format!("--initial-advertise-peer-urls={ETCD_PEER}"),
        format!("--initial-cluster=berth={ETCD_PEER}"),
    ])
}

pub(crate) fn apiserver(assets: &Assets, dir: &Path, ports: Ports, options: &Options) -> Launch {
    let mut launch = Launch::new("kube-apiserver", &assets.kube_apiserver).current_dir(dir).args([
        format!("--etcd-servers={ETCD_CLIENT}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", ports.apiserver),
        "--cert-dir=certs".to_owned(),
        "--tls-cert-file=serving.crt".to_owned(),
        "--tls-private-key-file=serving.key".to_owned(),
        "--client-ca-file=ca.crt".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--service-account-key-file=sa.pub".to_owned(),
        "--service-account-signing-key-file=sa.key".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        // It insists on a `default` ServiceAccount in every namespace, which a controller that does not run makes.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        // 127.0.0.1 is no valid endpoint, and nothing inside the cluster looks for the apiserver.
        "--endpoint-reconciler-type=none".to_owned(),
    ]);
    if options.audit {
        launch = launch.args([
            "--audit-policy-file=audit-policy.yaml",
            "--audit-log-path=audit.log",
            // One line per request, on disk before the request is answered, so that a count misses nothing.
            "--audit-log-mode=blocking",
        ]);
    }
    // A third of its time is spent on collecting garbage otherwise, on a machine that has more memory than processors.
    launch
        .env("GOGC", std::env::var_os("GOGC").unwrap_or_else(|| "400".into()))
        .args(options.apiserver_flags.iter().cloned())
}

/// Writes only, when they are complete: what a count of API writes needs.
pub(crate) const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [get, list, watch]
- level: Metadata
";

pub(crate) fn controller_manager(
    assets: &Assets,
    dir: &Path,
    ports: Ports,
    kubeconfig: &Path,
    options: &Options,
) -> Launch {
    let kubeconfig = kubeconfig.display();
    let launch = Launch::new("kube-controller-manager", &assets.kube_controller_manager).current_dir(dir).args([
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        // The last one fills `view`, `edit` and `admin`, which are empty without it.
        "--controllers=garbage-collector-controller,namespace-controller,clusterrole-aggregation-controller".to_owned(),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", ports.controller_manager),
        "--tls-cert-file=serving.crt".to_owned(),
        "--tls-private-key-file=serving.key".to_owned(),
        // The default of 20 requests per second makes the clean-up of a large test take minutes.
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=2000".to_owned(),
    ]);
    launch.args(options.controller_manager_flags.iter().cloned())
}

/// Waits until `ready` holds; fails at once when the process ends, and after `timeout`.
pub(crate) async fn wait_until(
    process: &Process,
    timeout: Duration,
    mut ready: impl AsyncFnMut() -> bool,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(died) = process.died() {
            return Err(died);
        }
        if ready().await {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(process.timeout("was not ready", timeout));
        }
        tokio::time::sleep(POLL * 5).await;
    }
}
