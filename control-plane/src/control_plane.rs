//! Start, fault and stop of a control plane.

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
    error::{Error, IoContext, KubeContext, Result},
    guard::Guard,
    kubeconfig::{Cluster, Identity},
    parts::{self, Part, Ports, wait_until},
    pki::{self, Authority},
    process::{POLL, Process},
};

/// How often a start is tried when another program took one of the ports in between.
const PORT_ATTEMPTS: usize = 5;

/// How long a token of [`ControlPlane::service_account_kubeconfig`] is valid, in seconds: longer than any test or demo.
const TOKEN_SECONDS: i64 = 30 * 24 * 3600;

/// How a control plane is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The binaries; without, they are looked for by [`acquire::acquire`] with the settings of the environment.
    pub assets: Option<Assets>,
    /// Whether the apiserver logs every write (metadata only) to [`ControlPlane::audit_log`].
    pub audit: bool,
    /// Further arguments of kube-apiserver, such as `--max-requests-inflight=1000`; they win over the built-in ones.
    pub apiserver_flags: Vec<String>,
    /// Further arguments of kube-controller-manager; `--controllers` adds to those that run anyway.
    pub controller_manager_flags: Vec<String>,
    /// How long each part may take to be ready. Default: 60 s, for machines that are busy with other tests.
    pub start_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            assets: None,
            audit: false,
            apiserver_flags: Vec::new(),
            controller_manager_flags: Vec::new(),
            start_timeout: Duration::from_mins(1),
        }
    }
}

