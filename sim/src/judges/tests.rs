//! Each judge is shown something that must not be, in an API server without Berth's webhook, which would refuse some of it.

mod clocks;
mod rollouts;

use std::time::Duration;

use berth_iaas::{
    Driver as _, MachineOwner, MachineRequest,
    simulated::{SimulatedMachines, Simulation},
};
use berth_machine::fake::{FakeMachine, FakeState};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};

use super::{court::Court, scene::Deed};
use crate::{ApiServer, Judge, SimClock, findings::Findings, randomness::seed_this_thread};

const CONTROLLER: &str = "system:serviceaccount:berth-system:replicaset-controller";
const BALANCER: &str = "system:serviceaccount:berth-system:lb-controller";
const HOLDER: &str = "replicaset-controller/one";

/// An API server without a webhook, machines, and the judges.
struct Lab {
    api: ApiServer,
    court: Court,
    findings: Findings,
    simulation: Simulation,
    machines: SimulatedMachines,
}

impl Lab {
    fn new() -> Self {
        // What ahash draws once in a process must not depend on which test is the first.
        seed_this_thread(1);
        let (clock, machines, findings) = (SimClock::start(), SimulatedMachines::default(), Findings::default());
        let simulation = Simulation::new(machines.clone());
        let court = Court::new(findings.clone(), simulation.clone(), machines.clone(), clock);
        let api = ApiServer::new(clock, None).unwrap();
        let witness = court.clone();
        api.set_witness(move |plural, change, author| witness.see(plural, change, author));
        let witness = court.clone();
        api.set_claim_witness(move |namespace, name, holder| witness.see_claim(namespace, name, holder));
        Self { api, court, findings, simulation, machines }
    }

    fn kind(&self, user: &str, group: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        Api::namespaced_with(self.api.client(user), "default", &resource)
    }

    fn berth(&self, user: &str, kind: &str) -> Api<DynamicObject> {
        self.kind(user, "berth.dev", "v1alpha1", kind, &format!("{}s", kind.to_lowercase()))
    }

    fn servers(&self, user: &str) -> Api<DynamicObject> {
        self.berth(user, "Server")
    }

