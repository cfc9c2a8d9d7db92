//! The provider.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use berth_core::api::MachineClassSpec;
use futures::future::{BoxFuture, FutureExt as _};
use k8s_openapi::jiff::Timestamp;
use local_machine::{MachineDir, MachineSpec};

use super::{addresses, file_error::retryable, record::MachineRecord, store::LocalStore};
use crate::{
    driver::{Driver, SecretData, refuse_unknown_parameters},
    error::{ProviderError, Result},
    provider::{MachineRequest, Provider, ProviderMachine, ProviderMachinePhase},
};

/// Port of the machines' SSH servers.
const SSH_PORT: u16 = 2222;

/// Driver and provider `local`: all classes share one provider, because they have no parameters.
#[derive(Clone, Debug)]
pub struct LocalProvider {
    store: LocalStore,
    binary: PathBuf,
}

impl LocalProvider {
    /// Keeps its machines below `dir`. `binary` is the program that runs as a machine (`berth-local-machine`).
    pub fn new(dir: impl AsRef<Path>, binary: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self { store: LocalStore::open(dir.as_ref())?, binary: binary.into() })
    }

    /// The folder of the machine of the Server with this UID.
    pub fn machine_dir(&self, uid: &str) -> Result<MachineDir> {
        self.store.machine(uid)
    }

    /// Runs work that blocks, for some seconds at worst, on a thread for blocking work.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let this = self.clone();
        async move {
            tokio::task::spawn_blocking(move || work(&this)).await.unwrap_or_else(|error| {
                Err(ProviderError::Retryable(format!("the provider's work was interrupted: {error}")))
            })
        }
        .boxed()
    }

    fn create_now(&self, request: &MachineRequest) -> Result<ProviderMachine> {
        let uid = &request.owner.uid;
        let _lock = self.store.lock(uid)?;
        let record = match self.store.record(uid)? {
            Some(record) => record,
            None => self.store.add(&request.owner, SSH_PORT, Timestamp::now())?,
        };
        let spec = MachineSpec {
            id: uid.clone(),
            name: request.owner.name.clone(),
            address: record.address.clone(),
            port: SSH_PORT,
            authorized_keys: vec![request.authorized_key.clone()],
        };
        self.start(&record, &spec)?;
        self.machine(&record)
    }

    fn start(&self, record: &MachineRecord, spec: &MachineSpec) -> Result<()> {
        let machine = self.store.machine(&record.owner.uid)?;
        let Err(error) = machine.spawn(&self.binary, spec) else { return Ok(()) };
        // Another program uses the address, and the machine has never run: the next attempt takes another address.
        if machine.info().is_ok_and(|info| info.is_none()) && !addresses::is_free(&record.address, SSH_PORT) {
            self.store.remove(&record.owner.uid)?;
        }
        Err(retryable(&error))
    }

    fn machine(&self, record: &MachineRecord) -> Result<ProviderMachine> {
        let machine = self.store.machine(&record.owner.uid)?;
        let running = machine.running().map_err(|error| retryable(&error))?;
        let last = machine.info().map_err(|error| retryable(&error))?;
        Ok(ProviderMachine {
            owner: record.owner.clone(),
            id: record.owner.uid.clone(),
            phase: if running.is_some() { ProviderMachinePhase::Running } else { ProviderMachinePhase::Stopped },
            address: Some(record.address.clone()),
            ssh_port: SSH_PORT,
            host_key: last.map(|info| info.host_key),
            boot_id: running.map(|info| info.boot_id),
            created_at: record.created_at,
        })
    }

    fn reboot_now(&self, uid: &str) -> Result<ProviderMachine> {
        let _lock = self.store.lock(uid)?;
        let record = self.store.record(uid)?;
        let record = record.ok_or_else(|| ProviderError::Retryable(format!("the Server {uid} has no machine")))?;
        let machine = self.store.machine(uid)?;
        machine.reboot(&self.binary).map_err(|error| retryable(&error))?;
        self.machine(&record)
    }

    fn delete_now(&self, uid: &str) -> Result<()> {
        let _lock = self.store.lock(uid)?;
        let machine = self.store.machine(uid)?;
        if self.store.record(uid)?.is_some() {
            LocalStore::await_first_boot(&machine)?;
        }
        machine.kill().map_err(|error| retryable(&error))?;
        self.store.remove(uid)
    }
}

impl Driver for LocalProvider {
    fn connect(&self, class: &MachineClassSpec, _: Option<&SecretData>) -> Result<Arc<dyn Provider>> {
        refuse_unknown_parameters(class, &[])?;
        Ok(Arc::new(self.clone()))
    }

    fn without_class(&self, place: &str) -> Option<Arc<dyn Provider>> {
        (self.place() == place).then(|| Arc::new(self.clone()) as Arc<dyn Provider>)
    }
}

impl Provider for LocalProvider {
    fn place(&self) -> String {
        self.store.dir().display().to_string()
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        self.blocking(|this| {
            this.store.check()?;
            if this.binary.is_file() {
                return Ok(());
            }
            let binary = this.binary.display();
            Err(ProviderError::Configuration(format!("--local-machine-binary: {binary} does not exist")))
        })
    }

    fn create<'a>(&'a self, request: &'a MachineRequest) -> BoxFuture<'a, Result<ProviderMachine>> {
        let request = request.clone();
        self.blocking(move |this| this.create_now(&request))
    }

    fn get<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Option<ProviderMachine>>> {
        let uid = uid.to_owned();
        self.blocking(move |this| this.store.record(&uid)?.map(|record| this.machine(&record)).transpose())
    }

    fn reboot<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<ProviderMachine>> {
        let uid = uid.to_owned();
        self.blocking(move |this| this.reboot_now(&uid))
    }

    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<()>> {
        let uid = uid.to_owned();
        self.blocking(move |this| this.delete_now(&uid))
    }

    fn list<'a>(&'a self, cluster: &'a str) -> BoxFuture<'a, Result<Vec<ProviderMachine>>> {
        let cluster = cluster.to_owned();
        self.blocking(move |this| {
            let records = this.store.records()?;
            let own = records.iter().filter(|record: &&MachineRecord| record.owner.cluster == cluster);
            own.map(|record| this.machine(record)).collect()
        })
    }
}
