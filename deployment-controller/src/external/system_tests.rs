use berth_core::api::Outcome;
use berth_testing::DeployFault;
use serde_json::{Value, json};

use super::super::testing::{World, running, says, succeeded};
use crate::class_access::SecretData;

#[tokio::test]
async fn a_look_without_a_clear_answer_is_repeated() {
    let world = World::new().await;
    world.plan([running(), running(), running(), succeeded()]);
    let restarts = DeployFault::Refused(503, json!({"message": "I restart"}));
    let revoked = DeployFault::Refused(401, Value::Null);
    world.faults([DeployFault::None, restarts, DeployFault::CutOff, DeployFault::Garbled("{}"), revoked]);
    says(&world.attempt(1).await, Outcome::Succeeded, &[]);
    assert_eq!(world.begun().len(), 1);
    world.ends();
}

/// A proxy that answers for the deploy system knows nothing of the job.
#[tokio::test]
async fn an_answer_about_another_job_is_no_answer() {
    let world = World::new().await.impatient();
    world.fake.state().always =
        Some(DeployFault::Garbled(r#"{"key": "other", "digest": "1f389af820", "state": "Succeeded"}"#));
    says(&world.attempt(1).await, Outcome::Retry, &["is not that of docs/executor.openapi.yaml: see spec.url"]);
}

#[tokio::test]
async fn refusals_are_said_and_only_those_for_good_fail_the_task() {
    let said = json!({"message": "unknown team"});
    for (code, body, outcome, words) in [
        (422, &said, Outcome::Failed, "starts no job: it refuses (status 422): unknown team"),
        (400, &Value::Null, Outcome::Failed, "it answers with status 400"),
        (409, &said, Outcome::Retry, "it refuses (status 409): unknown team"),
        (
            401,
            &said,
            Outcome::Retry,
            "it refuses the credentials (status 401): see spec.credentials of the DeployClass",
        ),
        (403, &Value::Null, Outcome::Retry, "it refuses the credentials (status 403)"),
        (404, &Value::Null, Outcome::Retry, "status 404 to the start of a job: see spec.url of the DeployClass"),
        (302, &Value::Null, Outcome::Retry, "it answers with status 302: see spec.url"),
        (
            500,
            &said,
            Outcome::Retry,
            "what became of job u-1-7-1, which may go on: it cannot answer now (status 500): unknown team",
        ),
    ] {
        let world = World::new().await.impatient();
        world.fake.state().always = Some(DeployFault::Refused(code, body.clone()));
        let result = world.attempt(1).await;
        says(&result, outcome, &["application web v1: the deploy system of DeployClass ci ", words]);
        assert_eq!(world.begun(), Vec::<String>::new());
        world.ends();
    }
}

#[tokio::test]
async fn a_deploy_system_that_takes_requests_and_never_answers_is_said() {
    let world = World::new().await.impatient();
    world.fake.state().always = Some(DeployFault::NoAnswer);
    says(
        &world.attempt(1).await,
        Outcome::Retry,
        &["has not said for ", "became of job u-1-7-1, which may go on: ", "it does not answer within 0 s"],
    );
    let calls = world.fake.state().calls.len();
    assert!((2..=5).contains(&calls), "{calls} requests");
    drop(world.fake);
}

#[tokio::test]
async fn credentials_are_shown_to_the_deploy_system_and_to_nobody_else() {
    let secret: SecretData = [("token".to_owned(), b"s3cr3t\n".to_vec())].into();
    let world = World::with_secret(&secret).await;
    world.fake.state().authorization = Some("Bearer s3cr3t".to_owned());
    let failed = json!({"state": "Failed", "message": "curl -H 'Authorization: Bearer s3cr3t'", "logURL": "https://ci/?t=s3cr3t"});
    world.plan([running(), failed]);
    let result = world.attempt(1).await;
    says(&result, Outcome::Retry, &["Bearer ***'; log: https://ci/?t=***"]);
    world.fake.state().authorization = Some("Bearer another".to_owned());
    let refused = world.attempt(1).await;
    says(&refused, Outcome::Retry, &["refuses the credentials"]);
    for result in [result, refused] {
        assert!(!format!("{result:?}").contains("s3cr3t"), "{result:?}");
    }
    world.ends();
}

#[tokio::test]
async fn words_without_end_and_links_that_are_none_are_cut() {
    let world = World::new().await.impatient();
    world.plan([json!({"state": "Failed", "message": "x".repeat(5000), "logURL": "javascript:alert(1)"})]);
    let result = world.attempt(1).await;
    assert!(result.message.len() < 700 && !result.message.contains("log:"), "{}", result.message);
    world.plan([json!({"state": "Failed", "message": "x".repeat(100_000)})]);
    says(&world.attempt(2).await, Outcome::Retry, &["is not that of docs/executor.openapi.yaml"]);
}
