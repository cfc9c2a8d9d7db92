//! Provider `simulated`, without parameters and with every fault that it can simulate.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod provider_contract;

use std::{sync::Arc, time::Duration};

use berth_core::api::MachineClassSpec;
use berth_iaas::{
    Driver, MachineOwner, MachineRequest, Provider, ProviderError, ProviderMachine, ProviderMachinePhase, Result,
    simulated::{SimulatedMachines, Simulation},
};
use berth_machine::{Machine, ssh::SshPool};
use futures::future::{BoxFuture, FutureExt as _};
use provider_contract::Lab;
use serde_json::{Value, json};

struct SimulatedLab {
    simulation: Simulation,
    machines: SimulatedMachines,
    parameters: Value,
}

impl SimulatedLab {
    fn new(parameters: Value) -> Self {
        let machines = SimulatedMachines::default();
        Self { simulation: Simulation::new(machines.clone()), machines, parameters }
    }

    fn with(&self, parameters: &Value) -> Arc<dyn Provider> {
        Repeating::over(self.simulation.connect(&class(parameters), None).unwrap())
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

    fn with_quota(&self) -> Option<(Arc<dyn Provider>, usize)> {
        let mut parameters = self.parameters.clone();
        (parameters["account"], parameters["capacity"]) = ("small".into(), 3.into());
        Some((self.with(&parameters), 3))
    }

    fn crash(&self, uid: &str) {
        self.simulation.crash(uid);
    }

    fn connect(&self, _: &SshPool, info: &ProviderMachine) -> Box<dyn Machine> {
        Box::new(self.machines.of_server(&info.id))
    }

    fn user(&self) -> String {
        "berth".into()
    }

    fn impossible(&self, request: MachineRequest) -> Option<MachineRequest> {
        Some(MachineRequest { image: Some("missing".into()), ..request })
    }
}

/// Repeats calls that may succeed later, as the controller does. The contract only holds with repetitions.
struct Repeating(Arc<dyn Provider>);

impl Repeating {
    fn over(provider: Arc<dyn Provider>) -> Arc<dyn Provider> {
        Arc::new(Self(provider))
    }
}

async fn until_answered<'a, T>(call: impl Fn() -> BoxFuture<'a, Result<T>> + Send) -> Result<T> {
    let mut answer = call().await;
    for _ in 0..30 {
        match answer {
            Err(ProviderError::Retryable(_)) => answer = call().await,
            answer => return answer,
        }
    }
    answer
}

impl Provider for Repeating {
    fn place(&self) -> String {
        self.0.place()
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        until_answered(|| self.0.check()).boxed()
    }

    fn create<'a>(&'a self, request: &'a MachineRequest) -> BoxFuture<'a, Result<ProviderMachine>> {
        until_answered(move || self.0.create(request)).boxed()
    }

    fn get<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Option<ProviderMachine>>> {
        until_answered(move || self.0.get(uid)).boxed()
    }

    fn reboot<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<ProviderMachine>> {
        until_answered(move || self.0.reboot(uid)).boxed()
    }

    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<()>> {
        until_answered(move || self.0.delete(uid)).boxed()
    }

    fn list<'a>(&'a self, cluster: &'a str) -> BoxFuture<'a, Result<Vec<ProviderMachine>>> {
        until_answered(move || self.0.list(cluster)).boxed()
    }
}

fn request(name: &str) -> MachineRequest {
    MachineRequest {
        owner: MachineOwner {
            cluster: "c".into(),
            namespace: "n".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
        },
        image: None,
        flavor: None,
        ssh_port: 22,
        authorized_key: String::new(),
    }
}

#[tokio::test]
async fn the_contract_holds() {
    provider_contract::check(&SimulatedLab::new(json!({}))).await;
}

