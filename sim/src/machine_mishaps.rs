//! What goes wrong with machines, with their provider, and with the ways to them, once and at a certain moment.

use std::time::Duration;

use berth_machine::fake::{FakeMachine, FakeState};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::{Dice, World, troubles::ProviderLie};

/// Something that goes wrong with a machine or with the provider. Numbers choose among what there is at that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum MachineMishap {
    /// Nothing on a machine goes on for a while, and it answers nothing. Its provider says that it runs.
    MachineHangs {
        /// Which machine.
        machine: usize,
        /// For how long.
        seconds: u64,
    },
    /// A machine reboots, and nobody has asked for it.
    MachineReboots {
        /// Which machine.
        machine: usize,
        /// For how long it does not run.
        #[serde(default)]
        seconds: u64,
    },
    /// A machine reboots with an older disk.
    MachineIsRestored {
        /// Which machine.
        machine: usize,
        /// Which of the disks that it had.
        disk: usize,
        /// For how long it does not run.
        #[serde(default)]
        seconds: u64,
    },
    /// An application ends again and again for a while, as often as its supervisor starts it.
    AppDies {
        /// On which machine.
        machine: usize,
        /// For how long.
        seconds: u64,
    },
    /// An application answers with errors for a while.
    AppIsSick {
        /// On which machine.
        machine: usize,
        /// For how long.
        seconds: u64,
    },
    /// What would be written on a machine fails for a while.
    DiskIsFull {
        /// On which machine.
        machine: usize,
        /// For how long.
        seconds: u64,
    },
    /// Somebody changes a machine by hand.
    SomebodyChanges {
        /// Which machine.
        machine: usize,
        /// What.
        what: HandMade,
    },
    /// The provider destroys a machine, and nobody has asked for it.
    MachineVanishes {
        /// Which machine.
        machine: usize,
        /// Whether the next machine gets its address.
        #[serde(default)]
        frees_address: bool,
    },
    /// A copy of replicaset-controller or deployment-controller loses its way to all machines for a while.
    CopyLosesMachines {
        /// Which copy.
        copy: usize,
        /// For how long.
        seconds: u64,
    },
    /// A copy of replicaset-controller loses its way to the provider for a while.
    CopyLosesProvider {
        /// Which copy.
        copy: usize,
        /// For how long.
        seconds: u64,
    },
    /// No call of the provider is answered for a while.
    ProviderIsGone {
        /// For how long.
        seconds: u64,
    },
    /// The provider has no room for more machines for a while.
    ProviderIsFull {
        /// For how long.
        seconds: u64,
    },
    /// The answers of the provider are late for a while.
    ProviderIsSlow {
        /// For how long.
        seconds: u64,
        /// By how much at most, in seconds.
        late: u64,
    },
    /// The provider says once that a machine does not exist.
    ProviderForgetsMachine,
    /// The provider says once that there are no machines.
    ProviderForgetsAll,
    /// Lists of the provider do not change for a while.
    ProviderListIsBehind {
        /// For how long.
        seconds: u64,
    },
}

/// What somebody changes on a machine by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HandMade {
    /// Another version of a package is installed.
    OtherVersion,
    /// A package is removed.
    NoPackage,
    /// The files of the application are changed.
    OtherCode,
}

