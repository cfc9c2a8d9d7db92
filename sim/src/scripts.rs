//! How scripts go on the machines of the world, and the judges of what they change.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use berth_machine::fake::{ChangeMoment, FakeMachine, FakeState, LONGEST_DYING, ScriptCourse, ScriptPace, ScriptWork};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    ApiServer, Dice, Judge,
    faults::ActiveFaults,
    findings::{Findings, is_reached},
    judges::{court::Court, scene::Deed},
    troubles::Troubles,
};

/// The longest that a slow script takes. A change may take ten minutes.
const SLOWEST: Duration = Duration::from_mins(8);
/// How much longer a script may live than its watchdog lets it: clocks are read after what they measure.
const SLACK: Duration = Duration::from_millis(100);

/// Where scripts run: what decides how they go, and who judges. Clones share it.
#[derive(Clone)]
pub(crate) struct ScriptStage {
    pub(crate) api: ApiServer,
    pub(crate) findings: Findings,
    pub(crate) court: Court,
    pub(crate) dice: Dice,
    pub(crate) faults: ActiveFaults,
    pub(crate) troubles: Troubles,
    /// The scripts that are between their first change and their last one, by the UID of the machine's Server.
    pub(crate) at_work: Arc<Mutex<BTreeMap<String, Weak<()>>>>,
}

/// One script on a machine.
pub(crate) struct Script {
    pub(crate) stage: ScriptStage,
    /// The Server's UID, and namespace/name.
    pub(crate) uid: String,
    pub(crate) server: String,
    pub(crate) machine: FakeMachine,
    /// When it was sent.
    pub(crate) begun: Instant,
    /// Who sent it, as in a lock.
    pub(crate) holder: String,
    pub(crate) client: Mutex<Client>,
    /// Exists as long as the script runs.
    pub(crate) life: Arc<()>,
}

/// What became of the one who waits for a script.
#[derive(Clone, Copy)]
pub(crate) enum Client {
    Waits,
    /// It is gone, and the machine was told.
    IsGone(Instant),
    /// It is gone, and the network is silent about it.
    IsGoneSilently,
}

/// Without times, which differ from run to run.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waits => "its client waits",
            Self::IsGone(_) => "its client is gone",
            Self::IsGoneSilently => "its client is gone, and the network is silent about it",
        })
    }
}

impl ScriptCourse for Script {
    fn pace(&self, work: ScriptWork) -> ScriptPace {
        let ScriptStage { dice, faults, troubles, .. } = &self.stage;
        let faults = &faults.now().machines;
        if faults.script_time.is_zero() {
            return ScriptPace::default();
        }
        let is_slow = work != ScriptWork::Reads && dice.chance(faults.slow_scripts);
        let longest = match work {
            _ if is_slow => SLOWEST,
            ScriptWork::Reads => faults.script_time / 10,
            ScriptWork::FindsNothingToDo | ScriptWork::Stages | ScriptWork::Changes => faults.script_time,
        };
        let before = dice.duration(Duration::ZERO, longest / 2);
        let during = dice.duration(Duration::ZERO, longest / 2);
        if work != ScriptWork::Reads {
            self.note(format!("{work:?}, takes {before:?} and {during:?}"));
        }
        let is_stubborn = dice.chance(faults.stubborn_scripts);
        ScriptPace {
            before,
            during,
            dying: if is_stubborn { dice.duration(Duration::ZERO, LONGEST_DYING) } else { Duration::ZERO },
            fails: troubles.has_full_disk(&self.uid).then(|| "No space left on device".to_owned()),
        }
    }

    fn changed(&self, before: &FakeState, moment: ChangeMoment) {
        if moment == ChangeMoment::First {
            self.stage.troubles.remember(&self.uid, before.clone());
        }
        self.note(format!("{moment:?} change, {:?}", self.client.lock()));
        self.judge_company(moment);
        // What a restored etcd has forgotten goes on.
        if self.stage.findings.was_restored_since(self.begun) {
            return;
        }
        self.judge_traffic();
        let deed = Deed {
            server: &self.server,
            uid: &self.uid,
            holder: &self.holder,
            age: self.begun.elapsed(),
            ends: self.ends(),
            before,
            after: &self.machine.state(),
        };
        self.stage.court.see_work(&deed);
    }
}

impl Script {
    /// Adds a line to the log.
    pub(crate) fn note(&self, what: impl std::fmt::Display) {
        self.stage.api.note(&format!("{}: script on {}: {what}", self.holder, self.server));
    }

