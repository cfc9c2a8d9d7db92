//! Asks about the machines of unreachable Servers, in the background, so that no reconcile waits for a provider or a machine.
//!
//! A slow provider holds up only the questions about its own class. What was heard is kept in memory: a restart loses it, which
//! costs only time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use berth_core::api::{Server, VMReplicaSet};
use berth_runtime::{Backoff, Context};
use futures::{Stream, StreamExt as _, channel::mpsc, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    finding::{MachineAnswer, MachineAnswers, MachineFinding},
    machines::{MachineAtProvider, MachineSource},
};

/// Questions about machines of one class that run at once: enough that a rack full of machines is asked about within a minute
/// even if each question takes its limit.
const PARALLEL: usize = 8;
/// How long a provider may take to answer: it is asked for one machine.
const PROVIDER_LIMIT: Duration = Duration::from_secs(15);
/// How long two knocks may take: longer than their own limits, which they keep unless something hangs.
const KNOCK_LIMIT: Duration = Duration::from_secs(30);
/// Until it is asked again about a Server that is held.
const HELD: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_mins(5));

/// What is asked and known about the machines of unreachable Servers. Clones share it.
#[derive(Clone)]
pub(super) struct Inquiries(Arc<Inner>);

struct Inner {
    ctx: Context,
    machines: Arc<dyn MachineSource>,
    /// By UID of the set, and by name of the Server.
    asked: Mutex<HashMap<String, BTreeMap<String, Inquiry>>>,
    /// By name of the MachineClass.
    slots: Mutex<HashMap<String, Arc<Semaphore>>>,
    sender: mpsc::UnboundedSender<ObjectRef<VMReplicaSet>>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<ObjectRef<VMReplicaSet>>>>,
}

/// What is asked and known about one Server.
struct Inquiry {
    loss: Loss,
    is_running: bool,
    answer: Option<MachineAnswer>,
    /// How often it was found in a row that nothing may be done about the machine.
    holds: u32,
}

/// One time that a machine was lost: the UID of the Server, and since when it is unreachable.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Loss(String, Option<Timestamp>);

impl Loss {
    fn of(server: &Server) -> Option<Self> {
        server.is_unreachable().then(|| Self(server.uid().to_owned(), server.state_since()))
    }
}

impl Inquiries {
    pub(super) fn new(ctx: &Context, machines: Arc<dyn MachineSource>) -> Self {
        let (sender, receiver) = mpsc::unbounded();
        let receiver = Mutex::new(Some(receiver));
        let (asked, slots) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { ctx: ctx.clone(), machines, asked, slots, sender, receiver }))
    }

    /// The sets to reconcile because an answer has come in. Only the first caller gets them.
    pub(super) fn notifications(&self) -> impl Stream<Item = ObjectRef<VMReplicaSet>> + Send + use<> {
        stream::iter(self.0.receiver.lock().take()).flatten()
    }

    /// What is known about these Servers of the set. What was known of others is forgotten: they are back, or gone.
    pub(super) fn known(&self, set: &VMReplicaSet, servers: &[&Server]) -> MachineAnswers {
        let mut asked = self.0.asked.lock();
        let Some(of_set) = asked.get_mut(set.uid()) else { return MachineAnswers::new() };
        let losses = servers.iter().filter_map(|server| Some((server.name(), Loss::of(server)?)));
        let losses: HashMap<&str, Loss> = losses.collect();
        of_set.retain(|name, inquiry| losses.get(name.as_str()) == Some(&inquiry.loss));
        let answers = of_set.iter().filter_map(|(name, known)| Some((name.clone(), known.answer.clone()?)));
        let answers = answers.collect();
        if of_set.is_empty() {
            asked.remove(set.uid());
        }
        answers
    }

    /// What was found about the Server a moment ago, if something may be done about it.
    pub(super) fn fresh(&self, set: &VMReplicaSet, server: &Server) -> Option<MachineFinding> {
        let asked = self.0.asked.lock();
        let inquiry =
            asked.get(set.uid())?.get(server.name()).filter(|of| Some(&of.loss) == Loss::of(server).as_ref())?;
        let answer = inquiry.answer.as_ref()?;
        answer.allows_failover(self.0.ctx.clock.now()).then(|| answer.finding.clone())
    }

    pub(super) fn forget(&self, set: &VMReplicaSet) {
        self.0.asked.lock().remove(set.uid());
    }

    /// Begins to ask about these Servers of the set, if it is not being asked already.
    pub(super) fn ask<'s>(&self, set: &VMReplicaSet, servers: impl Iterator<Item = &'s Server>) {
        for server in servers {
            let Some(loss) = Loss::of(server).filter(|loss| self.begin(set, server, loss)) else { continue };
            let (this, set, server) = (self.clone(), SetKey::of(set), server.clone());
            tokio::spawn(async move {
                let finding = tokio::select! {
                    biased;
                    finding = this.0.inquire(&server) => finding,
                    () = this.0.ctx.shutdown.cancelled() => return,
                };
                this.0.note(&set, &server, &loss, finding);
            });
        }
    }

    /// Notes that it is asked about the Server. Says whether it was not before.
    fn begin(&self, set: &VMReplicaSet, server: &Server, loss: &Loss) -> bool {
        let mut asked = self.0.asked.lock();
        let of_set = asked.entry(set.uid().to_owned()).or_default();
        let new = || Inquiry { loss: loss.clone(), is_running: false, answer: None, holds: 0 };
        let inquiry = of_set.entry(server.name().to_owned()).or_insert_with(new);
        if inquiry.loss != *loss {
            *inquiry = new();
        }
        !std::mem::replace(&mut inquiry.is_running, true)
    }
}

