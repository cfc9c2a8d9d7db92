//! What goes wrong with programs and machines, once and at a certain moment.

use std::time::Duration;

use berth_core::{api::Server, identity::Identities};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::{Dice, Program, ProgramCopy, World, apiserver::Snapshot, link::Link, webhook_copies::Outage};

/// Something that goes wrong. Numbers choose among what there is at that moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mishap {
    /// A copy ends in the middle of what it does, and another one is started.
    CopyCrashes {
        /// Which copy.
        copy: usize,
    },
    /// Nothing reaches a copy or leaves it for a while. Then it goes on with its old knowledge.
    CopyHangs {
        /// Which copy.
        copy: usize,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// A copy and the API server do not reach each other for a while. The copy reaches everything else.
    CopyIsParted {
        /// Which copy.
        copy: usize,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// A copy is replaced, as in an upgrade: another one is started, then this one is asked to end.
    CopyIsReplaced {
        /// Which copy.
        copy: usize,
    },
    /// A newer copy writes a field that this build does not know.
    NewerCopyWrites {
        /// To which Server.
        server: usize,
    },
    /// The webhook is out of order for a while, so that the API server refuses the writes that it has to decide on.
    WebhookFails {
        /// Whether it does not answer; otherwise nothing listens.
        hangs: bool,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// Somebody deletes the Leases of all copies.
    LeasesAreDeleted,
    /// The API server fails to write Leases for a while.
    LeaseWritesFail {
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// Somebody saves etcd.
    EtcdIsSaved,
    /// Somebody restores etcd from the last save, if there is one. The person declares the fleet again afterwards.
    EtcdIsRestored {
        /// Whether its revisions go on, and all copies of programs, too. Otherwise its revisions go back, and all copies are started
        /// anew, as Kubernetes recommends.
        bumps: bool,
    },
    /// A machine ends, and its provider says so.
    MachineCrashes {
        /// Which machine.
        machine: usize,
    },
    /// A copy of monitor-controller loses its way to all machines, or gets it back.
    SightChanges {
        /// Which copy of monitor-controller.
        copy: usize,
        /// Whether it sees none.
        is_blind: bool,
    },
}

/// One of the kinds of mishaps, drawn by what and how often.
type Kind = (&'static [u64], fn(&Dice) -> Mishap);

/// The mean times between mishaps, in seconds, of which a run has one of each kind, or none.
const KINDS: [Kind; 10] = [
    (&[20, 60, 300], |dice| Mishap::CopyCrashes { copy: dice.between(0, 99) }),
    (&[60, 300], |dice| Mishap::CopyHangs { copy: dice.between(0, 99), for_ms: some_time(dice) }),
    (&[60, 300], |dice| Mishap::CopyIsParted { copy: dice.between(0, 99), for_ms: some_time(dice) }),
    (&[60, 300], |dice| Mishap::CopyIsReplaced { copy: dice.between(0, 99) }),
    (&[60, 300], |dice| Mishap::NewerCopyWrites { server: dice.between(0, 99) }),
    (&[120, 600], |dice| Mishap::WebhookFails { hangs: dice.chance(0.5), for_ms: some_time(dice) }),
    (&[60, 300], |_| Mishap::LeasesAreDeleted),
    (&[120, 600], |dice| Mishap::LeaseWritesFail { for_ms: some_time(dice) }),
    (&[120, 600], |dice| Mishap::MachineCrashes { machine: dice.between(0, 99) }),
    (&[60, 300], |dice| Mishap::SightChanges { copy: dice.between(0, 99), is_blind: dice.chance(0.5) }),
];

/// How long something lasts, in milliseconds: shorter and longer than what Berth waits for, which is 10 s for the API server, 30 s
/// for a Lease, and 90 s for a lock that is not renewed.
fn some_time(dice: &Dice) -> u64 {
    let longest = Duration::from_secs(dice.pick(&[10, 45, 120, 300]));
    dice.duration(Duration::from_secs(1), longest).as_millis().try_into().unwrap_or_default()
}

impl Mishap {
    /// Draws which mishaps there are until `end`, and when. A run draws which kinds exist at all.
    pub(crate) fn draw(dice: &Dice, end: Duration) -> Vec<(Duration, Self)> {
        let kinds = KINDS.into_iter().filter(|_| !dice.chance(0.5));
        kinds.flat_map(|(intervals, mishap)| dice.occurrences(intervals, end, mishap)).collect()
    }

    /// Draws when somebody saves etcd and restores it, before `end`.
    pub(crate) fn draw_restore(dice: &Dice, end: Duration) -> [(Duration, Self); 2] {
        let saved = dice.duration(Duration::ZERO, end);
        let restored = Self::EtcdIsRestored { bumps: dice.chance(0.5) };
        [(saved, Self::EtcdIsSaved), (dice.duration(saved, end), restored)]
    }

    /// What it is called in statistics.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::CopyCrashes { .. } => "copy crashes",
            Self::CopyHangs { .. } => "copy hangs",
            Self::CopyIsParted { .. } => "copy is parted",
            Self::CopyIsReplaced { .. } => "copy is replaced",
            Self::NewerCopyWrites { .. } => "newer copy writes",
            Self::WebhookFails { .. } => "webhook fails",
            Self::LeasesAreDeleted => "Leases are deleted",
            Self::LeaseWritesFail { .. } => "writes of Leases fail",
            Self::EtcdIsSaved => "etcd is saved",
            Self::EtcdIsRestored { .. } => "etcd is restored",
            Self::MachineCrashes { .. } => "machine crashes",
            Self::SightChanges { .. } => "sight changes",
        }
    }
}

/// Does this after so many milliseconds.
fn after(ms: u64, act: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        sleep(Duration::from_millis(ms)).await;
        act();
    });
}

