//! Random lives: sequences of writes by people and controllers, right ones and wrong ones.

use std::collections::{BTreeMap, BTreeSet};

use berth_core::{
    api::{Claim, Report, Server, ServerStatus, State, Task, TaskKind, TaskPhase},
    identity::Identities,
    lifecycle::{admit_status, decide, plan},
    protocol::StatusWrite,
};
use berth_testing::{Denied, Fixture, controller, facts_of, holder, person, report, stored, write_spec, write_status};
use k8s_openapi::jiff::Timestamp;
use proptest::{collection::vec, prelude::*};

use crate::any::{self, Change, Event, Fact};

fn instance(a: bool) -> &'static str {
    if a { "a" } else { "b" }
}

fn add(write: StatusWrite, fact: Fact) -> StatusWrite {
    match fact {
        Fact::Machine(fact) => write.machine(fact),
        Fact::Environment(fact) => write.environment(fact),
        Fact::App(fact) => write.app(fact),
        Fact::Traffic(fact) => write.traffic(fact),
        Fact::Reachability(fact) => write.reachability(fact),
        Fact::Health(fact) => write.health(fact),
        Fact::Monitoring(fact) => write.monitoring(fact),
    }
}

/// The n-th task, or an id that is not there.
fn nth(status: &ServerStatus, n: usize) -> i64 {
    status.tasks.get(n).map_or(1000, |task| task.id)
}

/// What comes of an event; a refused one changes nothing.
fn happen(fixture: &mut Fixture, event: Event) -> Result<(), Denied> {
    let status = fixture.server.status.clone().unwrap_or_default();
    match event {
        Event::Person(change) => fixture.update(&person("ann"), |server| change.apply(&mut server.spec)),
        Event::Fact(executor, fact) => fixture.write(executor, |write| add(write, fact)),
        Event::Claim(executor, a, n, duration_seconds) => {
            let claim = Claim {
                task_id: nth(&status, n),
                holder: holder(executor, instance(a)),
                duration_seconds,
                again: false,
            };
            fixture.write(executor, |write| write.claim(claim))
        }
        Event::Report(executor, a, n, outcome, wait) => {
            let report = Report {
                task_id: nth(&status, n),
                holder: holder(executor, instance(a)),
                outcome,
                message: format!("{outcome:?}"),
                retry_after_seconds: Some(wait),
                successors: Vec::new(),
            };
            fixture.write(executor, |write| write.report(report))
        }
        Event::Work(n) => {
            let open: Vec<&Task> = status.tasks.iter().filter(|task| fixture.server.is_open(task)).collect();
            let Some(task) = open.get(n % open.len().max(1)) else { return Ok(()) };
            carry_out(fixture, task)
        }
        Event::Advance(seconds) => {
            fixture.advance(seconds);
            Ok(())
        }
        Event::Delete if fixture.server.metadata.deletion_timestamp.is_some() => Ok(()),
        Event::Delete => {
            fixture.delete();
            Ok(())
        }
        Event::Acknowledge => {
            fixture.acknowledge();
            Ok(())
        }
    }
}

fn carry_out(fixture: &mut Fixture, task: &Task) -> Result<(), Denied> {
    if task.kind.needs_lock() {
        fixture.claim(task.kind, "a")?;
    }
    let executor = match task.kind {
        TaskKind::Gate => berth_core::api::Executor::ReplicasetController,
        kind => kind.executor(),
    };
    let result = report(task, &holder(executor, "a"), berth_core::api::Outcome::Succeeded);
    let server = fixture.server.clone();
    let done =
        server.status.as_ref().is_some_and(|status| status.epoch.is_some() || task.kind != TaskKind::CheckHealth);
    let boot = format!("b{}", task.id);
    fixture
        .write(executor, |write| if done { facts_of(task.kind, &server, &boot, write) } else { write }.report(result))
}

/// What is remembered of a life to judge what comes next.
#[derive(Default)]
struct Past {
    last: i64,
    ended: BTreeMap<i64, Task>,
    kinds: BTreeMap<i64, TaskKind>,
    /// Those that have left the list for the history.
    recorded: BTreeSet<i64>,
}

