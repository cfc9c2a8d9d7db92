//! Creates, reboots and destroys instances. Each call repeats: read the instance, take the next step. So it continues
//! whatever this or another process has begun before, and no step is taken twice.

use std::time::Duration;

use berth_runtime::Backoff;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    access::{SshAccessSetup, user_data},
    fault::IncusFault,
    image::image_reference,
    instance::{IncusInstance, InstanceStatus, name, status_change, tag, tags},
    provider::IncusProvider,
};
use crate::{
    error::{ProviderError, Result},
    provider::{MachineRequest, ProviderMachine},
};

/// Time limit for a creation: it includes the download of the image.
const CREATE_LIMIT: Duration = Duration::from_mins(5);
/// Time limit for a reboot or a destruction: a few changes of status, each within [`STATE_LIMIT`].
const CHANGE_LIMIT: Duration = Duration::from_mins(2);
/// How long Incus may take to start or stop an instance: stopping is forced, so that it is not the machine's choice.
const STATE_LIMIT: Duration = Duration::from_secs(45);
/// Failed steps within one call: a step fails when another process takes it at the same moment, which is seldom twice.
const MOST_FAILURES: u32 = 4;
/// Between two reads of an instance that changes: Incus cannot be asked to wait for a status.
const POLL: Duration = Duration::from_millis(100);
/// Between a failed step and the next one: the other process needs about as long for its own.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
/// Instances whose state is read at once for a list: enough to hide the latency, few for Incus.
const CONCURRENT_READS: usize = 8;

impl IncusProvider {
    pub(super) async fn create_machine(&self, request: &MachineRequest) -> Result<ProviderMachine> {
        if request.owner.cluster != self.cluster {
            let (asked, own) = (&request.owner.cluster, &self.cluster);
            return Err(ProviderError::Configuration(format!(
                "the machine is for the cluster {asked:?}, and this provider is of the cluster {own:?}"
            )));
        }
        let name = name(&self.cluster, &request.owner.uid)?;
        let body = self.creation(request, &name)?;
        let deadline = Instant::now() + CREATE_LIMIT;
        let mut failures = Failures::default();
        loop {
            let found = self.settled(&request.owner.uid, deadline).await?;
            let Some(instance) = found else {
                failures.check(self.post(&body, deadline).await, &format!("create {name}")).await?;
                continue;
            };
            match instance.status() {
                InstanceStatus::Running => return self.prepared(instance, Some(&request.authorized_key)).await,
                _ if instance.is_unfinished() => {
                    tracing::warn!(
                        instance = instance.name,
                        "the creation of an instance was interrupted; the instance is removed and created again"
                    );
                    failures.check(self.remove(&instance, deadline).await, &format!("remove {name}")).await?;
                }
                InstanceStatus::Frozen => {
                    failures
                        .check(self.set(&instance, "unfreeze", deadline).await, &format!("unfreeze {name}"))
                        .await?;
                }
                _ => {
                    failures.check(self.set(&instance, "start", deadline).await, &format!("start {name}")).await?;
                }
            }
        }
    }

    pub(super) async fn get_machine(&self, uid: &str) -> Result<Option<ProviderMachine>> {
        match self.find(uid).await? {
            Some(instance) if instance.status() == InstanceStatus::Running => {
                self.prepared(instance, None).await.map(Some)
            }
            Some(instance) => Ok(self.machine(&instance)),
            None => Ok(None),
        }
    }

    pub(super) async fn reboot_machine(&self, uid: &str) -> Result<ProviderMachine> {
        let deadline = Instant::now() + CHANGE_LIMIT;
        let mut failures = Failures::default();
        loop {
            let found = self.settled(uid, deadline).await?;
            let instance = found.ok_or_else(|| ProviderError::Retryable(format!("the Server {uid} has no machine")))?;
            let what = match instance.status() {
                InstanceStatus::Running | InstanceStatus::Frozen => "restart",
                _ => "start",
            };
            let done = self.set(&instance, what, deadline).await;
            let failed = done.is_err();
            failures.check(done, &format!("{what} {}", instance.name)).await?;
            if !failed {
                break;
            }
        }
        self.get_machine(uid).await?.ok_or_else(|| ProviderError::Retryable(format!("the machine of {uid} vanished")))
    }

    pub(super) async fn delete_machine(&self, uid: &str) -> Result<()> {
        let deadline = Instant::now() + CHANGE_LIMIT;
        let mut failures = Failures::default();
        while let Some(instance) = self.settled(uid, deadline).await? {
            let name = &instance.name;
            let off = matches!(instance.status(), InstanceStatus::Stopped | InstanceStatus::Broken);
            let (done, what) = if off {
                (self.remove(&instance, deadline).await, "delete")
            } else {
                (self.set(&instance, "stop", deadline).await, "stop")
            };
            failures.check(done, &format!("{what} {name}")).await?;
        }
        Ok(())
    }