    /// Creates an object, and returns its UID.
    async fn create(&self, kind: &str, name: &str, rest: Value) -> String {
        let mut object = json!({"apiVersion": "berth.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "default"}});
        json_patch::merge(&mut object, &rest);
        let object = serde_json::from_value(object).unwrap();
        let created = self.berth("ann", kind).create(&PostParams::default(), &object).await.unwrap();
        created.metadata.uid.unwrap()
    }

    /// A Server that clients are sent to, with its machine. Returns its UID.
    async fn serving(&self, name: &str, rest: Value) -> String {
        let mut server = json!({"metadata": {"finalizers": ["berth.dev/retire"]},
                                "spec": {"machine": {"className": "small"}, "app": app("v1")}});
        json_patch::merge(&mut server, &rest);
        let uid = self.create("Server", name, server).await;
        let address = self.machine(name, &uid, "one").await;
        let machine = json!({"phase": "Running", "address": address});
        self.set_status(name, json!({"state": "Ready", "machine": machine, "waitingFor": "nothing"})).await;
        self.machines.of_server(&uid).change(|state| *state = runs("v1"));
        let endpoint = json!({"addresses": [address], "conditions": {"ready": true}, "targetRef": {"kind": "Server", "name": name}});
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                           "metadata": {"name": name, "namespace": "default"}, "endpoints": [endpoint]});
        let slices = self.kind("ann", "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
        slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();
        uid
    }

    /// Makes a machine, and returns its address.
    async fn machine(&self, name: &str, uid: &str, account: &str) -> String {
        let class = json!({"provider": "simulated", "parameters": {"account": account}});
        let provider = self.simulation.connect(&serde_json::from_value(class).unwrap(), None).unwrap();
        let owner =
            MachineOwner { cluster: "c".into(), namespace: "default".into(), name: name.into(), uid: uid.into() };
        let request = MachineRequest { owner, image: None, flavor: None, ssh_port: 22, authorized_key: String::new() };
        provider.create(&request).await.unwrap().address.unwrap()
    }

    /// Lets no clients be sent to this Server.
    async fn hold(&self, name: &str) {
        let slices = self.kind(BALANCER, "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
        let nothing = Patch::Merge(json!({"endpoints": []}));
        slices.patch(name, &PatchParams::default(), &nothing).await.unwrap();
    }

    async fn patch(&self, user: &str, name: &str, patch: Value) {
        self.servers(user).patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    async fn set_status(&self, name: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.servers(CONTROLLER).patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// A script of the holder deploys another revision on the machine.
    fn work(&self, uid: &str) {
        let (before, after) = (&runs("v1"), &runs("v2"));
        let (server, age) = ("default/web-0", Duration::ZERO);
        self.court.see_work(&Deed { server, uid, holder: HOLDER, age, ends: false, before, after });
    }

    /// What the judge found; nothing when it found nothing, or another did.
    fn found(&self, judge: Judge) -> String {
        self.findings.first().filter(|finding| finding.judge == judge).map(|finding| finding.text).unwrap_or_default()
    }

    fn assert_nothing(&self) {
        assert_eq!(self.findings.first(), None);
    }
}

fn app(revision: &str) -> Value {
    json!({"name": "web", "revision": revision, "command": "./run", "artifact": {"url": "http://a/b.tar", "sha256": "ab".repeat(32)}})
}

/// A machine on which this revision runs.
fn runs(revision: &str) -> FakeState {
    let mut state = FakeMachine::new().state();
    let app = berth_machine::app::AppStatus { revision: Some(revision.into()), running: true, ..Default::default() };
    state.apps.insert("web".into(), app);
    state
}

/// A lock that its holder has renewed.
fn lock(holder: &str) -> Value {
    json!({"holder": holder, "taskID": 1, "acquiredAt": "2025-12-31T23:59:59Z", "renewedAt": "2026-01-01T00:00:00Z", "durationSeconds": 30})
}

#[tokio::test(start_paused = true)]
async fn two_machines_of_one_server_are_seen() {
    let lab = Lab::new();
    let uid = lab.serving("web-0", json!({})).await;
    lab.assert_nothing();
    lab.machine("web-0", &uid, "another account").await;
    lab.set_status("web-0", json!({"waitingFor": "a change"})).await;
    assert!(lab.found(Judge::Machines).contains("has two machines"), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_before_its_machine_is_seen() {
    let lab = Lab::new();
    lab.serving("web-0", json!({})).await;
    lab.servers("ann").delete("web-0", &DeleteParams::default()).await.unwrap();
    lab.assert_nothing();
    lab.patch(CONTROLLER, "web-0", json!({"metadata": {"finalizers": []}})).await;
    assert!(lab.found(Judge::End).contains("its machine is not"), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn work_without_the_lock_is_seen() {
    let lab = Lab::new();
    let uid = lab.serving("web-0", json!({})).await;
    let work = || lab.work(&uid);
    lab.set_status("web-0", json!({"lock": lock(HOLDER)})).await;
    work();
    lab.assert_nothing();
    lab.set_status("web-0", json!({"lock": lock("replicaset-controller/two")})).await;
    work();
    assert!(lab.found(Judge::Lock).contains("lock replicaset-controller/two holds"), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn work_after_the_end_of_a_lock_that_was_handed_over_is_seen() {
    let lab = Lab::new();
    let uid = lab.serving("web-0", json!({})).await;
    lab.set_status("web-0", json!({"lock": lock(HOLDER)})).await;
    tokio::time::sleep(Duration::from_secs(70)).await;
    lab.work(&uid);
    lab.assert_nothing();
    tokio::time::sleep(Duration::from_secs(10)).await;
    lab.work(&uid);
    assert!(lab.found(Judge::Lock).contains("after its lock had ended"), "{:?}", lab.findings.first());
}

/// A copy of the webhook whose clock is behind leaves what another has written. The holder relies on its renewal all the same.
#[tokio::test(start_paused = true)]
async fn a_renewal_that_leaves_the_lock_as_it_is_counts() {
    let lab = Lab::new();
    let uid = lab.serving("web-0", json!({})).await;
    let claim = |holder: &str| json!({"taskID": 1, "holder": holder, "durationSeconds": 30});
    lab.set_status("web-0", json!({"lock": lock(HOLDER), "claim": claim(HOLDER)})).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    lab.set_status("web-0", json!({"claim": claim(HOLDER)})).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    lab.work(&uid);
    lab.assert_nothing();
    lab.set_status("web-0", json!({"claim": claim("replicaset-controller/two")})).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    lab.work(&uid);
    assert!(lab.found(Judge::Lock).contains("after its lock had ended"), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_counted_again_is_seen() {
    let lab = Lab::new();
    lab.serving("web-0", json!({})).await;
    let task =
        |phase| json!([{"id": 1, "kind": "CheckHealth", "step": 1, "digest": "", "phase": phase, "attempts": 0}]);
    lab.set_status("web-0", json!({"tasks": task("Succeeded")})).await;
    lab.assert_nothing();
    lab.set_status("web-0", json!({"tasks": task("Failed")})).await;
    assert!(lab.found(Judge::Tasks).contains("was Succeeded and became Failed"), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn a_force_that_a_program_ignores_is_seen() {
    let lab = Lab::new();
    let force = json!({"state": "Ready", "reason": "a test", "at": "2026-01-01T00:00:00Z"});
    for (name, is_offline) in [("web-0", false), ("web-1", true)] {
        lab.serving(name, json!({"spec": {"force": force, "offline": is_offline}})).await;
        lab.set_status(name, json!({"force": {"id": "f", "active": true}})).await;
    }
    lab.patch("ann", "web-0", json!({"spec": {"taskAttempts": 3}})).await;
    lab.servers(CONTROLLER).delete("web-1", &DeleteParams::default()).await.unwrap();
    lab.assert_nothing();
    lab.servers(CONTROLLER).delete("web-0", &DeleteParams::default()).await.unwrap();
    assert!(lab.found(Judge::Decisions).contains("a forced Server is deleted"), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn a_retirement_that_a_program_takes_back_is_seen() {
    let lab = Lab::new();
    lab.serving("web-0", json!({"spec": {"offline": true}})).await;
    lab.patch(CONTROLLER, "web-0", json!({"spec": {"offline": false}})).await;
    assert!(lab.found(Judge::Decisions).contains("offline is taken back"), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn a_roll_out_of_a_paused_set_is_seen() {
    let lab = Lab::new();
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"machine": {"className": "small"}}});
    let spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template, "paused": true});
    let set = lab.create("VMReplicaSet", "web", json!({"spec": spec})).await;
    let owner = json!([{"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "name": "web", "uid": set, "controller": true}]);
    lab.serving("web-0", json!({"metadata": {"ownerReferences": owner}})).await;
    lab.patch(CONTROLLER, "web-0", json!({"spec": {"app": app("v2")}})).await;
    lab.assert_nothing();
    tokio::time::sleep(Duration::from_mins(2)).await;
    lab.patch(CONTROLLER, "web-0", json!({"spec": {"app": app("v3")}})).await;
    let found = lab.found(Judge::Decisions);
    assert!(found.contains("app is changed while default/web is paused"), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn what_happens_behind_a_gate_is_seen() {
    let lab = Lab::new();
    let gates = json!({"spec": {"gates": [{"before": "CreateMachine"}, {"before": "DeployApp"}, {"before": "ReleaseTraffic"}]}});
    let approve = |number: i64, gate| json!({"spec": {"target": {"kind": "VMReplicaSet", "name": "web", "generation": number}, "gate": gate, "decision": "Approve"}});
    let owner = json!([{"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "name": "web", "uid": "u", "controller": true}]);
    let mut server = json!({"metadata": {"ownerReferences": owner}});
    json_patch::merge(&mut server, &gates);
    lab.create("Approval", "one", approve(1, "CreateMachine")).await;
    lab.create("Approval", "two", approve(1, "ReleaseTraffic")).await;
    let uid = lab.serving("web-0", server.clone()).await;
    lab.set_status("web-0", json!({"lock": lock(HOLDER)})).await;
    lab.assert_nothing();
    lab.work(&uid);
    assert!(lab.found(Judge::Gates).contains("behind the gate before DeployApp"), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_made_behind_its_gate_is_seen() {
    let lab = Lab::new();
    lab.serving("web-0", json!({"spec": {"gates": [{"before": "CreateMachine"}]}})).await;
    assert!(lab.found(Judge::Gates).contains("got a machine behind its gate"), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_exceeded_is_seen() {
    let lab = Lab::new();
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"machine": {"className": "small"}}});
    let spec = json!({"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template, "updateStrategy": {"maxUnavailable": 1}});
    let set = lab.create("VMReplicaSet", "web", json!({"spec": spec})).await;
    let owner = json!([{"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "name": "web", "uid": set, "controller": true}]);
    for name in ["web-0", "web-1", "web-2"] {
        lab.serving(name, json!({"metadata": {"ownerReferences": owner}})).await;
    }
    let newer = json!({"spec": {"app": app("v2")}});
    lab.patch(CONTROLLER, "web-0", newer.clone()).await;
    lab.patch("ann", "web-1", newer.clone()).await;
    // Clients lose it anyhow.
    lab.patch(CONTROLLER, "web-1", json!({"spec": {"app": app("v3")}})).await;
    lab.patch(CONTROLLER, "web-2", newer).await;
    lab.hold("web-0").await;
    lab.hold("web-1").await;
    lab.assert_nothing();
    lab.hold("web-2").await;
    let found = lab.found(Judge::Budget);
    let expected = "clients lose web-2: Berth keeps web-0, web-2 of default/web from them, and 1 may be";
    assert!(found.contains(expected), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn failover_of_a_machine_that_runs_is_seen() {
    let lab = Lab::new();
    let uid = lab.serving("web-0", json!({})).await;
    lab.set_status("web-0", json!({"waitingFor": "a look at it"})).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    lab.set_status("web-0", json!({"waitingFor": "another look"})).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    lab.patch("ann", "web-0", json!({"spec": {"reboot": {"id": "one"}}})).await;
    // Its provider has just said that there is no such machine.
    lab.court.note_lie(&uid);
    lab.patch(CONTROLLER, "web-0", json!({"spec": {"reboot": {"id": "in good faith"}}})).await;
    lab.assert_nothing();
    tokio::time::sleep(Duration::from_mins(1)).await;
    // It has not answered two knocks of one copy.
    for holder in [HOLDER, "replicaset-controller/two", HOLDER] {
        lab.court.note_login(&uid, holder, false);
    }
    lab.patch(CONTROLLER, "web-0", json!({"spec": {"reboot": {"id": "as far as is known"}}})).await;
    lab.assert_nothing();
    tokio::time::sleep(Duration::from_mins(1)).await;
    // The first knock was answered.
    lab.court.note_login(&uid, HOLDER, true);
    lab.court.note_login(&uid, HOLDER, false);
    lab.patch(CONTROLLER, "web-0", json!({"spec": {"reboot": {"id": "two"}}})).await;
    assert!(lab.found(Judge::Failover).contains("failover reboots default/web-0"), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn what_is_stuck_without_words_is_seen() {
    let lab = Lab::new();
    lab.create("Server", "web-0", json!({"spec": {"machine": {"className": "small"}}})).await;
    lab.set_status("web-0", json!({"state": "Initializing"})).await;
    tokio::time::sleep(Duration::from_mins(9)).await;
    assert_eq!(lab.court.silent(), None);
    tokio::time::sleep(Duration::from_mins(2)).await;
    let found = lab.court.silent().map(|finding| finding.text).unwrap_or_default();
    assert_eq!(found, "default/web-0 is Initializing and says nothing");
}

#[tokio::test(start_paused = true)]
async fn a_set_speaks_for_a_server_before_its_first_decision() {
    let lab = Lab::new();
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"machine": {"className": "small"}}});
    let spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template});
    let set = lab.create("VMReplicaSet", "web", json!({"spec": spec})).await;
    let owner = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "name": "web", "controller": true,
                       "uid": set});
    let server = json!({"metadata": {"ownerReferences": [owner]}, "spec": {"machine": {"className": "small"}}});
    lab.create("Server", "web-0", server).await;
    tokio::time::sleep(Duration::from_mins(11)).await;
    assert!(lab.court.silent().is_some_and(|finding| finding.text.contains("web-0 is  and says nothing")));
    let says = Patch::Merge(json!({"status": {"waitingFor": "web-0 to be Ready"}}));
    lab.berth(CONTROLLER, "VMReplicaSet").patch_status("web", &PatchParams::default(), &says).await.unwrap();
    assert_eq!(lab.court.silent(), None);
}

#[tokio::test(start_paused = true)]
async fn what_a_restored_etcd_has_forgotten_is_not_stuck() {
    let lab = Lab::new();
    let save = lab.api.save();
    lab.create("Server", "web-0", json!({"spec": {"machine": {"className": "small"}}})).await;
    lab.set_status("web-0", json!({"state": "Initializing"})).await;
    lab.api.restore(&save, false, "servers");
    lab.court.note_restore(&lab.api);
    tokio::time::sleep(Duration::from_mins(11)).await;
    assert_eq!(lab.court.silent(), None);
}

#[tokio::test(start_paused = true)]
async fn a_lock_counts_from_its_renewal_whatever_the_clock_says_that_wrote_it() {
    let lab = Lab::new();
    let uid = lab.serving("web-0", json!({})).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    // Written by a copy of the webhook that is 40 s behind.
    lab.set_status(
        "web-0",
        json!({"lock": lock(HOLDER), "claim": {"taskID": 1, "holder": HOLDER, "durationSeconds": 30}}),
    )
    .await;
    lab.work(&uid);
    lab.assert_nothing();
    tokio::time::sleep(Duration::from_secs(40)).await;
    lab.work(&uid);
    assert!(lab.found(Judge::Lock).contains("after its lock had ended"), "{:?}", lab.findings.first());
}
