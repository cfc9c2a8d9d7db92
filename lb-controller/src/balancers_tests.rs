use std::sync::atomic::{AtomicUsize, Ordering};

use berth_core::api::TrafficPhase;

use super::*;
use crate::member::Registration;

/// A load balancer that shows nothing, and answers every change with this result.
struct FakeBalancer {
    name: &'static str,
    result: Result<(), BalancerError>,
    applied: AtomicUsize,
}

impl FakeBalancer {
    fn new(name: &'static str, result: Result<(), BalancerError>) -> Arc<Self> {
        Arc::new(Self { name, result, applied: AtomicUsize::new(0) })
    }

    fn applied(&self) -> usize {
        self.applied.load(Ordering::Relaxed)
    }
}

impl LoadBalancer for FakeBalancer {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(self: Arc<Self>, _: Context, _: Observer) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn shows(&self, member: &Member) -> bool {
        member.desired.is_none()
    }

    fn apply<'a>(&'a self, _: &'a Member) -> BoxFuture<'a, Result<(), BalancerError>> {
        self.applied.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { self.result.clone() })
    }

    fn is_idle(&self, _: &Member) -> bool {
        true
    }

    fn problems<'a>(&'a self, _: &'a Member) -> BoxFuture<'a, Result<Vec<Problem>, BalancerError>> {
        let problem = Problem { reason: "Broken", message: self.name.to_owned() };
        Box::pin(async { self.result.clone().map(|()| vec![problem]) })
    }
}

fn unavailable() -> BalancerError {
    BalancerError::Unavailable { action: "write".into(), reason: "no answer".into() }
}

fn registry(balancers: &[&Arc<FakeBalancer>]) -> Balancers {
    Balancers::new(balancers.iter().map(|balancer| Arc::clone(balancer) as Arc<dyn LoadBalancer>))
}

fn held() -> Member {
    let server = ServerRef { namespace: "ns".into(), name: "web-0".into(), uid: "u".into() };
    let desired = Registration {
        phase: TrafficPhase::Held,
        services: vec![],
        classes: vec![],
        left: vec![],
        address: "10.0.0.1".into(),
    };
    Member { server, version: 1, desired: Some(desired), must_record_version: false, held_for: None }
}

#[tokio::test]
async fn all_load_balancers_are_changed_and_the_one_that_fails_is_named() {
    let (good, bad, last) = (
        FakeBalancer::new("good", Ok(())),
        FakeBalancer::new("bad", Err(unavailable())),
        FakeBalancer::new("last", Ok(())),
    );
    let failure = registry(&[&good, &bad, &last]).apply(&held()).await.unwrap_err();
    assert_eq!(failure.to_string(), "load balancer bad: cannot write: no answer");
    assert_eq!((good.applied(), bad.applied(), last.applied()), (1, 1, 1));
}

#[tokio::test]
async fn a_superseded_decision_outranks_other_failures() {
    let (down, newer) =
        (FakeBalancer::new("down", Err(unavailable())), FakeBalancer::new("newer", Err(BalancerError::Superseded)));
    let failure = registry(&[&down, &newer]).apply(&held()).await.unwrap_err();
    assert!(matches!(failure, BalancerFailure { balancer: "newer", cause: BalancerError::Superseded }));
}

#[tokio::test]
async fn a_load_balancer_that_shows_the_member_is_changed_only_to_record_its_version() {
    let balancer = FakeBalancer::new("only", Ok(()));
    let balancers = registry(&[&balancer]);
    let unknown = Member { desired: None, ..held() };
    assert!(balancers.show(&unknown) && !balancers.show(&held()));
    balancers.apply(&unknown).await.unwrap();
    assert_eq!(balancer.applied(), 0);
    balancers.apply(&Member { must_record_version: true, ..unknown }).await.unwrap();
    assert_eq!(balancer.applied(), 1);
}

#[tokio::test]
async fn problems_of_all_load_balancers_that_can_tell_are_found() {
    let (one, two) = (FakeBalancer::new("one", Err(unavailable())), FakeBalancer::new("two", Ok(())));
    let problems = registry(&[&one, &two]).problems(&held()).await;
    assert_eq!(problems, [Problem { reason: "Broken", message: "two".into() }]);
}
