//! The HTTPRoutes of the cluster, from the first time that one is named on. A cluster may have none, nor know what that is.

use std::{pin::pin, sync::Arc};

use berth_runtime::Context;
use futures::StreamExt as _;
use kube::{
    Api, Client, Error,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{
        WatchStreamExt as _, reflector,
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use parking_lot::Mutex;

/// Routes in one page of the first list.
const PAGE: u32 = 100;

/// What is known of the routes.
#[derive(Clone)]
pub(super) struct Routes {
    store: Store<DynamicObject>,
    state: Arc<Mutex<State>>,
}

#[derive(Clone)]
enum State {
    /// The first list is not there yet.
    Unknown,
    /// The watch follows them.
    Known,
    /// It does not, for this reason.
    Failed(String),
}

/// The kind.
pub(super) fn kind() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"),
        "httproutes",
    )
}

/// The routes of a namespace.
pub(super) fn api(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &kind())
}

impl Routes {
    /// Begins to follow all routes, until shutdown.
    pub(super) fn follow(ctx: &Context) -> Self {
        let writer = Writer::new(kind());
        let routes = Self { store: writer.as_reader(), state: Arc::new(Mutex::new(State::Unknown)) };
        let all = Api::<DynamicObject>::all_with(ctx.client.clone(), &kind());
        let events = watcher(all, watcher::Config::default().page_size(PAGE)).default_backoff();
        let events = events.modify(|route| route.metadata.managed_fields = None);
        let (shutdown, state) = (ctx.shutdown.clone(), Arc::clone(&routes.state));
        tokio::spawn(async move {
            let mut events = pin!(reflector(writer, events).take_until(shutdown.cancelled_owned()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_)) => {
                        *state.lock() = State::Known;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "the watch of HTTPRoutes failed and is started again");
                        *state.lock() = State::Failed(words(&error));
                    }
                }
            }
        });
        routes
    }

    /// A route; `None` while the routes are not known yet. The error says why there is none, and what to do.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Result<Arc<DynamicObject>, String>> {
        match self.state.lock().clone() {
            State::Unknown => return None,
            State::Failed(why) => return Some(Err(why)),
            State::Known => {}
        }
        let found = self.store.get(&ObjectRef::new_with(name, kind()).within(namespace));
        let missing =
            || format!("HTTPRoute {namespace}/{name} does not exist: create it, or correct spec.rollout.httpRoutes");
        Some(found.ok_or_else(missing))
    }
}

/// Why the routes are not known.
fn words(error: &watcher::Error) -> String {
    let (watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause)) = error else {
        return format!("the HTTPRoutes of the cluster cannot be followed: {error}");
    };
    match cause {
        Error::Api(status) if status.code == 404 => "the cluster does not know HTTPRoutes: install the Gateway API \
             (gateway.networking.k8s.io/v1), or remove spec.rollout.httpRoutes"
            .to_owned(),
        Error::Api(status) if status.code == 403 => {
            format!("lb-controller may not read HTTPRoutes, apply the manifests of this version: {}", status.message)
        }
        other => format!("the HTTPRoutes of the cluster cannot be read: {other}"),
    }
}
