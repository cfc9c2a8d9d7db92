//! What Berth costs: writes to the API server, CPU time, memory.

use std::{collections::BTreeMap, fmt, fs};

use berth_tests::{Berth, Part};

/// Writes that the API server has counted, by resource (and subresource) and verb.
#[derive(Clone, Default)]
pub(crate) struct Writes(BTreeMap<String, u64>);

impl Writes {
    /// All writes so far to the resources that Berth writes.
    pub(crate) async fn of(berth: &Berth) -> Self {
        let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
        let text = berth.client().request_text(request).await.unwrap();
        let mut counts = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let label = |name: &str| {
                let start = line.find(&format!("{name}=\"")).map(|at| at + name.len() + 2)?;
                line[start..].split('"').next()
            };
            let (Some(verb), Some(group)) = (label("verb"), label("group")) else { continue };
            let resource = label("resource").unwrap_or_default();
            let ours = group == "berth.dev" || ["endpointslices", "events"].contains(&resource);
            if ours && ["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&verb) && label("dry_run") == Some("") {
                let sub =
                    label("subresource").filter(|sub| !sub.is_empty()).map_or(String::new(), |sub| format!("/{sub}"));
                let count: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
                let count = count as u64;
                *counts.entry(format!("{verb} {resource}{sub}")).or_default() += count;
            }
        }
        Self(counts)
    }

    /// The writes since an earlier count.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let new = |(name, count): (&String, &u64)| {
            let more = count - before.0.get(name).unwrap_or(&0);
            (more > 0).then(|| (name.clone(), more))
        };
        Self(self.0.iter().filter_map(new).collect())
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The number of writes without those to sets and deployments, of which there are few.
    pub(crate) fn about_servers(&self) -> u64 {
        self.0.iter().filter(|(name, _)| !name.contains(" vm")).map(|(_, count)| count).sum()
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

impl fmt::Display for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} writes:", self.total())?;
        self.0.iter().try_for_each(|(name, count)| write!(f, " {name} {count};"))
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
