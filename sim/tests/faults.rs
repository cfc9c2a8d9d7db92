//! What mishaps do to programs in one world.
#![cfg(test)]

use std::{process::Command, time::Duration};

use berth_sim::{Act, Event, Faults, Happening, MachineFaults, Mishap, Outcome, Program, Schedule, Shape, play};

/// A run of one Server with these events, all seconds apart, and without other faults.
fn schedule(events: Vec<(u64, Happening)>) -> Schedule {
    let event = |(second, what): (u64, Happening)| Event { at_ms: second * 1_000, fleet: 0, what };
    Schedule {
        seed: 1,
        copies: Program::ALL.map(|program| (program, 1)).into(),
        replicas: 1,
        fleets: vec![Shape::default()],
        faults: Faults::default(),
        events: events.into_iter().map(event).collect(),
    }
}

fn mishap(mishap: Mishap) -> Happening {
    Happening::Mishap(mishap)
}

/// The lines of a run that ends well.
fn log(schedule: &Schedule) -> Vec<String> {
    let Outcome { finding, log, .. } = play(schedule);
    assert_eq!(finding, None, "the end of the log is\n{}", log[log.len().saturating_sub(20)..].join("\n"));
    log
}

/// When this line was written, in milliseconds.
fn at(line: &str) -> u64 {
    line.split_once(" ms: ").unwrap().0.parse().unwrap()
}

/// The lines between two moments in which all of these words are.
fn between<'a>(log: &'a [String], (from, to): (u64, u64), words: &[&str]) -> Vec<&'a String> {
    let is_between = |line: &&String| (from * 1_000..to * 1_000).contains(&at(line));
    log.iter().filter(is_between).filter(|line| words.iter().all(|word| line.contains(word))).collect()
}

#[test]
fn a_copy_that_hangs_or_is_parted_is_not_heard_of_meanwhile() {
    for (program, what) in
        [(0, Mishap::CopyHangs { copy: 0, for_ms: 40_000 }), (3, Mishap::CopyIsParted { copy: 3, for_ms: 40_000 })]
    {
        let log = log(&schedule(vec![(60, mishap(what))]));
        let user = [": system:serviceaccount:berth-system:replicaset-controller", "monitor-controller:"][program / 3];
        assert!(!between(&log, (30, 60), &[user, "/leases/"]).is_empty(), "{user}");
        assert!(between(&log, (61, 99), &[user]).is_empty(), "{:#?}", between(&log, (61, 99), &[user]));
        assert!(!between(&log, (101, 130), &[user]).is_empty(), "{user}");
    }
}

#[test]
fn a_write_waits_for_the_webhook() {
    for hangs in [false, true] {
        let code = Happening::Act(Act::DeclareCode { revision: "r1".into() });
        let log = log(&schedule(vec![(60, mishap(Mishap::WebhookFails { hangs, for_ms: 40_000 })), (70, code)]));
        let status = |from, to, code: &str| {
            let found = between(&log, (from, to), &["/servers/web-0", "controller: PATCH"]);
            found.into_iter().filter(|line| line.contains(&format!("-> {code}"))).count()
        };
        assert_eq!(status(71, 99, "200"), 0);
        // A copy gives up just before the API server does.
        assert_eq!(status(70, 99, "500") > 0, !hangs);
        assert!(status(101, 600, "200") > 0);
    }
}

#[test]
fn deleted_leases_come_back() {
    let log = log(&schedule(vec![(60, mishap(Mishap::LeasesAreDeleted))]));
    let deleted = between(&log, (60, 61), &["bob: DELETE", "/leases/"]);
    assert_eq!(deleted.len(), 4, "{deleted:#?}");
    assert_eq!(between(&log, (60, 75), &["POST", "/leases", "-> 201"]).len(), 4);
}

#[test]
fn leases_cannot_be_written_for_a_while() {
    let log = log(&schedule(vec![(60, mishap(Mishap::LeaseWritesFail { for_ms: 60_000 }))]));
    let written = |from, to| between(&log, (from, to), &["PATCH", "/leases/", "-> 200"]).len();
    assert!(written(30, 60) > 0);
    assert_eq!(written(61, 119), 0);
    assert!(written(121, 160) > 0);
}

#[test]
fn a_replaced_copy_ends_in_order() {
    let log = log(&schedule(vec![(60, mishap(Mishap::CopyIsReplaced { copy: 0 }))]));
    assert_eq!(between(&log, (60, 62), &["replicaset-controller: DELETE", "/leases/"]).len(), 1);
}

#[test]
fn a_restored_etcd_forgets_what_was_declared_and_servers_that_were_created_since() {
    for bumps in [true, false] {
        let scale = Happening::Act(Act::Scale { replicas: 3 });
        let log = log(&schedule(vec![
            (60, mishap(Mishap::EtcdIsSaved)),
            (61, scale),
            (150, mishap(Mishap::EtcdIsRestored { bumps })),
        ]));
        let restored = between(&log, (150, 151), &["etcd is restored, and forgets the Servers"]);
        assert_eq!(restored[0].matches("00000000-").count(), 2, "{restored:?}");
        let reported = between(&log, (150, 4_000), &["/events", "destroy it by hand"]);
        assert!(!reported.is_empty(), "the orphans are not reported");
        let expired = between(&log, (150, 160), &["GET", "limit="]);
        assert!(!expired.is_empty(), "nobody lists anew");
    }
}

