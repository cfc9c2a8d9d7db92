//! Starts and stops a control plane, and injects faults into it.

use std::{
    fmt,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, Client, api::PostParams};

use crate::{
    acquire::{self, Assets},
    components::{self, Component, wait_until},
    error::{ControlPlaneError, IoContext, KubeContext, Result},
    guard::Guard,
    kubeconfig::{Cluster, Identity},
    options::ControlPlaneOptions,
    pki::{self, Authority},
    ports::Ports,
    process::{ChildProcess, POLL_PERIOD},
};

/// How often to try a start when another program takes one of the ports in the meantime. Twice in a row is rare already.
const PORT_ATTEMPTS: usize = 5;

/// Lifetime of a token of [`ControlPlane::service_account_kubeconfig`], in seconds: longer than any test or demo.
const TOKEN_SECONDS: i64 = 30 * 24 * 3600;

/// A running control plane. It ends, and its folder is removed, when this value is dropped or this process ends.
pub struct ControlPlane {
    guard: Guard,
    options: ControlPlaneOptions,
    assets: Assets,
    cluster: Cluster,
    admin: Identity,
    admin_client: Client,
    admin_kubeconfig: PathBuf,
    ports: Ports,
    probe: reqwest::Client,
    etcd: ChildProcess,
    apiserver: ChildProcess,
    controller_manager: ChildProcess,
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane").field("url", &self.cluster.url).field("dir", &self.dir()).finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// Starts etcd, kube-apiserver and kube-controller-manager on free loopback ports, in a new folder, and waits until
    /// all are ready (about 4 s). Any number of control planes can run side by side.
    ///
    /// # Errors
    /// When the programs cannot be found, or a component ends or does not become ready; the error has the end of its log.
    pub async fn start(options: ControlPlaneOptions) -> Result<Self> {
        // The TLS provider of kube and reqwest. It fails if one is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let assets = match &options.assets {
            Some(assets) => assets.clone(),
            None => acquire::acquire(&acquire::Settings::from_env()).await?,
        };
        let mut attempt = 1;
        loop {
            match Self::try_start(&options, &assets).await {
                Err(ControlPlaneError::Died { name, tail, .. })
                    if attempt < PORT_ATTEMPTS && tail.contains("address already in use") =>
                {
                    tracing::info!(component = name, attempt, "another program took the port; trying other ports");
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn try_start(options: &ControlPlaneOptions, assets: &Assets) -> Result<Self> {
        let begin = Instant::now();
        let guard = Guard::temporary("berth-control-plane")?;
        let dir = guard.dir().to_owned();
        let timeout = options.start_timeout;
        let etcd = components::etcd(assets, &dir).spawn(&guard)?;

        // etcd starts while these are prepared.
        let ClusterAccess { cluster, admin, admin_kubeconfig, manager_kubeconfig, ports, probe } =
            ClusterAccess::prepare(&dir)?;
        let socket = dir.join(components::ETCD_SOCKET);
        wait_until(&etcd, timeout, async || UnixStream::connect(&socket).is_ok()).await?;
        let apiserver = components::apiserver(assets, &dir, ports, options).spawn(&guard)?;
        wait_until(&apiserver, timeout, async || ready(&probe, ports.apiserver, "readyz").await).await?;
        let controller_manager =
            components::controller_manager(assets, &dir, ports, &manager_kubeconfig, options).spawn(&guard)?;
        wait_until(&controller_manager, timeout, async || ready(&probe, ports.controller_manager, "healthz").await)
            .await?;

        let admin_client = cluster.client(&admin).await?;
        tracing::info!(url = cluster.url, milliseconds = begin.elapsed().as_millis(), "control plane is up");
        let (options, assets) = (options.clone(), assets.clone());
        Ok(Self {
            guard,
            options,
            assets,
            cluster,
            admin,
            admin_client,
            admin_kubeconfig,
            ports,
            probe,
            etcd,
            apiserver,
            controller_manager,
        })
    }

    /// The folder of this control plane, guarded by [`ControlPlane::guard`]: logs, kubeconfigs, data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.guard.dir()
    }

    /// The guard of this control plane's folder: a process that is started or adopted under it ends with the control plane.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The programs that it runs, and `kubectl`.
    #[must_use]
    pub fn assets(&self) -> &Assets {
        &self.assets
    }

    /// The apiserver's address, `https://127.0.0.1:PORT`. It stays the same when the apiserver restarts.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.cluster.url
    }

    /// A kubeconfig with all rights (group `system:masters`).
    #[must_use]
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// A client with all rights (group `system:masters`). It does not retry by itself.
    #[must_use]
    pub fn admin_client(&self) -> Client {
        self.admin_client.clone()
    }

    /// A client that impersonates a user: admission webhooks see `name` as the user, and RBAC applies to it.
    pub async fn user_client(&self, name: &str, groups: &[&str]) -> Result<Client> {
        self.cluster.client(&self.admin.impersonating(name, groups)).await
    }

    /// A kubeconfig that impersonates a user, for `kubectl`; see [`ControlPlane::user_client`].
    pub fn user_kubeconfig(&self, name: &str, groups: &[&str]) -> Result<PathBuf> {
        let file = self.dir().join(format!("user-{}.kubeconfig", file_name(name)));
        self.cluster.write(file, &self.admin.impersonating(name, groups), None)
    }

    /// Requests a token for a ServiceAccount and writes a kubeconfig (mode 0600) that acts as it.
    ///
    /// # Errors
    /// When the ServiceAccount does not exist.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let identity = self.service_account(namespace, name).await?;
        let file = self.dir().join(format!("sa-{}-{}.kubeconfig", file_name(namespace), file_name(name)));
        self.cluster.write(file, &identity, Some(namespace))
    }

