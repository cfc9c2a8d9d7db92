//! Provider `simulated`, as it is without parameters and with everything that may go wrong on the way to a provider.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod iaas_contract;

use std::{sync::Arc, time::Duration};

use berth_core::api::MachineClassSpec;
use berth_machine::{Machine, fleet::Fleet, ssh::SshPool};
use futures::future::{BoxFuture, FutureExt as _};
use iaas_contract::Lab;
use replicaset_controller::iaas::{
    Driver, Error, MachineInfo, MachineRequest, Owner, Phase, Provider, Result, simulated::Simulation,
};
use serde_json::{Value, json};

struct SimulatedLab {
    simulation: Simulation,
    fleet: Fleet,
    parameters: Value,
}

impl SimulatedLab {
    fn new(parameters: Value) -> Self {
        let fleet = Fleet::default();
        Self { simulation: Simulation::new(fleet.clone()), fleet, parameters }
    }

    fn with(&self, parameters: &Value) -> Arc<dyn Provider> {
        Patient::over(self.simulation.connect(&class(parameters), None).unwrap())
    }
}

fn class(parameters: &Value) -> MachineClassSpec {
    serde_json::from_value(json!({"provider": "simulated", "parameters": parameters})).unwrap()
}

impl Lab for SimulatedLab {
    fn driver(&self) -> Arc<dyn Driver> {
        Arc::new(self.simulation.clone())
    }

    fn class(&self) -> MachineClassSpec {
        class(&self.parameters)
    }

    fn provider(&self) -> Arc<dyn Provider> {
        self.with(&self.parameters)
    }

    fn broken(&self) -> Option<Arc<dyn Provider>> {
        Some(self.with(&json!({"broken": "Credentials"})))
    }

    fn small(&self) -> Option<(Arc<dyn Provider>, usize)> {
        let mut parameters = self.parameters.clone();
        (parameters["account"], parameters["capacity"]) = ("small".into(), 3.into());
        Some((self.with(&parameters), 3))
    }

    fn crash(&self, uid: &str) {
        self.simulation.crash(uid);
    }

    fn reach(&self, _: &SshPool, info: &MachineInfo) -> Box<dyn Machine> {
        Box::new(self.fleet.machine(&format!("simulated/{}", info.id)))
    }

    fn user(&self) -> String {
        "berth".into()
    }

    fn impossible(&self, request: MachineRequest) -> Option<MachineRequest> {
        Some(MachineRequest { image: Some("missing".into()), ..request })
    }
}

/// Tries again what may help, as the controller does: the contract holds for those who do.
struct Patient(Arc<dyn Provider>);

impl Patient {
    fn over(provider: Arc<dyn Provider>) -> Arc<dyn Provider> {
        Arc::new(Self(provider))
    }
}

async fn until_answered<'a, T>(call: impl Fn() -> BoxFuture<'a, Result<T>> + Send) -> Result<T> {
    let mut answer = call().await;
    for _ in 0..30 {
        match answer {
            Err(Error::Retryable(_)) => answer = call().await,
            answer => return answer,
        }
    }
    answer
}

impl Provider for Patient {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        until_answered(|| self.0.check()).boxed()
    }

    fn create<'a>(&'a self, request: &'a MachineRequest) -> BoxFuture<'a, Result<MachineInfo>> {
        until_answered(move || self.0.create(request)).boxed()
    }

    fn get<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Option<MachineInfo>>> {
        until_answered(move || self.0.get(uid)).boxed()
    }

    fn reboot<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<MachineInfo>> {
        until_answered(move || self.0.reboot(uid)).boxed()
    }

    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<()>> {
        until_answered(move || self.0.delete(uid)).boxed()
    }

    fn list<'a>(&'a self, cluster: &'a str) -> BoxFuture<'a, Result<Vec<MachineInfo>>> {
        until_answered(move || self.0.list(cluster)).boxed()
    }
}

