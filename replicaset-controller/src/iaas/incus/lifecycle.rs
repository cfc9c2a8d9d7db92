//! What is done to instances. Each call looks first, does the one thing that is missing, and looks again: so whatever
//! was begun before, here or by another process, is gone on with and not done twice.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Error, IncusProvider, Result,
    access::{Access, user_data},
    fault::Fault,
    instance::{Instance, Status, action, name, tag, tags},
};
use crate::iaas::{MachineInfo, MachineRequest};

/// How long making a machine may take, with fetching its image.
const CREATE_LIMIT: Duration = Duration::from_mins(5);
/// How long everything else may take.
const CHANGE_LIMIT: Duration = Duration::from_mins(2);
/// How long Incus may take to start or stop an instance by force.
const STATE_LIMIT: Duration = Duration::from_secs(45);
/// How often a step that failed is tried within one call, in case that somebody else was in the way.
const TRIES: u32 = 4;
const POLL: Duration = Duration::from_millis(100);
/// Instances that are looked at at once for a list.
const LOOKS: usize = 8;

impl IncusProvider {
    pub(super) async fn create_machine(&self, request: &MachineRequest) -> Result<MachineInfo> {
        if request.owner.cluster != self.cluster {
            let (asked, own) = (&request.owner.cluster, &self.cluster);
            return Err(Error::Configuration(format!("a machine for cluster {asked:?} is asked of cluster {own:?}")));
        }
        let name = name(&self.cluster, &request.owner.uid)?;
        let body = self.declaration(request, &name)?;
        let deadline = Instant::now() + CREATE_LIMIT;
        let mut failures = Failures::default();
        loop {
            let found = self.settled(&request.owner.uid, deadline).await?;
            let Some(instance) = found else {
                failures.check(self.post(&body, deadline).await, &format!("create {name}")).await?;
                continue;
            };
            match instance.status() {
                Status::Running => return self.reached(instance, Some(&request.authorized_key)).await,
                _ if instance.is_unfinished() => {
                    tracing::warn!(
                        instance = instance.name,
                        "the creation of an instance was cut short; it is made anew"
                    );
                    failures.check(self.remove(&instance, deadline).await, &format!("remove {name}")).await?;
                }
                Status::Frozen => {
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

    pub(super) async fn get_machine(&self, uid: &str) -> Result<Option<MachineInfo>> {
        match self.find(uid).await? {
            Some(instance) if instance.status() == Status::Running => self.reached(instance, None).await.map(Some),
            Some(instance) => Ok(self.info(&instance)),
            None => Ok(None),
        }
    }

    pub(super) async fn reboot_machine(&self, uid: &str) -> Result<MachineInfo> {
        let deadline = Instant::now() + CHANGE_LIMIT;
        let mut failures = Failures::default();
        loop {
            let found = self.settled(uid, deadline).await?;
            let instance = found.ok_or_else(|| Error::Retryable(format!("the Server {uid} has no machine")))?;
            let what = match instance.status() {
                Status::Running | Status::Frozen => "restart",
                _ => "start",
            };
            let done = self.set(&instance, what, deadline).await;
            let again = done.is_err();
            failures.check(done, &format!("{what} {}", instance.name)).await?;
            if !again {
                break;
            }
        }
        self.get_machine(uid).await?.ok_or_else(|| Error::Retryable(format!("the machine of {uid} vanished")))
    }

    pub(super) async fn delete_machine(&self, uid: &str) -> Result<()> {
        let deadline = Instant::now() + CHANGE_LIMIT;
        let mut failures = Failures::default();
        while let Some(instance) = self.settled(uid, deadline).await? {
            let name = &instance.name;
            let off = matches!(instance.status(), Status::Stopped | Status::Broken);
            let (done, what) = if off {
                (self.remove(&instance, deadline).await, "delete")
            } else {
                (self.set(&instance, "stop", deadline).await, "stop")
            };
            failures.check(done, &format!("{what} {name}")).await?;
        }
        Ok(())
    }

    pub(super) async fn list_machines(&self, cluster: &str) -> Result<Vec<MachineInfo>> {
        let mut found = self.tagged(tag::CLUSTER, cluster).await?;
        found.retain(|instance| instance.owner().is_some_and(|owner| owner.cluster == cluster));
        let looks = found.into_iter().map(|instance| self.with_state(instance));
        let seen: Vec<Instance> = stream::iter(looks).buffered(LOOKS).try_collect().await?;
        Ok(seen.iter().filter_map(|instance| self.info(instance)).collect())
    }

    /// The machine's instance: by its name, else by its tags, as a person may have renamed it.
    async fn find(&self, uid: &str) -> Result<Option<Instance>> {
        let name = name(&self.cluster, uid)?;
        let found: std::result::Result<Instance, Fault> = self.client.get(&["instances", &name], &[]).await;
        match found {
            Ok(instance) if self.is_own(&instance, uid) => return Ok(Some(instance)),
            Ok(_) => {
                return Err(Error::Configuration(format!(
                    "Incus: the instance {name} in project {} has not the tags (user.berth.*) of this machine and is not \
                     touched: restore them, or remove the instance",
                    self.client.project()
                )));
            }
            Err(fault) if fault.is_missing() => {}
            Err(fault) => return Err(fault.while_doing(&format!("look for {name}"))),
        }
        let mut tagged = self.tagged(tag::UID, uid).await?;
        tagged.retain(|instance| self.is_own(instance, uid));
        Ok(tagged.into_iter().next())
    }

    fn is_own(&self, instance: &Instance, uid: &str) -> bool {
        instance.owner().is_some_and(|owner| owner.cluster == self.cluster && owner.uid == uid)
    }

    /// Instances with this tag, or more of them: the caller looks.
    async fn tagged(&self, key: &str, value: &str) -> Result<Vec<Instance>> {
        // Incus's filters have no escapes. What could mean something there is looked for here alone.
        let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let filter = format!("config.{key} eq {value}");
        let mut query = vec![("recursion", "1")];
        if plain {
            query.push(("filter", filter.as_str()));
        }
        let all: Vec<Instance> =
            self.client.get(&["instances"], &query).await.map_err(|fault| fault.while_doing("list instances"))?;
        Ok(all)
    }

    /// The instance once nobody has it in hand, at most until `deadline`.
    async fn settled(&self, uid: &str, deadline: Instant) -> Result<Option<Instance>> {
        let name = name(&self.cluster, uid)?;
        loop {
            let found = self.find(uid).await?;
            let certain = found.as_ref().is_some_and(|i| i.status() != Status::Passing && !i.is_unfinished());
            if certain {
                return Ok(found);
            }
            let current = found.as_ref().map_or(name.as_str(), |instance| instance.name.as_str());
            let in_hand = self.client.in_hand(current).await.map_err(|f| f.while_doing("list operations"))?;
            match in_hand {
                // How it ends is seen by looking again.
                Some(operation) => match self.client.wait(&operation, deadline).await {
                    Err(fault) if !fault.is_answer() => return Err(fault.while_doing(&format!("wait for {current}"))),
                    _ => {}
                },
                // What was seen before may have ended between the two looks.
                None => {
                    let again = self.find(uid).await?;
                    if again.as_ref().is_none_or(|i| i.status() != Status::Passing) {
                        return Ok(again);
                    }
                }
            }
            if Instant::now() > deadline {
                return Err(Error::Retryable(format!("Incus: {current} has been in hand for too long")));
            }
            sleep(POLL).await;
        }
    }

    async fn post(&self, body: &Value, deadline: Instant) -> std::result::Result<(), Fault> {
        let query: Vec<_> = self.parameters.target.iter().map(|target| ("target", target.as_str())).collect();
        self.client.change(Method::POST, &["instances"], &query, Some(body), deadline).await
    }

    async fn set(&self, instance: &Instance, to: &str, deadline: Instant) -> std::result::Result<(), Fault> {
        let body = action(to, STATE_LIMIT);
        self.client.change(Method::PUT, &["instances", &instance.name, "state"], &[], Some(&body), deadline).await
    }

    async fn remove(&self, instance: &Instance, deadline: Instant) -> std::result::Result<(), Fault> {
        match self.client.change(Method::DELETE, &["instances", &instance.name], &[], None, deadline).await {
            Err(fault) if fault.is_missing() => Ok(()),
            done => done,
        }
    }

    /// What is known of a running instance, after a step towards what is not known yet.
    async fn reached(&self, mut instance: Instance, authorized_key: Option<&str>) -> Result<MachineInfo> {
        let noted = instance.get(tag::AUTHORIZED_KEY).map(str::to_owned);
        let known =
            instance.get(tag::HOST_KEY).is_some() && (authorized_key.is_none() || authorized_key == noted.as_deref());
        if let Some(authorized_key) = authorized_key.or(noted.as_deref()).filter(|_| !known) {
            let access = Access {
                client: &self.client,
                instance: &instance,
                user: instance.get(tag::USER).unwrap_or(&self.access.user),
                authorized_key,
                host_key_files: &self.parameters.host_key_files,
            };
            if access.establish().await? {
                let found = self.client.get(&["instances", &instance.name], &[]).await;
                instance = found.map_err(|fault| fault.while_doing(&format!("look at {}", instance.name)))?;
            }
        }
        let instance = self.with_state(instance).await?;
        let vanished = || Error::Retryable(format!("Incus: {} lost its tags while it was looked at", instance.name));
        self.info(&instance).ok_or_else(vanished)
    }

    /// With its state, if it runs.
    async fn with_state(&self, mut instance: Instance) -> Result<Instance> {
        if instance.status() == Status::Running {
            instance.state = match self.client.get(&["instances", &instance.name, "state"], &[]).await {
                Ok(state) => Some(state),
                // It is going down or coming up just now.
                Err(fault) if fault.is_answer() => None,
                Err(fault) => return Err(fault.while_doing(&format!("look at {}", instance.name))),
            };
        }
        Ok(instance)
    }

    fn info(&self, instance: &Instance) -> Option<MachineInfo> {
        let device = self.parameters.interface.as_deref();
        let port = u16::try_from(self.access.port).unwrap_or(22);
        Some(instance.info(instance.owner()?, device, self.parameters.address_family, port))
    }

    /// The body that asks for an instance.
    fn declaration(&self, request: &MachineRequest, name: &str) -> Result<Value> {
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
            Error::Configuration("there is no image: set spec.image of the MachineClass, or spec.machine.image".into())
        })?;
        let (key, value) = super::image_reference(image);
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

/// Steps of one call that failed. One that Incus refused because somebody else was quicker is not needed any more, which
/// the next look shows; one that fails again and again is reported.
#[derive(Default)]
struct Failures(u32);

impl Failures {
    async fn check(&mut self, done: std::result::Result<(), Fault>, what: &str) -> Result<()> {
        let Err(fault) = done else { return Ok(()) };
        self.0 += 1;
        if !fault.is_answer() || self.0 >= TRIES {
            return Err(fault.while_doing(what));
        }
        let error = fault.while_doing(what);
        // Two that create at once: the loser is told that the name is taken, in the words of the database.
        let lost = matches!(&error, Error::Retryable(_));
        if !lost {
            return Err(error);
        }
        tracing::debug!(%error, "looking again");
        sleep(POLL * self.0).await;
        Ok(())
    }
}
