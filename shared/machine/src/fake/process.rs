//! Scripts that take time on a machine in memory, as they do behind an SSH server: a script goes on by itself, sees by its
//! standard input that its client is gone, and works under the machine's lock (see `scripts/common.sh`).

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, oneshot, watch},
    time::{sleep, timeout},
};

use super::{
    kernel::Kernel,
    machine::FakeMachine,
    parameters::FakeParameters,
    state::{FakeState, output},
};
use crate::{
    error::Result,
    machine::{Machine as _, Output},
    operation::exit_status,
    settle, staging,
};

/// How long one script takes on a machine in memory, and who sees what it does.
pub trait ScriptCourse: Send + Sync {
    /// How the script goes. Asked once, when the script has the lock that it needs.
    fn pace(&self, work: ScriptWork) -> ScriptPace;

    /// The script has just changed the machine, which was like this `before`. Called at its first change and at its last one.
    fn changed(&self, before: &FakeState, moment: ChangeMoment);
}

/// What a script does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptWork {
    /// It reads at most.
    Reads,
    /// It brings a release ahead: whatever else runs or changes the machine, it does not matter to that.
    Stages,
    /// It would change the machine, which is as asked for already.
    FindsNothingToDo,
    /// It changes the machine.
    Changes,
}

/// Which of a script's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeMoment {
    /// The first one. What comes after it is not done yet.
    First,
    /// The last one.
    Last,
}

/// How one script goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptPace {
    /// Until its first change.
    pub before: Duration,
    /// From its first change to its last one.
    pub during: Duration,
    /// From the moment in which it sees that its client is gone until its watchdog has ended all of it.
    pub dying: Duration,
    /// Why it fails instead of its last change.
    pub fails: Option<String>,
}

/// The longest that a watchdog lets a script live that ignores TERM: the pauses in `scripts/common.sh`.
pub const LONGEST_DYING: Duration = Duration::from_millis(3_800);

/// The lock of a script: held until the last process of the script has ended.
enum Held {
    None,
    #[expect(dead_code, reason = "held, not used")]
    Shared(OwnedRwLockReadGuard<()>),
    #[expect(dead_code, reason = "held, not used")]
    Exclusive(OwnedRwLockWriteGuard<()>),
}

/// A script on a machine in memory, as its client sees it. When it is dropped, the client is gone.
pub struct FakeProcess {
    output: oneshot::Receiver<Result<Output>>,
    /// The script's standard input.
    _client: oneshot::Sender<()>,
}

impl fmt::Debug for FakeProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeProcess").finish_non_exhaustive()
    }
}

impl FakeProcess {
    /// Waits for the script's end. None when it was ended together with its machine.
    pub async fn output(&mut self) -> Option<Result<Output>> {
        (&mut self.output).await.ok()
    }

    /// The client is gone, and the network says so only after a while: the script goes on until then.
    pub fn lose_silently(self, after: Duration) {
        tokio::spawn(async move {
            sleep(after).await;
            drop(self);
        });
    }
}

impl FakeMachine {
    /// Begins a script on this machine, which goes on whatever happens to its client. It goes as its course says.
    #[must_use]
    pub fn begin(&self, script: &str, stdin: &[u8], course: Arc<dyn ScriptCourse>) -> FakeProcess {
        let (answer, output) = oneshot::channel();
        let (client, client_gone) = oneshot::channel();
        let parameters = FakeParameters::parse(&String::from_utf8_lossy(stdin));
        let script = FakeScript {
            machine: self.clone(),
            kernel: self.kernel(),
            script: script.to_owned(),
            stdin: stdin.to_vec(),
            course,
        };
        tokio::spawn(async move {
            let end = match parameters {
                Ok(parameters) => script.run(&parameters, client_gone).await,
                Err(error) => Some(Err(error)),
            };
            if let Some(end) = end {
                // The client may be gone.
                let _ = answer.send(end);
            }
        });
        FakeProcess { output, _client: client }
    }

