//! Two copies that see differently, and the Server that both write to, through the webhook's rules.

use std::time::Duration;

use berth_core::{
    api::{Executor, HealthState, Outcome, ServerStatus, SshAccess, State, TaskKind},
    protocol::Fact,
};
use berth_testing::{Fixture, holder, report};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use crate::{
    plan::plan, probe::ProbeResult, probe_id::ProbeKind, probe_state::ScheduleChange, server_probes::ServerProbes,
    sight::Trust,
};

/// More rounds of writes within a second than any peaceful second needs.
const HOT: usize = 20;

/// What a copy reaches.
#[derive(Clone, Copy)]
struct View {
    machine: bool,
    application: bool,
}

const SEES: View = View { machine: true, application: true };
const BLIND: View = View { machine: false, application: false };
const SEES_MACHINE_ONLY: View = View { machine: true, application: false };

struct Copy {
    probes: ServerProbes,
    view: View,
    /// The periods of the two probes, and when they are due next.
    schedule: [(ProbeKind, i64, i64); 2],
}

impl Copy {
    fn probe(&mut self, kind: ProbeKind, now: Timestamp) {
        let reached = if kind == ProbeKind::Reachability { self.view.machine } else { self.view.application };
        let result = if reached { ProbeResult::Success } else { ProbeResult::Failure("no answer".into()) };
        self.probes.record(kind, &result, now, false);
    }

    /// Probes what is due in this second.
    fn tick(&mut self, second: i64, now: Timestamp) {
        for n in 0..2 {
            let (kind, period, due) = self.schedule[n];
            if due > second || self.probes.state(kind).is_idle() {
                continue;
            }
            self.probe(kind, now);
            let within = self.probes.next_probe_within(kind, now).map_or(period, |within| whole_seconds(within) + 1);
            self.schedule[n].2 = second + period.min(within).max(1);
        }
    }

    /// Probes the Server as it is now.
    fn update(&mut self, fixture: &Fixture, second: i64) {
        for (kind, change) in self.probes.update(&fixture.server) {
            let ScheduleChange::Start { period, at_once } = change else { continue };
            let period = whole_seconds(period);
            let slot = self.schedule.iter_mut().find(|slot| slot.0 == kind).unwrap();
            *slot = (kind, period, second + if at_once { 0 } else { period });
        }
        self.tick(second, fixture.now);
    }
}

fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap()
}

/// Some copies, and a Server that is Ready at the beginning.
struct World {
    fixture: Fixture,
    copies: Vec<Copy>,
    second: i64,
    /// When the machine was called unreachable, and when reachable again.
    losses: Vec<i64>,
    returns: Vec<i64>,
    /// When the application was called Unhealthy.
    sicknesses: Vec<i64>,
}

impl World {
    /// With a period of the probes of the machine in seconds, and a number of failures after which the application is sick.
    fn new(period: i32, failure_threshold: i32, views: &[View]) -> Self {
        let ssh: SshAccess =
            serde_json::from_value(json!({"port": 22, "user": "b", "hostKey": "k", "root": "r"})).unwrap();
        let fixture = Fixture::declaring(|spec| {
            spec.reachability.period_seconds = period;
            spec.health_check.as_mut().unwrap().failure_threshold = failure_threshold;
        });
        let in_epoch = |status: &mut ServerStatus| {
            status.epoch = Some(0);
            status.machine.as_mut().unwrap().ssh = Some(ssh);
        };
        let fixture = fixture.all_right().fact(in_epoch).decided();
        assert_eq!(fixture.state(), State::Ready);
        let copy = |view: &View| Copy {
            probes: ServerProbes::new(&fixture.server),
            view: *view,
            schedule: [(ProbeKind::Reachability, 1, 0), (ProbeKind::Health, 1, 0)],
        };
        let copies = views.iter().map(copy).collect();
        Self { fixture, copies, second: 0, losses: vec![], returns: vec![], sicknesses: vec![] }
    }

