//! The three components of the control plane: their arguments and readiness.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    acquire::Assets,
    error::Result,
    options::ControlPlaneOptions,
    pki::CertificateAndKey,
    ports::Ports,
    process::{ChildProcess, Launch, POLL_PERIOD},
};

/// A component of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// etcd. Its data survive a kill and a restart.
    Etcd,
    /// kube-apiserver.
    Apiserver,
    /// kube-controller-manager with the garbage collector, the namespace controller, and the aggregation of `ClusterRole`s.
    ControllerManager,
}

/// etcd's client URL: a unix socket in its own folder, which cannot collide with another port and which only this user can
/// reach.
const ETCD_CLIENT: &str = "unix://client:0";
/// etcd's peer URL, a unix socket for the same reason.
const ETCD_PEER: &str = "unix://peer:0";
/// The file name of the socket behind the client URL.
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

pub(crate) fn apiserver(assets: &Assets, dir: &Path, ports: Ports, options: &ControlPlaneOptions) -> Launch {
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
        // This plugin demands a `default` ServiceAccount in every namespace, and the controller that creates it does not run.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        // 127.0.0.1 is not a valid endpoint, and nothing inside the cluster connects to the apiserver.
        "--endpoint-reconciler-type=none".to_owned(),
    ]);
    if options.audit {
        launch = launch.args([
            "--audit-policy-file=audit-policy.yaml",
            "--audit-log-path=audit.log",
            // Each line is on disk before the response to its request, so that a count of requests misses none.
            "--audit-log-mode=blocking",
        ]);
    }
    if options.webhook_client_certificate {
        launch = launch.arg(format!("--admission-control-config-file={ADMISSION_CONFIG}"));
    }
    // With Go's default of 100, the apiserver spends a third of its time on garbage collection; memory is not scarce here.
    launch
        .env("GOGC", std::env::var_os("GOGC").unwrap_or_else(|| "400".into()))
        .args(options.apiserver_flags.iter().cloned())
}

/// Names of the files with which the apiserver calls webhooks: [`admission_config`], the kubeconfig that it names, and what that
/// names.
const ADMISSION_CONFIG: &str = "admission.yaml";
const WEBHOOK_KUBECONFIG: &str = "webhooks.kubeconfig";
const WEBHOOK_CLIENT: [&str; 2] = ["webhook-client.crt", "webhook-client.key"];

/// The files, with their contents, by which the apiserver presents this certificate to every webhook. Paths have to be absolute.
pub(crate) fn webhook_client_files(dir: &Path, client: &CertificateAndKey) -> [(&'static str, String); 4] {
    let dir = dir.display();
    let plugin = |name: &str| {
        format!(
            "- name: {name}\n  configuration:\n    apiVersion: apiserver.config.k8s.io/v1\n    \
             kind: WebhookAdmissionConfiguration\n    kubeConfigFile: {dir}/{WEBHOOK_KUBECONFIG}\n"
        )
    };
    let plugins = ["MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"].map(plugin).concat();
    let admission =
        format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n{plugins}");
    let [certificate, key] = WEBHOOK_CLIENT;
    // The user `*` is for every webhook that has none of its own name.
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\nusers:\n- name: '*'\n  user:\n    client-certificate: {dir}/{certificate}\n    \
         client-key: {dir}/{key}\n"
    );
    [
        (ADMISSION_CONFIG, admission),
        (WEBHOOK_KUBECONFIG, kubeconfig),
        (certificate, client.certificate.clone()),
        (key, client.key.clone()),
    ]
}

/// Logs completed writes and no reads, for counting API writes.
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
    options: &ControlPlaneOptions,
) -> Launch {
    let kubeconfig = kubeconfig.display();
    let launch = Launch::new("kube-controller-manager", &assets.kube_controller_manager).current_dir(dir).args([
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        // Without the last controller, the ClusterRoles `view`, `edit` and `admin` are empty.
        "--controllers=garbage-collector-controller,namespace-controller,clusterrole-aggregation-controller".to_owned(),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", ports.controller_manager),
        "--tls-cert-file=serving.crt".to_owned(),
        "--tls-private-key-file=serving.key".to_owned(),
        // With the default of 20 requests per second, the clean-up after a large test takes minutes.
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=2000".to_owned(),
    ]);
    launch.args(options.controller_manager_flags.iter().cloned())
}

/// How often to check readiness: a readiness request costs more than a check of a process.
const READINESS_POLL_PERIOD: Duration = POLL_PERIOD.saturating_mul(5);

/// Waits until `ready` returns true. Fails at once when the process ends, and after `timeout`.
pub(crate) async fn wait_until(
    process: &ChildProcess,
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
        tokio::time::sleep(READINESS_POLL_PERIOD).await;
    }
}
