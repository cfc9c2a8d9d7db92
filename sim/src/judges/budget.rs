//! Guarantee 3: nothing that Berth itself starts makes more Servers unavailable than the budget allows.
//!
//! Counted is what clients notice. A Server that they are sent to, whose machine and application run, and whose declaration one of
//! Berth's programs changes, or whose removal it requests, is disturbed until it is as declared again, or gone. Judged is the
//! moment at which clients are no longer sent to it. What faults and people do is left out, also where Berth changes a Server that a
//! person has changed just before: clients lose it anyhow.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use berth_core::api::Server;
use serde::Deserialize as _;
use serde_json::Value;

use super::{
    scene::{Scene, by_berth},
    view::{Place, View, is_being_deleted, ready_endpoints, text},
};

/// How long a declaration counts after it was changed: who was entered in the ledger before the change may be disturbed after it,
/// also by another copy once the lock of one that crashed has ended.
const GRACE: Duration = Duration::from_mins(10);

/// What was declared and what was begun.
#[derive(Default)]
pub(super) struct Budget {
    /// What sets and their VMDeployments have declared, by the place of both.
    declared: BTreeMap<Place, Vec<Declared>>,
    /// The Servers that Berth disturbs.
    disturbed: BTreeMap<Place, Disturbance>,
    /// The UIDs of the Servers whose declaration a person has changed, until they are as declared again.
    edited: BTreeMap<Place, String>,
    /// When clients were no longer sent to a Server that nobody disturbs: something went wrong with it.
    lost: BTreeMap<Place, Duration>,
}

struct Declared {
    source: &'static str,
    replicas: usize,
    most: usize,
    until: Option<Duration>,
}

struct Disturbance {
    set: Place,
    uid: String,
    since: Duration,
    /// Whether clients were no longer sent to it since.
    was_away: bool,
}

impl Budget {
    /// Says so if this change disturbs more Servers than may be.
    pub(super) fn exceeded(&mut self, scene: &Scene<'_>) -> Option<String> {
        match scene.plural {
            "vmreplicasets" => self.note("set", scene),
            "vmdeployments" => self.note("deployment", scene),
            "endpointslices" => {
                let ready = [scene.before, scene.after].into_iter().flatten().flat_map(ready_endpoints);
                let concerned: BTreeSet<Place> = ready.map(|name| scene.place.beside(&name)).collect();
                for place in &concerned {
                    self.let_go(scene, place);
                }
                self.note_losses(scene);
                return self.away(scene);
            }
            "servers" => {
                if scene.after.is_none() {
                    self.lost.remove(scene.place);
                }
                self.let_go(scene, scene.place);
                self.begin(scene);
            }
            _ => {}
        }
        None
    }

    fn note(&mut self, source: &'static str, scene: &Scene<'_>) {
        let declared = self.declared.entry(scene.place.clone()).or_default();
        let now = scene.clock.elapsed();
        let limit = scene.after.map(limit);
        let current = declared.iter_mut().find(|entry| entry.source == source && entry.until.is_none());
        if current.as_ref().map(|entry| (entry.replicas, entry.most)) == limit {
            return;
        }
        if let Some(entry) = current {
            entry.until = Some(now);
        }
        declared.retain(|entry| entry.until.is_none_or(|until| until + GRACE > now));
        declared.extend(limit.map(|(replicas, most)| Declared { source, replicas, most, until: None }));
    }

