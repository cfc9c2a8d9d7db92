//! A whole Berth.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use berth_control_plane::{ControlPlane, InstallReport, Launch, WebhookEndpoint};
use berth_core::api::{Approval, ApprovalDecision, ApprovalSpec, ApprovalTarget, Server, TargetKind};
use berth_machine::ssh::ClientKey;
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;

use crate::{
    artifacts::Artifacts,
    cut_off::CutOff,
    machines::Machines,
    part::{Instance, LaunchSettings, Part, free_address, launch},
    programs::repository,
    serving_certificate::{ServingCertificate, write_private},
    wait::eventually,
};

/// The namespace of Berth's ServiceAccounts.
pub const BERTH_NAMESPACE: &str = "berth-system";

/// Time until a program must be ready; long, because other tests may be running.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// Options of a Berth.
#[derive(Clone, Debug)]
pub struct Options {
    /// Options of the control plane: audit log, flags of the apiserver.
    pub control_plane: berth_control_plane::ControlPlaneOptions,
    /// The programs to start. Without the webhook, nothing can write a Server.
    pub parts: Vec<Part>,
    /// The port of the server of artifacts on 127.0.0.1; 0 stands for a free one.
    pub artifacts_port: u16,
    /// Additional arguments of each program, such as `--log-level=debug`.
    pub arguments: BTreeMap<Part, Vec<String>>,
    /// The folder of the manifests.
    pub deploy: PathBuf,
    /// The folder of the programs; none for those that were built with the running program.
    pub programs: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            control_plane: berth_control_plane::ControlPlaneOptions::default(),
            parts: Part::ALL.to_vec(),
            artifacts_port: 0,
            arguments: BTreeMap::new(),
            deploy: repository().join("deploy"),
            programs: None,
        }
    }
}

/// A running Berth. It ends, and its folders are removed, when this is dropped or this process dies.
pub struct Berth {
    // Fields are dropped in this order: programs, control plane, and then machines, which nothing creates any more.
    instances: Mutex<Vec<Instance>>,
    control_plane: ControlPlane,
    machines: Machines,
    artifacts: Artifacts,
    options: Options,
    installed: InstallReport,
    kubeconfigs: BTreeMap<Part, PathBuf>,
    serving: ServingCertificate,
    webhook: SocketAddr,
    ssh_key: PathBuf,
    http: reqwest::Client,
}

impl fmt::Debug for Berth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Berth").field("control_plane", &self.control_plane).finish_non_exhaustive()
    }
}

impl Berth {
    /// Starts everything and waits until all programs are ready and the apiserver calls the webhook (6 to 10 s). Any number of
    /// Berths can run at the same time.
    ///
    /// # Errors
    /// When a program is missing, ends, or is not ready in time; the error contains the end of its log.
    pub async fn start(options: Options) -> Result<Self> {
        let control_plane = ControlPlane::start(options.control_plane.clone()).await?;
        let dir = control_plane.dir().to_owned();
        let machines = Machines::start(&dir)?;
        let artifacts = Artifacts::start(options.artifacts_port).await?;
        let serving = ServingCertificate::create(&dir)?;
        let ssh_key = dir.join("ssh-key");
        write_private(&ssh_key, &ClientKey::generate()?.to_openssh()?)?;
        let webhook = free_address()?;
        let endpoint = WebhookEndpoint { url_base: format!("https://{webhook}"), ca_pem: serving.ca_pem.clone() };
        let installed = control_plane.install(&options.deploy, Some(&endpoint)).await?;
        let mut kubeconfigs = BTreeMap::new();
        for part in Part::ALL {
            kubeconfigs.insert(part, control_plane.service_account_kubeconfig(BERTH_NAMESPACE, part.name()).await?);
        }
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let instances = Mutex::default();
        let berth = Self {
            instances,
            control_plane,
            machines,
            artifacts,
            options,
            installed,
            kubeconfigs,
            serving,
            webhook,
            ssh_key,
            http,
        };
        berth.start_parts().await?;
        Ok(berth)
    }