    pub(super) async fn list_machines(&self, cluster: &str) -> Result<Vec<ProviderMachine>> {
        let mut found = self.tagged(tag::CLUSTER, cluster).await?;
        found.retain(|instance| instance.owner().is_some_and(|owner| owner.cluster == cluster));
        let reads = found.into_iter().map(|instance| self.with_state(instance));
        let instances: Vec<IncusInstance> = stream::iter(reads).buffered(CONCURRENT_READS).try_collect().await?;
        Ok(instances.iter().filter_map(|instance| self.machine(instance)).collect())
    }

    /// The machine's instance: by its name, otherwise by its tags, because a person may have renamed it.
    async fn find(&self, uid: &str) -> Result<Option<IncusInstance>> {
        let name = name(&self.cluster, uid)?;
        let found: std::result::Result<IncusInstance, IncusFault> = self.client.get(&["instances", &name], &[]).await;
        match found {
            Ok(instance) if self.is_own(&instance, uid) => return Ok(Some(instance)),
            Ok(_) => {
                return Err(ProviderError::Configuration(format!(
                    "Incus: the instance {name} in project {} lacks the tags (user.berth.*) of this machine and is not \
                     touched: restore them, or remove the instance",
                    self.client.project()
                )));
            }
            Err(fault) if fault.is_missing() => {}
            Err(fault) => return Err(fault.while_doing(&format!("look up {name}"))),
        }
        let mut tagged = self.tagged(tag::UID, uid).await?;
        tagged.retain(|instance| self.is_own(instance, uid));
        Ok(tagged.into_iter().next())
    }

    fn is_own(&self, instance: &IncusInstance, uid: &str) -> bool {
        instance.owner().is_some_and(|owner| owner.cluster == self.cluster && owner.uid == uid)
    }

    /// The instances with this tag, and possibly others: the caller has to compare.
    async fn tagged(&self, key: &str, value: &str) -> Result<Vec<IncusInstance>> {
        // Filters of Incus have no escapes: a value that could be read as syntax is not put into one.
        let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let filter = format!("config.{key} eq {value}");
        let mut query = vec![("recursion", "1")];
        if plain {
            query.push(("filter", filter.as_str()));
        }
        let all: Vec<IncusInstance> =
            self.client.get(&["instances"], &query).await.map_err(|fault| fault.while_doing("list instances"))?;
        Ok(all)
    }

    /// The instance once no operation works on it. Waits at most until `deadline`.
    async fn settled(&self, uid: &str, deadline: Instant) -> Result<Option<IncusInstance>> {
        let name = name(&self.cluster, uid)?;
        loop {
            let found = self.find(uid).await?;
            let is_settled =
                found.as_ref().is_some_and(|i| i.status() != InstanceStatus::Changing && !i.is_unfinished());
            if is_settled {
                return Ok(found);
            }
            let current = found.as_ref().map_or(name.as_str(), |instance| instance.name.as_str());
            let operation =
                self.client.running_operation(current).await.map_err(|f| f.while_doing("list operations"))?;
            match operation {
                // The result is seen when the instance is read again.
                Some(operation) => match self.client.wait(&operation, deadline).await {
                    Err(fault) if !fault.is_answer() => return Err(fault.while_doing(&format!("wait for {current}"))),
                    _ => {}
                },
                // The operation may have ended between the two calls.
                None => {
                    let found = self.find(uid).await?;
                    if found.as_ref().is_none_or(|i| i.status() != InstanceStatus::Changing) {
                        return Ok(found);
                    }
                }
            }
            if Instant::now() > deadline {
                return Err(ProviderError::Retryable(format!(
                    "Incus: other operations have worked on {current} for too long"
                )));
            }
            sleep(POLL).await;
        }
    }

    async fn post(&self, body: &Value, deadline: Instant) -> std::result::Result<(), IncusFault> {
        let query: Vec<_> = self.parameters.target.iter().map(|target| ("target", target.as_str())).collect();
        self.client.change(Method::POST, &["instances"], &query, Some(body), deadline).await
    }

    async fn set(&self, instance: &IncusInstance, to: &str, deadline: Instant) -> std::result::Result<(), IncusFault> {
        let body = status_change(to, STATE_LIMIT);
        self.client.change(Method::PUT, &["instances", &instance.name, "state"], &[], Some(&body), deadline).await
    }

    async fn remove(&self, instance: &IncusInstance, deadline: Instant) -> std::result::Result<(), IncusFault> {
        match self.client.change(Method::DELETE, &["instances", &instance.name], &[], None, deadline).await {
            Err(fault) if fault.is_missing() => Ok(()),
            done => done,
        }
    }

