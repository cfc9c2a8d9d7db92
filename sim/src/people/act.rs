//! What people can do, and how it is drawn.

use berth_core::api::{ApprovalDecision, FailoverAction, GatePoint, RolloutAction, State};
use serde::{Deserialize, Serialize};

use super::{
    bad_input::BadInput,
    fleet::{FIRST, PLANS, draw_gates},
};
use crate::Dice;

/// Something that a person does. Numbers choose among what there is at that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Act {
    /// Declares how many Servers there should be.
    Scale {
        /// How many.
        replicas: usize,
    },
    /// Declares which code should run.
    DeclareCode {
        /// Its revision.
        revision: String,
    },
    /// Declares which version of a package there should be.
    DeclarePackage {
        /// The version.
        version: String,
    },
    /// Declares another size of the machines, where they are replaced.
    DeclareFlavor {
        /// The size.
        flavor: String,
    },
    /// Stops the roll-outs, or lets them go on.
    Pause {
        /// Whether they stop.
        paused: bool,
    },
    /// Declares how many Servers keep what they have.
    Partition {
        /// How many.
        partition: usize,
    },
    /// Declares how many Servers may be unavailable.
    MaxUnavailable {
        /// How many.
        most: usize,
    },
    /// Declares which gates there are.
    Gates {
        /// All of them.
        gates: Vec<GatePoint>,
    },
    /// Declares what is done about machines that are out of reach.
    Failover {
        /// What.
        action: FailoverAction,
    },
    /// Deletes a Server.
    DeleteServer {
        /// Which one.
        server: usize,
    },
    /// Asks for another attempt at whatever has failed.
    RetryAll,
    /// Forces a Server into a state.
    Force {
        /// Which one.
        server: usize,
        /// Into which.
        state: State,
    },
    /// Forces all Servers into a state.
    ForceAll {
        /// Into which.
        state: State,
    },
    /// Ends the force of a Server.
    ClearForce {
        /// Which one.
        server: usize,
    },
    /// Declares a Server offline.
    TakeOffline {
        /// Which one.
        server: usize,
    },
    /// Keeps a machine for diagnosis, or gives it back.
    Retain {
        /// Which one.
        server: usize,
        /// Whether it is kept.
        is_kept: bool,
    },
    /// Asks for a reboot.
    Reboot {
        /// Of which Server.
        server: usize,
    },
    /// Changes the labels of a Server, also those by which its set knows it.
    Label {
        /// Which one.
        server: usize,
    },
    /// Writes another package into all Servers at once, past their set.
    EditAll {
        /// Its version.
        version: String,
    },
    /// Decides on the gate at which a Server stands.
    Decide {
        /// Which one of those that stand at a gate.
        server: usize,
        /// How.
        decision: ApprovalDecision,
    },
    /// Decides on a gate of all Servers of a set.
    DecideAll {
        /// Which gate.
        gate: GatePoint,
        /// How.
        decision: ApprovalDecision,
        /// Whether it names an older generation of the set, so that it must have no effect.
        is_old: bool,
    },
    /// Deletes the set, which its VMDeployment has to make anew.
    DeleteSet,
    /// Deletes the Service.
    DeleteService,
    /// Deletes what declares the fleet.
    DeleteFleet,
    /// Declares anew what was deleted.
    Redeclare,
    /// Writes other parameters into the class of machines.
    EditClass {
        /// How long machines boot.
        boot_ms: u64,
    },
    /// Writes an earlier declaration of the fleet.
    Restore {
        /// How many declarations ago.
        ago: usize,
        /// Whether it is sent with the version that it had, so that it must be refused.
        has_version: bool,
    },
    /// Declares in which steps code is rolled out.
    Steps {
        /// The number of the plan in the list of `fleet.rs`.
        plan: usize,
    },
    /// Declares what follows when the roll-out of code fails.
    OnFailure {
        /// Whether it goes back, which it does at the first failure then.
        rolls_back: bool,
    },
    /// Stops the roll-out of code alone, or lets it go on.
    PauseCode {
        /// Whether it stops.
        paused: bool,
    },
    /// Declares whether zones get new code one after the other, and labels all Servers with their zones.
    Zones {
        /// Whether they do.
        one_at_a_time: bool,
    },
    /// Makes a request of a roll-out.
    Request {
        /// What is requested.
        action: RolloutAction,
    },
    /// Sends something that must be refused.
    Bad {
        /// What.
        input: BadInput,
    },
}

/// Draws one act. The number makes revisions new.
type Draw = fn(&Dice, usize) -> Act;

