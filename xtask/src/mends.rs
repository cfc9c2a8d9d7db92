//! Does the simulated world find the faults that it is said to find? Each `sim/regressions/NAME.patch` takes a mend out of the shipped
//! programs, or plants a fault in them, and `NAME.json` is a run that then goes wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

/// How long a run that went wrong is made shorter, in seconds.
const SHRINK: &str = "60";

/// What to do with each patch.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Names of patches; by default all
    names: Vec<String>,
    /// Play new runs, for at most so many seconds a patch, instead of the one that is known
    #[arg(long, value_name = "SECONDS")]
    fresh: Option<u64>,
    /// Write the schedules of new runs that go wrong to `sim/regressions`
    #[arg(long, requires = "fresh")]
    record: bool,
    /// How many new runs at the same time; by default one for each processor
    #[arg(long, requires = "fresh")]
    jobs: Option<usize>,
}

/// What became of a patch.
struct Verdict {
    name: String,
    /// The words of the judge that has noticed it, behind the seed of the run; none when nobody has.
    words: Option<String>,
    took: Duration,
}

/// Takes out one mend after the other, and fails when the simulated world does not notice one.
pub(crate) fn check(root: &Path, options: &Options) -> Result<()> {
    let patches = patches(root, &options.names)?;
    let tree = Tree::checkout(root, options)?;
    let mut verdicts: Vec<Verdict> = Vec::new();
    for (number, patch) in patches.iter().enumerate() {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        println!("{} of {}: {name}: {}", number + 1, patches.len(), first_line(patch)?);
        tree.build_with(patch)?;
        let begun = Instant::now();
        let words = match options.fresh {
            Some(seconds) => tree.play_new_runs(&name, Duration::from_secs(seconds), options)?,
            None => tree.replay(&patch.with_extension("json"))?,
        };
        println!("{}", words.as_deref().unwrap_or("nobody has noticed it"));
        verdicts.push(Verdict { name, words, took: begun.elapsed() });
    }
    show(&verdicts);
    let unnoticed: Vec<&str> = verdicts.iter().filter(|v| v.words.is_none()).map(|v| v.name.as_str()).collect();
    ensure!(unnoticed.is_empty(), "the simulated world does not notice: {}", unnoticed.join(", "));
    Ok(())
}

/// Shows a table of what was noticed.
fn show(verdicts: &[Verdict]) {
    let width = verdicts.iter().map(|verdict| verdict.name.len()).max().unwrap_or_default();
    println!();
    for Verdict { name, words, took } in verdicts {
        println!("{name:width$} {:7.1} s  {}", took.as_secs_f64(), words.as_deref().unwrap_or("NOT FOUND"));
    }
}

