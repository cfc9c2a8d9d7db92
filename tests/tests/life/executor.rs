//! A VMDeployment whose code a house's own deploy system brings onto the machines.

use berth_core::{
    api::{DeployClass, Server, State, TaskKind, TaskPhase, VMDeployment},
    conditions::{STALLED, get_true},
};
use berth_testing::manifest;
use berth_tests::{Part, eventually};
use k8s_openapi::{api::core::v1::Event, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};

use crate::{
    deploy_house::{Fate, House, LOGS, TOKEN, let_berth_in},
    deployment_status::{runs, status, waits_for},
    world::{LONG, World, check, is_in, succeeded},
};

fn external() -> Value {
    json!({"type": "External", "className": "ci"})
}

fn app(world: &World, revision: &str) -> Value {
    let mut app = world.app(revision);
    app["executor"] = external();
    app
}

fn says(server: &Server, words: &[&str]) -> bool {
    let status = server.status.as_ref();
    let text = status.and_then(|status| status.waiting_for.as_deref()).unwrap_or_default();
    words.iter().all(|word| text.contains(word))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_system_deploys_in_place_of_ssh() {
    let (world, house) = (World::start().await, House::start().await);
    what_a_deploy_system_cannot_do_is_refused(&world).await;

    // A new Server waits for the class and for its Secret, and says so.
    world
        .deploy(2, |v| {
            v["spec"]["app"] = app(&world, "v1");
            v["spec"]["template"]["spec"]["taskAttempts"] = json!(1);
        })
        .await;
    let missing = ["DeployApp by deployment-controller: DeployClass ci (spec.app.executor.className): there is none"];
    world.server("web-0", missing[0], |server| says(server, &missing)).await;
    house.create_class(&world).await;
    let missing = ["DeployClass ci: spec.credentials: deployment-controller may not read Secret ci/berth"];
    world.server("web-0", missing[0], |server| says(server, &missing)).await;
    let_berth_in(&world, ("berth-system", "deployment-controller")).await;
    for server in world.ready(2).await {
        world.assert_answers(&server, "v1").await;
        let fact = server.status.as_ref().unwrap().app.clone().unwrap();
        assert_eq!((fact.deploy_class.as_deref(), fact.verified), (Some("ci"), true));
    }
    assert_eq!(house.jobs("v1"), 2);
    status(&world, "v1 is stable", |status| status.stable_revision.as_deref() == Some("v1")).await;

    // Another artifact is rolled out.
    world.patch(json!({"spec": {"app": app(&world, "v2")}})).await;
    for server in world.ready_when(2, |server| runs(server, "v2")).await {
        world.assert_answers(&server, "v2").await;
    }
    assert_eq!(house.jobs("v2"), 2);

    Box::pin(a_failing_job_is_said_and_a_hanging_one_is_cancelled(&world, &house)).await;
    Box::pin(another_executor_alone_deploys_nothing(&world, &house)).await;
    Box::pin(a_job_outlives_the_process_that_has_begun_it(&world, &house)).await;
    Box::pin(a_job_that_was_cancelled_while_nobody_followed_it_is_ended(&world, &house)).await;
    nobody_sees_the_token(&world).await;
    assert_eq!(house.system.state().violations, Vec::<String>::new());
    world.end().await;
}

async fn a_failing_job_is_said_and_a_hanging_one_is_cancelled(world: &World, house: &House) {
    house.decide("v3", Fate::Fails("migrate: there is no column price"));
    world.patch(json!({"spec": {"app": app(world, "v3")}})).await;
    let words = [
        "a person: DeployApp (task ",
        "application web v3: job ",
        "failed: migrate: there is no column price; log: ",
        LOGS,
    ];
    let servers = eventually("one Server says why", LONG, async || {
        let servers = world.list().await;
        let failed = servers.iter().filter(|server| says(server, &words)).count();
        check(failed == 1, || crate::world::describe(&servers)).map(|()| servers)
    });
    let servers = servers.await.unwrap_or_else(|error| panic!("{error}\n{}", world.logs()));
    let failed = servers.iter().find(|server| says(server, &words)).unwrap();
    let conditions = &failed.status.as_ref().unwrap().conditions;
    assert_eq!(get_true(conditions, STALLED).unwrap().reason, "TaskFailed");
    assert_eq!(house.jobs("v3"), 1, "the other Server is not touched");

    // While a job runs, its task says where its log is. Other code cancels it.
    house.decide("v4", Fate::Hangs);
    world.patch(json!({"spec": {"app": app(world, "v4")}})).await;
    let name = failed.name_any();
    world
        .server(&name, "the task says where its job is", |server| {
            let tasks = server.status.as_ref().map(|status| status.tasks.as_slice()).unwrap_or_default();
            let is_told = |task: &berth_core::api::Task| {
                task.kind == TaskKind::DeployApp
                    && task.phase == TaskPhase::Running
                    && task.message.starts_with("application web v4: job ")
                    && task.message.ends_with(&format!("of DeployClass ci runs; log: {LOGS}1"))
            };
            tasks.iter().any(is_told)
        })
        .await;
    world.patch(json!({"spec": {"app": app(world, "v5")}})).await;
    for server in world.ready_when(2, |server| runs(server, "v5")).await {
        world.assert_answers(&server, "v5").await;
    }
    let hanging = house.keys("v4");
    assert!(!hanging.is_empty() && hanging.iter().all(|key| house.was_cancelled(key)), "{hanging:?}");
}

/// Neither way: what runs is the same.
async fn another_executor_alone_deploys_nothing(world: &World, house: &House) {
    let deployed: Vec<usize> = world.list().await.iter().map(|server| succeeded(server, TaskKind::DeployApp)).collect();
    let is = |server: &Server, class: Option<&str>| server.spec.app.as_ref().unwrap().deploy_class() == class;
    for (executor, class) in [(Value::Null, None), (external(), Some("ci"))] {
        world.patch(json!({"spec": {"app": {"executor": executor}}})).await;
        let servers = world.ready_when(2, |server| is(server, class)).await;
        let after: Vec<usize> = servers.iter().map(|server| succeeded(server, TaskKind::DeployApp)).collect();
        assert_eq!(after, deployed);
    }
    assert_eq!(house.jobs("v5"), 2);

    // A class that cannot be used holds a roll-out before it takes a Server out of traffic.
    let classes: Api<DeployClass> = Api::all(world.berth.client());
    let nobody = Patch::Merge(json!({"spec": {"allowedNamespaces": ["other"]}}));
    classes.patch("ci", &PatchParams::default(), &nobody).await.unwrap();
    world.patch(json!({"spec": {"app": app(world, "v6")}})).await;
    let words = "a person: DeployClass ci: it does not allow namespace default (its spec.allowedNamespaces)";
    let held = status(world, words, waits_for(words)).await;
    assert_eq!(get_true(&held.conditions, STALLED).unwrap().reason, "MissingDeployClass");
    assert!(world.list().await.iter().all(|server| is_in(State::Ready)(server) && runs(server, "v5")));
    let all = Patch::Merge(json!({"spec": {"allowedNamespaces": null}}));
    classes.patch("ci", &PatchParams::default(), &all).await.unwrap();
    world.ready_when(2, |server| runs(server, "v6")).await;
}

/// The next process goes on with it, and begins no other.
async fn a_job_outlives_the_process_that_has_begun_it(world: &World, house: &House) {
    house.decide("v7", Fate::Hangs);
    world.patch(json!({"spec": {"app": app(world, "v7")}})).await;
    let begun = eventually("a job of v7", LONG, async || check(house.jobs("v7") == 1, || "none".to_owned()));
    begun.await.unwrap();
    world.berth.kill9(Part::DeploymentController).unwrap();
    house.let_succeed("v7");
    world.berth.restart(Part::DeploymentController).await.unwrap();
    for server in world.ready_when(2, |server| runs(server, "v7")).await {
        world.assert_answers(&server, "v7").await;
    }
    let keys = house.keys("v7");
    assert!(keys.len() == 2 && keys.iter().all(|key| key.ends_with("-1")), "one for each Server: {keys:?}");
}

/// Its Server is retired while deployment-controller is down.
async fn a_job_that_was_cancelled_while_nobody_followed_it_is_ended(world: &World, house: &House) {
    house.decide("v8", Fate::Hangs);
    world.patch(json!({"spec": {"app": app(world, "v8")}})).await;
    let begun = eventually("a job of v8", LONG, async || check(house.jobs("v8") == 1, || "none".to_owned()));
    begun.await.unwrap();
    let key = house.keys("v8").remove(0);
    let servers = world.list().await;
    let retired = servers.iter().find(|server| key.starts_with(server.uid())).unwrap();
    // The lock would keep everybody from the machine for so long.
    let lock = world.server(&retired.name_any(), "its job holds the lock", |server| server.lock().is_some()).await;
    let expiry = lock.lock().unwrap().expires_at();
    world.berth.kill9(Part::DeploymentController).unwrap();
    world.servers().delete(&retired.name_any(), &DeleteParams::default()).await.unwrap();
    let is_cancelled = |server: &Server| {
        let task = server.lock().and_then(|lock| server.task(lock.task_id));
        task.is_some_and(|task| task.kind == TaskKind::DeployApp && task.phase == TaskPhase::Cancelled)
    };
    world.server(&retired.name_any(), "its task is cancelled", is_cancelled).await;
    assert!(!house.was_cancelled(&key));
    world.berth.restart(Part::DeploymentController).await.unwrap();
    let ended = eventually(format!("job {key} is cancelled"), LONG, async || {
        check(house.was_cancelled(&key), || "not yet".to_owned())
    });
    ended.await.unwrap_or_else(|error| panic!("{error}\n{}", world.logs()));
    // Nothing of the job can change the machine any more, so nothing waits for the lock.
    let gone = eventually(format!("{} is gone", retired.name_any()), LONG, async || {
        check(!world.has_machine(retired.uid()), || "its machine is there".to_owned())
    });
    gone.await.unwrap_or_else(|error| panic!("{error}\n{}", world.logs()));
    assert!(Timestamp::now() < expiry, "the machine was kept until the lock had expired");
    house.let_succeed("v8");
    for server in world.ready_when(2, |server| runs(server, "v8")).await {
        world.assert_answers(&server, "v8").await;
    }
}

async fn nobody_sees_the_token(world: &World) {
    let events: Api<Event> = Api::namespaced(world.berth.client(), "default");
    let shown = [
        serde_json::to_string(&world.list().await).unwrap(),
        serde_json::to_string(&world.deployments().get("web").await.unwrap()).unwrap(),
        serde_json::to_string(&events.list(&ListParams::default()).await.unwrap().items).unwrap(),
        world.logs(),
    ];
    assert!(!shown.iter().any(|text| text.contains(TOKEN)), "{shown:?}");
}

/// The refusal by the API server of a VMDeployment with this change of its application.
async fn refusal(world: &World, change: &Value) -> Option<String> {
    let mut app = app(world, "v1");
    json_patch::merge(&mut app, change);
    let spec = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"machine": {"className": "local"}}},
        "app": app,
    });
    // The raw document, because the Rust types cannot express some mistakes.
    let resource = ApiResource::erase::<VMDeployment>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(world.berth.client(), "default", &resource);
    let object = serde_json::from_value(manifest("VMDeployment", "web", spec)).unwrap();
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    api.create(&dry_run, &object).await.err().map(|error| error.to_string())
}