#[test]
fn a_field_that_is_unknown_here_stays() {
    let code = Happening::Act(Act::DeclareCode { revision: "r1".into() });
    let package = Happening::Act(Act::DeclarePackage { version: "1".into() });
    let retry = Happening::Act(Act::RetryAll);
    let log = log(&schedule(vec![
        (60, mishap(Mishap::NewerCopyWrites { server: 0 })),
        (70, code),
        (100, package),
        (130, retry),
    ]));
    assert_eq!(between(&log, (60, 61), &["newer: PATCH", "fromTheFuture", "-> 200"]).len(), 1);
}

#[test]
fn clocks_are_apart() {
    let mut schedule = schedule(Vec::new());
    schedule.faults.webhook_skew = Duration::from_secs(59);
    let log = log(&schedule);
    let decided = log.iter().filter(|line| line.contains("/servers/web-0/status") && line.ends_with("-> 200")).count();
    assert!(decided > 4, "{log:#?}");
    schedule.faults.controller_skew = Duration::from_mins(1);
    // The programs write the time of their own clocks into Leases, which is that of the world without skew.
    let written = |log: &[String]| {
        let renewed = log.iter().find(|line| line.contains("\"acquireTime\":\"")).unwrap();
        renewed.split_once("\"acquireTime\":\"").unwrap().1[..19].to_owned()
    };
    let apart = play(&schedule).log;
    assert_eq!(written(&log), "2026-01-01T00:00:00");
    assert_ne!(written(&apart), written(&log));
}

/// A write may be refused because of others, although nothing of theirs is seen afterwards.
#[test]
fn everything_goes_on_although_writes_meet_conflicts() {
    let delete = |server| Happening::Act(Act::DeleteServer { server });
    let package = |version: &str| Happening::Act(Act::DeclarePackage { version: version.into() });
    let code = |revision: &str| Happening::Act(Act::DeclareCode { revision: revision.into() });
    let mut schedule = schedule(vec![
        (60, delete(0)),
        (120, delete(1)),
        (180, delete(2)),
        (240, package("1")),
        (300, code("r1")),
        (360, package("2")),
        (420, code("r2")),
    ]);
    schedule.replicas = 3;
    schedule.faults.conflicts = 0.5;
    log(&schedule);
}

#[test]
fn two_processes_play_the_same_run_with_every_fault() {
    let mut schedule = Schedule::draw(5);
    schedule.copies = Program::ALL.map(|program| (program, 2)).into();
    schedule.faults = Faults {
        lost_requests: 0.01,
        lost_answers: 0.01,
        refusals: 0.05,
        repeats: 0.1,
        timeouts: 0.03,
        conflicts: 0.05,
        expirations: 0.2,
        latency: Duration::from_millis(20),
        broken_watches: 0.5,
        watch_delay: Duration::from_secs(1),
        stuck_watches: 0.003,
        webhook_skew: Duration::from_secs(59),
        controller_skew: Duration::from_secs(20),
        provider_failures: 0.1,
        machines: MachineFaults {
            script_time: Duration::from_secs(2),
            slow_scripts: 0.05,
            stubborn_scripts: 0.3,
            refused_connections: 0.05,
            lost_outputs: 0.03,
            broken_connections: 0.05,
            silent_ends: 0.3,
        },
    };
    let mishaps = [
        Mishap::CopyHangs { copy: 1, for_ms: 20_000 },
        Mishap::CopyIsParted { copy: 4, for_ms: 20_000 },
        Mishap::EtcdIsSaved,
        Mishap::NewerCopyWrites { server: 0 },
        Mishap::LeasesAreDeleted,
        Mishap::LeaseWritesFail { for_ms: 20_000 },
        Mishap::WebhookFails { hangs: true, for_ms: 20_000 },
        Mishap::CopyIsReplaced { copy: 2 },
        Mishap::EtcdIsRestored { bumps: true },
    ];
    for (number, mishap) in mishaps.into_iter().enumerate() {
        let at_ms = 20_000 * u64::try_from(number + 1).unwrap();
        schedule.events.push(Event { at_ms, fleet: 0, what: Happening::Mishap(mishap) });
    }
    schedule.events.sort_by_key(|event| event.at_ms);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("schedule.json");
    std::fs::write(&file, serde_json::to_string(&schedule).unwrap()).unwrap();
    let replay = |name: &str| {
        let log = folder.path().join(name);
        let mut replay = Command::new(env!("CARGO_BIN_EXE_berth-sim"));
        let replayed = replay.arg("replay").arg("--schedule").arg(&file).arg("--log").arg(&log).output().unwrap();
        (String::from_utf8(replayed.stdout).unwrap(), std::fs::read_to_string(log).unwrap())
    };
    let ((found, one), (also_found, other)) = (replay("one"), replay("other"));
    assert!(one.lines().count() > 1_000, "{one}");
    let difference = one.lines().zip(other.lines()).find(|(one, other)| one != other);
    assert!(difference.is_none() && one.len() == other.len(), "{difference:#?}");
    assert_eq!(found, also_found);
}

/// Whichever run of its process it is.
#[test]
fn a_run_does_not_depend_on_the_runs_before_it() {
    for seed in 20..22 {
        let mut schedule = Schedule::draw(seed);
        schedule.copies = Program::ALL.map(|program| (program, 2)).into();
        schedule.fleets = vec![Shape::default()];
        let (one, other) = (play(&schedule), play(&schedule));
        let difference = one.log.iter().zip(&other.log).find(|(one, other)| one != other);
        assert!(difference.is_none(), "seed {seed}: {difference:#?}");
        assert_eq!(one.log.len(), other.log.len());
    }
}
