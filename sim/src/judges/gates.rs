//! Gates: nothing behind a gate happens before a person has approved it. Looked at is what happens: a machine is there, packages
//! and code change on it, clients are sent to it, it is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;

use super::{
    scene::{Scene, Work},
    view::{Place, View, ready_endpoints, text, time},
};

/// How long a gate has to be declared before what it guards is judged: what had begun before is finished.
const BEGUN_BEFORE: Duration = Duration::from_mins(5);

/// Which gates are declared, what was approved, and what has happened.
#[derive(Default)]
pub(super) struct Gates {
    /// Since when each Server has each gate, by its UID.
    declared: BTreeMap<String, BTreeMap<String, Since>>,
    approvals: Vec<Approved>,
    /// UIDs of Servers that had a machine when they were last looked at.
    with_machine: BTreeSet<String>,
}

/// Since when there is a gate.
#[derive(Clone, Copy)]
enum Since {
    /// The Server was created with it.
    Birth,
    Later(Duration),
}

/// What a person has agreed to.
struct Approved {
    kind: String,
    place: Place,
    gate: String,
    servers: Vec<String>,
    at: Duration,
}

impl Gates {
    /// What has happened behind a gate without approval, as seen with this change.
    pub(super) fn passed(&mut self, scene: &Scene<'_>) -> Option<String> {
        match scene.plural {
            "approvals" => {
                self.note_approval(scene);
                None
            }
            "endpointslices" => self.traffic(scene),
            "servers" => self.machine(scene),
            _ => None,
        }
    }

    /// What a script has changed behind a gate without approval.
    pub(super) fn work(&self, work: &Work<'_>) -> Option<String> {
        let server = work.view.get("servers", work.place)?;
        let begun = work.begun(server).unwrap_or_default();
        let (before, after) = (work.before, work.after);
        let gate = if before.apps != after.apps {
            "DeployApp"
        } else if before.managed != after.managed {
            "InstallPackages"
        } else {
            return None;
        };
        let is_guarded = match self.declared.get(work.uid)?.get(gate)? {
            Since::Birth => true,
            Since::Later(since) => *since < begun,
        };
        let is_wrong = is_guarded && !self.is_approved(work.view, work.place, server, gate);
        is_wrong.then(|| format!("{} changed the machine of {} behind the gate before {gate}", work.holder, work.place))
    }

    /// The machine of this Server is gone, and nobody has asked for that.
    pub(super) fn forget_machine(&mut self, uid: &str) {
        self.with_machine.remove(uid);
    }

    fn note_approval(&mut self, scene: &Scene<'_>) {
        let (None, Some(approval)) = (scene.before, scene.after) else { return };
        let spec = &approval["spec"];
        if spec["decision"] != "Approve" {
            return;
        }
        let place = scene.place.beside(text(spec, "/target/name"));
        let of_task = || {
            let server = scene.view.get("servers", &place)?;
            let tasks = server["status"]["tasks"].as_array()?;
            let task = tasks.iter().find(|task| task["id"] == spec["taskID"])?;
            Some(text(task, "/gate").to_owned())
        };
        let kind = text(spec, "/target/kind").to_owned();
        let gate = if kind == "Server" { of_task().unwrap_or_default() } else { text(spec, "/gate").to_owned() };
        let servers = spec["servers"].as_array().into_iter().flatten();
        let servers = servers.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        self.approvals.push(Approved { kind, place, gate, servers, at: scene.clock.elapsed() });
    }

    /// Whether a person has agreed, at some time in the Server's life.
    fn is_approved(&self, view: &View, place: &Place, server: &Value, gate: &str) -> bool {
        let born = time(server, "/metadata/creationTimestamp").unwrap_or_default();
        let set = super::view::owner(server).map(|owner| place.beside(text(owner, "/name")));
        let _ = view;
        self.approvals.iter().any(|approved| {
            let is_for = match approved.kind.as_str() {
                "Server" => approved.place == *place && approved.at >= born,
                _ => Some(&approved.place) == set.as_ref(),
            };
            let is_listed = approved.servers.is_empty() || approved.servers.contains(&place.name);
            is_for && approved.gate == gate && is_listed
        })
    }

    fn traffic(&self, scene: &Scene<'_>) -> Option<String> {
        let ready = |slice: Option<&Value>| slice.map(ready_endpoints).unwrap_or_default();
        let (before, after) = (ready(scene.before), ready(scene.after));
        after.difference(&before).find_map(|name| {
            let place = scene.place.beside(name);
            let server = scene.view.get("servers", &place).filter(|_| !scene.view.reaches(&place))?;
            self.without_approval(scene, &place, server, "ReleaseTraffic")
                .then(|| format!("clients are sent to {place} behind its gate"))
        })
    }

    fn machine(&mut self, scene: &Scene<'_>) -> Option<String> {
        let server = scene.after.or(scene.before)?;
        let uid = text(server, "/metadata/uid");
        self.note_gates(scene, uid);
        let exists = scene.simulation.has_machine(uid);
        let existed = if exists { !self.with_machine.insert(uid.to_owned()) } else { self.with_machine.remove(uid) };
        let is_abandoned = server["metadata"]["annotations"]["berth.dev/abandon"].is_string();
        let wrong = |gate| self.without_approval(scene, scene.place, server, gate);
        if exists && !existed && wrong("CreateMachine") {
            return Some(format!("{} got a machine behind its gate", scene.place));
        }
        // An abandoned one is cleaned up by whoever abandons it.
        if existed && !exists && !is_abandoned && wrong("DestroyMachine") {
            return Some(format!("the machine of {} was destroyed behind its gate", scene.place));
        }
        if scene.after.is_none() {
            self.declared.remove(uid);
        }
        None
    }

    fn note_gates(&mut self, scene: &Scene<'_>, uid: &str) {
        let Some(server) = scene.after else { return };
        let gates = server["spec"]["gates"].as_array().into_iter().flatten();
        let gates: BTreeSet<&str> = gates.map(|gate| text(gate, "/before")).collect();
        let since = if scene.before.is_none() { Since::Birth } else { Since::Later(scene.clock.elapsed()) };
        let declared = self.declared.entry(uid.to_owned()).or_default();
        declared.retain(|gate, _| gates.contains(gate.as_str()));
        for gate in gates {
            declared.entry(gate.to_owned()).or_insert(since);
        }
    }

    fn without_approval(&self, scene: &Scene<'_>, place: &Place, server: &Value, gate: &str) -> bool {
        let since = self.declared.get(text(server, "/metadata/uid")).and_then(|gates| gates.get(gate));
        let is_guarded = since.is_some_and(|since| match since {
            Since::Birth => true,
            Since::Later(since) => *since + BEGUN_BEFORE < scene.clock.elapsed(),
        });
        is_guarded && !self.is_approved(scene.view, place, server, gate)
    }
}
