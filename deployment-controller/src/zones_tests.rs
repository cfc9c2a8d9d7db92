use std::collections::BTreeMap;

use berth_core::api::Server;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::{
    story::{Story, reasons},
    testing::{failed, server},
};

const ZONE: &str = "topology.kubernetes.io/zone";

/// v2 goes out to ten Servers, four of which are in zone a, three in b and three in none.
fn story(spread: &Value, rollout: &Value) -> Story {
    let mut declared = json!({"spread": spread});
    declared.as_object_mut().unwrap().extend(rollout.as_object().unwrap().clone());
    let mut story = Story::new(declared);
    story.deployment.spec.update_strategy.max_unavailable = Some(IntOrString::Int(1));
    story.servers.iter_mut().for_each(label);
    story
}

/// The oldest Server is web-9: so none is the first zone, then b, then a.
fn label(server: &mut Server) {
    let zone = match server.name() {
        "web-0" | "web-1" | "web-2" | "web-3" => "a",
        "web-4" | "web-5" | "web-6" => "b",
        _ => return,
    };
    server.metadata.labels = Some(BTreeMap::from([(ZONE.to_owned(), zone.to_owned())]));
}

/// Plays until nothing changes, and returns how many have v2: without a zone, in b, in a.
fn settle(story: &mut Story) -> [usize; 3] {
    for _ in 0..12 {
        story.settle_once(&[]);
        story.servers.iter_mut().for_each(label);
    }
    updated(story)
}

fn updated(story: &Story) -> [usize; 3] {
    let of = |zone: Option<&str>| {
        let is_there = |server: &&Server| {
            server.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE)).map(String::as_str) == zone
        };
        let has = |server: &&Server| server.spec.app.as_ref().unwrap().effective_revision() == "v2";
        story.servers.iter().filter(is_there).filter(has).count()
    };
    [of(None), of(Some("b")), of(Some("a"))]
}

#[test]
fn a_zone_is_touched_only_when_those_before_it_have_been_well_for_long_enough() {
    let mut story = story(&json!({"bakeSeconds": 900}), &json!({}));
    assert_eq!(settle(&mut story), [3, 0, 0]);
    let said = story.waiting_for();
    assert!(
        said.starts_with("the zone without topology.kubernetes.io/zone: bakes until ")
            && said.ends_with("before another zone has its turn"),
        "{said}"
    );
    story.later(880);
    assert_eq!(settle(&mut story), [3, 0, 0]);
    story.later(20);
    assert_eq!(settle(&mut story), [3, 3, 0]);
    story.later(700);
    story.settle_once(&[]);
    assert_eq!(story.reasons().1, "Progressing", "a bake is not late, although it is longer than the deadline");
    story.later(200);
    assert_eq!(settle(&mut story), [3, 3, 4]);
    story.settle_once(&[]);
    assert_eq!(story.reasons(), reasons("Complete", "Progressing", "v2"));
}

#[test]
fn a_zone_that_is_not_well_holds_up_the_others() {
    let mut story = story(&json!({}), &json!({"progressDeadlineSeconds": 60}));
    story.settle_once(&[]);
    story.servers[9] = server("web-9", "v2", "Deploying", 1);
    assert_eq!(settle(&mut story), [1, 0, 0], "the budget is spent");
    story.servers[9] = failed("web-9", "v2");
    story.servers[8] = failed("web-8", "v2");
    story.servers[7] = failed("web-7", "v2");
    assert_eq!(settle(&mut story), [3, 0, 0]);
    let expected = "the zone without topology.kubernetes.io/zone: 0 of 3 Servers are well with revision v2; no other zone has its turn before";
    assert_eq!(story.waiting_for(), expected);
    story.later(61);
    story.settle_once(&[]);
    assert_eq!(story.reasons().1, "ProgressDeadlineExceeded");
}

#[test]
fn servers_that_serve_nothing_wait_for_the_turn_of_their_zone_too() {
    let mut story = story(&json!({"bakeSeconds": 900}), &json!({}));
    story.servers[0] = server("web-0", "v1", "Deploying", 1);
    label(&mut story.servers[0]);
    assert_eq!(settle(&mut story)[2], 0, "a is the last zone");
}

#[test]
fn a_step_stays_in_the_zone_that_was_begun_and_the_way_back_knows_no_zones() {
    let steps = json!([{"servers": 1}, {"pause": {}}, {"servers": 2}, {"pause": {}}]);
    let mut story = story(&json!({"bakeSeconds": 900}), &json!({"steps": steps}));
    assert_eq!(settle(&mut story), [1, 0, 0]);
    assert!(story.waiting_for().contains("step 2 of 4 is a pause"), "no zone is waited for: {}", story.waiting_for());
    story.request("Promote", "r1");
    assert_eq!(settle(&mut story), [2, 0, 0]);
    story.request("PromoteFull", "r2");
    settle(&mut story);
    story.later(900);
    assert_eq!(settle(&mut story), [3, 3, 0]);
    story.request("Abort", "r3");
    assert_eq!(settle(&mut story), [0, 0, 0]);
}