/// One of the kinds of mishaps, drawn by what and how often.
type Kind = (&'static [u64], fn(&Dice) -> MachineMishap);

/// What happens with machines is noticed in the end, but for two things that Berth does not repair without a person, and that are not
/// drawn therefore: the address of a machine that vanished is given to the next one before its Server was given up, and a machine
/// comes back with an older disk so fast that nobody saw it was away.
///
/// The mean times between mishaps, in seconds, of which a run has one of each kind, or none.
const KINDS: [Kind; 16] = [
    (&[120, 600], |d| MachineMishap::MachineHangs { machine: which(d), seconds: lasts(d, 600) }),
    (&[60, 300], |d| MachineMishap::MachineReboots { machine: which(d), seconds: d.pick(&[0, 3, 10, 60]) }),
    (&[120, 600], |d| MachineMishap::MachineIsRestored {
        machine: which(d),
        disk: which(d),
        seconds: d.pick(&[15, 60]),
    }),
    (&[60, 300], |d| MachineMishap::AppDies { machine: which(d), seconds: lasts(d, 300) }),
    (&[60, 300], |d| MachineMishap::AppIsSick { machine: which(d), seconds: lasts(d, 300) }),
    (&[60, 300], |d| MachineMishap::DiskIsFull { machine: which(d), seconds: lasts(d, 300) }),
    (&[60, 300], |d| MachineMishap::SomebodyChanges { machine: which(d), what: d.pick(&HAND_MADE) }),
    (&[120, 600], |d| MachineMishap::MachineVanishes { machine: which(d), frees_address: false }),
    (&[60, 300], |d| MachineMishap::CopyLosesMachines { copy: which(d), seconds: lasts(d, 300) }),
    (&[60, 300], |d| MachineMishap::CopyLosesProvider { copy: which(d), seconds: lasts(d, 300) }),
    (&[120, 600], |d| MachineMishap::ProviderIsGone { seconds: lasts(d, 300) }),
    (&[120, 600], |d| MachineMishap::ProviderIsFull { seconds: lasts(d, 300) }),
    (&[120, 600], |d| MachineMishap::ProviderIsSlow { seconds: lasts(d, 300), late: d.pick(&[5, 60, 360]) }),
    (&[20, 120], |_| MachineMishap::ProviderForgetsMachine),
    (&[60, 300], |_| MachineMishap::ProviderForgetsAll),
    (&[60, 300], |d| MachineMishap::ProviderListIsBehind { seconds: lasts(d, 900) }),
];

const HAND_MADE: [HandMade; 3] = [HandMade::OtherVersion, HandMade::NoPackage, HandMade::OtherCode];

/// In how many runs a kind exists. There are many kinds: with half of them in each run nothing would ever be quiet.
const SHARE: f64 = 0.2;

fn which(dice: &Dice) -> usize {
    dice.between(0, 99)
}

/// How long something lasts: mostly a short time.
fn lasts(dice: &Dice, most: u64) -> u64 {
    let most = dice.pick(&[most / 10, most / 3, most]);
    dice.duration(Duration::from_secs(1), Duration::from_secs(most)).as_secs()
}

impl MachineMishap {
    /// Draws which mishaps there are until `end`, and when. A run draws which kinds exist at all.
    pub(crate) fn draw(dice: &Dice, end: Duration) -> Vec<(Duration, Self)> {
        let kinds = KINDS.into_iter().filter(|_| dice.chance(SHARE));
        kinds.flat_map(|(intervals, mishap)| dice.occurrences(intervals, end, mishap)).collect()
    }

    /// What it is called in statistics.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::MachineHangs { .. } => "machine hangs",
            Self::MachineReboots { .. } => "machine reboots",
            Self::MachineIsRestored { .. } => "machine is restored",
            Self::AppDies { .. } => "app dies",
            Self::AppIsSick { .. } => "app is sick",
            Self::DiskIsFull { .. } => "disk is full",
            Self::SomebodyChanges { .. } => "somebody changes a machine",
            Self::MachineVanishes { .. } => "machine vanishes",
            Self::CopyLosesMachines { .. } => "copy loses machines",
            Self::CopyLosesProvider { .. } => "copy loses provider",
            Self::ProviderIsGone { .. } => "provider is gone",
            Self::ProviderIsFull { .. } => "provider is full",
            Self::ProviderIsSlow { .. } => "provider is slow",
            Self::ProviderForgetsMachine => "provider forgets a machine",
            Self::ProviderForgetsAll => "provider forgets all",
            Self::ProviderListIsBehind { .. } => "provider's list is behind",
        }
    }

    /// Lets it happen.
    pub(crate) fn befall(&self, world: &World) {
        let machine = |number: usize| {
            let uids = world.simulation.owners();
            let uid = uids.get(number % uids.len().max(1))?.clone();
            let fake = world.machines.of_server(&uid);
            Some((uid, fake))
        };
        let on = match *self {
            Self::MachineHangs { machine: number, .. }
            | Self::MachineReboots { machine: number, .. }
            | Self::MachineIsRestored { machine: number, .. }
            | Self::AppDies { machine: number, .. }
            | Self::AppIsSick { machine: number, .. }
            | Self::DiskIsFull { machine: number, .. }
            | Self::SomebodyChanges { machine: number, .. }
            | Self::MachineVanishes { machine: number, .. } => machine(number),
            _ => {
                let what = self.befall_others(world);
                world.note(format!("{self:?} {what}"));
                return;
            }
        };
        let Some((uid, fake)) = on else { return };
        world.note(format!("{self:?}: that of {uid}"));
        self.befall_machine(world, &uid, &fake);
    }

    fn befall_machine(&self, world: &World, uid: &str, machine: &FakeMachine) {
        let until = |seconds: u64| Instant::now() + Duration::from_secs(seconds);
        match *self {
            Self::MachineHangs { seconds, .. } => {
                world.troubles.hang(uid);
                machine.freeze(true);
                let machine = machine.clone();
                later(seconds, move || machine.freeze(false));
            }
            Self::MachineReboots { seconds, .. } => world.simulation.reboot(uid, Duration::from_secs(seconds)),
            Self::MachineIsRestored { disk, seconds, .. } => {
                let old = world.troubles.past(uid, disk);
                world.simulation.reboot(uid, Duration::from_secs(seconds));
                machine.change(|state| *state = FakeState { boot: state.boot, changes: state.changes, ..old });
            }
            Self::AppDies { seconds, .. } => {
                stop_apps(machine);
                let machine = machine.clone();
                later(seconds, move || start_apps(&machine));
            }
            Self::AppIsSick { seconds, .. } => world.troubles.make_sick(uid, until(seconds)),
            Self::DiskIsFull { seconds, .. } => world.troubles.fill_disk(uid, until(seconds)),
            Self::SomebodyChanges { what, .. } => change_by_hand(machine, what),
            Self::MachineVanishes { frees_address, .. } => {
                world.court.note_loss(uid);
                world.simulation.vanish(uid, frees_address);
            }
            _ => {}
        }
    }

    /// Lets happen what concerns no machine alone. Returns what it concerns.
    fn befall_others(&self, world: &World) -> String {
        let until = |seconds: u64| Instant::now() + Duration::from_secs(seconds);
        let troubles = &world.troubles;
        match *self {
            Self::CopyLosesMachines { copy, seconds } => {
                return world.ways.lose_machines(copy, until(seconds)).unwrap_or_default();
            }
            Self::CopyLosesProvider { copy, seconds } => {
                return world.ways.lose_provider(copy, until(seconds)).unwrap_or_default();
            }
            Self::ProviderIsGone { seconds } => troubles.take_provider_away(until(seconds)),
            Self::ProviderIsFull { seconds } => troubles.fill_provider(until(seconds)),
            Self::ProviderIsSlow { seconds, late } => {
                troubles.slow_provider(until(seconds), Duration::from_secs(late));
            }
            Self::ProviderForgetsMachine => troubles.lie_once(ProviderLie::NoMachine),
            Self::ProviderForgetsAll => troubles.lie_once(ProviderLie::EmptyList),
            Self::ProviderListIsBehind { seconds } => troubles.delay_lists(until(seconds)),
            _ => {}
        }
        String::new()
    }
}