async fn delete_all(leases: Api<Lease>) {
    // Whoever was faster has deleted it.
    for lease in leases.list(&ListParams::default()).await.into_iter().flatten() {
        let _ = leases.delete(lease.metadata.name.as_deref().unwrap_or_default(), &DeleteParams::default()).await;
    }
}

/// The copies that run.
pub(crate) struct Cast {
    copies: Vec<(Program, ProgramCopy)>,
    /// How many copies were started, which numbers them.
    started: usize,
    /// The last save of etcd.
    save: Option<Snapshot>,
}

impl Cast {
    pub(crate) fn new() -> Self {
        Self { copies: Vec::new(), started: 0, save: None }
    }

    pub(crate) fn start(&mut self, world: &World, program: Program) -> Result<(), String> {
        self.started += 1;
        let copy = world.start(program, &format!("copy-{}", self.started));
        self.copies.push((program, copy.map_err(|error| format!("{program:?} does not start: {error}"))?));
        Ok(())
    }

    /// Lets this happen.
    pub(crate) fn befall(&mut self, world: &World, mishap: &Mishap) -> Result<(), String> {
        match *mishap {
            Mishap::CopyCrashes { copy } => {
                let (program, copy) = self.copies.remove(copy % self.copies.len());
                world.note(format!("{program:?} crashes"));
                copy.crash();
                self.start(world, program)?;
            }
            Mishap::CopyHangs { copy, for_ms } => {
                let (program, link) = self.link(copy);
                world.note(format!("{program:?} hangs for {for_ms} ms"));
                link.set_hanging(true);
                after(for_ms, move || link.set_hanging(false));
            }
            Mishap::CopyIsParted { copy, for_ms } => {
                let (program, link) = self.link(copy);
                world.note(format!("{program:?} does not reach the API server for {for_ms} ms"));
                link.set_parted(true);
                after(for_ms, move || link.set_parted(false));
            }
            Mishap::CopyIsReplaced { copy } => {
                let (program, copy) = self.copies.remove(copy % self.copies.len());
                world.note(format!("{program:?} is replaced"));
                self.start(world, program)?;
                copy.terminate();
            }
            Mishap::NewerCopyWrites { server } => {
                world.note("a newer copy writes a field that is unknown here");
                tokio::spawn(world.future_fields.clone().write(world.person("newer"), server));
            }
            Mishap::WebhookFails { hangs, for_ms } => {
                let (outage, outages) = (if hangs { Outage::Hangs } else { Outage::IsDown }, world.outages.clone());
                world.note(format!("the webhook {outage:?} for {for_ms} ms"));
                outages.set(Some(outage));
                after(for_ms, move || outages.set(None));
            }
            Mishap::LeasesAreDeleted => {
                world.note("somebody deletes all Leases");
                let leases = Api::namespaced(world.person("bob"), &Identities::default().namespace);
                tokio::spawn(delete_all(leases));
            }
            Mishap::LeaseWritesFail { for_ms } => {
                world.note(format!("Leases cannot be written for {for_ms} ms"));
                let faults = world.faults.clone();
                faults.set_lease_writes_fail(true);
                after(for_ms, move || faults.set_lease_writes_fail(false));
            }
            Mishap::EtcdIsSaved => {
                world.note("etcd is saved");
                // A restored Server would take a younger machine at its former address for its own as long as nobody logs in there.
                world.simulation.give_new_addresses();
                self.save = Some(world.api.save());
            }
            Mishap::EtcdIsRestored { bumps } => self.restore(world, bumps)?,
            Mishap::MachineCrashes { machine } => {
                let machines = world.simulation.owners();
                if !machines.is_empty() {
                    let uid = &machines[machine % machines.len()];
                    world.note(format!("the machine of {uid} crashes"));
                    world.simulation.crash(uid);
                }
            }
            Mishap::SightChanges { copy, is_blind } => {
                let monitors: Vec<_> = self.copies_of(Program::MonitorController).collect();
                world.note(format!("a copy of monitor-controller {}", if is_blind { "is blind" } else { "sees" }));
                monitors[copy % monitors.len()].set_blind(is_blind);
            }
        }
        Ok(())
    }

    fn restore(&mut self, world: &World, bumps: bool) -> Result<(), String> {
        let Some(save) = &self.save else { return Ok(()) };
        let mut forgotten = world.api.restore(save, bumps, "servers");
        world.note(format!("etcd is restored, and forgets the Servers {forgotten:?}; revisions go on: {bumps}"));
        forgotten.extend(without_machines(world));
        world.findings.note_restore(forgotten);
        world.court.note_restore(&world.api);
        world.future_fields.forget();
        if !bumps {
            for (program, copy) in std::mem::take(&mut self.copies) {
                copy.crash();
                self.start(world, program)?;
            }
        }
        Ok(())
    }

    /// Ends what lasts.
    pub(crate) fn recover(&self, world: &World) {
        world.outages.set(None);
        self.copies.iter().for_each(|(_, copy)| copy.recover());
    }

    fn link(&self, copy: usize) -> (Program, Link) {
        let (program, copy) = &self.copies[copy % self.copies.len()];
        (*program, copy.link().clone())
    }

    fn copies_of(&self, wanted: Program) -> impl Iterator<Item = &ProgramCopy> {
        self.copies.iter().filter(move |(program, _)| *program == wanted).map(|(_, copy)| copy)
    }
}

/// The UIDs of Servers that know of no machine. They may have had one before etcd was restored.
fn without_machines(world: &World) -> impl Iterator<Item = String> {
    let servers: Vec<Server> = world.api.objects("servers");
    let knows_none = |server: &Server| server.status.as_ref().is_none_or(|status| status.machine.is_none());
    servers.into_iter().filter(knows_none).map(|server| server.uid().to_owned())
}