    async fn start_parts(&self) -> Result<()> {
        let parts = &self.options.parts;
        for part in Part::ALL.into_iter().filter(|part| parts.contains(part)) {
            self.spawn(part)?;
        }
        for instance in self.instances() {
            self.wait_ready(&instance).await?;
        }
        if parts.contains(&Part::Webhook) { self.wait_for_webhook().await } else { Ok(()) }
    }

    /// The control plane.
    #[must_use]
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// A client with all rights. It does not retry.
    #[must_use]
    pub fn client(&self) -> Client {
        self.control_plane.admin_client()
    }

    /// The Servers of a namespace, with all rights.
    #[must_use]
    pub fn servers(&self, namespace: &str) -> Api<Server> {
        Api::namespaced(self.client(), namespace)
    }

    /// What was installed, and the warnings of the API server; correct manifests cause none.
    #[must_use]
    pub fn install_report(&self) -> &InstallReport {
        &self.installed
    }

    /// The server of artifacts.
    #[must_use]
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// The address at which the apiserver calls the webhook.
    #[must_use]
    pub fn webhook(&self) -> SocketAddr {
        self.webhook
    }

    /// The machines of the provider `local`.
    #[must_use]
    pub fn machines(&self) -> &Machines {
        &self.machines
    }

    /// The path of the private key for the machines (OpenSSH PEM).
    #[must_use]
    pub fn ssh_key(&self) -> &Path {
        &self.ssh_key
    }

    /// The path of a program's kubeconfig, with the token of its ServiceAccount.
    #[must_use]
    pub fn kubeconfig(&self, part: Part) -> &Path {
        self.kubeconfigs.get(&part).map_or(Path::new(""), PathBuf::as_path)
    }

    /// All processes, including dead ones, in the order in which they were started.
    #[must_use]
    pub fn instances(&self) -> Vec<Instance> {
        self.instances.lock().clone()
    }

    /// One process of a program; the first has the number 1.
    ///
    /// # Errors
    /// When it was never started.
    pub fn instance(&self, part: Part, number: usize) -> Result<Instance> {
        let found = self.instances.lock().iter().find(|i| i.part == part && i.number == number).cloned();
        found.with_context(|| format!("{part} number {number} was never started"))
    }

    /// Kills every process of a program with SIGKILL.
    pub fn kill9(&self, part: Part) -> Result<()> {
        for instance in self.of(part)? {
            instance.process.kill9()?;
        }
        Ok(())
    }

    /// Restarts all processes of a program with the same arguments, and waits until they are ready. Kills those that still run.
    pub async fn restart(&self, part: Part) -> Result<()> {
        let instances = self.of(part)?;
        for instance in &instances {
            instance.process.restart()?;
        }
        for instance in &instances {
            self.wait_ready(instance).await?;
        }
        Ok(())
    }

    /// Starts another copy of a controller, and waits until it is ready.
    ///
    /// # Errors
    /// For the webhook: the apiserver knows one address of it, and two processes cannot listen there.
    pub async fn start_copy(&self, part: Part) -> Result<Instance> {
        ensure!(part != Part::Webhook, "a second webhook would be asked by nobody: there is no Service on loopback");
        let instance = self.spawn(part)?;
        self.wait_ready(&instance).await?;
        Ok(instance)
    }

    /// Starts another copy of a controller in a network of its own, where it reaches the API server and nothing else, and waits
    /// until it is ready. Needs root.
    ///
    /// # Errors
    /// When the network cannot be made, or the copy does not become ready.
    pub async fn start_cut_off(&self, part: Part) -> Result<CutOff> {
        let instance = self.spawn_as(part, CutOff::launch)?;
        let api_server = self.control_plane.url().trim_start_matches("https://").parse()?;
        let cut_off = CutOff::enter(instance, api_server).await?;
        self.wait_ready(cut_off.instance()).await?;
        Ok(cut_off)
    }