/// Ends everything that lasts on machines, at their provider, and on the ways to them.
pub(crate) fn recover(world: &World) {
    world.troubles.end();
    world.ways.recover();
    for uid in world.simulation.owners() {
        let machine = world.machines.of_server(&uid);
        machine.freeze(false);
        start_apps(&machine);
    }
}

fn later(seconds: u64, act: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        sleep(Duration::from_secs(seconds)).await;
        act();
    });
}

fn stop_apps(machine: &FakeMachine) {
    machine.change(|state| state.apps.values_mut().for_each(|app| app.running = false));
}

/// A supervisor starts what was started before. What was stopped by a deployment has no process id.
fn start_apps(machine: &FakeMachine) {
    machine.change(|state| {
        for app in state.apps.values_mut().filter(|app| app.pid.is_some()) {
            app.running = true;
        }
    });
}

fn change_by_hand(machine: &FakeMachine, what: HandMade) {
    machine.change(|state| match what {
        HandMade::OtherVersion => {
            let packages = state.managed.values_mut().filter(|package| package.version.is_some());
            packages.for_each(|package| package.version = Some("by-hand".to_owned()));
        }
        HandMade::NoPackage => {
            state.managed.values_mut().for_each(|package| package.version = None);
        }
        HandMade::OtherCode => state.apps.values_mut().for_each(|app| app.digest = None),
    });
}
