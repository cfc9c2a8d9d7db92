use berth_core::{
    api::CheckVerdict::{Fail, Inconclusive, Pass},
    conditions::{self, RECONCILING},
};
use serde_json::json;

use crate::story::Story;

fn checks() -> serde_json::Value {
    json!([{"name": "errors", "source": "main", "query": "q", "condition": "< 1"},
        {"name": "slo", "source": "main", "query": "q", "condition": "< 1"}])
}

#[test]
fn an_approval_shows_what_the_evidence_says_and_ends_with_a_promotion() {
    let approve = json!({"approve": {"evidence": ["errors", "slo"], "intervalSeconds": 30}});
    let steps = json!([{"servers": 1}, approve, {"servers": 3}, {"pause": {}}]);
    let mut story = Story::new(json!({"checks": checks(), "steps": steps, "onFailure": "Rollback"}));
    assert_eq!(story.settle(&[]), 1);
    let said = story.waiting_for();
    assert!(
        said.starts_with(
            "a person: step 2 of 4 needs an approval: look at the new version and set spec.rollout.request"
        ) && said.ends_with("evidence: errors was not looked at yet, slo was not looked at yet"),
        "{said}"
    );
    let reason = conditions::get_true(&story.status().conditions, RECONCILING).unwrap().reason.clone();
    assert_eq!(reason, "WaitingForPromotion");
    for (errors, slo) in [(Pass, Pass), (Fail, Inconclusive)] {
        story.later(30);
        story.look(&[("errors", errors), ("slo", slo)]);
        assert_eq!(story.settle(&[]), 1, "what the evidence says decides nothing");
    }
    let said = story.waiting_for();
    assert!(said.ends_with("evidence: errors Fail (Fail it was), slo Inconclusive (Inconclusive it was)"), "{said}");
    story.later(1_000_000);
    story.settle(&[]);
    assert_eq!(story.reasons().1, "Progressing", "nobody is late who waits for a person");
    story.request("Promote", "r1");
    assert_eq!(story.settle(&[]), 3);
}

#[test]
fn an_approval_without_evidence_waits_for_a_person_and_asks_nobody() {
    let mut story = Story::new(json!({"steps": [{"servers": 1}, {"approve": {}}]}));
    assert_eq!(story.settle(&[]), 1);
    assert!(story.waiting_for().starts_with("a person: step 2 of 2 needs an approval"), "{}", story.waiting_for());
    assert!(story.status().rollout.unwrap().analysis.is_none());
    story.request("Abort", "r1");
    assert_eq!(story.settle(&[]), 0);
}