    /// The metrics of a process, as text.
    ///
    /// # Errors
    /// When the process does not answer.
    pub async fn metrics(&self, instance: &Instance) -> Result<String> {
        let url = format!("http://{}/metrics", instance.http);
        let answer = self.http.get(&url).send().await.and_then(reqwest::Response::error_for_status);
        Ok(answer.with_context(|| format!("read the metrics of {}", instance.process.name()))?.text().await?)
    }

    /// Waits until a process is ready.
    ///
    /// # Errors
    /// When the process ends, or is not ready within a minute.
    pub async fn wait_ready(&self, instance: &Instance) -> Result<()> {
        let url = format!("http://{}/readyz", instance.http);
        let process = &instance.process;
        let check = async || {
            if let Some(died) = process.died() {
                return Ok(Err(died));
            }
            match self.http.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => Ok(Ok(())),
                Ok(answer) => Err(format!("{}: {}", answer.status(), answer.text().await.unwrap_or_default())),
                Err(error) => Err(format!("{error}; the end of its log:\n{}", process.log_tail())),
            }
        };
        Ok(eventually(format!("{} is ready", process.name()), READY_TIMEOUT, check).await??)
    }

    /// Waits until the apiserver calls the webhook: a configuration takes effect a moment after it was applied.
    async fn wait_for_webhook(&self) -> Result<()> {
        let api: Api<Approval> = Api::default_namespaced(self.client());
        let target = ApprovalTarget { kind: TargetKind::Server, name: "none".into(), uid: None, generation: None };
        let spec = ApprovalSpec {
            target,
            task_id: Some(1),
            gate: None,
            servers: Vec::new(),
            max_servers: None,
            expires_at: None,
            decision: ApprovalDecision::Refuse,
            reason: String::new(),
            approver: None,
        };
        let trial = Approval::new("trial", spec);
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        eventually("the webhook is asked", READY_TIMEOUT, async || match api.create(&dry, &trial).await {
            Ok(created) if created.spec.approver.is_some() => Ok(()),
            Ok(_) => Err("an Approval was admitted without its author's name".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    fn spawn(&self, part: Part) -> Result<Instance> {
        self.spawn_as(part, |launch| launch)
    }

    fn spawn_as(&self, part: Part, change: impl FnOnce(Launch) -> Launch) -> Result<Instance> {
        let number = self.instances.lock().iter().filter(|i| i.part == part).count() + 1;
        let http = free_address()?;
        let setting = LaunchSettings {
            kubeconfig: self.kubeconfig(part),
            serving: &self.serving,
            webhook: self.webhook,
            ssh_key: &self.ssh_key,
            machines: self.machines.dir(),
            programs: self.options.programs.as_deref(),
            client_ca: self
                .options
                .control_plane
                .webhook_client_certificate
                .then(|| self.control_plane.dir().join("ca.crt")),
            extra: self.options.arguments.get(&part).map_or(&[], Vec::as_slice),
        };
        let process = change(launch(part, number, http, &setting)?).spawn(self.control_plane.guard())?;
        let instance = Instance { part, number, http, process: Arc::new(process) };
        self.instances.lock().push(instance.clone());
        Ok(instance)
    }

    fn of(&self, part: Part) -> Result<Vec<Instance>> {
        let found: Vec<_> = self.instances.lock().iter().filter(|i| i.part == part).cloned().collect();
        if found.is_empty() {
            bail!("{part} was never started");
        }
        Ok(found)
    }

    /// Ends programs, control plane and machines, and returns when their folders are removed.
    ///
    /// # Errors
    /// When a process or a folder is left.
    pub async fn stop(self) -> Result<()> {
        let Self { instances, control_plane, mut machines, .. } = self;
        drop(instances);
        control_plane.stop().await?;
        tokio::task::spawn_blocking(move || machines.close()).await?
    }
}