    fn report(&self, judge: Judge, what: &str) {
        let at = self.stage.api.elapsed().as_millis();
        self.stage.findings.report(judge, format!("{at} ms: {} {what}", self.server));
    }

    /// No machine is changed while clients are sent to it (guarantee 2), unless a person has said that it is ready although a
    /// script went on. Work that begins after that is judged as work against the person's decision.
    fn judge_traffic(&self) {
        if is_reached(&self.stage.api, &self.server) && !self.stage.court.is_forced_ready(&self.server) {
            self.report(Judge::Traffic, "was changed while clients were sent to it");
        }
    }

    /// No two scripts change one machine at the same time.
    fn judge_company(&self, moment: ChangeMoment) {
        let mut at_work = self.stage.at_work.lock();
        let other = at_work.get(&self.uid).and_then(Weak::upgrade).filter(|life| !Arc::ptr_eq(life, &self.life));
        match moment {
            ChangeMoment::First => at_work.insert(self.uid.clone(), Arc::downgrade(&self.life)),
            ChangeMoment::Last => at_work.remove(&self.uid),
        };
        if other.is_some() {
            self.report(Judge::Scripts, "was changed by two scripts at the same time");
        }
    }

    /// Whether it may go on without the Server's lock: in the seconds that its watchdog needs, or while the network does not say
    /// that its client is gone.
    fn ends(&self) -> bool {
        match *self.client.lock() {
            Client::Waits => false,
            // On a machine that hangs the watchdog stands still, too.
            Client::IsGone(since) => {
                since.elapsed() <= LONGEST_DYING + SLACK || self.stage.troubles.has_hung(&self.uid)
            }
            Client::IsGoneSilently => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_iaas::simulated::{SimulatedMachines, Simulation};
    use tokio::time::advance;

    use super::*;
    use crate::{Faults, Finding, SimClock};

    fn stage() -> ScriptStage {
        let (clock, findings, machines) = (SimClock::start(), Findings::default(), SimulatedMachines::default());
        let simulation = Simulation::new(machines.clone());
        ScriptStage {
            api: ApiServer::new(clock, None).unwrap(),
            findings: findings.clone(),
            court: Court::new(findings, simulation, machines, clock),
            dice: Dice::new(1),
            faults: ActiveFaults::new(Faults::default()),
            troubles: Troubles::default(),
            at_work: Arc::default(),
        }
    }

    fn script(stage: &ScriptStage, client: Client) -> Script {
        Script {
            stage: stage.clone(),
            uid: "u".into(),
            server: "default/web-0".into(),
            machine: FakeMachine::new(),
            begun: Instant::now(),
            holder: "replicaset-controller/copy-1".into(),
            client: Mutex::new(client),
            life: Arc::default(),
        }
    }

    fn change(script: &Script, moment: ChangeMoment) -> Option<Finding> {
        script.changed(&FakeState::default(), moment);
        script.stage.findings.first()
    }

    #[tokio::test(start_paused = true)]
    async fn two_scripts_that_change_a_machine_at_the_same_time_are_found() {
        let stage = stage();
        let ended = script(&stage, Client::IsGoneSilently);
        assert_eq!(change(&ended, ChangeMoment::First), None);
        // Its watchdog has ended it.
        drop(ended);
        let (one, other) = (script(&stage, Client::IsGoneSilently), script(&stage, Client::IsGoneSilently));
        assert_eq!(change(&one, ChangeMoment::First), None);
        assert_eq!(change(&one, ChangeMoment::Last), None);
        assert_eq!(change(&other, ChangeMoment::First), None);
        let found = change(&one, ChangeMoment::First).unwrap();
        assert!(found.text.contains("two scripts at the same time"), "{found}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_without_the_lock_is_found_unless_the_script_is_about_to_end() {
        let stage = stage();
        // There is no such Server, and so nobody has its lock.
        assert_eq!(change(&script(&stage, Client::IsGoneSilently), ChangeMoment::First), None);
        let leaves = script(&stage, Client::IsGone(Instant::now()));
        advance(LONGEST_DYING).await;
        assert_eq!(change(&leaves, ChangeMoment::First), None);
        advance(SLACK * 2).await;
        let found = change(&leaves, ChangeMoment::Last).unwrap();
        assert_eq!(found.judge, Judge::Lock, "{found}");
        let stage = self::stage();
        let found = change(&script(&stage, Client::Waits), ChangeMoment::First).unwrap();
        assert!(found.text.contains("changed the machine of default/web-0, which is gone"), "{found}");
    }
}
