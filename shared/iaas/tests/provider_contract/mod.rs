//! The contract of every IaaS provider.
//!
//! The test of a provider implements [`Lab`] and calls [`check`]. Each clause creates machines of its own, through a new
//! instance of the provider for each call: several processes that work at once share nothing but what the provider stores.

use std::{sync::Arc, time::Duration};

use berth_core::api::MachineClassSpec;
use berth_iaas::{
    Driver, MachineOwner, MachineRequest, Provider, ProviderError, ProviderMachine, ProviderMachinePhase, SecretData,
};
use berth_machine::{
    Machine,
    ping::ping,
    ssh::{ClientKey, PoolConfig, SshPool, SshTarget},
};
use futures::future::join_all;
use tokio::time::{Instant, sleep};

/// Time limit for a machine to run.
const LIMIT: Duration = Duration::from_mins(1);

/// The environment in which a provider is tested.
pub(crate) trait Lab: Send + Sync {
    /// A new instance of the driver.
    fn driver(&self) -> Arc<dyn Driver>;
    /// A valid class.
    fn class(&self) -> MachineClassSpec;
    /// The data of the class's Secret.
    fn credentials(&self) -> Option<SecretData> {
        None
    }
    /// A new instance of the provider, as another process would have it.
    fn provider(&self) -> Arc<dyn Provider> {
        self.driver().connect(&self.class(), self.credentials().as_ref()).unwrap()
    }
    /// A new instance of the provider for this cluster.
    fn provider_of(&self, _cluster: &str) -> Arc<dyn Provider> {
        self.provider()
    }
    /// A provider whose check fails, if there can be one.
    fn broken(&self) -> Option<Arc<dyn Provider>> {
        None
    }
    /// A provider with a quota of this many machines, if it can have a quota.
    fn with_quota(&self) -> Option<(Arc<dyn Provider>, usize)> {
        None
    }
    /// Stops the machine as a crash would, without a call of the provider.
    fn crash(&self, uid: &str);
    /// Connects to a machine.
    fn connect(&self, pool: &SshPool, info: &ProviderMachine) -> Box<dyn Machine> {
        Box::new(pool.machine(SshTarget {
            address: info.address.clone().unwrap(),
            port: info.ssh_port,
            user: self.user(),
            host_key: info.host_key.clone().unwrap(),
        }))
    }
    /// Login name on the machines.
    fn user(&self) -> String;
    /// Changes the request into one that can never succeed, if there can be one.
    fn impossible(&self, request: MachineRequest) -> Option<MachineRequest>;
}

struct Contract<'a> {
    lab: &'a dyn Lab,
    key: ClientKey,
    pool: SshPool,
    cluster: String,
}

/// Checks every clause.
pub(crate) async fn check(lab: &dyn Lab) {
    let key = ClientKey::generate().unwrap();
    let pool = SshPool::new(key.clone(), PoolConfig::default());
    let cluster = format!("contract-{}", std::process::id());
    let contract = Contract { lab, key, pool, cluster };
    contract.unknown_parameters_are_refused();
    contract.a_check_explains_a_failure_and_changes_nothing().await;
    contract.a_machine_that_was_never_created_does_not_exist().await;
    contract.a_repeated_create_finds_the_machine().await;
    contract.concurrent_creates_give_one_machine().await;
    contract.a_crashed_machine_is_stopped_and_create_starts_it().await;
    contract.a_reboot_changes_the_boot_and_nothing_else().await;
    contract.machines_are_listed_by_cluster_until_they_are_deleted().await;
    contract.a_delete_during_a_create_leaves_no_incomplete_machine().await;
    contract.another_clusters_machines_are_not_listed().await;
    contract.an_exhausted_quota_is_reported_as_such().await;
    contract.an_impossible_request_is_refused_for_good().await;
}

