//! The weights of HTTPRoutes of the Gateway API, which follow the roll-outs of VMDeployments that name them (`rollout.httpRoutes`).
//!
//! Each second, what every named route shows is compared with what it should show ([`weights`]). A weight that somebody else has changed
//! is set again. What became of it is written to `status.httpRoutes` of the VMDeployment, where the roll-out waits for it. Every copy of
//! this program may write: each write tests that nothing has changed since.

mod watch;
mod weights;

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use berth_core::{
    api::{HttpRoute, HttpRouteStatus, VMDeployment},
    protocol::GuardedPatch,
};
use berth_runtime::{ApiError, Cache, Context, EventType, reference, written};
use futures::StreamExt as _;
use kube::{
    Api, Resource as _,
    api::{ObjectMeta, Patch},
    core::DynamicObject,
};
use tokio::time::sleep;

use crate::subsets::Subsets;
use watch::Routes;
pub use weights::WEIGHTS_OF;

/// How often the routes are looked at, while a VMDeployment names one. It needs no request.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Keeps the weights of routes as the roll-outs of VMDeployments want them.
pub(crate) struct RouteWeights {
    ctx: Context,
    deployments: Cache<VMDeployment>,
    subsets: Subsets,
    /// By namespace, VMDeployment and route, the weight that the route was last seen with.
    seen: BTreeMap<(String, String, String), i32>,
}

impl RouteWeights {
    /// For these VMDeployments.
    pub(crate) fn new(ctx: &Context, deployments: &Cache<VMDeployment>, subsets: &Subsets) -> Self {
        let (ctx, deployments, subsets) = (ctx.clone(), deployments.clone(), subsets.clone());
        Self { ctx, deployments, subsets, seen: BTreeMap::new() }
    }

    /// Runs until shutdown. Routes are read only once a VMDeployment names one.
    pub(crate) async fn run(mut self) {
        let (shutdown, deployments) = (self.ctx.shutdown.clone(), self.deployments.clone());
        let mut changes = pin!(deployments.changes());
        let mut routes = None;
        loop {
            let named = self.named();
            if named.is_empty() {
                self.seen.clear();
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    Some(_) = changes.next() => continue,
                }
            }
            let routes = routes.get_or_insert_with(|| Routes::follow(&self.ctx));
            for deployment in named {
                self.look(routes, &deployment).await;
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// The VMDeployments that name routes, or did when their status was written.
    fn named(&self) -> Vec<Arc<VMDeployment>> {
        let names_route = |deployment: &Arc<VMDeployment>| {
            let was_named = deployment.status.as_ref().is_some_and(|status| !status.http_routes.is_empty());
            !deployment.spec.rollout.http_routes.is_empty() || was_named
        };
        let mut named: Vec<_> = self.deployments.store().state().into_iter().filter(names_route).collect();
        named.sort_by_key(|deployment| (deployment.namespace().to_owned(), deployment.name().to_owned()));
        named
    }

    /// Compares the routes of a VMDeployment with what they should show, and writes what differs.
    async fn look(&mut self, routes: &Routes, deployment: &VMDeployment) {
        let before = deployment.status.as_ref().map_or(&[][..], |status| status.http_routes.as_slice());
        let mut after = Vec::new();
        for declared in &deployment.spec.rollout.http_routes {
            let known = before.iter().find(|known| known.name == declared.name);
            match self.settle(routes, deployment, declared).await {
                Some(Ok(weight)) => after.push(HttpRouteStatus { name: declared.name.clone(), weight, problem: None }),
                Some(Err(problem)) => {
                    let problem = Some(problem);
                    after.push(HttpRouteStatus { name: declared.name.clone(), weight: None, problem });
                }
                None => after.extend(known.cloned()),
            }
        }
        if after != before && self.ctx.turns.wait(deployment).is_none() {
            let new = after.iter().filter(|route| !before.contains(route));
            for problem in new.filter_map(|route| route.problem.as_ref()) {
                self.ctx.events.publish(&reference(deployment), EventType::Warning, "HTTPRouteProblem", problem);
            }
            self.write_status(deployment, &after).await;
        }
    }

    /// Makes the route show the share of the roll-out, and returns the weight that it follows: none while traffic is not split. The error
    /// says why it does not follow it. `None` if that is not known now.
    async fn settle(
        &mut self,
        routes: &Routes,
        deployment: &VMDeployment,
        declared: &HttpRoute,
    ) -> Option<Result<Option<i32>, String>> {
        let namespace = deployment.namespace();
        let route = match routes.get(namespace, &declared.name)? {
            Ok(route) => route,
            Err(problem) => return Some(Err(problem)),
        };
        let sides = self.subsets.sides(deployment);
        let canary = weights::canary_weight(deployment, sides);
        let key = (namespace.to_owned(), deployment.name().to_owned(), declared.name.clone());
        match weights::write(&route, deployment, declared, canary) {
            Err(problem) => {
                self.seen.remove(&key);
                return Some(Err(problem));
            }
            Ok(Some(patch)) => {
                if self.ctx.turns.wait(deployment).is_some() {
                    return None;
                }
                if self.seen.get(&key) == Some(&canary) {
                    let note =
                        format!("the weights of HTTPRoute {} were changed by somebody else: set again", declared.name);
                    self.ctx.events.publish(&reference(deployment), EventType::Warning, "HTTPRouteCorrected", note);
                }
                match self.write_route(&route, &patch).await {
                    Ok(true) => {}
                    // The watch shows the next version.
                    Ok(false) => return None,
                    Err(error) => return Some(Err(error.to_string())),
                }
            }
            Ok(None) => {}
        }
        self.seen.insert(key, canary);
        let rollout = deployment.status.as_ref().and_then(|status| status.rollout.as_ref());
        let weight = rollout.and_then(|rollout| rollout.weight);
        // Without an updated Server there is nothing to share yet.
        (sides.updated > 0 || weight.is_none_or(|weight| weight == 0)).then_some(Ok(weight))
    }

    async fn write_route(&self, route: &DynamicObject, patch: &GuardedPatch) -> Result<bool, ApiError> {
        let ObjectMeta { name, namespace, .. } = route.meta();
        let (name, namespace) = (name.as_deref().unwrap_or_default(), namespace.as_deref().unwrap_or_default());
        let api = watch::api(&self.ctx.client, namespace);
        let patch = Patch::Json::<()>(patch.clone().build());
        let result = api.patch(name, &self.ctx.patch_params(), &patch).await;
        written(result.map_err(ApiError::doing(format!("set the weights of HTTPRoute {namespace}/{name}"))))
    }

    async fn write_status(&self, deployment: &VMDeployment, routes: &[HttpRouteStatus]) {
        let api = Api::<VMDeployment>::namespaced(self.ctx.client.clone(), deployment.namespace());
        let patch = GuardedPatch::of_version(&deployment.metadata).add(&["status", "httpRoutes"], routes);
        let patch = Patch::Json::<()>(patch.build());
        let result = api.patch_status(deployment.name(), &self.ctx.patch_params(), &patch).await;
        let action = format!("write status.httpRoutes of VMDeployment {}", deployment.name());
        if let Err(error) = written(result.map_err(ApiError::doing(action))) {
            tracing::warn!(%error, "trying again");
        }
    }
}