    /// A client that acts as a ServiceAccount.
    ///
    /// # Errors
    /// When the ServiceAccount does not exist.
    pub async fn service_account_client(&self, namespace: &str, name: &str) -> Result<Client> {
        self.cluster.client(&self.service_account(namespace, name).await?).await
    }

    async fn service_account(&self, namespace: &str, name: &str) -> Result<Identity> {
        let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let api: Api<ServiceAccount> = Api::namespaced(self.admin_client(), namespace);
        let response = api
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .doing(|| format!("get a token for ServiceAccount {namespace}/{name}"))?;
        let user = format!("system:serviceaccount:{namespace}:{name}");
        match response.status.and_then(|status| status.token) {
            Some(token) => Ok(Identity::token(&user, &token)),
            None => Err(ControlPlaneError::Kubeconfig { user, reason: "the apiserver returned no token".to_owned() }),
        }
    }

    /// The audit log (one JSON event a line, writes only), if [`ControlPlaneOptions::audit`] was set.
    #[must_use]
    pub fn audit_log(&self) -> Option<PathBuf> {
        self.options.audit.then(|| self.dir().join("audit.log"))
    }

    /// The process of a component, to freeze it, wait for it or read its log.
    #[must_use]
    pub fn process(&self, component: Component) -> &ChildProcess {
        match component {
            Component::Etcd => &self.etcd,
            Component::Apiserver => &self.apiserver,
            Component::ControllerManager => &self.controller_manager,
        }
    }

    /// Kills a component with SIGKILL and waits until it is dead.
    pub fn kill(&self, component: Component) -> Result<()> {
        self.process(component).kill9()
    }

    /// Restarts a component with the same port and data, and waits until it is ready. Kills it first if it runs.
    ///
    /// # Errors
    /// When it ends or does not become ready.
    pub async fn restart(&self, component: Component) -> Result<()> {
        let process = self.process(component);
        let deadline = Instant::now() + self.options.start_timeout;
        process.restart()?;
        loop {
            let result = wait_until(process, self.options.start_timeout, async || self.is_ready(component).await).await;
            match result {
                // The kernel may hold the port of the killed process for a moment.
                Err(ControlPlaneError::Died { tail, .. })
                    if tail.contains("address already in use") && Instant::now() < deadline =>
                {
                    tokio::time::sleep(POLL_PERIOD).await;
                    process.restart()?;
                }
                result => return result,
            }
        }
    }

