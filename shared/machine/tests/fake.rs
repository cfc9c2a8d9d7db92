//! The contract of operations on a machine in memory, in a time of its own.

#[expect(dead_code, reason = "a machine in memory has no shell, and passes the contract of operations only")]
mod contract;

use std::{sync::Arc, time::Duration};

use berth_machine::{
    Machine, MachineChange, MachineError, Output, SshPhase,
    fake::{ChangeMoment, FakeMachine, FakeState, LONGEST_DYING, ScriptCourse, ScriptPace, ScriptWork},
    inventory,
    script_package::{self, ScriptPackage},
    staging::{StagedRelease, stage_app},
};
use bytes::Bytes;
use contract::operations::{self, Workshop};
use futures::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

#[derive(Clone, Default)]
struct FakeWorkshop {
    machine: FakeMachine,
    /// How long the machine does not see that a client gave up.
    silence: Option<Duration>,
    /// How long the slow installation takes.
    slow: Arc<Mutex<Duration>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    has_begun: bool,
    has_overlapped: bool,
    /// Whether the slow installation is between its changes.
    at_work: Option<Arc<()>>,
}

/// A script of the slow package or of another one.
struct Course {
    workshop: FakeWorkshop,
    is_slow: bool,
    runs: Arc<()>,
}

impl ScriptCourse for Course {
    fn pace(&self, work: ScriptWork) -> ScriptPace {
        if self.is_slow && work == ScriptWork::Changes {
            let during = *self.workshop.slow.lock();
            return ScriptPace { during, dying: LONGEST_DYING, ..ScriptPace::default() };
        }
        ScriptPace::default()
    }

    fn changed(&self, _: &FakeState, _: ChangeMoment) {
        let mut seen = self.workshop.seen.lock();
        if self.is_slow {
            seen.has_begun = true;
            seen.at_work = Some(self.runs.clone());
        } else {
            // A script that has ended has dropped its course.
            seen.has_overlapped |= seen.at_work.as_ref().is_some_and(|runs| Arc::strong_count(runs) > 1);
        }
    }
}

impl Machine for FakeWorkshop {
    fn exec<'a>(
        &'a self,
        script: &'a str,
        stdin: Option<Bytes>,
        limit: Duration,
    ) -> BoxFuture<'a, berth_machine::Result<Output>> {
        async move {
            let stdin = stdin.unwrap_or_default();
            let is_slow = String::from_utf8_lossy(&stdin).contains("NAME='slow'");
            let course = Course { workshop: self.clone(), is_slow, runs: Arc::default() };
            let mut process = self.machine.begin(script, &stdin, Arc::new(course));
            let address = || "fake:22".to_owned();
            match timeout(limit, process.output()).await {
                Ok(Some(output)) => output,
                Ok(None) => Err(MachineError::ConnectionLost { address: address(), reason: "ended".to_owned() }),
                Err(_) => {
                    if let Some(silence) = self.silence {
                        process.lose_silently(silence);
                    }
                    Err(MachineError::Timeout { address: address(), phase: SshPhase::Command, after: limit })
                }
            }
        }
        .boxed()
    }
}

fn package(name: String) -> ScriptPackage {
    ScriptPackage { name, version: "1".into(), check: "false".into(), install: "true".into(), remove: None }
}

impl Workshop for FakeWorkshop {
    fn machine(&self) -> &dyn Machine {
        self
    }

    fn slow(&self, time: Duration) -> ScriptPackage {
        *self.slow.lock() = time + Duration::from_secs(1);
        package("slow".to_owned())
    }

    fn quick(&self) -> ScriptPackage {
        package(format!("quick-{}", self.machine.state().changes))
    }

    async fn has_begun(&self) -> bool {
        self.seen.lock().has_begun
    }

    async fn is_done(&self) -> bool {
        self.machine.state().script_packages.contains_key("slow")
    }