impl Contract<'_> {
    fn request(&self, name: &str) -> MachineRequest {
        MachineRequest {
            owner: MachineOwner {
                cluster: self.cluster.clone(),
                namespace: "default".into(),
                name: name.into(),
                uid: format!("{}-{name}", self.cluster),
            },
            image: None,
            flavor: None,
            ssh_port: 2222,
            authorized_key: self.key.public_openssh().unwrap(),
        }
    }

    /// Waits as the controller does: until the machine runs and SSH answers.
    async fn running(&self, uid: &str) -> ProviderMachine {
        self.runs_at(self.lab.provider().as_ref(), uid).await
    }

    async fn runs_at(&self, provider: &dyn Provider, uid: &str) -> ProviderMachine {
        let deadline = Instant::now() + LIMIT;
        loop {
            let info = provider.get(uid).await.unwrap().unwrap();
            if info.phase == ProviderMachinePhase::Running {
                let machine = self.lab.connect(&self.pool, &info);
                if ping(machine.as_ref(), Duration::from_secs(10)).await.is_ok() {
                    return info;
                }
            }
            assert!(Instant::now() < deadline, "the machine does not run: {info:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn deleted(&self, uid: &str) {
        Self::deleted_at(self.lab.provider().as_ref(), uid).await;
    }

    async fn deleted_at(provider: &dyn Provider, uid: &str) {
        provider.delete(uid).await.unwrap();
        assert_eq!(provider.get(uid).await, Ok(None));
    }

    fn unknown_parameters_are_refused(&self) {
        let mut class = self.lab.class();
        class.parameters.insert("no-such-parameter".into(), 3.into());
        let result = self.lab.driver().connect(&class, self.lab.credentials().as_ref());
        let error = result.err().unwrap();
        assert!(matches!(error, ProviderError::Configuration(_)), "{error:?}");
        assert!(error.to_string().contains("spec.parameters.no-such-parameter"), "{error}");
    }

    async fn a_check_explains_a_failure_and_changes_nothing(&self) {
        let provider = self.lab.provider();
        assert_eq!(provider.check().await, Ok(()));
        assert_eq!(provider.list(&self.cluster).await, Ok(Vec::new()), "a check creates nothing");
        if let Some(broken) = self.lab.broken() {
            let error = broken.check().await.unwrap_err();
            assert!(error.to_string().len() > 10, "{error}");
        }
    }

    async fn a_machine_that_was_never_created_does_not_exist(&self) {
        let provider = self.lab.provider();
        assert_eq!(provider.get("never-made").await, Ok(None));
        assert_eq!(provider.delete("never-made").await, Ok(()));
        assert!(provider.reboot("never-made").await.is_err());
        assert_eq!(provider.list(&self.cluster).await, Ok(Vec::new()));
    }

    async fn a_repeated_create_finds_the_machine(&self) {
        let request = self.request("twice");
        let uid = &request.owner.uid;
        self.lab.provider().create(&request).await.unwrap();
        let first = self.running(uid).await;
        self.lab.provider().create(&request).await.unwrap();
        let second = self.running(uid).await;
        assert_eq!(first, second);
        assert_eq!(first.owner, request.owner);
        self.deleted(uid).await;
        self.deleted(uid).await;
    }

    async fn concurrent_creates_give_one_machine(&self) {
        let request = self.request("at-once");
        let providers: Vec<_> = (0..4).map(|_| self.lab.provider()).collect();
        let made = join_all(providers.iter().map(|provider| provider.create(&request))).await;
        let ids: Vec<_> = made.into_iter().map(|info| info.unwrap().id).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        self.running(&request.owner.uid).await;
        assert_eq!(self.lab.provider().list(&self.cluster).await.unwrap().len(), 1);
        self.deleted(&request.owner.uid).await;
    }

    async fn a_crashed_machine_is_stopped_and_create_starts_it(&self) {
        let request = self.request("crash");
        let uid = &request.owner.uid;
        self.lab.provider().create(&request).await.unwrap();
        let before = self.running(uid).await;
        self.lab.crash(uid);
        let stopped = self.lab.provider().get(uid).await.unwrap().unwrap();
        assert_eq!((stopped.phase, &stopped.id), (ProviderMachinePhase::Stopped, &before.id));
        self.lab.provider().create(&request).await.unwrap();
        same_machine_later_boot(&before, &self.running(uid).await);
        self.deleted(uid).await;
    }

    async fn a_reboot_changes_the_boot_and_nothing_else(&self) {
        let request = self.request("reboot");
        let uid = &request.owner.uid;
        self.lab.provider().create(&request).await.unwrap();
        let before = self.running(uid).await;
        self.lab.provider().reboot(uid).await.unwrap();
        let after = self.running(uid).await;
        same_machine_later_boot(&before, &after);
        self.lab.crash(uid);
        self.lab.provider().reboot(uid).await.unwrap();
        same_machine_later_boot(&after, &self.running(uid).await);
        self.deleted(uid).await;
    }

    async fn machines_are_listed_by_cluster_until_they_are_deleted(&self) {
        let provider = self.lab.provider();
        let requests = ["list-a", "list-b"].map(|name| self.request(name));
        for request in &requests {
            provider.create(request).await.unwrap();
        }
        let infos = [self.running(&requests[0].owner.uid).await, self.running(&requests[1].owner.uid).await];
        assert_ne!(infos[0].address, infos[1].address);
        let listed = |mut infos: Vec<ProviderMachine>| {
            infos.sort_by(|a, b| a.owner.name.cmp(&b.owner.name));
            infos
        };
        assert_eq!(listed(provider.list(&self.cluster).await.unwrap()), infos);
        assert_eq!(provider.list("another-cluster").await, Ok(Vec::new()));
        self.deleted(&requests[0].owner.uid).await;
        assert_eq!(listed(provider.list(&self.cluster).await.unwrap()), infos[1..]);
        self.deleted(&requests[1].owner.uid).await;
    }

    async fn a_delete_during_a_create_leaves_no_incomplete_machine(&self) {
        let request = self.request("race");
        let uid = &request.owner.uid;
        let (one, other) = (self.lab.provider(), self.lab.provider());
        let (_, deleted) = tokio::join!(one.create(&request), other.delete(uid));
        assert_eq!(deleted, Ok(()));
        // Whichever call came first, there is a complete machine now, or none.
        if self.lab.provider().get(uid).await.unwrap().is_some() {
            self.running(uid).await;
        }
        self.deleted(uid).await;
        assert_eq!(self.lab.provider().list(&self.cluster).await, Ok(Vec::new()));
    }

    /// Clusters that share a provider do not see each other's machines.
    async fn another_clusters_machines_are_not_listed(&self) {
        let own = self.request("shared");
        let mut other = self.request("shared");
        other.owner.cluster = format!("{}-2", self.cluster);
        other.owner.uid = format!("{}-other", own.owner.uid);
        for request in [&own, &other] {
            let provider = self.lab.provider_of(&request.owner.cluster);
            provider.create(request).await.unwrap();
            self.runs_at(provider.as_ref(), &request.owner.uid).await;
        }
        for request in [&own, &other] {
            let listed = self.lab.provider().list(&request.owner.cluster).await.unwrap();
            let owners: Vec<&MachineOwner> = listed.iter().map(|info| &info.owner).collect();
            assert_eq!(owners, [&request.owner]);
        }
        self.deleted(&own.owner.uid).await;
        assert_eq!(self.lab.provider().list(&other.owner.cluster).await.unwrap().len(), 1);
        Self::deleted_at(self.lab.provider_of(&other.owner.cluster).as_ref(), &other.owner.uid).await;
    }

    /// An exhausted quota has its own error, which ends when a machine is destroyed.
    async fn an_exhausted_quota_is_reported_as_such(&self) {
        let Some((provider, most)) = self.lab.with_quota() else { return };
        let requests: Vec<_> = (0..=most).map(|n| self.request(&format!("full-{n}"))).collect();
        for request in &requests[..most] {
            provider.create(request).await.unwrap();
        }
        let error = provider.create(&requests[most]).await.unwrap_err();
        assert!(matches!(error, ProviderError::Quota(_)), "{error:?}");
        assert_eq!(provider.get(&requests[most].owner.uid).await, Ok(None));
        provider.create(&requests[0]).await.unwrap();
        provider.delete(&requests[0].owner.uid).await.unwrap();
        provider.create(&requests[most]).await.unwrap();
        for request in &requests {
            provider.delete(&request.owner.uid).await.unwrap();
        }
    }

    async fn an_impossible_request_is_refused_for_good(&self) {
        let Some(request) = self.lab.impossible(self.request("impossible")) else { return };
        let error = self.lab.provider().create(&request).await.unwrap_err();
        assert!(matches!(error, ProviderError::Configuration(_)), "{error:?}");
        assert_eq!(self.lab.provider().get(&request.owner.uid).await, Ok(None));
    }
}

fn same_machine_later_boot(before: &ProviderMachine, after: &ProviderMachine) {
    let same = |info: &ProviderMachine| {
        (info.id.clone(), info.address.clone(), info.host_key.clone(), info.created_at, info.owner.clone())
    };
    assert_eq!(same(before), same(after));
    assert_ne!(before.boot_id, after.boot_id);
}
