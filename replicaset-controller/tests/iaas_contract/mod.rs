//! The contract of every IaaS provider.
//!
//! A provider's test program implements [`Lab`] and calls [`check`]. Each clause makes its own machines, as different
//! processes would: each instance of the provider is made anew, and nothing is shared but what the provider keeps.

use std::{sync::Arc, time::Duration};

use berth_core::api::MachineClassSpec;
use berth_machine::{
    Machine,
    ping::ping,
    ssh::{ClientKey, PoolConfig, SshPool, SshTarget},
};
use futures::future::join_all;
use replicaset_controller::iaas::{Driver, Error, MachineInfo, MachineRequest, Owner, Phase, Provider, SecretData};
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_mins(1);

/// Where a provider is tried out.
pub(crate) trait Lab: Send + Sync {
    /// An instance of the driver, as another process would have it.
    fn driver(&self) -> Arc<dyn Driver>;
    /// A class that the driver takes.
    fn class(&self) -> MachineClassSpec;
    /// What is in the class's Secret.
    fn credentials(&self) -> Option<SecretData> {
        None
    }
    /// An instance of the provider, as another process would have it: nothing is shared but what the provider keeps.
    fn provider(&self) -> Arc<dyn Provider> {
        self.driver().connect(&self.class(), self.credentials().as_ref()).unwrap()
    }
    /// An instance of the provider as a process of this cluster would have it, where that makes a difference.
    fn provider_of(&self, _cluster: &str) -> Arc<dyn Provider> {
        self.provider()
    }
    /// A class that the driver takes and whose check says that no machines can be had, if there is such a thing.
    fn broken(&self) -> Option<Arc<dyn Provider>> {
        None
    }
    /// A provider with room for so many machines, if its room can be bounded.
    fn small(&self) -> Option<(Arc<dyn Provider>, usize)> {
        None
    }
    /// Stops the machine behind the provider's back, as a crash would.
    fn crash(&self, uid: &str);
    /// The way to a machine.
    fn reach(&self, pool: &SshPool, info: &MachineInfo) -> Box<dyn Machine> {
        Box::new(pool.machine(SshTarget {
            address: info.address.clone().unwrap(),
            port: info.ssh_port,
            user: self.user(),
            host_key: info.host_key.clone().unwrap(),
        }))
    }
    /// Login name on the machines.
    fn user(&self) -> String;
    /// A request that the provider refuses for good, if there is such a thing.
    fn impossible(&self, request: MachineRequest) -> Option<MachineRequest>;
}

struct Subject<'a> {
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
    let subject = Subject { lab, key, pool, cluster };
    subject.what_the_class_says_is_looked_at();
    subject.a_check_says_whether_machines_can_be_had().await;
    subject.what_was_never_made_is_not_there().await;
    subject.a_repeated_create_finds_the_machine().await;
    subject.concurrent_creates_give_one_machine().await;
    subject.a_crashed_machine_is_stopped_and_create_starts_it().await;
    subject.a_reboot_changes_the_boot_and_nothing_else().await;
    subject.machines_are_listed_by_cluster_until_they_are_deleted().await;
    subject.a_delete_during_a_create_leaves_nothing_half_made().await;
    subject.another_clusters_machines_are_not_listed().await;
    subject.a_full_provider_says_so().await;
    subject.what_cannot_be_had_is_refused_for_good().await;
}