fn request(name: &str) -> MachineRequest {
    MachineRequest {
        owner: Owner { cluster: "c".into(), namespace: "n".into(), name: name.into(), uid: format!("uid-{name}") },
        image: None,
        flavor: None,
        ssh_port: 22,
        authorized_key: String::new(),
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    iaas_contract::check(&SimulatedLab::new(json!({}))).await;
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract_when_it_is_slow() {
    let latency = json!({"default": {"exponentialMs": 50}, "create": {"logNormalMs": {"median": 200, "p99": 5000}}});
    let parameters = json!({"seed": 1, "latency": latency, "boot": {"uniformMs": [100, 4000]}});
    iaas_contract::check(&SimulatedLab::new(parameters)).await;
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract_when_calls_fail_and_answers_are_lost_and_repeated() {
    for seed in 0..50 {
        let faults = json!({"seed": seed, "failureRate": 0.2, "lostAnswerRate": 0.2, "repeatRate": 0.3,
                            "latency": {"default": {"exponentialMs": 20}}, "boot": {"fixedMs": 200}});
        iaas_contract::check(&SimulatedLab::new(faults)).await;
    }
}

/// What happens to Servers, whatever the order in which they are looked at.
async fn fates(seed: u64, names: &[&str]) -> Vec<(String, String)> {
    let faults = json!({"seed": seed, "failureRate": 0.3, "lostAnswerRate": 0.3});
    let provider = SimulatedLab::new(json!({})).simulation.connect(&class(&faults), None).unwrap();
    let mut fates = Vec::new();
    for name in names {
        let mut answers = Vec::new();
        for _ in 0..12 {
            answers.push(provider.create(&request(name)).await.is_ok());
        }
        fates.push(((*name).to_owned(), format!("{answers:?}")));
    }
    fates.sort();
    fates
}

#[tokio::test]
async fn a_seed_brings_the_same_chance_in_every_run_and_order() {
    let first = fates(7, &["a", "b", "c", "d"]).await;
    assert_eq!(fates(7, &["d", "b", "a", "c"]).await, first);
    assert_ne!(fates(8, &["a", "b", "c", "d"]).await, first);
    assert_ne!(first[0].1, first[1].1, "Servers do not share their chance");
}

#[tokio::test(start_paused = true)]
async fn machines_die_by_themselves_and_are_started_again() {
    let lab = SimulatedLab::new(json!({"lifetime": {"fixedMs": 60_000}, "boot": {"fixedMs": 1000}}));
    let provider = lab.provider();
    let phase = || async { provider.get("uid-a").await.unwrap().unwrap().phase };
    provider.create(&request("a")).await.unwrap();
    assert_eq!(phase().await, Phase::Starting);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(phase().await, Phase::Running);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(phase().await, Phase::Stopped);
    let machine = lab.fleet.machine("simulated/uid-a");
    assert!(berth_machine::ping::ping(&machine, Duration::from_secs(1)).await.is_err(), "nobody answers there");
    provider.create(&request("a")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(phase().await, Phase::Running);
    assert!(berth_machine::ping::ping(&machine, Duration::from_secs(1)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_never_answers_and_the_others_do() {
    let provider = SimulatedLab::new(json!({"hang": ["create"]})).provider();
    let limit = Duration::from_hours(24);
    assert!(tokio::time::timeout(limit, provider.create(&request("a"))).await.is_err());
    assert_eq!(provider.get("uid-a").await, Ok(None));
}

#[tokio::test]
async fn a_machine_is_destroyed_without_its_class_whatever_its_account() {
    let lab = SimulatedLab::new(json!({"account": "far"}));
    lab.provider().create(&request("a")).await.unwrap();
    assert_eq!(lab.simulation.count(), 1);
    let provider = lab.simulation.without_class().unwrap();
    assert!(provider.get("uid-a").await.unwrap().is_some());
    provider.delete("uid-a").await.unwrap();
    assert_eq!(lab.simulation.count(), 0);
}
