//! Keys and certificates.

use std::time::Duration;

use berth_iaas::ProviderError;
use berth_machine::{
    ping::ping,
    ssh::{ClientKey, PoolConfig, SshPool, SshTarget},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    certificate::ClientCertificate,
    lab::with_incus,
    project::{LIMIT, Project, running},
};

#[test]
fn a_machine_accepts_only_the_key_and_has_the_reported_host_key() {
    with_incus(async |incus| {
        let project = Project::new(incus, "ssh");
        let (key, stranger) = (ClientKey::generate().unwrap(), ClientKey::generate().unwrap());
        let provider = project.with(&json!({"access": {"user": "berth"}}));
        let mut request = project.request("ssh-1");
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
        assert!(matches!(refused, berth_machine::MachineError::AuthRefused { .. }), "{refused}");
        let other = SshTarget { host_key: key.public_openssh().unwrap(), ..target };
        let mismatch = ping(&pool(&key).machine(other), LIMIT).await.unwrap_err();
        assert!(matches!(mismatch, berth_machine::MachineError::HostKeyMismatch { .. }), "{mismatch}");

        let home =
            ["exec", "--project", "ssh", &project.instance("ssh-1"), "--", "stat", "-c", "%u:%a"].map(str::to_owned);
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
fn the_next_create_installs_a_changed_key() {
    with_incus(async |incus| {
        let project = Project::new(incus, "new-key");
        let provider = project.connect();
        provider.create(&project.request("k-1")).await.unwrap();
        let before = running(provider.as_ref(), "k-1").await;
        let key = ClientKey::generate().unwrap();
        let mut request = project.request("k-1");
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
        // The kernel's boot id of a container is that of its host; Berth has to report another one after each boot.
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
fn server_and_client_certificate_are_both_verified() {
    with_incus(async |incus| {
        let project = Project::new(incus, "tls");
        let client = ClientCertificate::trusted(incus, "tls", &["--restricted", "--projects", "tls"]);
        let server = &incus.server_certificate;
        project.over_https(client.with_fingerprint(server)).connect().check().await.unwrap();
        project.over_https(client.with_ca(&incus.ca)).connect().check().await.unwrap();

        let wrong_pin = project.over_https(client.with_fingerprint(b"another certificate"));
        let another = rcgen::generate_simple_self_signed(vec!["another".into()]).unwrap().cert.pem();
        let wrong_ca = project.over_https(client.with_ca(&another));
        let stranger = project.over_https(ClientCertificate::new().with_fingerprint(server));
        for (project, words) in [
            (wrong_pin, "the server's certificate has the fingerprint"),
            (wrong_ca, "invalid peer certificate"),
            (stranger, "does not trust the client certificate"),
        ] {
            let error = project.connect().check().await.unwrap_err();
            assert!(matches!(error, ProviderError::Credentials(_)) && error.to_string().contains(words), "{error:?}");
            let error = project.connect().create(&project.request("tls-1")).await.unwrap_err();
            assert!(matches!(error, ProviderError::Credentials(_)), "{error:?}");
        }
        // A certificate for one project gives no access to another.
        incus.project("tls-other");
        let other = project.over_https(client.with_fingerprint(server)).named("tls-other");
        let error = other.connect().create(&other.request("tls-1")).await.unwrap_err();
        assert!(error.is_permanent(), "{error:?}");
        assert_eq!(incus.incus(&["list", "--project", "tls-other", "--format", "csv"]), "");
    });
}
