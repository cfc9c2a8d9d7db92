//! The reconcile of a MachineClass: marks one that Servers name, and lets a deleted one go when none does any more.

use std::{sync::Arc, time::Duration};

use berth_core::api::{MachineClass, Server};
use berth_iaas::in_use;
use berth_runtime::{ApiError, Cache, Change, Context, EventType, reference};
use futures::{Stream, StreamExt as _, future};
use kube::{
    Api, ResourceExt as _,
    api::ListParams,
    runtime::{controller::Action, reflector::ObjectRef},
};

/// Names in a message: enough to begin with, few enough to read.
const NAMES: usize = 5;
/// When to say again which Servers use a class that is to be deleted. The end of each reconciles the class at once.
const WHILE_USED: Duration = Duration::from_mins(5);
/// After a write that met a changed class: the cache shows the change before.
const AFTER_STALE_WRITE: Duration = Duration::from_secs(1);

/// Reconciles MachineClasses.
#[derive(Clone)]
pub struct ClassReconciler {
    ctx: Context,
    servers: Cache<Server>,
}

impl ClassReconciler {
    /// A reconciler that knows the Servers in this cache.
    #[must_use]
    pub fn new(ctx: &Context, servers: &Cache<Server>) -> Self {
        Self { ctx: ctx.clone(), servers: servers.clone() }
    }

    /// The classes whose use may have changed because a Server came or went.
    pub fn changes_of_use(
        &self,
        classes: &Cache<MachineClass>,
    ) -> impl Stream<Item = ObjectRef<MachineClass>> + Send + use<> {
        let classes = classes.clone();
        self.servers.changes().filter_map(move |change| {
            let name = match &change {
                Change::Present(server) | Change::Gone(server) => Some(server.spec.machine.class_name.clone()),
                Change::Undecodable(_) => None,
            };
            // A class that is marked and stays has nothing to do about its Servers.
            let class = name.and_then(|name| classes.get(None, &name));
            let class = class.filter(|class| class.is_being_deleted() || !class.is_in_use());
            future::ready(class.map(|class| ObjectRef::from_obj(&*class)))
        })
    }

    /// Reconciles a class.
    ///
    /// # Errors
    /// When a call to the API server fails.
    pub async fn reconcile(&self, class: &MachineClass) -> Result<Action, ApiError> {
        let users = self.known_users(class);
        let is_written = match (class.is_being_deleted(), class.is_in_use()) {
            // Servers of a version that did not mark their class, or of a class that was created after them.
            (false, false) if !users.is_empty() => in_use::add(&self.ctx, class).await?,
            (true, true) if !users.is_empty() => return Ok(self.report_users(class, &users)),
            (true, true) => {
                // The cache may not show a new Server yet.
                let users = self.stored_users(class).await?;
                if !users.is_empty() {
                    return Ok(self.report_users(class, &users));
                }
                in_use::remove(&self.ctx, class).await?
            }
            _ => true,
        };
        Ok(if is_written { Action::await_change() } else { Action::requeue(AFTER_STALE_WRITE) })
    }

    fn known_users(&self, class: &MachineClass) -> Vec<String> {
        let servers = self.servers.store().state();
        let users = servers.iter().filter(|server| server.spec.machine.class_name == class.name());
        let mut names: Vec<String> = users.map(|server| full_name(server.namespace(), server.name())).collect();
        names.sort();
        names
    }

    /// The Servers that name the class, by the API server; some of them if there are many. Also those that this version cannot
    /// decode.
    async fn stored_users(&self, class: &MachineClass) -> Result<Vec<String>, ApiError> {
        let of_class = ListParams::default().fields(&format!("spec.machine.className={}", class.name())).limit(100);
        let listed = Api::<Server>::all(self.ctx.client.clone()).list_metadata(&of_class).await;
        let listed = listed.map_err(ApiError::doing(format!("list the Servers of MachineClass {}", class.name())))?;
        let names = listed.iter().map(|server| full_name(&server.namespace().unwrap_or_default(), &server.name_any()));
        Ok(names.collect())
    }

    fn report_users(&self, class: &MachineClass, users: &[String]) -> Action {
        let more = users.len().saturating_sub(NAMES);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let (count, names) = (users.len(), users[..users.len().min(NAMES)].join(", "));
        let note = format!(
            "it is deleted once no Server names it: {count} do ({names}{more}). Delete or scale down their sets, or let the sets \
             replace them: another class in spec.template.spec.machine.className, and updateStrategy.type Replace"
        );
        self.ctx.events.publish(&reference(class), EventType::Warning, "InUse", note);
        Action::requeue(WHILE_USED)
    }
}

fn full_name(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// Runs the reconciler.
pub(crate) async fn run(ctx: &Context, classes: &Cache<MachineClass>, reconciler: Arc<ClassReconciler>) {
    berth_runtime::Controller::new("machineclasses", classes)
        .reconcile_on(reconciler.changes_of_use(classes))
        .run(ctx, reconciler, |class, reconciler| async move { reconciler.reconcile(&class).await })
        .await;
}
