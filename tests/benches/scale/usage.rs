//! What Berth costs: requests to the API server, CPU time, memory.

use std::{collections::BTreeMap, fmt, fs};

use berth_tests::{Berth, Part};

use crate::meter::{is_about_berth, label, value, whole};

/// Requests that the API server has counted, by verb and resource (and subresource).
#[derive(Clone, Default)]
pub(crate) struct Requests(BTreeMap<String, u64>);

impl Requests {
    /// All writes so far to the resources that Berth writes.
    pub(crate) async fn of(berth: &Berth) -> Self {
        let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
        Self::writes_in(&berth.client().request_text(request).await.unwrap())
    }

    /// The writes that these metrics of the API server count.
    pub(crate) fn writes_in(metrics: &str) -> Self {
        Self::counted_in(metrics, &["POST", "PUT", "PATCH", "APPLY", "DELETE"])
    }

    /// The reads of single objects that these metrics of the API server count.
    pub(crate) fn reads_in(metrics: &str) -> Self {
        Self::counted_in(metrics, &["GET"])
    }

    fn counted_in(metrics: &str, verbs: &[&str]) -> Self {
        let mut counts = BTreeMap::new();
        let lines = metrics.lines().filter(|line| line.starts_with("apiserver_request_total{"));
        for line in lines.filter(|line| is_about_berth(line) && label(line, "dry_run") == Some("")) {
            let (Some(verb), Some(resource)) = (label(line, "verb"), label(line, "resource")) else { continue };
            if verbs.contains(&verb) {
                let sub = label(line, "subresource").filter(|sub| !sub.is_empty());
                let sub = sub.map_or(String::new(), |sub| format!("/{sub}"));
                *counts.entry(format!("{verb} {resource}{sub}")).or_default() += whole(value(line));
            }
        }
        Self(counts)
    }

    /// The requests since an earlier count.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let new = |(name, count): (&String, &u64)| {
            let more = count - before.0.get(name).unwrap_or(&0);
            (more > 0).then(|| (name.clone(), more))
        };
        Self(self.0.iter().filter_map(new).collect())
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name.clone()).or_default() += count;
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The number of requests without those for sets and deployments, of which there are few.
    pub(crate) fn about_servers(&self) -> u64 {
        self.0.iter().filter(|(name, _)| !name.contains(" vm")).map(|(_, count)| count).sum()
    }

    /// The number of requests for this resource and its subresources.
    pub(crate) fn about(&self, resource: &str) -> u64 {
        let is_meant = |name: &str| name.split_once(' ').is_some_and(|(_, of)| of.split('/').next() == Some(resource));
        self.0.iter().filter(|(name, _)| is_meant(name)).map(|(_, count)| count).sum()
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.total())?;
        self.0.iter().try_for_each(|(name, count)| write!(f, ", {name} {count}"))
    }
}

/// CPU seconds and megabytes of memory of each program.
#[derive(Clone)]
pub(crate) struct Usage(BTreeMap<Part, (f64, f64)>);

impl Usage {
    pub(crate) fn of(berth: &Berth) -> Self {
        let of = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            // The fields follow the name in brackets; of these, utime is the 12th and stime the 13th.
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            let ticks: f64 = fields[11..13].iter().map(|n| n.parse::<f64>().unwrap()).sum();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            let kilobytes: f64 = resident.split_whitespace().next().unwrap().parse().unwrap();
            // Linux reports 100 ticks per second on every architecture that Berth runs on.
            (ticks / 100.0, kilobytes / 1024.0)
        };
        Self(berth.instances().iter().map(|i| (i.part, of(i.process.pid()))).collect())
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        let cpu = |part: &Part| before.0.get(part).map_or(0.0, |(cpu, _)| *cpu);
        Self(self.0.iter().map(|(part, (now, memory))| (*part, (now - cpu(part), *memory))).collect())
    }

    pub(crate) fn cpu(&self, part: Part) -> f64 {
        self.0[&part].0
    }

    pub(crate) fn memory(&self, part: Part) -> f64 {
        self.0[&part].1
    }
}