    /// Forgets the disturbance of this Server if it is over.
    fn let_go(&mut self, scene: &Scene<'_>, place: &Place) {
        if let Some(uid) = self.edited.get(place) {
            let server = scene.view.get("servers", place).filter(|server| text(server, "/metadata/uid") == uid);
            if server.is_none_or(|server| scene.view.reaches(place) && is_as_declared(scene, server)) {
                self.edited.remove(place);
            }
        }
        let Some(disturbance) = self.disturbed.get_mut(place) else { return };
        let server = scene.view.get("servers", place);
        let server = server.filter(|server| text(server, "/metadata/uid") == disturbance.uid);
        let is_over = match server {
            None => true,
            Some(_) if !scene.view.reaches(place) => {
                disturbance.was_away = true;
                false
            }
            Some(server) => {
                let is_done = disturbance.was_away || is_as_declared(scene, server);
                is_done && !is_being_deleted(server) && server["spec"]["offline"] != true
            }
        };
        if is_over {
            self.disturbed.remove(place);
        }
    }

    /// A program begins to change or to remove a Server that serves.
    fn begin(&mut self, scene: &Scene<'_>) {
        let (Some(before), Some(after)) = (scene.before, scene.after) else { return };
        if !is_disturbed_by(before, after) || !serves_well(scene, scene.place, before) {
            return;
        }
        let uid = text(before, "/metadata/uid").to_owned();
        if !by_berth(scene) {
            self.edited.insert(scene.place.clone(), uid);
            return;
        }
        let is_edited = self.edited.contains_key(scene.place);
        if let Some((set, _)) = scene.view.set_of(scene.place, before).filter(|_| !is_edited) {
            self.disturbed
                .insert(scene.place.clone(), Disturbance { set, uid, since: scene.clock.elapsed(), was_away: false });
        }
    }

    /// Notes which Servers clients lose with this change although Berth does not disturb them.
    fn note_losses(&mut self, scene: &Scene<'_>) {
        let ready = |slice: Option<&Value>| slice.map(ready_endpoints).unwrap_or_default();
        for name in ready(scene.before).difference(&ready(scene.after)) {
            let place = scene.place.beside(name);
            if !self.disturbed.contains_key(&place) {
                self.lost.insert(place, scene.clock.elapsed());
            }
        }
    }

    /// Whether clients lose more Servers of a set with this change than they may.
    fn away(&self, scene: &Scene<'_>) -> Option<String> {
        let ready = |slice: Option<&Value>| slice.map(ready_endpoints).unwrap_or_default();
        let (before, after) = (ready(scene.before), ready(scene.after));
        let taken = before.difference(&after).map(|name| scene.place.beside(name));
        // Asked once for each set: the answer is the same for all of its Servers.
        let mut sets = BTreeSet::new();
        let first = taken.filter(|place| self.disturbed.get(place).is_some_and(|entry| sets.insert(entry.set.clone())));
        first.collect::<Vec<_>>().iter().find_map(|place| self.too_many(scene, place, &after))
    }

    fn too_many(&self, scene: &Scene<'_>, taken: &Place, ready: &BTreeSet<String>) -> Option<String> {
        let set = &self.disturbed.get(taken)?.set;
        // A Server is in one slice, as long as there are few of them.
        let is_reached = |place: &Place| {
            place.namespace == scene.place.namespace && ready.contains(&place.name)
                || scene.view.reaches_beside(scene.place, place)
        };
        let own = self.disturbed.iter().filter(|(_, entry)| entry.set == *set);
        let own = own.filter(|(place, _)| !is_reached(place) && !person_disturbs(scene.view, place));
        let (away, since): (Vec<&str>, Vec<Duration>) =
            own.map(|(place, entry)| (place.name.as_str(), entry.since)).unzip();
        let first = since.into_iter().min()?;
        // Who served when the first of these disturbances began, and was lost by a fault since, made it allowed; so does one of which
        // nobody has noticed yet that its machine is lost.
        let counts = |place: &Place, server: &Value| {
            is_reached(place) && (works(scene, server) || text(server, "/status/state") == "Ready")
                || !is_reached(place)
                    && !self.disturbed.contains_key(place)
                    && !person_disturbs(scene.view, place)
                    && self.lost.get(place).is_some_and(|at| *at >= first)
        };
        let (place, object) = (set, scene.view.get("vmreplicasets", set)?);
        let good = scene.view.servers_of(place, object).filter(|(place, server)| counts(place, server)).count();
        let total = good + away.len();
        let declared = self.declared.get(set)?;
        let allowed = declared.iter().map(|entry| entry.most + total.saturating_sub(entry.replicas)).max()?;
        (away.len() > allowed).then(|| {
            format!(
                "clients lose {}: Berth keeps {} of {set} from them, and {allowed} may be",
                taken.name,
                away.join(", ")
            )
        })
    }
}

