//! Provider `local`: each machine is a process of its own with its own folder, loopback address and SSH server.
//!
//! For trying Berth out and for tests: it needs neither root nor a hypervisor. Below one folder, which several
//! processes may share, it keeps:
//!
//! - `<uid>/machine`: the machine's folder, see `local-machine`;
//! - `<uid>/owner.json`: whose machine it is and its address, written before the machine is started for the first time,
//!   so that a crash in between leaves a machine that is found again;
//! - `.addresses/<address>`: who has the address; made by linking a finished file, which succeeds for one only;
//! - `.locks/<uid>`: locked while the machine is being created, rebooted or destroyed.
//!
//! Image, flavor and the wanted SSH port mean nothing here (the port is always 2222); any parameter is refused.

mod addresses;
mod store;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use berth_core::api::MachineClassSpec;
use futures::future::{BoxFuture, FutureExt as _};
use k8s_openapi::jiff::Timestamp;
use local_machine::{MachineDir, MachineSpec};

use self::store::{Record, Store};
use super::{Driver, Error, MachineInfo, MachineRequest, Owner, Phase, Provider, Result, SecretData, refuse_unknown};

/// Port of the machines' SSH servers.
const SSH_PORT: u16 = 2222;

/// Provider `local`. One serves all classes: there is nothing to say about them.
#[derive(Clone, Debug)]
pub struct LocalProvider {
    store: Store,
    binary: PathBuf,
}

impl LocalProvider {
    /// Machines below `dir`, run by the program `binary` (`berth-local-machine`).
    pub fn new(dir: impl AsRef<Path>, binary: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self { store: Store::open(dir.as_ref())?, binary: binary.into() })
    }

    /// The folder of the machine of the Server with this UID.
    pub fn machine_dir(&self, uid: &str) -> Result<MachineDir> {
        self.store.machine(uid)
    }

    /// Everything below blocks, for some seconds at worst.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let this = self.clone();
        async move {
            tokio::task::spawn_blocking(move || work(&this))
                .await
                .unwrap_or_else(|error| Err(Error::Retryable(format!("the provider's work broke off: {error}"))))
        }
        .boxed()
    }

    fn create_now(&self, request: &MachineRequest) -> Result<MachineInfo> {
        let uid = &request.owner.uid;
        let _lock = self.store.lock(uid)?;
        let record = match self.store.record(uid)? {
            Some(record) => record,
            None => self.store.enter(&request.owner, SSH_PORT, Timestamp::now())?,
        };
        let spec = MachineSpec {
            id: uid.clone(),
            name: request.owner.name.clone(),
            address: record.address.clone(),
            port: SSH_PORT,
            authorized_keys: vec![request.authorized_key.clone()],
        };
        self.start(&record, &spec)?;
        self.info(&record)
    }

    fn start(&self, record: &Record, spec: &MachineSpec) -> Result<()> {
        let machine = self.store.machine(&record.owner.uid)?;
        let Err(error) = machine.spawn(&self.binary, spec) else { return Ok(()) };
        // An address that somebody outside of this folder has got is not kept for a machine that never had it.
        if machine.info().is_ok_and(|info| info.is_none()) && !addresses::is_free(&record.address, SSH_PORT) {
            self.store.forget(&record.owner.uid)?;
        }
        Err(retryable(&error))
    }

    fn info(&self, record: &Record) -> Result<MachineInfo> {
        let machine = self.store.machine(&record.owner.uid)?;
        let running = machine.running().map_err(|error| retryable(&error))?;
        let last = machine.info().map_err(|error| retryable(&error))?;
        Ok(MachineInfo {
            owner: record.owner.clone(),
            id: record.owner.uid.clone(),
            phase: if running.is_some() { Phase::Running } else { Phase::Stopped },
            address: Some(record.address.clone()),
            ssh_port: SSH_PORT,
            host_key: last.map(|info| info.host_key),
            boot_id: running.map(|info| info.boot_id),
            created_at: record.created_at,
        })
    }

    fn reboot_now(&self, uid: &str) -> Result<MachineInfo> {
        let _lock = self.store.lock(uid)?;
        let record = self.store.record(uid)?;
        let record = record.ok_or_else(|| Error::Retryable(format!("the Server {uid} has no machine")))?;
        let machine = self.store.machine(uid)?;
        machine.reboot(&self.binary).map_err(|error| retryable(&error))?;
        self.info(&record)
    }

    fn delete_now(&self, uid: &str) -> Result<()> {
        let _lock = self.store.lock(uid)?;
        let machine = self.store.machine(uid)?;
        if self.store.record(uid)?.is_some() {
            Store::await_first_boot(&machine)?;
        }
        machine.kill().map_err(|error| retryable(&error))?;
        self.store.forget(uid)
    }
}

fn retryable(error: &anyhow::Error) -> Error {
    Error::Retryable(format!("{error:#}"))
}

impl Driver for LocalProvider {
    fn connect(&self, class: &MachineClassSpec, _: Option<&SecretData>) -> Result<Arc<dyn Provider>> {
        refuse_unknown(class, &[])?;
        Ok(Arc::new(self.clone()))
    }

    fn without_class(&self) -> Option<Arc<dyn Provider>> {
        Some(Arc::new(self.clone()))
    }
}

impl Provider for LocalProvider {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        self.blocking(|this| {
            this.store.check()?;
            if this.binary.is_file() {
                return Ok(());
            }
            let binary = this.binary.display();
            Err(Error::Configuration(format!("--local-machine-binary: {binary} is not there")))
        })
    }

    fn create<'a>(&'a self, request: &'a MachineRequest) -> BoxFuture<'a, Result<MachineInfo>> {
        let request = request.clone();
        self.blocking(move |this| this.create_now(&request))
    }

    fn get<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Option<MachineInfo>>> {
        let uid = uid.to_owned();
        self.blocking(move |this| this.store.record(&uid)?.map(|record| this.info(&record)).transpose())
    }

    fn reboot<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<MachineInfo>> {
        let uid = uid.to_owned();
        self.blocking(move |this| this.reboot_now(&uid))
    }

    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<()>> {
        let uid = uid.to_owned();
        self.blocking(move |this| this.delete_now(&uid))
    }

    fn list<'a>(&'a self, cluster: &'a str) -> BoxFuture<'a, Result<Vec<MachineInfo>>> {
        let cluster = cluster.to_owned();
        self.blocking(move |this| {
            let records = this.store.records()?;
            let own = records.iter().filter(|record: &&Record| record.owner.cluster == cluster);
            own.map(|record| this.info(record)).collect()
        })
    }
}