    /// Ends everything that runs on the machine, as its crash does.
    pub fn end_scripts(&self) {
        if let Some(kernel) = self.known_kernel() {
            kernel.end_all();
        }
    }

    /// Makes everything on the machine stand still, or go on.
    pub fn freeze(&self, is_frozen: bool) {
        self.kernel().freeze(is_frozen);
    }

    /// Whether everything on the machine stands still.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.known_kernel().is_some_and(|kernel| kernel.is_frozen())
    }
}

struct FakeScript {
    machine: FakeMachine,
    kernel: Arc<Kernel>,
    script: String,
    stdin: Vec<u8>,
    course: Arc<dyn ScriptCourse>,
}

impl FakeScript {
    /// Runs to the end, or until the machine or the watchdog ends it: then none.
    async fn run(self, parameters: &FakeParameters, client_gone: oneshot::Receiver<()>) -> Option<Result<Output>> {
        let ended = self.kernel.ended();
        // How long the watchdog needs: known once the script is at work. Before that it obeys TERM.
        let dying = watch::Sender::new(Duration::ZERO);
        let watchdog = async {
            let _ = client_gone.await;
            self.kernel.pass(Duration::ZERO).await;
            let dying = *dying.borrow();
            self.kernel.pass(dying).await;
        };
        tokio::select! {
            biased;
            () = self.kernel.end_after(ended) => None,
            end = self.work(parameters, &dying) => Some(end),
            () = watchdog => None,
        }
    }

    async fn work(&self, parameters: &FakeParameters, dying: &watch::Sender<Duration>) -> Result<Output> {
        let Some(_held) = self.lock(parameters).await else {
            return Ok(output(exit_status::BUSY, "", "opt/berth/.lock"));
        };
        let work = self.foresee(parameters);
        let pace = self.course.pace(work);
        dying.send_replace(pace.dying);
        self.kernel.pass(pace.before).await;
        if work == ScriptWork::Stages {
            self.kernel.pass(pace.during).await;
            if let Some(reason) = pace.fails {
                return Ok(output(1, "", &reason));
            }
        }
        if work != ScriptWork::Changes {
            return self.finish().await;
        }
        let before = self.machine.state();
        self.machine.change(|state| state.half_run(&self.script, parameters));
        self.course.changed(&before, ChangeMoment::First);
        self.kernel.pass(pace.during).await;
        if let Some(reason) = pace.fails {
            return Ok(output(1, "", &reason));
        }
        let before = self.machine.state();
        let end = self.finish().await;
        self.course.changed(&before, ChangeMoment::Last);
        end
    }

    async fn finish(&self) -> Result<Output> {
        self.machine.exec(&self.script, Some(self.stdin.clone().into()), Duration::MAX).await
    }

    /// What the script is going to do on the machine as it is now.
    fn foresee(&self, parameters: &FakeParameters) -> ScriptWork {
        if self.script == staging::STAGE.as_str() {
            return ScriptWork::Stages;
        }
        if parameters.get("LOCK") != "exclusive" || self.script == settle::SCRIPT.as_str() {
            return ScriptWork::Reads;
        }
        let (before, mut after) = (self.machine.state(), self.machine.state());
        after.run(&self.script, parameters);
        if before == after { ScriptWork::FindsNothingToDo } else { ScriptWork::Changes }
    }

    /// Waits for the machine's lock; none when it is held for too long.
    async fn lock(&self, parameters: &FakeParameters) -> Option<Held> {
        let limit = Duration::from_secs(parameters.get("LOCK_SECONDS").parse().unwrap_or(0));
        let is_staging = self.script == staging::STAGE.as_str();
        let lock = if is_staging { self.kernel.staging.clone() } else { self.kernel.lock.clone() };
        match parameters.get("LOCK") {
            "exclusive" => timeout(limit, lock.write_owned()).await.ok().map(Held::Exclusive),
            "shared" => timeout(limit, lock.read_owned()).await.ok().map(Held::Shared),
            _ => Some(Held::None),
        }
    }
}
