use std::time::Duration;

use serde_json::json;

use super::*;
use crate::testing::{deployment, server as tested_server};

fn server(name: &str, machine: &str) -> Server {
    let mut server = tested_server(name, "v1", "Ready", 90);
    let machine = json!({"phase": "Running", "id": machine, "address": "127.0.0.1"});
    server.status.as_mut().unwrap().machine = serde_json::from_value(machine).unwrap();
    server
}

fn key(name: &str) -> DeploymentKey {
    ("default".to_owned(), name.to_owned())
}

fn ahead<'a>(revision: &str, servers: &'a [Server], drained: &'a [Server]) -> Ahead<'a> {
    let app = deployment(revision, |_| {}).spec.app;
    Ahead { app, servers: servers.iter().collect(), drained: drained.iter().collect() }
}

fn name(attempt: Option<StagingAttempt>) -> Option<String> {
    attempt.map(|attempt| attempt.target.name)
}

#[test]
fn each_server_has_its_turn_once_and_a_failed_one_again_later() {
    let (mut memory, now) = (StagingMemory::default(), Instant::now());
    let servers = [server("web-1", "a"), server("web-0", "b")];
    let want = |memory: &mut StagingMemory| memory.want(key("web"), Some(&ahead("v2", &servers, &[])));
    want(&mut memory);
    let (first, second) = (memory.begin(now).unwrap(), memory.begin(now).unwrap());
    assert_eq!((first.target.name.as_str(), second.target.name.as_str()), ("web-1", "web-0"), "in their order");
    assert_eq!((name(memory.begin(now)), memory.next_due()), (None, None));
    memory.end(&first, None);
    let later = now + Duration::from_secs(5);
    memory.end(&second, Some(later));
    want(&mut memory);
    assert_eq!((name(memory.begin(now)), memory.next_due(), memory.failing()), (None, Some(later), 1));
    let again = memory.begin(later).unwrap();
    assert_eq!((again.target.name.as_str(), again.failures), ("web-0", 1));
    memory.end(&again, None);
    want(&mut memory);
    assert_eq!((name(memory.begin(later)), memory.next_due(), memory.failing()), (None, None, 0));
}

#[test]
fn what_is_not_wanted_any_more_is_cancelled_and_forgotten() {
    let (mut memory, now) = (StagingMemory::default(), Instant::now());
    let servers = [server("web-0", "a"), server("web-1", "b")];
    let start_both = |memory: &mut StagingMemory| {
        memory.want(key("web"), Some(&ahead("v2", &servers, &[])));
        [memory.begin(now).unwrap(), memory.begin(now).unwrap()].map(|attempt| attempt.cancel)
    };
    let is_cancelled = |begun: &[CancellationToken; 2]| begun.each_ref().map(CancellationToken::is_cancelled);
    // It is held, another version is declared, or the VMDeployment is gone.
    let begun = start_both(&mut memory);
    memory.want(key("web"), None);
    assert_eq!(is_cancelled(&begun), [true, true]);
    let begun = start_both(&mut memory);
    memory.want(key("web"), Some(&ahead("v3", &servers, &[])));
    assert_eq!(is_cancelled(&begun), [true, true]);
    memory.want(key("web"), None);
    let begun = start_both(&mut memory);
    memory.retain(|_| false);
    assert_eq!((is_cancelled(&begun), name(memory.begin(now))), ([true, true], None));
    // One has its turn, and a person has forced the other one.
    let begun = start_both(&mut memory);
    memory.want(key("web"), Some(&ahead("v2", &[], &servers[..1])));
    assert_eq!(is_cancelled(&begun), [false, true]);
    memory.want(key("web"), Some(&ahead("v2", &[], &[])));
    assert_eq!(is_cancelled(&begun), [true, true]);
    assert!(memory.deployments.is_empty());
}

#[test]
fn another_machine_is_looked_at_anew_and_the_end_of_an_attempt_counts_for_that_alone() {
    let (mut memory, now) = (StagingMemory::default(), Instant::now());
    memory.want(key("web"), Some(&ahead("v2", &[server("web-0", "a")], &[])));
    let old = memory.begin(now).unwrap();
    memory.want(key("web"), Some(&ahead("v2", &[server("web-0", "b")], &[])));
    assert!(old.cancel.is_cancelled());
    let new = memory.begin(now).unwrap();
    assert!(new.target.is_of(&server("web-0", "b")) && !new.target.is_of(&server("web-0", "a")));
    memory.end(&old, None);
    memory.end(&new, Some(now));
    assert_eq!(memory.begin(now).unwrap().failures, 1);
}

#[test]
fn the_deployment_with_the_fewest_attempts_under_way_comes_next() {
    let (mut memory, now) = (StagingMemory::default(), Instant::now());
    let (many, one) = ([server("a-0", "a"), server("a-1", "b"), server("a-2", "c")], [server("b-0", "d")]);
    memory.want(key("a"), Some(&ahead("v2", &many, &[])));
    memory.want(key("b"), Some(&ahead("v2", &one, &[])));
    let order: Vec<String> = (0..4).filter_map(|_| name(memory.begin(now))).collect();
    assert_eq!(order, ["a-0", "b-0", "a-1", "a-2"]);
}