impl Past {
    /// What must hold after every write.
    fn check(&mut self, fixture: &Fixture) -> Result<(), TestCaseError> {
        let Some(status) = &fixture.server.status else { return Ok(()) };
        let last = status.last_task_id.unwrap_or(0);
        prop_assert!(last >= self.last, "ids only rise");
        let ids: Vec<i64> = status.tasks.iter().map(|task| task.id).collect();
        prop_assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "ids are in order, each once: {:?}", ids);
        prop_assert!(ids.iter().all(|id| *id <= last));
        for task in &status.tasks {
            let known = self.kinds.entry(task.id).or_insert(task.kind);
            prop_assert_eq!(*known, task.kind, "an id is given once");
            match self.ended.get(&task.id) {
                Some(ended) => prop_assert_eq!(ended, task, "what has ended stays as it ended"),
                None if task.phase.is_finished() => _ = self.ended.insert(task.id, task.clone()),
                None => prop_assert!(task.id > self.last || self.kinds.contains_key(&task.id)),
            }
        }
        let is_history = |id: &i64| status.history.iter().any(|line| line.contains(&format!(" (task {id}) ")));
        self.recorded.extend(self.kinds.keys().filter(|id| !ids.contains(id)).copied().filter(is_history));
        let is_known = |id: &i64| ids.contains(id) || self.ended.contains_key(id) || self.recorded.contains(id);
        prop_assert!(self.kinds.keys().all(is_known), "an unfinished task was lost");
        self.last = last;
        check_tasks(status)
    }
}

fn check_tasks(status: &ServerStatus) -> Result<(), TestCaseError> {
    let first = status.first_task_id.unwrap_or(1);
    let (current, left): (Vec<&Task>, Vec<&Task>) = status.tasks.iter().partition(|task| task.id >= first);
    prop_assert!(left.iter().all(|task| task.phase.is_finished()), "only the current state's tasks are unfinished");
    let running: Vec<i64> = current
        .iter()
        .filter(|task| task.kind.needs_lock() && task.phase == TaskPhase::Running)
        .map(|task| task.id)
        .collect();
    prop_assert!(running.len() <= 1, "one has the machine in hand");
    let locked = status.lock.as_ref().map(|lock| lock.task_id);
    prop_assert!(running.iter().all(|id| locked == Some(*id)), "and holds the lock: {:?} {:?}", running, locked);
    let releases = current.iter().any(|task| task.kind == TaskKind::ReleaseTraffic);
    prop_assert!(!releases || status.state == Some(State::Ready), "traffic is let through in Ready only");
    prop_assert!(status.history.len() <= 20 && status.transitions.is_empty());
    let may_stay = |task: &&&Task| task.kind == TaskKind::Gate || Some(task.id) == locked;
    prop_assert!(left.iter().all(|task| may_stay(&task)), "finished tasks of earlier states are history");
    let matter = |task: &&&Task| task.id >= first && (task.kind == TaskKind::Gate || task.phase == TaskPhase::Failed);
    let tail = status.tasks.iter().filter(|task| task.phase.is_finished() && !matter(&task)).count();
    prop_assert!(tail <= 10, "the tail is bounded");
    prop_assert!(status.claim.is_none() && status.report.is_none(), "claims and reports are not stored");
    prop_assert!(status.waiting_for.is_some() || status.state == Some(State::Ready), "it says what it waits for");
    Ok(())
}

/// Reviewing a stored Server again, by whomever, changes nothing.
fn check_settled(server: &Server, now: Timestamp) -> Result<(), TestCaseError> {
    for author in ["ann", "system:serviceaccount:berth-system:lb-controller"] {
        let again = admit_status(server, server.clone(), &person(author), &Identities::default(), now).unwrap();
        prop_assert_eq!(&stored(&again), server, "deciding again on the outcome changes something");
    }
    Ok(())
}

