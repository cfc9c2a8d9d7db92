//! Provider `local` with real processes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod provider_contract;

use std::{
    net::TcpListener,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use berth_core::api::MachineClassSpec;
use berth_iaas::{Driver, MachineOwner, MachineRequest, Provider, local::LocalProvider};
use provider_contract::Lab;

/// The program of the machines. It belongs to another package, so that it is built on demand.
fn binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY
        .get_or_init(|| {
            let own = std::env::current_exe().unwrap();
            let binary = own.ancestors().nth(2).unwrap().join("berth-local-machine");
            if !binary.exists() {
                let build = ["build", "--package", "local-machine", "--bins"];
                let status = std::process::Command::new(env!("CARGO")).args(build).status().unwrap();
                assert!(status.success() && binary.exists(), "{} could not be built", binary.display());
            }
            binary
        })
        .clone()
}

struct LocalLab {
    dir: tempfile::TempDir,
}

impl LocalLab {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn local(&self) -> LocalProvider {
        LocalProvider::new(self.dir.path(), binary()).unwrap()
    }
}

impl Lab for LocalLab {
    fn driver(&self) -> Arc<dyn Driver> {
        Arc::new(self.local())
    }

    fn class(&self) -> MachineClassSpec {
        serde_json::from_value(serde_json::json!({"provider": "local"})).unwrap()
    }

    fn broken(&self) -> Option<Arc<dyn Provider>> {
        Some(Arc::new(LocalProvider::new(self.dir.path(), "/nonexistent/machine").unwrap()))
    }

    fn crash(&self, uid: &str) {
        self.local().machine_dir(uid).unwrap().kill().unwrap();
    }

    fn user(&self) -> String {
        "berth".into()
    }

    fn impossible(&self, _: MachineRequest) -> Option<MachineRequest> {
        None
    }
}

/// Kills all machines, also after a test that failed.
impl Drop for LocalLab {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.dir.path()).unwrap().flatten() {
            let machine = local_machine::MachineDir::new(entry.path().join("machine"));
            machine.kill().unwrap();
        }
    }
}

fn request(uid: &str) -> MachineRequest {
    MachineRequest {
        owner: MachineOwner { cluster: "c".into(), namespace: "n".into(), name: "s".into(), uid: uid.into() },
        image: None,
        flavor: None,
        ssh_port: 22,
        authorized_key: berth_machine::ssh::ClientKey::generate().unwrap().public_openssh().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds() {
    provider_contract::check(&LocalLab::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_record_and_the_start_is_found_again() {
    let lab = LocalLab::new();
    // The program does not exist: the record is written, and no machine starts.
    let broken = LocalProvider::new(lab.dir.path(), "/nonexistent/machine").unwrap();
    broken.create(&request("u-1")).await.unwrap_err();
    let begun = lab.local().get("u-1").await.unwrap().unwrap();
    assert_eq!(lab.local().list("c").await.unwrap(), std::slice::from_ref(&begun));
    let made = lab.local().create(&request("u-1")).await.unwrap();
    assert_eq!((made.address, made.created_at), (begun.address, begun.created_at));
    lab.local().delete("u-1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_another_program_takes_before_the_first_boot_is_given_up() {
    let lab = LocalLab::new();
    let broken = LocalProvider::new(lab.dir.path(), "/nonexistent/machine").unwrap();
    broken.create(&request("u-2")).await.unwrap_err();
    let address = lab.local().get("u-2").await.unwrap().unwrap().address.unwrap();
    let _other_program = TcpListener::bind((address.as_str(), 2222)).unwrap();
    lab.local().create(&request("u-2")).await.unwrap_err();
    let made = lab.local().create(&request("u-2")).await.unwrap();
    assert_ne!(made.address.unwrap(), address);
    lab.local().delete("u-2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_leaves_nothing_and_no_uid_leads_out_of_the_folder() {
    let lab = LocalLab::new();
    lab.local().create(&request("u-3")).await.unwrap();
    lab.local().delete("u-3").await.unwrap();
    let left: Vec<_> = std::fs::read_dir(lab.dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().starts_with('.')), "{left:?}");
    assert_eq!(std::fs::read_dir(lab.dir.path().join(".addresses")).unwrap().count(), 0);
    for uid in ["", "..", "../x", "a/b", "/etc"] {
        lab.local().get(uid).await.unwrap_err();
        lab.local().delete(uid).await.unwrap_err();
    }
}
