//! What a reader wants to know of a story, line by line with the time of the world.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use berth_core::{
    api::{App, Server, VMDeployment},
    conditions::{self, READY, RECONCILING, STALLED},
};
use berth_sim::World;

/// How long something has to stay as it is to be told: what passes faster says more about requests than about a roll-out.
const MOMENT: Duration = Duration::from_secs(3);

/// The version of the package that is declared first. It is not told.
pub(crate) const FIRST_PACKAGE: &str = "1";

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) at: Duration,
    /// Whom it is about: a person, the world, the VMDeployment or a Server.
    pub(crate) subject: String,
    pub(crate) text: String,
}

/// What was seen of a subject last.
struct Seen {
    text: String,
    since: Duration,
    is_told: bool,
}

/// Everything that was told so far.
#[derive(Default)]
pub(crate) struct Chronicle {
    lines: Vec<Line>,
    seen: BTreeMap<String, Seen>,
}

impl Chronicle {
    /// Adds what somebody does.
    pub(crate) fn tell(&mut self, at: Duration, subject: &str, text: impl Into<String>) {
        self.lines.push(Line { at, subject: subject.to_owned(), text: text.into() });
    }

    /// Looks at the world, and tells what has changed and has stayed so for a moment.
    pub(crate) fn look(&mut self, world: &World) {
        let now = world.api().elapsed();
        let mut current = appearances(world);
        let gone: Vec<String> = self.seen.keys().filter(|known| !current.contains_key(*known)).cloned().collect();
        current.extend(gone.into_iter().map(|subject| (subject, "is gone".to_owned())));
        for (subject, text) in current {
            let seen =
                self.seen.entry(subject).or_insert_with(|| Seen { text: String::new(), since: now, is_told: true });
            if seen.text != text {
                *seen = Seen { text, since: now, is_told: false };
            }
        }
        for (subject, seen) in self.seen.iter_mut().filter(|(_, seen)| !seen.is_told && seen.since + MOMENT <= now) {
            seen.is_told = true;
            let last = self.lines.iter().rev().find(|line| line.subject == *subject);
            if last.is_none_or(|last| last.text != seen.text) {
                self.lines.push(Line { at: seen.since, subject: subject.clone(), text: seen.text.clone() });
            }
        }
    }

    /// Since when nothing has changed.
    pub(crate) fn quiet_since(&self) -> Duration {
        self.seen.values().map(|seen| seen.since).max().unwrap_or_default()
    }

    /// How everything is now.
    pub(crate) fn present(&self) -> Vec<(String, String)> {
        let present = self.seen.iter().filter(|(_, seen)| seen.text != "is gone");
        present.map(|(subject, seen)| (subject.clone(), seen.text.clone())).collect()
    }

    /// What was told, in the order of time.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let mut lines = self.lines.clone();
        lines.sort_by_key(|line| (line.at.as_secs(), line.subject.clone()));
        lines
    }
}

/// How each object looks now, by what the log calls it.
fn appearances(world: &World) -> BTreeMap<String, String> {
    let (reached, owners) = (world.reached(), world.owners_of_machines().into_iter().collect::<BTreeSet<_>>());
    let of_servers = world.servers().into_iter().map(|server| {
        let is_reached = reached.contains(&format!("{}/{}", server.namespace(), server.name()));
        (server.name().to_owned(), of_server(&server, is_reached, owners.contains(server.uid())))
    });
    let of_deployments =
        world.deployments().into_iter().map(|deployment| (deployment.name().to_owned(), of_deployment(&deployment)));
    of_servers.chain(of_deployments).collect()
}

fn of_server(server: &Server, is_reached: bool, has_machine: bool) -> String {
    let state = server.state().map_or_else(|| "new".to_owned(), |state| state.to_string());
    let app = server.spec.app.as_ref();
    let revision = app.map(App::effective_revision).unwrap_or_default();
    let packages = server.spec.packages.iter().filter(|package| package.version != FIRST_PACKAGE);
    let versions: Vec<String> = packages.map(|package| format!(" + {} {}", package.name, package.version)).collect();
    let versions = versions.concat();
    let restart = app.and_then(|app| app.restart.as_ref()).map(|id| format!(" restarted for {id}")).unwrap_or_default();
    let traffic = if is_reached { "in traffic" } else { "no traffic" };
    let machine = if has_machine { "" } else { ", no machine" };
    format!("{state} {revision}{restart}{versions}, {traffic}{machine}")
}

fn of_deployment(deployment: &VMDeployment) -> String {
    let Some(status) = &deployment.status else { return "new".to_owned() };
    if status.observed_generation != deployment.metadata.generation {
        return "declared anew".to_owned();
    }
    let is_true = |kind| conditions::get_true(&status.conditions, kind).map(|found| format!("{kind} {}", found.reason));
    let condition = [READY, RECONCILING, STALLED].into_iter().find_map(is_true).unwrap_or_default();
    let (revision, stable) = (status.revision.as_deref().unwrap_or("-"), status.stable_revision.as_deref());
    let stable =
        stable.filter(|stable| *stable != revision).map(|stable| format!(" (stable: {stable})")).unwrap_or_default();
    let waiting = status
        .waiting_for
        .as_deref()
        .map(|text| format!(": {}", without_addresses(&with_ages(text))))
        .unwrap_or_default();
    format!("{revision}{stable}: {condition}{waiting}")
}

/// The text with the time of the world in place of dates: it begins with the year 2026.
fn with_ages(text: &str) -> String {
    const DATE: &str = "2026-01-01T";
    let mut parts = text.split(DATE);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (time, rest) = part.split_once('Z').unwrap_or((part, ""));
        let numbers: Vec<u64> = time.split([':', '.']).take(3).filter_map(|number| number.parse().ok()).collect();
        let [hours, minutes, seconds] = numbers[..] else { panic!("{time:?} is no time") };
        result.push_str(&clock(Duration::from_secs(hours * 3600 + minutes * 60 + seconds)));
        result.push_str(rest);
    }
    result
}

/// The text without the addresses of machines: which machine gets which depends on the order in which they are created.
fn without_addresses(text: &str) -> String {
    const NETWORK: &str = "127.";
    let mut parts = text.split(NETWORK);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        result.push_str("ADDRESS");
        result.push_str(part.trim_start_matches(|found: char| found.is_ascii_digit() || found == '.'));
    }
    result
}

/// Minutes and seconds.
pub(crate) fn clock(at: Duration) -> String {
    format!("{:02}:{:02}", at.as_secs() / 60, at.as_secs() % 60)
}