    fn run(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.second += 1;
            self.fixture.advance(1);
            let rounds = (0..HOT).take_while(|_| self.round()).count();
            assert!(rounds < HOT, "a hot loop in second {}: {:?} {:?}", self.second, self.losses, self.sicknesses);
        }
    }

    /// Every copy writes what is due, and the other controllers do their tasks. Returns whether there was anything to do.
    fn round(&mut self) -> bool {
        let mut is_busy = self.others_work();
        for number in 0..self.copies.len() {
            is_busy |= self.copy_writes(number);
        }
        is_busy
    }

    fn copy_writes(&mut self, number: usize) -> bool {
        let (copy, now) = (&mut self.copies[number], self.fixture.now);
        copy.update(&self.fixture, self.second);
        let due = plan(&self.fixture.server, &copy.probes.observation(Trust::Full), now);
        if due.is_empty() {
            return false;
        }
        for fact in &due.facts {
            match fact {
                Fact::Reachability(fact) if fact.reachable => self.returns.push(self.second),
                Fact::Reachability(_) => self.losses.push(self.second),
                Fact::Health(fact) if fact.state == HealthState::Unhealthy => self.sicknesses.push(self.second),
                _ => {}
            }
        }
        let executor = Executor::MonitorController;
        let reported = due.report.map(|due| (self.fixture.task(due.kind).clone(), due.result));
        let written = self.fixture.write(executor, |write| match &reported {
            Some((task, result)) => {
                let report = report(task, &holder(executor, "a"), result.outcome);
                write.facts(&due.facts).facts(&result.facts).report(report)
            }
            None => write.facts(&due.facts),
        });
        written.unwrap();
        if reported.is_some_and(|(_, result)| result.outcome == Outcome::Running) {
            copy.probes.failure_reported(now);
        }
        copy.update(&self.fixture, self.second);
        true
    }

    /// The other controllers carry out the task that is open for them.
    fn others_work(&mut self) -> bool {
        let server = &self.fixture.server;
        let is_theirs = |kind: TaskKind| kind.executor() != Executor::MonitorController;
        let open = self.fixture.status().tasks.iter().find(|task| server.is_open(task) && is_theirs(task.kind));
        let kind = open.map(|task| task.kind);
        kind.inspect(|kind| self.fixture.perform(*kind)).is_some()
    }
}

/// The seconds between one event and the next, from the beginning on.
fn pauses(events: &[i64]) -> Vec<i64> {
    let mut before = 0;
    events.iter().map(|at| at - std::mem::replace(&mut before, *at)).collect()
}

#[test]
fn a_blind_copy_contradicts_one_that_sees_ever_more_rarely() {
    let mut world = World::new(10, 3, &[SEES, BLIND]);
    world.run(3_600);
    let pauses = pauses(&world.losses);
    assert!((9..=11).contains(&pauses.len()), "{pauses:?}");
    assert!(
        pauses[1] >= 60 && pauses[3] >= 240 && pauses[5..].iter().all(|pause| (480..500).contains(pause)),
        "{pauses:?}"
    );
    assert_eq!(world.losses, world.returns, "the copy that sees looks at once");
    assert_eq!(world.fixture.state(), State::Ready);
}

#[test]
fn a_machine_that_dies_is_noticed_by_the_copy_that_sees_and_in_the_end_by_the_blind_one() {
    let mut world = World::new(10, 3, &[SEES, BLIND]);
    world.run(3_600);
    let died_at = world.second;
    world.copies[0].view = BLIND;
    world.run(60);
    assert_eq!(world.fixture.state(), State::Unknown, "noticed after its threshold");
    assert!(world.losses.last() > Some(&died_at));
    let mut world = World::new(10, 3, &[SEES, BLIND]);
    world.run(3_600);
    world.copies.remove(0);
    world.run(500);
    assert_eq!(world.fixture.state(), State::Unknown, "the copy that sees has gone");
}

#[test]
fn a_machine_that_comes_and_goes_is_reported_each_time() {
    let mut world = World::new(10, 3, &[SEES]);
    for _ in 0..20 {
        world.copies[0].view = BLIND;
        world.run(60);
        world.copies[0].view = SEES;
        world.run(60);
    }
    assert_eq!((world.losses.len(), world.returns.len()), (20, 20), "{:?}", world.losses);
}

#[test]
fn an_old_success_contradicts_nobody() {
    // Both copies have probed just before the machine dies. One of them probes anew, the other one would do so after an hour.
    let mut world = World::new(3_600, 3, &[SEES, SEES]);
    world.run(3_605);
    world.copies.iter_mut().for_each(|copy| copy.view = BLIND);
    world.copies[1].schedule[0].2 = world.second;
    world.run(200);
    assert_eq!((world.losses.len(), world.returns.len()), (1, 0), "{:?} {:?}", world.losses, world.returns);
    assert_eq!(world.fixture.state(), State::Unknown);
}

#[test]
fn two_copies_whose_health_checks_differ_contradict_each_other_ever_more_rarely() {
    for failure_threshold in [1, 3] {
        let mut world = World::new(10, failure_threshold, &[SEES, SEES_MACHINE_ONLY]);
        world.run(3_600);
        let pauses = pauses(&world.sicknesses);
        let least = 16 * 10 * i64::from(failure_threshold) - 20;
        assert!(pauses.len() > 5 && pauses[5..].iter().all(|pause| *pause >= least), "{pauses:?}");
        // The application is sick for the copy that has seen it, too.
        world.copies[0].view = SEES_MACHINE_ONLY;
        world.run(60);
        assert_eq!(world.fixture.state(), State::Deploying);
    }
}