/// A set that waits for an answer.
struct SetKey {
    uid: String,
    reference: ObjectRef<VMReplicaSet>,
}

impl SetKey {
    fn of(set: &VMReplicaSet) -> Self {
        Self { uid: set.uid().to_owned(), reference: ObjectRef::new(set.name()).within(set.namespace()) }
    }
}

impl Inner {
    /// Asks the provider and, if it says that the machine runs, the machine.
    async fn inquire(&self, server: &Server) -> MachineFinding {
        let slots = self.slots.lock().entry(server.spec.machine.class_name.clone()).or_insert_with(slots).clone();
        // Nobody closes it.
        let _slot = slots.acquire().await;
        let at_provider = timeout(PROVIDER_LIMIT, self.machines.find(server)).await;
        let at_provider = at_provider.unwrap_or_else(|_| Err(format!("no answer within {PROVIDER_LIMIT:?}")));
        if at_provider != Ok(MachineAtProvider::Running) {
            return MachineFinding::of(at_provider, false);
        }
        match timeout(KNOCK_LIMIT, self.machines.knock(server)).await {
            Ok(answers) => MachineFinding::of(at_provider, answers),
            // A machine that is silent ends its knocks long before. So it was this process that stood still, and heard nothing.
            Err(_) => MachineFinding::of(
                Err(format!("it runs, and knocking at it did not end within {KNOCK_LIMIT:?}")),
                false,
            ),
        }
    }

    fn note(&self, set: &SetKey, server: &Server, loss: &Loss, finding: MachineFinding) {
        let (name, namespace) = (server.name(), server.namespace());
        tracing::info!(server = name, namespace, "unreachable: {finding}");
        let mut asked = self.asked.lock();
        let inquiry = asked.get_mut(&set.uid).and_then(|of_set| of_set.get_mut(name));
        // The Server may be back or gone meanwhile.
        let Some(inquiry) = inquiry.filter(|inquiry| inquiry.loss == *loss) else { return };
        inquiry.holds = if finding.holds() { inquiry.holds.saturating_add(1) } else { 0 };
        let found_at = self.ctx.clock.now();
        let delay = SignedDuration::try_from(HELD.delay(inquiry.holds)).unwrap_or(SignedDuration::ZERO);
        let ask_again_at = found_at.checked_add(delay).unwrap_or(Timestamp::MAX);
        inquiry.answer = Some(MachineAnswer { finding, found_at, ask_again_at });
        inquiry.is_running = false;
        // Sending fails only when nobody reconciles sets.
        let _ = self.sender.unbounded_send(set.reference.clone());
    }
}

