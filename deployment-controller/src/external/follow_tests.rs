use berth_core::{api::AppFact, protocol::Fact};
use berth_runtime::ManualClock;
use berth_testing::{DeployFault, DeployState};
use serde_json::json;

use super::{
    super::testing::{LIMITS, LOG, World, request, running, says, succeeded, until},
    *,
};
use crate::testing::now;

#[tokio::test]
async fn a_slow_job_is_started_once_and_followed_to_its_end() {
    let world = World::new().await;
    world.plan([json!({"state": "Pending"}), running(), running(), running(), succeeded()]);
    let mut said = world.said.subscribe();
    let result = world.attempt(1).await;
    says(&result, Outcome::Succeeded, &["application web v1: deployed by job u-1-7-1 of DeployClass ci"]);
    let fact = AppFact {
        revision: "v1".into(),
        digest: "1f389af820".into(),
        verified: true,
        deployed_at: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now())),
        deploy_class: Some("ci".into()),
    };
    assert_eq!(result.facts, [Fact::App(Some(fact))]);
    assert_eq!(
        *said.borrow_and_update(),
        format!("application web v1: job {} of DeployClass ci runs; log: {LOG}", World::key(1))
    );
    assert_eq!(world.begun(), [World::key(1)]);
    let calls = world.fake.state().calls.clone();
    assert_eq!(calls.iter().filter(|call| call.starts_with("PUT")).count(), 1, "{calls:?}");
    world.ends();
}

#[tokio::test]
async fn the_words_and_the_log_of_a_failed_job_are_said_and_the_next_attempt_is_another_job() {
    let world = World::new().await;
    let failed = json!({"state": "Failed", "message": "migrate:\n no column\tprice", "logURL": LOG});
    world.plan([running(), failed]);
    let result = world.attempt(1).await;
    says(
        &result,
        Outcome::Retry,
        &["of DeployClass ci failed: migrate: no column price; log: https://ci.example/runs/1"],
    );
    assert_eq!(result.facts, []);
    world.plan([json!({"state": "Failed", "permanent": true})]);
    says(&world.attempt(2).await, Outcome::Failed, &["failed: it does not say why"]);
    world.plan([json!({"state": "Cancelled", "message": "by ann"})]);
    says(&world.attempt(3).await, Outcome::Retry, &["was cancelled in the deploy system: by ann"]);
    world.plan([running(), succeeded()]);
    says(&world.attempt(4).await, Outcome::Succeeded, &["job u-1-7-4 of"]);
    assert_eq!(world.begun(), [1, 2, 3, 4].map(World::key));
    world.ends();
}

/// A process that was stopped for long sends its start when another one has gone on.
#[tokio::test]
async fn a_start_that_is_older_than_another_one_of_the_server_begins_nothing() {
    let world = World::new().await;
    world.plan([running()]);
    world.system.start(&World::key(3), &request(3)).await.unwrap();
    let refused = "starts no job: it refuses (status 409): a newer job of this Server has been started";
    says(&world.attempt(2).await, Outcome::Retry, &["application web v1: ", refused]);
    assert_eq!(world.begun(), [World::key(3)]);
    assert_eq!(world.system.look(&World::key(3)).await.unwrap().state, JobState::Running, "the newer one goes on");
    world.ends();
}

#[tokio::test]
async fn a_start_whose_answer_is_lost_is_repeated_and_begins_no_other_job() {
    for lost in [
        DeployFault::DoneWithoutAnswer,
        DeployFault::CutOff,
        DeployFault::Garbled("<html>502</html>"),
        DeployFault::NoAnswer,
    ] {
        let world = World::new().await;
        world.plan([running(), succeeded()]);
        world.faults([lost.clone()]);
        says(&world.attempt(1).await, Outcome::Succeeded, &[]);
        assert_eq!(world.begun(), [World::key(1)], "{lost:?}");
        world.ends();
    }
}

#[tokio::test]
async fn a_job_that_was_forgotten_is_started_once_more_with_the_same_key() {
    let world = World::new().await;
    world.plan([running()]);
    let forget = async {
        for _ in 0..2 {
            let count = world.begun().len();
            until(|| world.begun().len() > count).await;
            world.fake.state().forget();
        }
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        biased;
        result = world.attempt(1) => result,
        () = forget => panic!("it never ends"),
    };
    says(&result, Outcome::Retry, &["was forgotten", "started again, and forgotten again", "a day after its end"]);
    assert_eq!(world.begun(), [World::key(1), World::key(1)]);
    world.ends();
}

#[tokio::test]
async fn whoever_follows_an_attempt_that_ended_without_a_word_goes_on_with_its_job() {
    let world = World::new().await;
    world.fake.state().set(&World::key(1), json!({"state": "Running", "digest": "1f389af820"}));
    let ends = async {
        until(|| !world.said.borrow().is_empty()).await;
        let right = DeployState::right(&serde_json::to_value(request(1)).unwrap());
        world.fake.state().set(&World::key(1), right);
    };
    let (result, ()) = tokio::join!(world.attempt(3), ends);
    says(&result, Outcome::Succeeded, &["job u-1-7-1 of"]);
    assert_eq!(world.begun(), Vec::<String>::new());
    says(&world.attempt(4).await, Outcome::Succeeded, &["job u-1-7-1 of"]);
    world.ends();
}

