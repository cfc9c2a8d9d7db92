//! Requests that are sent through the load balancer all the time, and what became of them.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use berth_core::api::{Server, TrafficPhase};
use berth_tests::{Answers, Berth, Client, HaProxy};
use kube::ResourceExt as _;

use crate::{progress::Servers, screen::Screen};

/// Time limit for a dead machine to be noticed, and for it to serve again; it takes some seconds.
const LIMIT: Duration = Duration::from_mins(2);
/// So many failures are printed.
const SHOWN: usize = 5;

/// A client that sends a hundred requests each second to the load balancer.
pub(crate) struct Traffic<'a> {
    haproxy: &'a HaProxy,
    client: Client,
}

impl<'a> Traffic<'a> {
    /// Begins to send.
    pub(crate) fn start(haproxy: &'a HaProxy) -> Self {
        Self { haproxy, client: Client::start(haproxy.frontend()) }
    }

    /// What was answered so far.
    pub(crate) fn answers(&self) -> Answers {
        self.client.answers()
    }

    /// Prints which versions have answered since then, as percentages.
    pub(crate) fn print_shares(&self, since: &Answers) {
        println!("          {}", shares(since, &self.client.answers()));
        println!("          of requests to {}, in the pause", url(self.haproxy));
    }

    /// Kills the machine of a server, and shows that it is noticed and serves again.
    pub(crate) async fn kill_machine(&self, screen: &mut Screen, berth: &Berth, replicas: usize) -> Result<()> {
        println!(
            "\nA machine dies while it answers requests. What it leaves unanswered, HAProxy asks of another server:"
        );
        let victim = screen.list().pop().context("there is a server")?;
        let (name, before) = (victim.name_any(), self.haproxy.repeated().await?);
        berth.machines().kill(victim.uid())?;
        screen.stage(&format!("killed the machine of {name}"));
        screen.until("the dead machine out of traffic", LIMIT, |servers, _| !is_serving(servers, &name)).await?;
        screen.stage(&format!("noticed: {name} is out of traffic"));
        screen.until("all servers Ready", LIMIT, |servers, _| servers.all_serve(replicas)).await?;
        let repeated = self.haproxy.repeated().await?.saturating_sub(before);
        // A machine that is slow to come back is replaced, and so is its Server.
        let is_same = screen.list().iter().any(|server| server.uid() == victim.uid());
        let done = if is_same { "rebooted and verified anew" } else { "replaced" };
        screen.stage(&format!("{name} was {done}, and serves again"));
        println!("          HAProxy had to ask once more {repeated} times");
        Ok(())
    }

    /// Stops, and prints how many requests were sent and how many have failed.
    ///
    /// # Errors
    /// When requests have failed.
    pub(crate) async fn end(self, screen: &Screen) -> Result<()> {
        let answers = self.client.stop().await;
        let (failed, sent) = (answers.failures.len(), answers.count() + answers.failures.len() as u64);
        screen.stage(&format!("{sent} requests were sent to {} meanwhile; {failed} failed", url(self.haproxy)));
        let why = answers.failures.iter().take(SHOWN).map(|failure| {
            format!("\n  request {} after {:.1} s: {}", failure.id, failure.after.as_secs_f32(), failure.why)
        });
        ensure!(failed == 0, "{failed} of {sent} requests failed:{}", why.collect::<String>());
        ensure!(sent > 0, "no request was sent");
        Ok(())
    }
}

/// The URL that is balanced.
pub(crate) fn url(haproxy: &HaProxy) -> String {
    format!("http://{}", haproxy.frontend())
}

fn is_serving(servers: &Servers, name: &str) -> bool {
    let traffic = |server: &Server| server.status.as_ref()?.traffic.as_ref().map(|traffic| traffic.phase);
    servers.iter().any(|server| server.name_any() == name && traffic(server) == Some(TrafficPhase::Serving))
}

/// What was answered between two moments, for people: `67 % Hello from version 1, 33 % Hello from version 2`.
fn shares(before: &Answers, after: &Answers) -> String {
    let mut counts = BTreeMap::<&str, u64>::new();
    for (page, count) in &after.texts {
        let new = count.saturating_sub(before.texts.get(page).copied().unwrap_or_default());
        *counts.entry(title(page)).or_default() += new;
    }
    let sum = counts.values().sum::<u64>().max(1);
    let shown = counts.into_iter().filter(|(_, count)| *count > 0);
    let shown: Vec<_> = shown.map(|(title, count)| format!("{} % {title}", (count * 100 + sum / 2) / sum)).collect();
    shown.join(", ")
}

/// The heading of a page, or all of it.
fn title(page: &str) -> &str {
    let heading = page.split_once("<h1>").and_then(|(_, rest)| rest.split_once("</h1>"));
    heading.map_or(page, |(title, _)| title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_those_of_the_answers_between_two_moments() {
        let answers = |counts: &[(&str, u64)]| Answers {
            texts: counts.iter().map(|(version, count)| (format!("<p>a</p>\n<h1>{version}</h1>\nb"), *count)).collect(),
            failures: Vec::new(),
        };
        let before = answers(&[("v1", 100), ("v0", 7)]);
        assert_eq!(shares(&before, &answers(&[("v0", 7), ("v1", 300), ("v2", 99)])), "67 % v1, 33 % v2");
        assert_eq!(shares(&before, &before), "");
        assert_eq!(title("no heading"), "no heading");
    }
}
