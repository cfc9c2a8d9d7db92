//! A person edits many Servers at once while a roll-out is under way.
//!
//! A roll-out that took Servers whose newest generation was not decided on for free disturbed all of them: of eight, none received
//! traffic in the end.

use futures::future::join_all;
use kube::ResourceExt;
use serde_json::json;

use crate::{
    sets::watch_traffic,
    world::{LONG, World, check},
};

const SERVERS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_retry_during_a_roll_out_takes_no_more_servers_out_of_service() {
    let world = World::start().await;
    world.deploy(i32::try_from(SERVERS).unwrap(), |_| ()).await;
    let servers = world.ready(SERVERS).await;
    for server in &servers {
        world.gets_traffic(&server.name_any()).await;
    }
    let fewest = watch_traffic(&world);
    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    let begun = berth_tests::eventually("the roll-out has begun", LONG, async || {
        check(*fewest.lock() == Some(SERVERS - 1), || format!("{fewest:?}"))
    });
    begun.await.unwrap();
    for round in 0..4 {
        let id = format!("round-{round}");
        let retry = json!({"spec": {"retry": {"id": id, "reason": "everything once more"}}});
        join_all(servers.iter().map(|server| world.patch_server(server.name(), retry.clone()))).await;
        let carried_out = berth_tests::eventually(format!("{id} was carried out"), LONG, async || {
            let list = world.list().await;
            let observed =
                list.iter().filter(|s| s.status.as_ref().and_then(|s| s.observed_retry.as_ref()) == Some(&id));
            let observed = observed.count();
            check(observed == SERVERS, || format!("{observed} of {SERVERS}"))
        });
        carried_out.await.unwrap();
        println!("{id}: {:?} Servers at least have received traffic", *fewest.lock());
    }
    world
        .ready_when(SERVERS, |server| {
            server.status.as_ref().and_then(|s| s.app.as_ref()).is_some_and(|app| app.revision == "v2")
        })
        .await;
    assert_eq!(*fewest.lock(), Some(SERVERS - 1), "one of {SERVERS} may be out of service at a time");
    world.end().await;
}
