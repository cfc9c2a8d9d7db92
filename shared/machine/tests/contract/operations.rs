//! What holds for operations on every kind of machine: they end with their client, and only one of them changes the machine.

use std::time::Duration;

use berth_machine::{
    Machine, MachineChange, MachineError, inventory,
    script_package::{self, ScriptPackage},
};
use tokio::time::{Instant, sleep};

use super::LIMIT;

/// What the contract of operations needs of a kind of machine.
pub(crate) trait Workshop: Sync {
    /// The machine.
    fn machine(&self) -> &dyn Machine;

    /// A package whose installation takes so long, and does not end when it is asked to.
    fn slow(&self, time: Duration) -> ScriptPackage;

    /// A package whose installation takes no time, and looks whether anything of a slow one still runs.
    fn quick(&self) -> ScriptPackage;

    /// Whether the slow installation is at work, or was.
    fn has_begun(&self) -> impl Future<Output = bool> + Send;

    /// Whether the slow installation was done.
    fn is_done(&self) -> impl Future<Output = bool> + Send;

    /// Whether something of the slow installation still ran during the quick one.
    fn has_overlapped(&self) -> impl Future<Output = bool> + Send;
}

/// Asserts that an operation ends with its client, together with all its processes, and that the next operation begins only then.
pub(crate) async fn end_with_their_client(workshop: &impl Workshop, root: &str) {
    let (machine, slow) = (workshop.machine(), workshop.slow(Duration::from_secs(8)));
    tokio::select! {
        done = script_package::install(machine, root, &slow, LIMIT) => panic!("too early: {done:?}"),
        () = has_begun(workshop) => {}
    }
    // The client is gone, and its connection with it. The next one waits until nothing runs any more.
    let start = Instant::now();
    assert_eq!(script_package::install(machine, root, &workshop.quick(), LIMIT).await, Ok(MachineChange::Done));
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(8), "it waited until the work was done: {waited:?}");
    assert!(waited > Duration::from_secs(2), "the slow installation was given no time to end: {waited:?}");
    assert!(!workshop.has_overlapped().await, "something of the old operation still ran");
    sleep(Duration::from_secs(11).saturating_sub(start.elapsed())).await;
    assert!(!workshop.is_done().await, "the old operation took effect after the next one");
}

/// Asserts that what changes or reads a machine waits for half of its time until nothing else changes it, and then gives up.
pub(crate) async fn wait_for_each_other(workshop: &impl Workshop, root: &str) {
    const SHORT: Duration = Duration::from_secs(4);
    let (machine, slow) = (workshop.machine(), workshop.slow(Duration::from_secs(4)));
    let others = async {
        has_begun(workshop).await;
        let start = Instant::now();
        let quick = workshop.quick();
        let (changed, read) = tokio::join!(
            script_package::install(machine, root, &quick, SHORT),
            inventory::read(machine, root, &[], SHORT)
        );
        assert!(matches!(changed, Err(MachineError::Busy(_))), "{changed:?}");
        assert!(matches!(read, Err(MachineError::Busy(_))), "{read:?}");
        let waited = start.elapsed();
        assert!((SHORT / 2..SHORT).contains(&waited), "{waited:?}");
    };
    let (done, ()) = tokio::join!(script_package::install(machine, root, &slow, LIMIT), others);
    assert_eq!(done, Ok(MachineChange::Done));
    inventory::read(machine, root, &[], SHORT).await.unwrap();
}

async fn has_begun(workshop: &impl Workshop) {
    while !workshop.has_begun().await {
        sleep(Duration::from_millis(50)).await;
    }
}