    async fn has_overlapped(&self) -> bool {
        self.seen.lock().has_overlapped
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_ends_with_its_client_in_memory() {
    operations::end_with_their_client(&FakeWorkshop::default(), "opt/berth").await;
}

#[tokio::test(start_paused = true)]
async fn operations_wait_for_each_other_in_memory() {
    operations::wait_for_each_other(&FakeWorkshop::default(), "opt/berth").await;
}

/// A script goes on where the network does not say that its client is gone, until TCP gives up.
#[tokio::test(start_paused = true)]
async fn a_script_goes_on_as_long_as_the_network_is_silent() {
    for (silence, is_done) in [(Duration::from_secs(50), false), (Duration::from_mins(15), true)] {
        let workshop = FakeWorkshop { silence: Some(silence), ..FakeWorkshop::default() };
        let slow = workshop.slow(Duration::from_mins(1));
        let lost = script_package::install(&workshop, "opt/berth", &slow, Duration::from_secs(2)).await;
        assert!(matches!(lost, Err(MachineError::Timeout { .. })), "{lost:?}");
        let busy = inventory::read(&workshop, "opt/berth", &[], Duration::from_secs(2)).await;
        assert!(matches!(busy, Err(MachineError::Busy(_))), "{busy:?}");
        sleep(Duration::from_mins(2)).await;
        assert_eq!(workshop.is_done().await, is_done, "{silence:?}");
        inventory::read(&workshop, "opt/berth", &[], Duration::from_secs(2)).await.unwrap();
    }
}

/// What is ended in the middle is half done.
#[tokio::test(start_paused = true)]
async fn scripts_end_with_their_machine_and_stand_still_with_it() {
    let workshop = FakeWorkshop::default();
    let slow = workshop.slow(Duration::from_mins(1));
    let install = || script_package::install(&workshop, "opt/berth", &slow, Duration::from_mins(10));
    let reboot = async {
        sleep(Duration::from_secs(10)).await;
        workshop.machine.reboot();
    };
    let (ended, ()) = tokio::join!(install(), reboot);
    assert!(matches!(ended, Err(MachineError::ConnectionLost { .. })), "{ended:?}");
    sleep(Duration::from_mins(2)).await;
    assert!(!workshop.is_done().await);
    let start = Instant::now();
    let stand_still = async {
        workshop.machine.freeze(true);
        sleep(Duration::from_mins(5)).await;
        workshop.machine.freeze(false);
    };
    let (done, ()) = tokio::join!(install(), stand_still);
    assert_eq!(done, Ok(MachineChange::Done));
    assert!(start.elapsed() >= Duration::from_mins(5), "{:?}", start.elapsed());
}

/// What is brought ahead does not wait for a script that changes the machine, and is no change of what runs.
#[tokio::test(start_paused = true)]
async fn a_release_is_brought_ahead_while_something_else_changes_the_machine() {
    let workshop = FakeWorkshop::default();
    let slow = workshop.slow(Duration::from_mins(1));
    let limit = Duration::from_mins(10);
    let release = StagedRelease {
        name: "web".into(),
        revision: "v2".into(),
        url: "http://127.0.0.1/a".into(),
        sha256: "a".repeat(64),
        format: None,
        authorization: None,
    };
    let (start, before) = (Instant::now(), workshop.machine.state());
    let staging = async {
        for expected in [MachineChange::Done, MachineChange::None] {
            assert_eq!(stage_app(&workshop, "opt/berth", &release, limit).await, Ok(expected));
        }
        (start.elapsed(), workshop.machine.state())
    };
    let (installed, (elapsed, after)) =
        tokio::join!(script_package::install(&workshop, "opt/berth", &slow, limit), staging);
    assert_eq!(installed, Ok(MachineChange::Done));
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
    assert!(!workshop.has_overlapped().await);
    assert_eq!((after.apps, after.changes), (before.apps, before.changes));
}