    /// The machine of a running instance, after one step towards access to it if that is not complete yet.
    async fn prepared(&self, mut instance: IncusInstance, authorized_key: Option<&str>) -> Result<ProviderMachine> {
        let accepted = instance.get(tag::AUTHORIZED_KEY).map(str::to_owned);
        let is_complete = instance.get(tag::HOST_KEY).is_some()
            && (authorized_key.is_none() || authorized_key == accepted.as_deref());
        if let Some(authorized_key) = authorized_key.or(accepted.as_deref()).filter(|_| !is_complete) {
            let access = SshAccessSetup {
                client: &self.client,
                instance: &instance,
                user: instance.get(tag::USER).unwrap_or(&self.access.user),
                authorized_key,
                host_key_files: &self.parameters.host_key_files,
            };
            if access.establish().await? {
                let found = self.client.get(&["instances", &instance.name], &[]).await;
                instance = found.map_err(|fault| fault.while_doing(&format!("read {}", instance.name)))?;
            }
        }
        let instance = self.with_state(instance).await?;
        let vanished =
            || ProviderError::Retryable(format!("Incus: {} lost its tags while it was being read", instance.name));
        self.machine(&instance).ok_or_else(vanished)
    }

    /// The instance with its state, if it runs.
    async fn with_state(&self, mut instance: IncusInstance) -> Result<IncusInstance> {
        if instance.status() == InstanceStatus::Running {
            instance.state = match self.client.get(&["instances", &instance.name, "state"], &[]).await {
                Ok(state) => Some(state),
                // It is starting or stopping.
                Err(fault) if fault.is_answer() => None,
                Err(fault) => return Err(fault.while_doing(&format!("read {}", instance.name))),
            };
        }
        Ok(instance)
    }

    fn machine(&self, instance: &IncusInstance) -> Option<ProviderMachine> {
        let device = self.parameters.interface.as_deref();
        let port = u16::try_from(self.access.port).unwrap_or(22);
        Some(instance.machine(instance.owner()?, device, self.parameters.address_family, port))
    }

    /// The body of the request that creates the instance.
    fn creation(&self, request: &MachineRequest, name: &str) -> Result<Value> {
        let parameters = &self.parameters;
        let owner = &request.owner;
        let user = &self.access.user;
        let mut config = parameters.config.clone();
        config.extend(tags(owner).map(|(key, value)| (key.to_owned(), value)));
        config.extend([
            (tag::SSH_PORT.to_owned(), self.access.port.to_string()),
            (tag::USER.to_owned(), user.clone()),
            (tag::AUTHORIZED_KEY.to_owned(), request.authorized_key.clone()),
            ("cloud-init.user-data".to_owned(), user_data(user, &owner.name, &request.authorized_key)),
        ]);
        let mut body = json!({
            "name": name,
            "type": parameters.instance_type.name(),
            "description": format!("Server {}/{} of cluster {}", owner.namespace, owner.name, owner.cluster),
            "profiles": parameters.profiles,
            "config": config,
            "devices": parameters.devices,
            "source": self.source(request.image.as_deref().or(self.image.as_deref()))?,
        });
        if let Some(flavor) = request.flavor.as_ref().or(self.flavor.as_ref()) {
            body["instance_type"] = json!(flavor);
        }
        Ok(body)
    }

    fn source(&self, image: Option<&str>) -> Result<Value> {
        let image = image.ok_or_else(|| {
            ProviderError::Configuration(
                "there is no image: set spec.image of the MachineClass, or spec.machine.image".into(),
            )
        })?;
        let (key, value) = image_reference(image);
        let mut source = json!({"type": "image", key: value});
        if let Some(server) = &self.parameters.image_server {
            source["server"] = json!(server.url);
            source["protocol"] = json!(server.protocol.name());
            source["mode"] = json!("pull");
            if let Some(certificate) = &server.certificate {
                source["certificate"] = json!(certificate);
            }
        }
        Ok(source)
    }
}

/// Counts the failed steps of one call. A step that failed because another process has just taken it is no longer needed
/// when the instance is read again; an error that persists is returned.
#[derive(Default)]
struct Failures(u32);

impl Failures {
    async fn check(&mut self, done: std::result::Result<(), IncusFault>, what: &str) -> Result<()> {
        let Err(fault) = done else { return Ok(()) };
        self.0 += 1;
        if !fault.is_answer() || self.0 >= MOST_FAILURES {
            return Err(fault.while_doing(what));
        }
        let error = fault.while_doing(what);
        // The slower of two creations gets an error of Incus's database, which says that the name is taken.
        if !matches!(&error, ProviderError::Retryable(_)) {
            return Err(error);
        }
        tracing::debug!(%error, "a step failed; the instance is read again");
        sleep(RETRY.delay(self.0)).await;
        Ok(())
    }
}