/// `replicas`, and how many of them may be unavailable.
fn limit(object: &Value) -> (usize, usize) {
    let replicas = number(&object["spec"]["replicas"]).unwrap_or(1);
    let declared = &object["spec"]["updateStrategy"]["maxUnavailable"];
    let percent = declared.as_str().and_then(|text| text.strip_suffix('%')?.parse::<usize>().ok());
    let share = |percent: usize| if percent == 0 { 0 } else { (replicas * percent / 100).max(1) };
    let most = number(declared).unwrap_or_else(|| share(percent.unwrap_or(25)));
    (replicas, most)
}

fn number(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

/// Whether the change takes the Server out of service sooner or later.
fn is_disturbed_by(before: &Value, after: &Value) -> bool {
    let (old, new) = (&before["spec"], &after["spec"]);
    let is_retired = |server: &Value| is_being_deleted(server) || server["spec"]["offline"] == true;
    let is_changed = ["app", "packages", "prunePackages"].into_iter().any(|field| old[field] != new[field]);
    !is_retired(before) && (is_changed || is_retired(after))
}

/// Whether clients are sent to the Server and served there, and nothing that Berth may believe says otherwise: a
/// monitor-controller that was blind is a fault. A Server that is not Ready, or not any more, and that the panic floor keeps in
/// traffic counts as unavailable already.
fn serves_well(scene: &Scene<'_>, place: &Place, server: &Value) -> bool {
    let is_held_sick = text(server, "/status/health/state") == "Unhealthy"
        || server["status"]["reachability"]["reachable"] == false
        || text(server, "/status/state") != "Ready";
    let is_ones_own = server["spec"]["force"].is_null() && server["spec"]["retain"].is_null();
    is_ones_own && !is_held_sick && scene.view.reaches(place) && works(scene, server)
}

/// Whether the Server's machine and its application run.
fn works(scene: &Scene<'_>, server: &Value) -> bool {
    let uid = text(server, "/metadata/uid");
    let runs = scene.simulation.runs_at(text(server, "/status/machine/address")).is_some_and(|other| other == uid);
    runs && scene.machines.of_server(uid).state().apps.values().any(|app| app.running)
}

/// Whether a person has asked for the Server's end or forces it: then its absence is not Berth's doing.
fn person_disturbs(view: &View, place: &Place) -> bool {
    view.get("servers", place).is_none_or(|server| !server["spec"]["force"].is_null())
        || view.is_removed_by_person(place)
}

/// Whether what runs on the machine is what the Server declares.
fn is_as_declared(scene: &Scene<'_>, server: &Value) -> bool {
    let machine = scene.machines.of_server(text(server, "/metadata/uid")).state();
    let revision = text(server, "/spec/app/revision");
    // The digest tells a restart from the same code before it.
    let declared = Server::deserialize(server).ok();
    let digest = declared.and_then(|server| Some(server.spec.app.as_ref()?.digest(server.spec.app_port())));
    let runs = machine.apps.values().any(|app| {
        let is_same = app.digest.is_none() || app.digest == digest;
        app.running && app.revision.as_deref() == Some(revision) && is_same
    });
    let packages = server["spec"]["packages"].as_array().into_iter().flatten();
    let mut versions = packages.map(|package| text(package, "/version"));
    runs && versions.all(|version| machine.managed.values().any(|found| found.version.as_deref() == Some(version)))
}
