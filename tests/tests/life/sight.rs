//! A monitor-controller that reaches no machine tells that from the death of all machines.

use std::net::SocketAddr;

use berth_core::api::{Server, State};
use berth_tests::{CutOff, Part, eventually};
use serde_json::json;

use crate::world::{LONG, World, address, check, describe, is_in, is_settled, uid};

/// SSH, and the application.
const PORTS: [u16; 2] = [2222, 8080];

fn socket(server: &Server, port: u16) -> SocketAddr {
    SocketAddr::new(address(server).parse().unwrap(), port)
}

/// Four Ready Servers. Their threshold of unreachability is longer than a round of probes.
async fn four() -> (World, Vec<Server>) {
    let world = World::start().await;
    let reachability = json!({"periodSeconds": 1, "timeoutSeconds": 1, "unreachableAfterSeconds": 4});
    world.deploy(4, |v| v["spec"]["template"]["spec"]["reachability"] = reachability).await;
    let servers = world.ready(4).await;
    for server in &servers {
        world.gets_traffic(server.name()).await;
    }
    (world, servers)
}

/// The value of a gauge of this copy of monitor-controller.
async fn gauge(world: &World, monitor: &CutOff, name: &str) -> Result<i64, String> {
    let text = world.berth.metrics(monitor.instance()).await.map_err(|error| error.to_string())?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).ok_or_else(|| format!("there is no {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blind_monitor_changes_nothing_says_so_and_goes_on_when_it_sees_again() {
    let (world, before) = four().await;
    world.berth.kill9(Part::MonitorController).unwrap();
    let monitor = world.berth.start_cut_off(Part::MonitorController).await.unwrap();
    let blind = eventually("it is blind and withholds what it believes of four Servers", LONG, async || {
        let servers = world.list().await;
        assert!(servers.iter().all(is_settled), "a Server changed: {}\n{}", describe(&servers), world.logs());
        let withheld = gauge(&world, &monitor, "berth_monitor_withheld_servers").await?;
        check(withheld == 4, || format!("{withheld} withheld"))
    });
    blind.await.unwrap();
    let message = world.set_condition("MonitorBlind", "OthersReachMachines").await;
    assert!(message.contains(" of 4 machines") && message.contains("monitor-controller/2"), "{message}");
    assert_eq!(gauge(&world, &monitor, "berth_monitor_blind").await, Ok(1));
    let servers = world.list().await;
    assert!(servers.iter().all(is_settled), "{}", describe(&servers));
    for server in &before {
        world.gets_traffic(server.name()).await;
        for port in PORTS {
            monitor.open(socket(server, port)).unwrap();
        }
    }
    world.set_condition("MonitorBlind", "Seeing").await;
    let seeing = eventually("it sees", LONG, async || {
        let blind = gauge(&world, &monitor, "berth_monitor_blind").await?;
        let lost = gauge(&world, &monitor, "berth_monitor_lost_targets").await?;
        check((blind, lost) == (0, 0), || format!("blind {blind}, lost {lost}"))
    });
    seeing.await.unwrap();
    // A machine that dies now is unreachable, as ever.
    world.berth.machines().kill(&uid(&before[0])).unwrap();
    for port in PORTS {
        monitor.close(socket(&before[0], port));
    }
    world.server(before[0].name(), "Unknown", is_in(State::Unknown)).await;
    let history = |servers: &[Server]| -> Vec<usize> {
        servers[1..]
            .iter()
            .map(|s| s.status.as_ref().map_or(0, |status| berth_testing::entered_states(status).len()))
            .collect()
    };
    assert_eq!(history(&before), history(&world.list().await), "the others were Ready all the time");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_machines_die_a_second_opinion_agrees_and_all_servers_are_unknown() {
    let (world, servers) = four().await;
    for server in &servers {
        world.berth.machines().kill(&uid(server)).unwrap();
    }
    for server in &servers {
        world.server(server.name(), "Unknown", is_in(State::Unknown)).await;
    }
    for server in &servers {
        world.berth.machines().reboot(&uid(server)).await.unwrap();
    }
    let after = world.ready(4).await;
    // Monitor-controller did not believe it without replicaset-controller.
    let log = std::fs::read_to_string(world.berth.instance(Part::MonitorController, 1).unwrap().process.log()).unwrap();
    assert!(log.contains(" of 4 machines are lost at once") && log.contains("LossConfirmed"), "{log}");
    assert_eq!(servers.iter().map(uid).collect::<Vec<_>>(), after.iter().map(uid).collect::<Vec<_>>());
    world.end().await;
}