/// The subjects of acts. A run draws which of them exist at all, and then acts of these.
const SUBJECTS: [&[Draw]; 13] = [
    &[|dice, _| Act::Scale { replicas: dice.between(1, Act::MOST_SERVERS) }],
    &[
        // Back to the first code, sometimes.
        |dice, number| Act::DeclareCode {
            revision: if dice.chance(0.3) { FIRST.to_owned() } else { format!("r{number}") },
        },
    ],
    &[|_, number| Act::DeclarePackage { version: number.to_string() }],
    &[|dice, _| Act::DeleteServer { server: dice.between(0, 99) }, |_, _| Act::RetryAll],
    &[
        |dice, _| Act::Pause { paused: dice.chance(0.6) },
        |dice, _| Act::Partition { partition: dice.between(0, 3) },
        |dice, _| Act::MaxUnavailable { most: dice.between(0, 3) },
        |dice, number| Act::DeclareFlavor { flavor: format!("f{}", if dice.chance(0.3) { 0 } else { number }) },
        |dice, _| Act::Failover {
            action: dice.pick(&[FailoverAction::Replace, FailoverAction::AskHuman, FailoverAction::Shrink]),
        },
    ],
    &[
        |dice, _| Act::Gates { gates: draw_gates(dice) },
        decide,
        decide,
        decide,
        |dice, _| Act::DecideAll {
            gate: dice.pick(&GatePoint::ALL),
            decision: decision(dice),
            is_old: dice.chance(0.3),
        },
    ],
    &[
        |dice, _| Act::Force { server: dice.between(0, 99), state: state(dice) },
        |dice, _| Act::Force { server: dice.between(0, 99), state: state(dice) },
        |dice, _| Act::ForceAll { state: state(dice) },
        |dice, _| Act::ClearForce { server: dice.between(0, 99) },
    ],
    &[
        |dice, _| Act::TakeOffline { server: dice.between(0, 99) },
        |dice, _| Act::Retain { server: dice.between(0, 99), is_kept: dice.chance(0.6) },
        |dice, _| Act::Reboot { server: dice.between(0, 99) },
    ],
    &[|dice, _| Act::Label { server: dice.between(0, 99) }, |_, number| Act::EditAll { version: format!("9{number}") }],
    &[
        |_, _| Act::DeleteSet,
        |_, _| Act::DeleteService,
        |_, _| Act::DeleteFleet,
        |_, _| Act::Redeclare,
        |_, _| Act::Redeclare,
    ],
    &[
        |dice, _| Act::EditClass { boot_ms: dice.pick(&[100, 5_000, 60_000]) },
        |dice, _| Act::Restore { ago: dice.between(1, 4), has_version: dice.chance(0.3) },
    ],
    &[|dice, _| Act::Bad { input: dice.pick(&BadInput::ALL) }],
    &[
        |dice, _| Act::Steps { plan: dice.between(0, PLANS.len() - 1) },
        |dice, _| Act::OnFailure { rolls_back: dice.chance(0.7) },
        |dice, _| Act::PauseCode { paused: dice.chance(0.5) },
        |dice, _| Act::Zones { one_at_a_time: dice.chance(0.7) },
        // New code is what all of these are about.
        |_, number| Act::DeclareCode { revision: format!("r{number}") },
        request,
        request,
    ],
];

/// The subjects that most runs have.
const USUAL: usize = 4;

impl Act {
    /// The most Servers that people want of a fleet.
    pub(crate) const MOST_SERVERS: usize = 6;

    /// Draws which subjects exist in a run.
    pub(crate) fn draw_subjects(dice: &Dice) -> Vec<usize> {
        let drawn: Vec<usize> =
            (0..SUBJECTS.len()).filter(|subject| dice.chance(if *subject < USUAL { 0.7 } else { 0.3 })).collect();
        if drawn.is_empty() { (0..USUAL).collect() } else { drawn }
    }

    /// The subjects of a run in which little else happens.
    pub(crate) fn usual_subjects() -> Vec<usize> {
        (0..USUAL).collect()
    }

    /// Draws what a person does.
    pub(crate) fn draw(dice: &Dice, number: usize, subjects: &[usize]) -> Self {
        let acts = SUBJECTS[dice.pick(subjects)];
        dice.pick(acts)(dice, number)
    }
}

fn decide(dice: &Dice, _: usize) -> Act {
    Act::Decide { server: dice.between(0, 99), decision: decision(dice) }
}

fn request(dice: &Dice, _: usize) -> Act {
    const ACTIONS: [RolloutAction; 8] = [
        RolloutAction::Promote,
        RolloutAction::Promote,
        RolloutAction::PromoteFull,
        RolloutAction::Abort,
        RolloutAction::Retry,
        RolloutAction::Undo,
        RolloutAction::Restart,
        RolloutAction::Restart,
    ];
    Act::Request { action: dice.pick(&ACTIONS) }
}

fn decision(dice: &Dice) -> ApprovalDecision {
    if dice.chance(0.7) { ApprovalDecision::Approve } else { ApprovalDecision::Refuse }
}

fn state(dice: &Dice) -> State {
    dice.pick(&[State::Initializing, State::Deploying, State::Ready, State::Unknown, State::Offline])
}
