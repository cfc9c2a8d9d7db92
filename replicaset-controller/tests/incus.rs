//! Provider `incus` with a real incusd, containers and SSH.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where")]

mod iaas_contract;
mod incus_lab;

use std::{fs, sync::Arc, time::Duration};

use berth_core::api::MachineClassSpec;
use berth_machine::{
    ping::ping,
    ssh::{ClientKey, PoolConfig, SshPool, SshTarget},
};
use iaas_contract::Lab;
use incus_lab::{Incus, alone_with_incus, with_incus};
use rcgen::CertifiedKey;
use replicaset_controller::iaas::{
    Driver, Error, MachineInfo, MachineRequest, Owner, Phase, Provider, SecretData, incus::IncusDriver,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_mins(1);

/// A client certificate that the server may come to trust.
struct Client(CertifiedKey<rcgen::KeyPair>);

impl Client {
    fn new() -> Self {
        Self(rcgen::generate_simple_self_signed(vec!["berth".into()]).unwrap())
    }

    fn trusted(incus: &Incus, name: &str, more: &[&str]) -> Self {
        let client = Self::new();
        let path = format!("/run/{name}.crt");
        fs::write(incus.path(&path), client.0.cert.pem()).unwrap();
        incus.incus(&[&["config", "trust", "add-certificate", &path, "--name", name][..], more].concat());
        client
    }

    /// The Secret, with the server known by its fingerprint.
    fn pinning(&self, server: &[u8]) -> SecretData {
        self.secret("server-fingerprint", hex::encode(Sha256::digest(server)))
    }

    /// The Secret, with the server known by who signed its certificate.
    fn believing(&self, ca: &str) -> SecretData {
        self.secret("ca.crt", ca.to_owned())
    }

    fn secret(&self, key: &str, value: String) -> SecretData {
        [("tls.crt", self.0.cert.pem()), ("tls.key", self.0.signing_key.serialize_pem()), (key, value)]
            .map(|(key, value)| (key.to_owned(), value.into_bytes()))
            .into()
    }
}

/// How a provider comes to a project of the incusd.
#[derive(Clone)]
struct Place {
    incus: &'static Incus,
    cluster: String,
    project: String,
    endpoint: String,
    credentials: Option<SecretData>,
    network: Option<&'static str>,
}

impl Place {
    /// A project of its own, by the unix socket.
    fn new(incus: &'static Incus, project: &str) -> Self {
        incus.project(project);
        let (cluster, project) = ("c".to_owned(), project.to_owned());
        Self { incus, cluster, project, endpoint: incus.socket(), credentials: None, network: None }
    }

    fn of_cluster(&self, cluster: &str) -> Self {
        Self { cluster: cluster.into(), ..self.clone() }
    }

    fn over_https(&self, credentials: SecretData) -> Self {
        Self { endpoint: "https://127.0.0.1:8443".into(), credentials: Some(credentials), ..self.clone() }
    }

    /// With machines on a network of its own: names, which follow from cluster and UID, are unique in each network.
    fn on_another_network(&self) -> Self {
        Self { network: Some("incusbr1"), ..self.clone() }
    }

    fn spec(&self, changes: &Value) -> MachineClassSpec {
        let mut spec = json!({
            "provider": "incus",
            "image": "small",
            "parameters": {"endpoint": self.endpoint, "project": self.project},
        });
        if let Some(network) = self.network {
            spec["parameters"]["devices"] = json!({"eth0": {"type": "nic", "name": "eth0", "network": network}});
        }
        json_patch::merge(&mut spec, changes);
        serde_json::from_value(spec).unwrap()
    }

    fn with(&self, changes: &Value) -> Arc<dyn Provider> {
        IncusDriver::new(&self.cluster).connect(&self.spec(changes), self.credentials.as_ref()).unwrap()
    }

    fn connect(&self) -> Arc<dyn Provider> {
        self.with(&json!({}))
    }

    fn request(&self, uid: &str) -> MachineRequest {
        MachineRequest {
            owner: Owner { cluster: self.cluster.clone(), namespace: "n".into(), name: "s".into(), uid: uid.into() },
            image: Some("small".into()),
            flavor: None,
            ssh_port: 22,
            authorized_key: ClientKey::generate().unwrap().public_openssh().unwrap(),
        }
    }

    fn instance(&self, uid: &str) -> String {
        self.incus.instance_of(&self.project, uid)
    }
}

impl Lab for Place {
    fn driver(&self) -> Arc<dyn Driver> {
        Arc::new(IncusDriver::new(&self.cluster))
    }

    fn class(&self) -> MachineClassSpec {
        self.spec(&json!({}))
    }

    fn credentials(&self) -> Option<SecretData> {
        self.credentials.clone()
    }

    fn provider_of(&self, cluster: &str) -> Arc<dyn Provider> {
        self.of_cluster(cluster).connect()
    }

    fn small(&self) -> Option<(Arc<dyn Provider>, usize)> {
        let project = format!("{}-small", self.project);
        Some((self.with(&json!({"parameters": {"project": project}})), 2))
    }

    fn broken(&self) -> Option<Arc<dyn Provider>> {
        Some(self.with(&json!({"parameters": {"project": "no-such-project"}})))
    }

    fn crash(&self, uid: &str) {
        self.incus.incus(&["stop", "--force", "--project", &self.project, &self.instance(uid)]);
    }

    fn user(&self) -> String {
        "root".into()
    }

    fn impossible(&self, mut request: MachineRequest) -> Option<MachineRequest> {
        request.image = Some("no-such-image".into());
        Some(request)
    }
}

/// Waits as the controller does.
async fn running(provider: &dyn Provider, uid: &str) -> MachineInfo {
    let deadline = Instant::now() + LIMIT;
    loop {
        let info = provider.get(uid).await.unwrap().unwrap();
        if info.phase == Phase::Running {
            return info;
        }
        assert!(Instant::now() < deadline, "the machine does not run: {info:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A project for the contract, and beside it one with room for two machines.
fn contract_place(incus: &'static Incus, project: &str) -> Place {
    let small = format!("{project}-small");
    incus.project(&small);
    incus.incus(&["project", "set", &small, "limits.instances=2"]);
    Place::new(incus, project).of_cluster(&contract_cluster())
}

/// The cluster that the contract uses.
fn contract_cluster() -> String {
    format!("contract-{}", std::process::id())
}

#[test]
fn it_keeps_the_contract_over_the_unix_socket() {
    with_incus(async |incus| {
        iaas_contract::check(&contract_place(incus, "contract-unix")).await;
    });
}

#[test]
fn it_keeps_the_contract_over_https_with_a_certificate_for_its_projects() {
    with_incus(async |incus| {
        let place = contract_place(incus, "contract-https").on_another_network();
        let client =
            Client::trusted(incus, "contract", &["--restricted", "--projects", "contract-https,contract-https-small"]);
        iaas_contract::check(&place.over_https(client.pinning(&incus.server_certificate))).await;
    });
}

#[test]
fn a_machine_lets_in_who_has_the_key_and_shows_the_pinned_host_key() {
    with_incus(async |incus| {
        let place = Place::new(incus, "ssh");
        let (key, stranger) = (ClientKey::generate().unwrap(), ClientKey::generate().unwrap());
        let provider = place.with(&json!({"access": {"user": "berth"}}));
        let mut request = place.request("ssh-1");
        request.authorized_key = key.public_openssh().unwrap();
        provider.create(&request).await.unwrap();
        let info = running(provider.as_ref(), "ssh-1").await;
        let target = SshTarget {
            address: info.address.unwrap(),
            port: info.ssh_port,
            user: "berth".into(),
            host_key: info.host_key.clone().unwrap(),
        };
        let pool = |key: &ClientKey| SshPool::new(key.clone(), PoolConfig::default());
        ping(&pool(&key).machine(target.clone()), LIMIT).await.unwrap();

        let refused = ping(&pool(&stranger).machine(target.clone()), LIMIT).await.unwrap_err();
        assert!(matches!(refused, berth_machine::Error::AuthRefused { .. }), "{refused}");
        let other = SshTarget { host_key: key.public_openssh().unwrap(), ..target };
        let mismatch = ping(&pool(&key).machine(other), LIMIT).await.unwrap_err();
        assert!(matches!(mismatch, berth_machine::Error::HostKeyMismatch { .. }), "{mismatch}");

        let home =
            ["exec", "--project", "ssh", &place.instance("ssh-1"), "--", "stat", "-c", "%u:%a"].map(str::to_owned);
        let of = |path: &str| {
            let home: Vec<&str> = home.iter().map(String::as_str).chain([path]).collect();
            incus.incus(&home)
        };
        assert_eq!(of("/home/berth/.ssh"), "1000:700");
        assert_eq!(of("/home/berth/.ssh/authorized_keys"), "1000:600");
        provider.delete("ssh-1").await.unwrap();
    });
}

#[test]
fn a_changed_key_is_let_in_by_the_next_create() {
    with_incus(async |incus| {
        let place = Place::new(incus, "new-key");
        let provider = place.connect();
        provider.create(&place.request("k-1")).await.unwrap();
        let before = running(provider.as_ref(), "k-1").await;
        let key = ClientKey::generate().unwrap();
        let mut request = place.request("k-1");
        request.authorized_key = key.public_openssh().unwrap();
        let after = provider.create(&request).await.unwrap();
        assert_eq!(before, after);
        let target = SshTarget {
            address: after.address.unwrap(),
            port: after.ssh_port,
            user: "root".into(),
            host_key: after.host_key.unwrap(),
        };
        let pool = SshPool::new(key, PoolConfig::default());
        let first = ping(&pool.machine(target.clone()), LIMIT).await.unwrap();
        // A container has its host's boot id: what its own boot is has to be seen all the same.
        provider.reboot("k-1").await.unwrap();
        running(provider.as_ref(), "k-1").await;
        pool.forget(&target);
        let deadline = Instant::now() + LIMIT;
        let again = loop {
            match ping(&pool.machine(target.clone()), LIMIT).await {
                Ok(again) => break again,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        assert_ne!(again.boot_id, first.boot_id);
        provider.delete("k-1").await.unwrap();
    });
}

#[test]
fn what_the_class_says_reaches_the_instance() {
    with_incus(async |incus| {
        let place = Place::new(incus, "class");
        incus.incus(&["profile", "create", "marked"]);
        incus.incus(&["profile", "set", "marked", "user.marked=yes"]);
        let provider = place.with(&json!({"parameters": {
            "profiles": ["default", "marked"],
            "config": {"limits.processes": 500, "boot.autostart": false},
            "devices": {"extra": {"type": "none"}},
        }}));
        let mut request = place.request("class-1");
        request.flavor = Some("c1-m1".into());
        provider.create(&request).await.unwrap();
        let shown = incus.incus(&["query", &format!("/1.0/instances/{}?project=class", place.instance("class-1"))]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let config = |key: &str| shown["expanded_config"][key].as_str().unwrap_or_default().to_owned();
        let expected = [
            ("user.marked", "yes"),
            ("limits.processes", "500"),
            ("boot.autostart", "false"),
            ("limits.cpu", "1"),
            ("user.berth.cluster", "c"),
            ("user.berth.namespace", "n"),
            ("user.berth.name", "s"),
            ("user.berth.uid", "class-1"),
        ];
        assert_eq!(expected.map(|(key, _)| config(key)), expected.map(|(_, value)| value.to_owned()));
        assert!(config("cloud-init.user-data").contains(&request.authorized_key));
        assert_eq!((&shown["type"], &shown["devices"]["extra"]["type"]), (&json!("container"), &json!("none")));
        provider.delete("class-1").await.unwrap();
    });
}

#[test]
fn what_cannot_be_had_is_refused_in_incus_s_words() {
    with_incus(async |incus| {
        let place = Place::new(incus, "wrong");
        let refused = async |changes: Value, change: fn(&mut MachineRequest)| {
            let mut request = place.request("wrong-1");
            change(&mut request);
            let error = place.with(&changes).create(&request).await.unwrap_err();
            assert!(matches!(error, Error::Configuration(_)), "{error:?}");
            error.to_string()
        };
        let same = |_: &mut MachineRequest| {};
        let parameters = |parameters: Value| json!({"parameters": parameters});
        for (changes, change, words) in [
            (json!({}), (|r| r.image = Some("nope".into())) as fn(&mut MachineRequest), "Image not provided"),
            (json!({}), |r| r.image = Some("0123456789abcdef".into()), "Image not provided"),
            (json!({"image": null}), |r| r.image = None, "spec.image"),
            (json!({}), |r| r.flavor = Some("huge".into()), "instance type doesn't exist: huge"),
            (json!({}), |r| r.owner.uid = "no/uid".into(), "only letters, digits"),
            (parameters(json!({"project": "nope"})), same, "Project not found"),
            (parameters(json!({"profiles": ["nope"]})), same, "profile \"nope\" doesn't exist"),
            (parameters(json!({"config": {"limits.cpu": "many"}})), same, "Invalid CPU limit"),
            (parameters(json!({"config": {"no.such": 1}})), same, "Unknown configuration key: no.such"),
            (parameters(json!({"devices": {"e": {"type": "nic", "network": "nope"}}})), same, "Network not found"),
            (
                parameters(json!({"devices": {"root": {"type": "disk", "path": "/", "pool": "nope"}}})),
                same,
                "pool not found",
            ),
            (parameters(json!({"type": "virtual-machine"})), same, "doesn't match instance type"),
        ] {
            let error = refused(changes.clone(), change).await;
            assert!(error.contains(words), "{changes}: {error}");
        }
        assert_eq!(incus.incus(&["list", "--project", "wrong", "--format", "csv"]), "");
        // The user's name is seen only once the machine runs.
        let error = refused(json!({"access": {"user": "nobody-here"}}), same).await;
        assert!(error.contains("no user \"nobody-here\"") && error.contains("spec.access.user"), "{error}");
        place.connect().delete("wrong-1").await.unwrap();
    });
}

#[test]
fn a_check_says_what_is_missing_before_anything_is_made() {
    with_incus(async |incus| {
        let place = Place::new(incus, "check");
        for (changes, words) in [
            (json!({"parameters": {"project": "nope"}}), "spec.parameters.project: there is no project \"nope\""),
            (json!({"parameters": {"profiles": ["nope"]}}), "spec.parameters.profiles: there is no profile \"nope\""),
            (json!({"image": "nope"}), "spec.image: there is no image \"nope\""),
            (json!({"image": "0123456789abcdef"}), "spec.image: there is no image \"0123456789abcdef\""),
        ] {
            let error = place.with(&changes).check().await.unwrap_err();
            assert!(matches!(error, Error::Configuration(_)) && error.to_string().contains(words), "{error:?}");
        }
        let nowhere = place.with(&json!({"parameters": {"endpoint": "unix:///nonexistent/socket"}}));
        let error = nowhere.check().await.unwrap_err();
        assert!(
            matches!(&error, Error::Retryable(text) if text.contains("/nonexistent/socket: No such file")),
            "{error:?}"
        );
    });
}

#[test]
fn a_full_project_is_a_quota() {
    with_incus(async |incus| {
        let place = Place::new(incus, "full");
        incus.incus(&["project", "set", "full", "limits.instances=1"]);
        let provider = place.connect();
        provider.create(&place.request("full-1")).await.unwrap();
        let error = provider.create(&place.request("full-2")).await.unwrap_err();
        assert!(
            matches!(&error, Error::Quota(text) if text.contains("Reached maximum number of instances")),
            "{error:?}"
        );
        // What is there is found all the same.
        provider.create(&place.request("full-1")).await.unwrap();
        provider.delete("full-1").await.unwrap();
    });
}

#[test]
fn only_the_server_that_the_secret_means_is_spoken_to_and_only_who_it_trusts_may_speak() {
    with_incus(async |incus| {
        let place = Place::new(incus, "tls");
        let client = Client::trusted(incus, "tls", &["--restricted", "--projects", "tls"]);
        let server = &incus.server_certificate;
        place.over_https(client.pinning(server)).connect().check().await.unwrap();
        place.over_https(client.believing(&incus.ca)).connect().check().await.unwrap();

        let wrong_pin = place.over_https(client.pinning(b"another certificate"));
        let another = rcgen::generate_simple_self_signed(vec!["another".into()]).unwrap().cert.pem();
        let wrong_ca = place.over_https(client.believing(&another));
        let stranger = place.over_https(Client::new().pinning(server));
        for (place, words) in [
            (wrong_pin, "the server's certificate has the fingerprint"),
            (wrong_ca, "invalid peer certificate"),
            (stranger, "does not trust the client certificate"),
        ] {
            let error = place.connect().check().await.unwrap_err();
            assert!(matches!(error, Error::Credentials(_)) && error.to_string().contains(words), "{error:?}");
            let error = place.connect().create(&place.request("tls-1")).await.unwrap_err();
            assert!(matches!(error, Error::Credentials(_)), "{error:?}");
        }
        // A certificate for one project sees no other.
        incus.project("tls-other");
        let other = Place { project: "tls-other".into(), ..place.over_https(client.pinning(server)) };
        let error = other.connect().create(&other.request("tls-1")).await.unwrap_err();
        assert!(error.is_permanent(), "{error:?}");
        assert_eq!(incus.incus(&["list", "--project", "tls-other", "--format", "csv"]), "");
    });
}

#[test]
fn two_clusters_in_one_project_do_not_see_each_other_s_machines() {
    with_incus(async |incus| {
        let one = Place::new(incus, "two-clusters");
        let two = one.of_cluster("d");
        // The same UID: one cluster may be restored from the other's backup.
        let (first, second) = (one.connect(), two.connect());
        first.create(&one.request("same")).await.unwrap();
        assert_eq!(second.get("same").await, Ok(None));
        assert_eq!(second.list("d").await, Ok(Vec::new()));
        second.delete("same").await.unwrap();
        second.create(&two.request("same")).await.unwrap();
        let (mine, other) = (running(first.as_ref(), "same").await, running(second.as_ref(), "same").await);
        assert_ne!(mine.id, other.id);
        assert_eq!(first.list("c").await.unwrap(), std::slice::from_ref(&mine));
        second.delete("same").await.unwrap();
        assert_eq!(first.get("same").await, Ok(Some(mine)));
        let error = second.create(&one.request("same")).await.unwrap_err();
        assert!(matches!(error, Error::Configuration(_)), "{error:?}");
        first.delete("same").await.unwrap();
    });
}

#[test]
fn what_does_not_carry_the_tags_is_not_touched() {
    with_incus(async |incus| {
        let place = Place::new(incus, "strangers");
        let provider = place.connect();
        provider.create(&place.request("s-1")).await.unwrap();
        let made = running(provider.as_ref(), "s-1").await;
        let instance = place.instance("s-1");
        let incus_of = |arguments: &[&str]| incus.incus(&[arguments, &["--project", "strangers"]].concat());

        // A person's copy, for a diagnosis say, has the same tags, and is theirs.
        incus_of(&["copy", &instance, "copy", "--instance-only", "--stateless"]);
        assert_eq!(provider.list("c").await.unwrap(), std::slice::from_ref(&made));

        // A renamed one is still the machine.
        incus_of(&["stop", "--force", &instance]);
        incus_of(&["rename", &instance, "renamed"]);
        let found = provider.get("s-1").await.unwrap().unwrap();
        assert_eq!((found.phase, &found.host_key), (Phase::Stopped, &made.host_key));
        provider.create(&place.request("s-1")).await.unwrap();
        assert!(found.id.starts_with("renamed/"), "{}", found.id);
        provider.delete("s-1").await.unwrap();
        assert_eq!(incus_of(&["list", "--format", "csv", "--columns", "n"]), "copy");

        // An instance of the very name without the tags.
        incus_of(&["init", "small", &instance]);
        let refused = [
            provider.create(&place.request("s-1")).await.map(|_| ()),
            provider.get("s-1").await.map(|_| ()),
            provider.reboot("s-1").await.map(|_| ()),
            provider.delete("s-1").await,
        ];
        for result in refused {
            assert!(matches!(&result, Err(Error::Configuration(text)) if text.contains("tags")), "{result:?}");
        }
        assert_eq!(incus_of(&["list", "--format", "csv", "--columns", "n"]).lines().count(), 2);
        incus_of(&["delete", &instance, "copy"]);
    });
}

#[test]
fn a_paused_machine_does_not_run_and_is_brought_back_or_deleted() {
    with_incus(async |incus| {
        let place = Place::new(incus, "paused");
        let provider = place.connect();
        provider.create(&place.request("p-1")).await.unwrap();
        let before = running(provider.as_ref(), "p-1").await;
        let pause = || incus.incus(&["pause", "--project", "paused", &place.instance("p-1")]);
        pause();
        assert_eq!(provider.get("p-1").await.unwrap().unwrap().phase, Phase::Stopped);
        assert_eq!(provider.create(&place.request("p-1")).await.unwrap().boot_id, before.boot_id);
        pause();
        provider.reboot("p-1").await.unwrap();
        assert_ne!(running(provider.as_ref(), "p-1").await.boot_id, before.boot_id);
        pause();
        provider.delete("p-1").await.unwrap();
        assert_eq!(provider.get("p-1").await, Ok(None));
    });
}

#[test]
fn a_protected_machine_is_not_deleted_until_a_person_allows_it() {
    with_incus(async |incus| {
        let place = Place::new(incus, "protected");
        let provider = place.with(&json!({"parameters": {"config": {"security.protection.delete": true}}}));
        provider.create(&place.request("p-2")).await.unwrap();
        let error = provider.delete("p-2").await.unwrap_err();
        assert!(matches!(&error, Error::Configuration(text) if text.contains("Instance is protected")), "{error:?}");
        incus.incus(&[
            "config",
            "unset",
            "--project",
            "protected",
            &place.instance("p-2"),
            "security.protection.delete",
        ]);
        provider.delete("p-2").await.unwrap();
    });
}

#[test]
fn a_creation_that_is_cut_short_is_made_anew() {
    alone_with_incus(async |incus| {
        let place = Place::new(incus, "cut-short");
        incus.build_image("slow", "600M");
        let provider = place.connect();
        let mut request = place.request("cut-1");
        request.image = Some("slow".into());
        let creating = tokio::spawn({
            let (provider, request) = (provider.clone(), request.clone());
            async move { provider.create(&request).await }
        });
        // Its record is there, and its disk is not complete.
        let deadline = Instant::now() + LIMIT;
        loop {
            let seen = provider.get("cut-1").await.unwrap();
            if let Some(info) = seen {
                assert_eq!(info.phase, Phase::Starting, "it was not caught half made: {info:?}");
                break;
            }
            assert!(!creating.is_finished() && Instant::now() < deadline, "its record was not seen");
            sleep(Duration::from_millis(5)).await;
        }
        incus.kill_daemon();
        let error = creating.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Retryable(_)), "{error:?}");

        let deadline = Instant::now() + LIMIT;
        while let Err(error) = provider.check().await {
            assert!(!error.is_permanent() && Instant::now() < deadline, "incusd does not come back: {error}");
            sleep(Duration::from_millis(50)).await;
        }
        let left = provider.get("cut-1").await.unwrap().unwrap();
        provider.create(&request).await.unwrap();
        let made = running(provider.as_ref(), "cut-1").await;
        assert_ne!(left.id, made.id);
        assert_eq!(provider.list("c").await.unwrap(), [made]);
        provider.delete("cut-1").await.unwrap();
    });
}

#[test]
fn who_creates_while_another_process_creates_waits_for_it() {
    alone_with_incus(async |incus| {
        let place = Place::new(incus, "join");
        incus.build_image("join", "600M");
        let mut request = place.request("join-1");
        request.image = Some("join".into());
        let creating = tokio::spawn({
            let (provider, request) = (place.connect(), request.clone());
            async move { provider.create(&request).await }
        });
        let provider = place.connect();
        let deadline = Instant::now() + LIMIT;
        while provider.get("join-1").await.unwrap().is_none() {
            assert!(Instant::now() < deadline, "its record was not seen");
            sleep(Duration::from_millis(5)).await;
        }
        // The first goes away, as a process that is killed: what it began goes on.
        creating.abort();
        let (created, deleted) = tokio::join!(provider.create(&request), async {
            let other = place.connect();
            other.list("c").await.map(|all| all.len())
        });
        assert_eq!((created.unwrap().owner, deleted), (request.owner.clone(), Ok(1)));
        running(provider.as_ref(), "join-1").await;
        provider.delete("join-1").await.unwrap();
        assert_eq!(provider.list("c").await, Ok(Vec::new()));
    });
}

#[test]
fn the_laboratory_leaves_nothing_behind() {
    let mut incus = Incus::start("fleeting");
    assert!(incus.lives() && !incus.control_groups().is_empty());
    incus.close();
    assert!(!incus.lives());
    assert_eq!(incus.control_groups(), Vec::<std::path::PathBuf>::new());
}