/// The process that had begun it ended, and other code was declared.
#[tokio::test]
async fn a_job_of_an_earlier_attempt_that_deploys_something_else_is_ended_first() {
    for ignores in [false, true] {
        let world = World::new().await.impatient();
        world.fake.state().set(&World::key(1), json!({"state": "Running", "digest": "another", "logURL": LOG}));
        world.fake.state().ignores_cancel = ignores;
        world.plan([running(), succeeded()]);
        let result = world.attempt(2).await;
        if ignores {
            says(&result, Outcome::Retry, &["job u-1-7-1 of", "deploys something else and does not end", LOG]);
            assert_eq!(world.begun(), Vec::<String>::new());
        } else {
            says(&result, Outcome::Succeeded, &["job u-1-7-2 of"]);
            assert_eq!(world.fake.state().calls[1], format!("POST {}", World::key(1)));
        }
        world.ends();
    }
}

#[tokio::test]
async fn what_runs_afterwards_has_to_be_what_was_asked_for() {
    for (field, words) in [
        ("revision", "something else runs after it: revision x instead of v1"),
        ("digest", "digest x instead of 1f389af820"),
        ("sha256", "sha256 x instead of bbbb"),
    ] {
        let world = World::new().await;
        let mut wrong = DeployState::right(&serde_json::to_value(request(1)).unwrap());
        wrong["running"][field] = "x".into();
        wrong["logURL"] = LOG.into();
        world.plan([running(), wrong]);
        let result = world.attempt(1).await;
        says(&result, Outcome::Retry, &[words, LOG]);
        assert_eq!(result.facts, []);
        world.plan([running(), succeeded()]);
        says(&world.attempt(2).await, Outcome::Succeeded, &["job u-1-7-2 of"]);
        world.ends();
    }
    let world = World::new().await;
    world.faults([DeployFault::Garbled(r#"{"key": "u-1-7-1", "digest": "1f389af820", "state": "Succeeded"}"#)]);
    says(&world.attempt(1).await, Outcome::Retry, &["does not say what runs on the machine (field running)"]);
}

#[tokio::test]
async fn a_job_that_takes_too_long_is_cancelled() {
    for (ignores, words) in
        [(false, "and was cancelled; log: "), (true, "does not end although it was cancelled: end it there")]
    {
        let mut world = World::new().await;
        world.system.job_limit = Duration::from_millis(50);
        world.plan([running()]);
        world.fake.state().ignores_cancel = ignores;
        let result = world.attempt(1).await;
        says(
            &result,
            Outcome::Retry,
            &[
                "has not ended within 0 s (spec.jobTimeoutSeconds of the class; raise it if deployments take longer), ",
                words,
                LOG,
            ],
        );
        assert!(world.fake.state().calls.contains(&format!("POST {}", World::key(1))));
        world.ends();
    }
}

/// A task that runs is not cancelled when other code is declared, so the attempt itself has to see that.
#[tokio::test]
async fn a_job_that_is_superseded_is_cancelled_and_nothing_else_begins_before_it_has_ended() {
    let mut world = World::new().await;
    // Long, so that only what is declared ends the wait for the next look.
    world.system.poll = Duration::from_millis(500);
    world.plan([running()]);
    world.fake.state().ignores_cancel = true;
    let supersede = async {
        until(|| !world.said.borrow().is_empty()).await;
        let begun = Instant::now();
        world.superseded.cancel();
        let post = format!("POST {}", World::key(1));
        until(|| world.fake.state().calls.contains(&post)).await;
        assert!(begun.elapsed() < world.system.poll, "it is cancelled at once");
        world.fake.state().set(&World::key(1), json!({"state": "Cancelled"}));
    };
    let (result, ()) = tokio::join!(world.attempt(1), supersede);
    says(&result, Outcome::Retry, &["was cancelled, because something else is declared now"]);
    world.ends();
}

/// The lock may be released only when nothing of the job can change the machine any more.
#[tokio::test]
async fn a_job_that_is_not_wanted_any_more_is_cancelled_and_one_that_is_goes_on() {
    for (is_wanted, ignores, forgets, may_still_run) in [
        (false, false, false, false),
        (false, true, false, true),
        (false, false, true, true),
        (true, false, false, true),
    ] {
        let world = World::new().await;
        world.plan([running()]);
        world.fake.state().ignores_cancel = ignores;
        let (request, clock) = (request(1), ManualClock::new(now()));
        let attempt = Attempt::new(&world.system, &request, LIMITS, &clock, &world.said, &world.superseded);
        let begun = async {
            until(|| !world.said.borrow().is_empty()).await;
        };
        tokio::select! {
            biased;
            () = begun => {}
            result = attempt.carry_out() => panic!("{result:?}"),
        }
        if forgets {
            world.fake.state().forget();
        }
        assert_eq!(attempt.stop(is_wanted).await.may_still_run, may_still_run, "{is_wanted} {ignores} {forgets}");
        let cancelled = world.fake.state().calls.contains(&format!("POST {}", World::key(1)));
        assert_eq!(cancelled, !is_wanted);
        world.ends();
    }
    let world = World::new().await;
    let (request, clock) = (request(1), ManualClock::new(now()));
    let attempt = Attempt::new(&world.system, &request, LIMITS, &clock, &world.said, &world.superseded);
    assert!(!attempt.stop(false).await.may_still_run, "nothing was started");
}