impl Subject<'_> {
    fn request(&self, name: &str) -> MachineRequest {
        MachineRequest {
            owner: Owner {
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

    /// Waits as the controller does: until the provider says that it runs and SSH answers.
    async fn running(&self, uid: &str) -> MachineInfo {
        self.runs_at(self.lab.provider().as_ref(), uid).await
    }

    async fn runs_at(&self, provider: &dyn Provider, uid: &str) -> MachineInfo {
        let deadline = Instant::now() + LIMIT;
        loop {
            let info = provider.get(uid).await.unwrap().unwrap();
            if info.phase == Phase::Running {
                let machine = self.lab.reach(&self.pool, &info);
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

    fn what_the_class_says_is_looked_at(&self) {
        let mut class = self.lab.class();
        class.parameters.insert("no-such-parameter".into(), 3.into());
        let result = self.lab.driver().connect(&class, self.lab.credentials().as_ref());
        let error = result.err().unwrap();
        assert!(matches!(error, Error::Configuration(_)), "{error:?}");
        assert!(error.to_string().contains("spec.parameters.no-such-parameter"), "{error}");
    }

    async fn a_check_says_whether_machines_can_be_had(&self) {
        let provider = self.lab.provider();
        assert_eq!(provider.check().await, Ok(()));
        assert_eq!(provider.list(&self.cluster).await, Ok(Vec::new()), "a check makes nothing");
        if let Some(broken) = self.lab.broken() {
            let error = broken.check().await.unwrap_err();
            assert!(error.to_string().len() > 10, "{error}");
        }
    }

    async fn what_was_never_made_is_not_there(&self) {
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
        assert_eq!((stopped.phase, &stopped.id), (Phase::Stopped, &before.id));
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
        let listed = |mut infos: Vec<MachineInfo>| {
            infos.sort_by(|a, b| a.owner.name.cmp(&b.owner.name));
            infos
        };
        assert_eq!(listed(provider.list(&self.cluster).await.unwrap()), infos);
        assert_eq!(provider.list("another-cluster").await, Ok(Vec::new()));
        self.deleted(&requests[0].owner.uid).await;
        assert_eq!(listed(provider.list(&self.cluster).await.unwrap()), infos[1..]);
        self.deleted(&requests[1].owner.uid).await;
    }

    async fn a_delete_during_a_create_leaves_nothing_half_made(&self) {
        let request = self.request("race");
        let uid = &request.owner.uid;
        let (one, other) = (self.lab.provider(), self.lab.provider());
        let (_, deleted) = tokio::join!(one.create(&request), other.delete(uid));
        assert_eq!(deleted, Ok(()));
        // Whichever came first: what there is now is a whole machine or none.
        if self.lab.provider().get(uid).await.unwrap().is_some() {
            self.running(uid).await;
        }
        self.deleted(uid).await;
        assert_eq!(self.lab.provider().list(&self.cluster).await, Ok(Vec::new()));
    }

    /// Two clusters share the provider: neither sees the other's machines, and who they are of is read back.
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
            let owners: Vec<&Owner> = listed.iter().map(|info| &info.owner).collect();
            assert_eq!(owners, [&request.owner]);
        }
        self.deleted(&own.owner.uid).await;
        assert_eq!(self.lab.provider().list(&other.owner.cluster).await.unwrap().len(), 1);
        Self::deleted_at(self.lab.provider_of(&other.owner.cluster).as_ref(), &other.owner.uid).await;
    }

    /// Where there is an end to the room, it is told apart from everything else, and ends when a machine is gone.
    async fn a_full_provider_says_so(&self) {
        let Some((provider, most)) = self.lab.small() else { return };
        let requests: Vec<_> = (0..=most).map(|n| self.request(&format!("full-{n}"))).collect();
        for request in &requests[..most] {
            provider.create(request).await.unwrap();
        }
        let error = provider.create(&requests[most]).await.unwrap_err();
        assert!(matches!(error, Error::Quota(_)), "{error:?}");
        assert_eq!(provider.get(&requests[most].owner.uid).await, Ok(None));
        provider.create(&requests[0]).await.unwrap();
        provider.delete(&requests[0].owner.uid).await.unwrap();
        provider.create(&requests[most]).await.unwrap();
        for request in &requests {
            provider.delete(&request.owner.uid).await.unwrap();
        }
    }

    async fn what_cannot_be_had_is_refused_for_good(&self) {
        let Some(request) = self.lab.impossible(self.request("impossible")) else { return };
        let error = self.lab.provider().create(&request).await.unwrap_err();
        assert!(matches!(error, Error::Configuration(_)), "{error:?}");
        assert_eq!(self.lab.provider().get(&request.owner.uid).await, Ok(None));
    }
}

fn same_machine_later_boot(before: &MachineInfo, after: &MachineInfo) {
    let same = |info: &MachineInfo| {
        (info.id.clone(), info.address.clone(), info.host_key.clone(), info.created_at, info.owner.clone())
    };
    assert_eq!(same(before), same(after));
    assert_ne!(before.boot_id, after.boot_id);
}