/// What the patch says that it breaks.
fn first_line(patch: &Path) -> Result<String> {
    let text = fs::read_to_string(patch).with_context(|| format!("{}", patch.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn patches(root: &Path, names: &[String]) -> Result<Vec<PathBuf>> {
    let folder = root.join("sim/regressions");
    if !names.is_empty() {
        return Ok(names.iter().map(|name| folder.join(name).with_extension("patch")).collect());
    }
    let mut patches: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    patches.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    patches.sort();
    Ok(patches)
}

/// A copy of the repository in which faults are planted: the last commit, and the changes of known files since.
struct Tree {
    root: PathBuf,
    path: PathBuf,
    /// Optimised where many runs are played.
    profile: &'static str,
}

impl Tree {
    fn checkout(root: &Path, options: &Options) -> Result<Self> {
        let profile = if options.fresh.is_some() { "sim" } else { "dev" };
        let tree = Self { root: root.to_owned(), path: root.join("target/mends/tree"), profile };
        let commit = output(Command::new("git").args(["stash", "create"]).current_dir(root))?;
        // Not the name HEAD, which has another meaning in the tree.
        let head = || output(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root));
        let commit = if commit.is_empty() { head()? } else { commit };
        if tree.path.exists() {
            // The files that did not change keep their times, so that cargo builds little.
            run(tree.git().args(["checkout", "--quiet", "--force", "--detach", &commit]))?;
        } else {
            let add = ["worktree", "add", "--quiet", "--force", "--detach"];
            run(Command::new("git").args(add).arg(&tree.path).arg(commit).current_dir(root))?;
        }
        if options.fresh.is_some() {
            println!("building berth-sim as it is");
            tree.build()?;
            fs::copy(tree.program(), tree.healthy())?;
        }
        Ok(tree)
    }

    fn git(&self) -> Command {
        let mut git = Command::new("git");
        git.arg("-C").arg(&self.path);
        git
    }

    fn build_with(&self, patch: &Path) -> Result<()> {
        run(self.git().arg("apply").arg(patch)).with_context(|| format!("{}", patch.display()))?;
        let built = self.build().with_context(|| format!("{}", patch.display()));
        run(self.git().args(["checkout", "--quiet", "--force", "."]))?;
        built
    }

    fn build(&self) -> Result<()> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--package", "berth-sim", "--bin", "berth-sim", "--profile", self.profile]);
        cargo.arg("--target-dir").arg(self.root.join("target/mends/build"));
        run(cargo.current_dir(&self.path))
    }

    fn program(&self) -> PathBuf {
        let folder = if self.profile == "dev" { "debug" } else { self.profile };
        self.root.join("target/mends/build").join(folder).join("berth-sim")
    }

    /// The program without a planted fault.
    fn healthy(&self) -> PathBuf {
        self.root.join("target/mends/healthy")
    }

    /// Plays the run of this file. Returns its seed and what was wrong.
    fn replay(&self, schedule: &Path) -> Result<Option<String>> {
        ensure!(schedule.exists(), "{} is missing: --fresh SECONDS --record looks for such a run", schedule.display());
        self.replay_with(&self.program(), schedule)
    }

    fn replay_with(&self, program: &Path, schedule: &Path) -> Result<Option<String>> {
        let log = self.root.join("target/mends/log");
        let replayed =
            Command::new(program).args(["replay", "--schedule"]).arg(schedule).arg("--log").arg(log).output()?;
        let said = String::from_utf8_lossy(&replayed.stdout);
        Ok(is_found(replayed.status)?.then(|| said.trim().to_owned()))
    }

    /// Plays new runs until one goes wrong that goes well without the planted fault.
    fn play_new_runs(&self, name: &str, limit: Duration, options: &Options) -> Result<Option<String>> {
        let out = self.root.join("target/mends/found").join(name);
        let begun = Instant::now();
        let mut from: Option<u64> = None;
        while let Some(left) = limit.checked_sub(begun.elapsed()) {
            let seconds = left.as_secs().max(1).to_string();
            let Some((seed, whole)) = self.campaign(&out, from, &["--seconds", &seconds, "--shrink", "0"], options)?
            else {
                return Ok(None);
            };
            let whole_copy = out.with_extension("whole");
            fs::copy(whole, &whole_copy)?;
            // Some runs depend on how many others the process has played before.
            let needs_others = self.replay(&whole_copy)?.is_none();
            if needs_others || self.replay_with(&self.healthy(), &whole_copy)?.is_some() {
                let why = if needs_others {
                    "goes well when it is played alone"
                } else {
                    "goes wrong without the patch, too"
                };
                println!("seed {seed} {why}");
                from = Some(seed + 1);
                continue;
            }
            let shortest = self.campaign(&out, Some(seed), &["--seeds", "1", "--shrink", SHRINK], options)?;
            let is_good = |file: &PathBuf| -> Result<bool> {
                Ok(self.replay(file)?.is_some() && self.replay_with(&self.healthy(), file)?.is_none())
            };
            let schedule = match shortest.map(|(_, file)| file) {
                Some(shortest) if is_good(&shortest)? => shortest,
                _ => whole_copy,
            };
            if options.record {
                fs::copy(&schedule, self.root.join("sim/regressions").join(name).with_extension("json"))?;
            }
            return self.replay(&schedule);
        }
        Ok(None)
    }

    /// Plays runs until one goes wrong. Returns its seed and the file of its schedule.
    fn campaign(
        &self,
        out: &Path,
        from: Option<u64>,
        arguments: &[&str],
        options: &Options,
    ) -> Result<Option<(u64, PathBuf)>> {
        if out.exists() {
            fs::remove_dir_all(out)?;
        }
        let mut command = Command::new(self.program());
        command.arg("run").args(arguments).arg("--out").arg(out);
        command.args(from.iter().flat_map(|seed| ["--from".to_owned(), seed.to_string()]));
        command.args(options.jobs.iter().flat_map(|jobs| ["--jobs".to_owned(), jobs.to_string()]));
        if !is_found(command.status()?)? {
            return Ok(None);
        }
        for entry in fs::read_dir(out)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let seed = path.file_stem().unwrap_or_default().to_string_lossy().parse()?;
                return Ok(Some((seed, path)));
            }
        }
        bail!("the run that went wrong has left no schedule in {}", out.display())
    }
}

/// `berth-sim` ends with 1 when a run went wrong, and with another code when it could not play it.
fn is_found(status: ExitStatus) -> Result<bool> {
    match status.code() {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => bail!("berth-sim ended with {status}"),
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