async fn what_a_deploy_system_cannot_do_is_refused(world: &World) {
    let map = json!({"name": "m", "key": "a"});
    let cases: [(&[&str], Value); 8] = [
        (&["spec.app.executor", "type External needs className"], json!({"executor": {"className": null}})),
        (&["spec.app.executor", "type SSH has none"], json!({"executor": {"type": "SSH"}})),
        (&["spec.app.executor.type", "Unsupported value", "External"], json!({"executor": {"type": "Ansible"}})),
        (
            &["spec.app", "there is no app.hooks: Berth runs hooks by SSH"],
            json!({"hooks": {"preStart": {"command": "./migrate"}}}),
        ),
        (
            &["spec.app", "there is no valueFrom in app.env", "declare the value"],
            json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": map}}]}),
        ),
        (
            &["spec.app", "there is no valueFrom in app.env"],
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": map}}]}),
        ),
        (&["spec.app", "there is no app.files"], json!({"files": [{"path": "a", "configMapKeyRef": map}]})),
        (&["spec.app", "there is no app.artifact.secretRef"], json!({"artifact": {"secretRef": {"name": "s"}}})),
    ];
    for (words, change) in cases {
        let refusal = refusal(world, &change).await.unwrap_or_else(|| panic!("accepted: {change}"));
        assert!(words.iter().all(|word| refusal.contains(word)), "{words:?}: {refusal}");
    }
    let good = json!({"user": "nobody", "env": [{"name": "A", "value": "1"}], "files": []});
    assert_eq!(refusal(world, &good).await, None);

    let classes: Api<DeployClass> = Api::all(world.berth.client());
    for (spec, is_good) in [
        (json!({"url": "https://ci.example/berth"}), true),
        (json!({"url": "http://ci:8080", "jobTimeoutSeconds": 86400, "pollSeconds": 1}), true),
        (json!({"url": "ci:8080"}), false),
        (json!({"url": "https://user:secret@ci"}), false),
        (json!({"url": "https://ci", "pollSeconds": 0}), false),
        (json!({"url": "https://ci", "jobTimeoutSeconds": 86401}), false),
    ] {
        let class = serde_json::from_value(manifest("DeployClass", "other", spec.clone())).unwrap();
        let created = classes.create(&PostParams { dry_run: true, ..PostParams::default() }, &class).await;
        assert_eq!(created.is_ok(), is_good, "{spec}: {created:?}");
    }
}