/// A running control plane. Dropping it, or the death of this process, ends it and removes its folder.
pub struct ControlPlane {
    guard: Guard,
    options: Options,
    assets: Assets,
    cluster: Cluster,
    admin: Identity,
    admin_client: Client,
    admin_kubeconfig: PathBuf,
    ports: Ports,
    probe: reqwest::Client,
    etcd: Process,
    apiserver: Process,
    controller_manager: Process,
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane").field("url", &self.cluster.url).field("dir", &self.dir()).finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// Starts etcd, kube-apiserver and kube-controller-manager on free loopback ports, in a fresh folder, and waits until
    /// all are ready (about 4 s). Any number of them run side by side.
    ///
    /// # Errors
    /// When there are no binaries, or a part ends or does not get ready; the error carries the end of that part's log.
    pub async fn start(options: Options) -> Result<Self> {
        // kube and reqwest find their TLS provider here. Another one installed before serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let assets = match &options.assets {
            Some(assets) => assets.clone(),
            None => acquire::acquire(&acquire::Settings::from_env()).await?,
        };
        let mut attempt = 1;
        loop {
            match Self::try_start(&options, &assets).await {
                Err(Error::Died { name, tail, .. })
                    if attempt < PORT_ATTEMPTS && tail.contains("address already in use") =>
                {
                    tracing::info!(part = name, attempt, "port taken in the meantime; trying others");
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn try_start(options: &Options, assets: &Assets) -> Result<Self> {
        let begin = Instant::now();
        let guard = Guard::temporary("berth-control-plane")?;
        let dir = guard.dir().to_owned();
        let timeout = options.start_timeout;
        let etcd = parts::etcd(assets, &dir).spawn(&guard)?;

        // While etcd comes up.
        let authority = Authority::new()?;
        let ports = Ports::find()?;
        let cluster = Cluster { url: format!("https://127.0.0.1:{}", ports.apiserver), ca_pem: authority.pem() };
        let admin = Identity::certificate("admin", &authority.client("admin", "system:masters")?);
        let admin_kubeconfig = cluster.write(dir.join("admin.kubeconfig"), &admin, None)?;
        let manager = authority.client("system:kube-controller-manager", "system:masters")?;
        let manager = Identity::certificate("system:kube-controller-manager", &manager);
        let manager_kubeconfig = cluster.write(dir.join("controller-manager.kubeconfig"), &manager, None)?;
        write_files(&dir, &authority)?;
        let probe = probe_client(&cluster.ca_pem)?;

        let socket = dir.join(parts::ETCD_SOCKET);
        wait_until(&etcd, timeout, async || UnixStream::connect(&socket).is_ok()).await?;
        let apiserver = parts::apiserver(assets, &dir, ports, options).spawn(&guard)?;
        wait_until(&apiserver, timeout, async || ready(&probe, ports.apiserver, "readyz").await).await?;
        let controller_manager =
            parts::controller_manager(assets, &dir, ports, &manager_kubeconfig, options).spawn(&guard)?;
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

    /// The folder of this control plane, under [`ControlPlane::guard`]: logs, kubeconfigs, data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.guard.dir()
    }

    /// The guardian of this control plane's folder: what is started or adopted under it ends with the control plane.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The binaries it runs on; `kubectl` is among them.
    #[must_use]
    pub fn assets(&self) -> &Assets {
        &self.assets
    }

    /// The apiserver's address, `https://127.0.0.1:PORT`. It stays the same when the apiserver restarts.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.cluster.url
    }

    /// A kubeconfig for everything (group `system:masters`).
    #[must_use]
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// A client for everything. It does not retry by itself.
    #[must_use]
    pub fn admin_client(&self) -> Client {
        self.admin_client.clone()
    }

    /// A client of a person, by impersonation: `name` is what the webhook sees as the requester, and RBAC applies.
    pub async fn user_client(&self, name: &str, groups: &[&str]) -> Result<Client> {
        self.cluster.client(&self.admin.impersonating(name, groups)).await
    }

    /// A kubeconfig of a person, as for [`ControlPlane::user_client`], for `kubectl`.
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
        let answer = api
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .doing(|| format!("get a token for ServiceAccount {namespace}/{name}"))?;
        let who = format!("system:serviceaccount:{namespace}:{name}");
        match answer.status.and_then(|status| status.token) {
            Some(token) => Ok(Identity::token(&who, &token)),
            None => Err(Error::Kubeconfig { who, reason: "the apiserver answered without a token".to_owned() }),
        }
    }

    /// The audit log (one JSON event per line, writes only), if [`Options::audit`] was set.
    #[must_use]
    pub fn audit_log(&self) -> Option<PathBuf> {
        self.options.audit.then(|| self.dir().join("audit.log"))
    }

    /// The process of a part, to freeze it, wait for it or read its log.
    #[must_use]
    pub fn process(&self, part: Part) -> &Process {
        match part {
            Part::Etcd => &self.etcd,
            Part::Apiserver => &self.apiserver,
            Part::ControllerManager => &self.controller_manager,
        }
    }

    /// Kills a part with SIGKILL and waits until it is dead.
    pub fn kill(&self, part: Part) -> Result<()> {
        self.process(part).kill9()
    }

    /// Starts a part again on the same port and data, killing it before if it runs, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or does not get ready.
    pub async fn restart(&self, part: Part) -> Result<()> {
        let process = self.process(part);
        let deadline = Instant::now() + self.options.start_timeout;
        process.restart()?;
        loop {
            let result = wait_until(process, self.options.start_timeout, async || self.ready(part).await).await;
            match result {
                // The kernel may hold the killed one's port for a moment.
                Err(Error::Died { tail, .. })
                    if tail.contains("address already in use") && Instant::now() < deadline =>
                {
                    tokio::time::sleep(POLL).await;
                    process.restart()?;
                }
                result => return result,
            }
        }
    }

    async fn ready(&self, part: Part) -> bool {
        match part {
            Part::Etcd => UnixStream::connect(self.dir().join(parts::ETCD_SOCKET)).is_ok(),
            Part::Apiserver => ready(&self.probe, self.ports.apiserver, "readyz").await,
            Part::ControllerManager => ready(&self.probe, self.ports.controller_manager, "healthz").await,
        }
    }

    /// Ends everything under the guard and removes the folder; returns when both is done.
    ///
    /// # Errors
    /// When something is left.
    pub async fn stop(self) -> Result<()> {
        self.guard.close().await
    }
}

fn write_files(dir: &Path, authority: &Authority) -> Result<()> {
    let serving = authority.serving()?;
    pki::write(&dir.join("ca.crt"), &authority.pem())?;
    pki::write(&dir.join("serving.crt"), &serving.certificate)?;
    pki::write(&dir.join("serving.key"), &serving.key)?;
    pki::write(&dir.join("audit-policy.yaml"), parts::AUDIT_POLICY)?;
    pki::write_token_keys(dir)
}

fn probe_client(ca_pem: &str) -> Result<reqwest::Client> {
    let certificates = reqwest::Certificate::from_pem(ca_pem.as_bytes());
    certificates
        .and_then(|ca| {
            let client = reqwest::Client::builder().tls_certs_only([ca]).no_proxy();
            client.timeout(Duration::from_secs(5)).pool_max_idle_per_host(0).build()
        })
        .map_err(std::io::Error::other)
        .doing(|| "make a client for readiness probes".to_owned())
}

/// Asks a readiness endpoint, which answers without authentication. The certificate proves that it is our process and
/// not that of another control plane which won a race for the port.
async fn ready(client: &reqwest::Client, port: u16, path: &str) -> bool {
    let answer = client.get(format!("https://127.0.0.1:{port}/{path}")).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// A name as part of a file name: what a user name may hold beyond letters, digits, `-` and `.` becomes `_`.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' }).collect()
}
