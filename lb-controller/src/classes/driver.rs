//! What a kind of load balancer outside of the cluster has to be able to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use berth_core::api::TrafficPhase;
use futures::future::BoxFuture;

use super::names;
use crate::member::ServerRef;

/// A Server in one backend of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The address of the machine.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Its share of the traffic, relative to the others.
    pub weight: u16,
    /// The traffic that it receives.
    pub phase: TrafficPhase,
}

/// Where an entry is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    /// The backend's name in the load balancer's configuration.
    pub backend: String,
    /// The entry's name, which says whose it is: see [`super::names`].
    pub name: String,
}

/// What one process shows of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownEntry {
    /// The entry.
    pub entry: Entry,
    /// Requests that are under way, those of old workers included; none if the process cannot tell. It is asked only about entries
    /// that drain.
    pub requests: Option<u64>,
}

/// What one process shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The backends that exist, of those that were asked for.
    pub backends: BTreeSet<String>,
    /// The backends that do not exist, and of which the driver keeps entries for when they do.
    pub absent: BTreeSet<String>,
    /// The entries that are Berth's.
    pub entries: BTreeMap<EntryKey, ShownEntry>,
}

impl Shown {
    /// The entries of this Server.
    pub fn entries_of(&self, server: &ServerRef) -> impl Iterator<Item = &EntryKey> {
        let prefix = names::prefix_of(server);
        self.backends.iter().chain(&self.absent).flat_map(move |backend| {
            let (prefix, first) = (prefix.clone(), EntryKey { backend: backend.clone(), name: prefix.clone() });
            let keys = self.entries.range(first..).map(|(key, _)| key);
            keys.take_while(move |key| key.backend == *backend && key.name.starts_with(&prefix))
        })
    }
}

/// Why a process could not be read or changed, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// It does not answer, or what it answers makes no sense.
    #[error("{0}")]
    Unreachable(String),
    /// It refuses the change.
    #[error("{0}")]
    Refused(String),
    /// It cannot carry out the change yet, for example because connections are open.
    #[error("{0}")]
    NotYet(String),
}

/// A change of one entry: what it should be; none when it should not exist.
pub type Change = (EntryKey, Option<Entry>);

/// Says whether this copy of the program is in charge of the classes now.
pub type Leads = Arc<dyn Fn() -> bool + Send + Sync>;

/// Reads everything that a class should show now.
pub type FirstEntries<'a> = BoxFuture<'a, BTreeMap<EntryKey, Entry>>;

/// A kind of load balancer. Each of its processes is read and changed on its own.
pub trait Driver: Send + Sync {
    /// Whether the processes come and ask for what they should show, so that it is kept by the driver. Then [`Driver::begin`] is called
    /// first, and changes are meant also for processes that do not answer: they ask when they can.
    fn is_asked(&self) -> bool {
        false
    }

    /// Called once, before anything else, if the processes ask. Everything that the class should show has to be there before the first
    /// process asks: it would drop what it is not told of. Nothing is told to processes while this copy is not in charge.
    fn begin<'a>(&'a self, _entries: FirstEntries<'a>, _leads: Leads) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    /// The names of the processes, for messages. One that is no longer named has gone.
    fn processes(&self) -> Vec<String>;

    /// Reads what a process shows of these backends.
    fn read<'a>(
        &'a self,
        process: &'a str,
        backends: &'a BTreeSet<String>,
    ) -> BoxFuture<'a, Result<Shown, DriverError>>;

    /// Changes entries of a process, and answers for each. `shown` is what the process showed a moment ago. An entry whose address differs
    /// never occurs: its name would be another one.
    fn apply<'a>(
        &'a self,
        process: &'a str,
        shown: &'a Shown,
        changes: &'a [Change],
    ) -> BoxFuture<'a, Vec<Result<(), DriverError>>>;

    /// Waits until the processes show what was applied, for some seconds at most. It returns at once if they show it when
    /// [`Driver::apply`] returns.
    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