fn begin(changes: &[Change]) -> Fixture {
    Fixture::declaring(|spec| {
        // People's wishes come after the creation.
        for change in changes.iter().filter(|c| !matches!(c, Change::Force(_) | Change::Retry(_))) {
            change.apply(spec);
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn task_invariants_hold_after_any_sequence_of_writes(changes in vec(any::change(), 0..6), events in vec(any::event(), 1..60)) {
        let mut fixture = begin(&changes);
        let mut past = Past::default();
        for event in events {
            let before = fixture.server.clone();
            if happen(&mut fixture, event.clone()).is_err() && !matches!(event, Event::Work(_)) {
                prop_assert_eq!(&fixture.server, &before, "a refused write changed something");
            }
            past.check(&fixture)?;
            // A write of the declaration is decided upon by the next write of the status.
            let decided = fixture.server.status.as_ref().is_some_and(|s| s.observed_generation == fixture.server.metadata.generation);
            if decided {
                check_settled(&fixture.server, fixture.now)?;
            }
        }
    }

    #[test]
    fn decide_is_total_and_deterministic(changes in vec(any::change(), 0..12), facts in vec(any::fact(), 0..10), was in prop::option::of(any::state())) {
        let mut server = begin(&changes).server;
        let write = facts.into_iter().fold(StatusWrite::new(&server), |write, fact| match fact {
            // Health is for an epoch, and there is none yet.
            Fact::Health(_) => write,
            fact => add(write, fact),
        });
        let mut json = serde_json::to_value(&server).unwrap();
        json_patch::patch(&mut json, &write.into_patch()).unwrap();
        server = serde_json::from_value(json).unwrap();
        server.status.get_or_insert_default().state = was;
        let decision = decide(&server);
        prop_assert_eq!(&decision, &decide(&server.clone()));
        prop_assert!(!decision.reason.is_empty());
        for state in State::ALL {
            let planned = plan(&server, state);
            prop_assert_eq!(&planned, &plan(&server.clone(), state));
            prop_assert!(planned.iter().all(|task| (task.kind == TaskKind::ReleaseTraffic) <= (state == State::Ready)));
            let steps: Vec<i32> = planned.iter().map(|task| task.step).collect();
            prop_assert!(steps.first().is_none_or(|first| *first == 1));
            prop_assert!(steps.windows(2).all(|pair| pair[1] - pair[0] <= 1 && pair[0] <= pair[1]), "steps without holes: {:?}", steps);
        }
        // Whatever was known, one write settles it.
        let author = controller(berth_core::api::Executor::ReplicasetController);
        let start = berth_testing::start();
        let settled = write_status(&server, StatusWrite::new(&server).acknowledge(), &author, start).unwrap();
        check_settled(&settled, start)?;
    }

    #[test]
    fn a_server_with_working_neighbours_reaches_its_declared_state(changes in vec(any::change(), 0..8), events in vec(any::event(), 0..30)) {
        let mut fixture = begin(&changes);
        for event in events {
            let _ = happen(&mut fixture, event);
        }
        // From now on everybody does what is asked for, and people want nothing else.
        let force = |server: &mut Server| {
            server.spec.force = None;
            server.spec.gates.clear();
            server.spec.retain = None;
            server.spec.retry = Some(berth_core::api::Request { id: "last".into(), reason: String::new(), by: None, at: None });
        };
        fixture.server = write_spec(&fixture.server, { let mut new = fixture.server.clone(); force(&mut new); new }, &person("ann"), fixture.now).unwrap();
        fixture.advance(100);
        fixture.acknowledge();
        let mut rounds = 0;
        while let Some(task) = fixture.status().tasks.iter().find(|task| fixture.server.is_open(task)).cloned() {
            carry_out(&mut fixture, &task).unwrap();
            rounds += 1;
            prop_assert!(rounds < 40, "it never comes to rest: {}", fixture.steps());
        }
        let retired = fixture.server.spec.offline || fixture.server.metadata.deletion_timestamp.is_some();
        let end = if retired { State::Offline } else { State::Ready };
        prop_assert_eq!((fixture.state(), fixture.steps()), (end, String::new()));
        prop_assert_eq!(fixture.server.is_retired(), retired);
    }
}