    async fn is_ready(&self, component: Component) -> bool {
        match component {
            Component::Etcd => UnixStream::connect(self.dir().join(components::ETCD_SOCKET)).is_ok(),
            Component::Apiserver => ready(&self.probe, self.ports.apiserver, "readyz").await,
            Component::ControllerManager => ready(&self.probe, self.ports.controller_manager, "healthz").await,
        }
    }

    /// Kills every process under the guard, removes the folder, and waits until both are done.
    ///
    /// # Errors
    /// When a process or the folder is left.
    pub async fn stop(self) -> Result<()> {
        self.guard.close().await
    }
}

/// Addresses and credentials, which exist before the apiserver starts.
struct ClusterAccess {
    cluster: Cluster,
    admin: Identity,
    admin_kubeconfig: PathBuf,
    manager_kubeconfig: PathBuf,
    ports: Ports,
    probe: reqwest::Client,
}

impl ClusterAccess {
    fn prepare(dir: &Path) -> Result<Self> {
        let authority = Authority::new()?;
        let ports = Ports::find()?;
        let cluster = Cluster { url: format!("https://127.0.0.1:{}", ports.apiserver), ca_pem: authority.pem() };
        let admin = Identity::certificate("admin", &authority.client("admin", "system:masters")?);
        let admin_kubeconfig = cluster.write(dir.join("admin.kubeconfig"), &admin, None)?;
        let manager = authority.client("system:kube-controller-manager", "system:masters")?;
        let manager = Identity::certificate("system:kube-controller-manager", &manager);
        let manager_kubeconfig = cluster.write(dir.join("controller-manager.kubeconfig"), &manager, None)?;
        let caller = authority.client("kube-apiserver", "webhook-clients")?;
        for (name, content) in components::webhook_client_files(dir, &caller) {
            pki::write(&dir.join(name), &content)?;
        }
        write_files(dir, &authority)?;
        let probe = probe_client(&cluster.ca_pem)?;
        Ok(Self { cluster, admin, admin_kubeconfig, manager_kubeconfig, ports, probe })
    }
}

fn write_files(dir: &Path, authority: &Authority) -> Result<()> {
    let serving = authority.serving()?;
    pki::write(&dir.join("ca.crt"), &authority.pem())?;
    pki::write(&dir.join("serving.crt"), &serving.certificate)?;
    pki::write(&dir.join("serving.key"), &serving.key)?;
    pki::write(&dir.join("audit-policy.yaml"), components::AUDIT_POLICY)?;
    pki::write_token_keys(dir)
}

/// How long one readiness request may take; a component that starts may be slow to respond.
const READINESS_TIMEOUT: Duration = Duration::from_secs(5);

fn probe_client(ca_pem: &str) -> Result<reqwest::Client> {
    let certificates = reqwest::Certificate::from_pem(ca_pem.as_bytes());
    certificates
        .and_then(|ca| {
            let client = reqwest::Client::builder().tls_certs_only([ca]).no_proxy();
            client.timeout(READINESS_TIMEOUT).pool_max_idle_per_host(0).build()
        })
        .map_err(std::io::Error::other)
        .doing(|| "create a client for readiness probes".to_owned())
}

/// Requests a readiness endpoint, which needs no authentication. The certificate proves that the process is this control
/// plane's, not that of another one that has taken the port.
async fn ready(client: &reqwest::Client, port: u16, path: &str) -> bool {
    let response = client.get(format!("https://127.0.0.1:{port}/{path}")).send().await;
    response.is_ok_and(|response| response.status().is_success())
}

/// A name as part of a file name: characters other than letters, digits, `-` and `.` become `_`.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' }).collect()
}