#[tokio::test(start_paused = true)]
async fn the_contract_holds_with_latency() {
    let latency = json!({"default": {"exponentialMs": 50}, "create": {"logNormalMs": {"median": 200, "p99": 5000}}});
    let parameters = json!({"seed": 1, "latency": latency, "boot": {"uniformMs": [100, 4000]}});
    provider_contract::check(&SimulatedLab::new(parameters)).await;
}

#[tokio::test(start_paused = true)]
async fn the_contract_holds_when_calls_fail_or_repeat_and_answers_are_lost() {
    for seed in 0..50 {
        let faults = json!({"seed": seed, "failureRate": 0.2, "lostAnswerRate": 0.2, "repeatRate": 0.3,
                            "latency": {"default": {"exponentialMs": 20}}, "boot": {"fixedMs": 200}});
        provider_contract::check(&SimulatedLab::new(faults)).await;
    }
}

/// Which of twelve creations succeed for each Server, in the order of names.
async fn successes(seed: u64, names: &[&str]) -> Vec<(String, String)> {
    let faults = json!({"seed": seed, "failureRate": 0.3, "lostAnswerRate": 0.3});
    let provider = SimulatedLab::new(json!({})).simulation.connect(&class(&faults), None).unwrap();
    let mut all = Vec::new();
    for name in names {
        let mut answers = Vec::new();
        for _ in 0..12 {
            answers.push(provider.create(&request(name)).await.is_ok());
        }
        all.push(((*name).to_owned(), format!("{answers:?}")));
    }
    all.sort();
    all
}

#[tokio::test]
async fn equal_seeds_give_equal_events_in_every_order_of_calls() {
    let first = successes(7, &["a", "b", "c", "d"]).await;
    assert_eq!(successes(7, &["d", "b", "a", "c"]).await, first);
    assert_ne!(successes(8, &["a", "b", "c", "d"]).await, first);
    assert_ne!(first[0].1, first[1].1, "each Server has events of its own");
}

#[tokio::test(start_paused = true)]
async fn a_machine_stops_after_its_lifetime_and_is_started_again() {
    let lab = SimulatedLab::new(json!({"lifetime": {"fixedMs": 60_000}, "boot": {"fixedMs": 1000}}));
    let provider = lab.provider();
    let phase = || async { provider.get("uid-a").await.unwrap().unwrap().phase };
    provider.create(&request("a")).await.unwrap();
    assert_eq!(phase().await, ProviderMachinePhase::Starting);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(phase().await, ProviderMachinePhase::Running);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(phase().await, ProviderMachinePhase::Stopped);
    let machine = lab.machines.of_server("uid-a");
    assert!(
        berth_machine::ping::ping(&machine, Duration::from_secs(1)).await.is_err(),
        "a stopped machine does not answer"
    );
    provider.create(&request("a")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(phase().await, ProviderMachinePhase::Running);
    assert!(berth_machine::ping::ping(&machine, Duration::from_secs(1)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_never_answers_and_others_do() {
    let provider = SimulatedLab::new(json!({"hang": ["create"]})).provider();
    let limit = Duration::from_hours(24);
    assert!(tokio::time::timeout(limit, provider.create(&request("a"))).await.is_err());
    assert_eq!(provider.get("uid-a").await, Ok(None));
}

#[tokio::test]
async fn a_machine_is_destroyed_without_its_class_only_in_its_account() {
    let lab = SimulatedLab::new(json!({"account": "far"}));
    lab.provider().create(&request("a")).await.unwrap();
    assert_eq!(lab.simulation.count(), 1);
    let elsewhere = lab.simulation.without_class("near").unwrap();
    elsewhere.delete("uid-a").await.unwrap();
    assert_eq!((elsewhere.get("uid-a").await, lab.simulation.count()), (Ok(None), 1));
    let provider = lab.simulation.without_class(&lab.provider().place()).unwrap();
    assert!(provider.get("uid-a").await.unwrap().is_some());
    provider.delete("uid-a").await.unwrap();
    assert_eq!(lab.simulation.count(), 0);
}