fn slots() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(PARALLEL))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use berth_core::{api::Executor, identity::Identities};
    use berth_runtime::{ContextParts, Process, SystemClock};
    use futures::{
        FutureExt as _,
        future::{self, BoxFuture},
    };
    use serde_json::json;

    use super::*;
    use crate::set::machines::NoMachines;

    /// The provider of the class `slow` never answers; all machines of other classes run, and `alive` answers.
    #[derive(Default)]
    struct Source {
        waiting: AtomicUsize,
        knocks: AtomicUsize,
    }

    impl MachineSource for Source {
        fn check<'a>(&'a self, _: &'a VMReplicaSet) -> BoxFuture<'a, Result<(), NoMachines>> {
            future::ready(Ok(())).boxed()
        }

        fn find<'a>(&'a self, server: &'a Server) -> BoxFuture<'a, Result<MachineAtProvider, String>> {
            if server.spec.machine.class_name == "slow" {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                return future::pending().boxed();
            }
            future::ready(Ok(MachineAtProvider::Running)).boxed()
        }

        fn knock<'a>(&'a self, server: &'a Server) -> BoxFuture<'a, bool> {
            self.knocks.fetch_add(1, Ordering::SeqCst);
            match server.name() {
                "unheard" => future::pending().boxed(),
                name => future::ready(name == "alive").boxed(),
            }
        }

        fn zone(&self, _: &str) -> Option<String> {
            None
        }
    }

    fn inquiries() -> (Arc<Source>, Inquiries) {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let parts = ContextParts {
            client: kube::Client::try_from(config).unwrap(),
            executor: Executor::ReplicasetController,
            instance: "one".into(),
            identities: Identities::default(),
            concurrency: 1,
            clock: Arc::new(SystemClock),
            lock_duration: Duration::from_secs(30),
        };
        let source = Arc::new(Source::default());
        (source.clone(), Inquiries::new(&Context::new(&Process::default(), parts), source))
    }

    fn set() -> VMReplicaSet {
        berth_testing::replica_set(json!({}))
    }

    fn server(name: &str, class: &str, since: &str) -> Server {
        let status = json!({"state": "Unknown", "stateSince": since, "observedGeneration": 1});
        let spec = json!({"machine": {"className": class}});
        berth_testing::server(json!({"metadata": {"name": name}, "spec": spec, "status": status}))
    }

    const ONCE: &str = "2026-01-01T00:00:00Z";
    const AGAIN: &str = "2026-01-01T01:00:00Z";

    #[tokio::test(start_paused = true)]
    async fn a_slow_provider_holds_up_only_the_questions_about_its_own_class() {
        let (source, inquiries) = inquiries();
        let slow: Vec<Server> = (0..20).map(|n| server(&format!("slow-{n}"), "slow", ONCE)).collect();
        let quick = [server("alive", "quick", ONCE), server("dead", "quick", ONCE)];
        inquiries.ask(&set(), slow.iter().chain(&quick));
        let mut answered = Box::pin(inquiries.notifications());
        answered.next().await.unwrap();
        answered.next().await.unwrap();
        let all: Vec<&Server> = slow.iter().chain(&quick).collect();
        let known = inquiries.known(&set(), &all);
        assert_eq!(known.keys().collect::<Vec<_>>(), ["alive", "dead"]);
        assert_eq!(
            (&known["alive"].finding, &known["dead"].finding),
            (&MachineFinding::Answers, &MachineFinding::Silent)
        );
        assert_eq!(source.waiting.load(Ordering::SeqCst), PARALLEL, "no more at once");
        assert!(inquiries.fresh(&set(), &quick[1]).is_some() && inquiries.fresh(&set(), &quick[0]).is_none());
        // A provider that does not answer in time has not said anything.
        for _ in 0..20 {
            answered.next().await.unwrap();
        }
        let known = inquiries.known(&set(), &all);
        let unresponsive = MachineFinding::ProviderUnresponsive("no answer within 15s".into());
        assert!((0..20).all(|n| known[&format!("slow-{n}")].finding == unresponsive), "{known:?}");
        assert_eq!(
            source.knocks.load(Ordering::SeqCst),
            2,
            "nobody knocks at a machine of which it is not known that it runs"
        );
    }

    /// As when the process stood still (a paused virtual machine): that says nothing about the machine.
    #[tokio::test(start_paused = true)]
    async fn a_knock_that_does_not_end_is_no_silence() {
        let (_, inquiries) = inquiries();
        let lost = server("unheard", "quick", ONCE);
        inquiries.ask(&set(), std::iter::once(&lost));
        inquiries.notifications().boxed().next().await.unwrap();
        let finding = inquiries.known(&set(), &[&lost])["unheard"].finding.clone();
        assert!(finding.holds() && inquiries.fresh(&set(), &lost).is_none(), "{finding:?}");
    }

    #[tokio::test]
    async fn each_loss_is_asked_about_once_at_a_time_and_forgotten_when_it_is_over() {
        let (source, inquiries) = inquiries();
        let lost = server("alive", "quick", ONCE);
        inquiries.ask(&set(), [&lost, &lost].into_iter());
        inquiries.ask(&set(), std::iter::once(&lost));
        let mut answered = Box::pin(inquiries.notifications());
        assert_eq!(answered.next().await, Some(ObjectRef::new("web").within("default")));
        assert_eq!(source.knocks.load(Ordering::SeqCst), 1);
        assert_eq!(inquiries.known(&set(), &[&lost]).len(), 1);
        // It was back meanwhile: what was heard before says nothing about this loss.
        let lost_again = server("alive", "quick", AGAIN);
        assert!(inquiries.fresh(&set(), &lost_again).is_none());
        assert!(inquiries.known(&set(), &[&lost_again]).is_empty());
        inquiries.ask(&set(), std::iter::once(&lost_again));
        answered.next().await.unwrap();
        assert_eq!(inquiries.known(&set(), &[&lost_again]).len(), 1);
        inquiries.known(&set(), &[]);
        assert!(inquiries.0.asked.lock().is_empty());
    }
}
