//! Guarantee 10: failover reboots, retains or gives up no machine that runs and answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;

use super::{
    scene::Scene,
    view::{is_being_deleted, text},
};

/// How long a machine must have been running again: what replicaset-controller found out counts for 10 s, and its write may be
/// under way for as long.
const RUNS_FOR: Duration = Duration::from_secs(30);
/// How often it is looked at what runs.
const LOOK: Duration = Duration::from_secs(1);

/// A machine that refuses so many connections of one copy, one after the other, does not answer it. One alone is a fault that
/// failover has to survive.
const REFUSALS: usize = 2;

/// Since when machines run, by the UIDs of their Servers.
#[derive(Default)]
pub(super) struct Failover {
    running: BTreeMap<String, Duration>,
    /// How often in a row a machine did not answer a copy of replicaset-controller, by the Server's UID and the copy.
    refusals: BTreeMap<(String, String), usize>,
    looked: Duration,
}

impl Failover {
    /// A machine that runs and answers, and is given up, retained or rebooted with this change.
    pub(super) fn harms(&mut self, scene: &Scene<'_>) -> Option<String> {
        self.look(scene);
        let (before, after) = (scene.before?, scene.after?);
        if scene.plural != "servers" || !scene.author.ends_with(":replicaset-controller") {
            return None;
        }
        let what = act(scene, before, after)?;
        let since = self.running.get(text(before, "/metadata/uid")).filter(|_| runs(scene, before))?;
        let is_well = *since + RUNS_FOR < scene.clock.elapsed();
        is_well.then(|| format!("failover {what} {}, whose machine runs since {} ms", scene.place, since.as_millis()))
    }

    /// This machine counts as one that runs since now, if it runs.
    pub(super) fn doubt(&mut self, uid: &str, now: Duration) {
        if let Some(since) = self.running.get_mut(uid) {
            *since = now;
        }
    }

    /// A copy has connected to the machine, or has tried to.
    pub(super) fn connected(&mut self, uid: &str, holder: &str, answers: bool, now: Duration) {
        if !holder.starts_with("replicaset-controller/") {
            return;
        }
        let refusals = self.refusals.entry((uid.to_owned(), holder.to_owned())).or_default();
        *refusals = if answers { 0 } else { *refusals + 1 };
        if *refusals >= REFUSALS {
            self.doubt(uid, now);
        }
    }

    fn look(&mut self, scene: &Scene<'_>) {
        let now = scene.clock.elapsed();
        if now < self.looked + LOOK {
            return;
        }
        self.looked = now;
        let running = scene.view.all("servers").filter(|(_, server)| runs(scene, server));
        let running: BTreeSet<String> = running.map(|(_, server)| text(server, "/metadata/uid").to_owned()).collect();
        self.running.retain(|uid, _| running.contains(uid));
        for uid in running {
            self.running.entry(uid).or_insert(now);
        }
    }
}

/// What failover does with a Server by this change.
fn act(scene: &Scene<'_>, before: &Value, after: &Value) -> Option<&'static str> {
    let (old, new) = (&before["spec"], &after["spec"]);
    if old["reboot"] != new["reboot"] {
        return Some("reboots");
    }
    if old["retain"].is_null() && !new["retain"].is_null() {
        return Some("retains");
    }
    let (_, set) = scene.view.set_of(scene.place, before)?;
    let entries = set["status"]["disturbed"].as_array()?;
    let name = scene.place.name.as_str();
    // The set may have too many Servers as well, and then this one may go.
    let axes: Vec<&str> = entries.iter().filter(|e| text(e, "/server") == name).map(|e| text(e, "/axis")).collect();
    // A person may have asked for its end, and a machine that was kept for diagnosis goes when its time is over.
    let is_other = old["offline"] == true || !old["retain"].is_null();
    let is_given_up = is_being_deleted(after) && !is_being_deleted(before) && !is_other && axes == ["Failover"];
    is_given_up.then_some("gives up")
}

fn runs(scene: &Scene<'_>, server: &Value) -> bool {
    let address = text(server, "/status/machine/address");
    let runs = scene.simulation.runs_at(address).is_some_and(|uid| uid == text(server, "/metadata/uid"));
    // A machine that hangs runs, and does not answer.
    runs && !scene.machines.of_server(text(server, "/metadata/uid")).is_frozen()
}
