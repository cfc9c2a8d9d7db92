//! Which executor the authenticated user of a request is.

use crate::api::Executor;

/// The authenticated user of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Author {
    /// Name of the user, as the API server authenticated it.
    pub username: String,
}

impl Author {
    /// The author with this user name.
    #[must_use]
    pub fn new(username: impl Into<String>) -> Self {
        Self { username: username.into() }
    }
}

/// Which users are Berth's controllers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identities {
    /// Namespace of the controllers' ServiceAccounts.
    pub namespace: String,
}

impl Default for Identities {
    fn default() -> Self {
        Self { namespace: "berth-system".into() }
    }
}

impl Identities {
    /// The controller that this author is; none for people and other programs.
    #[must_use]
    pub fn executor(&self, author: &Author) -> Option<Executor> {
        let account = author.username.strip_prefix("system:serviceaccount:")?;
        let name = account.strip_prefix(self.namespace.as_str())?.strip_prefix(':')?;
        Executor::CONTROLLERS.into_iter().find(|e| e.name() == name)
    }

    /// The user name of a controller.
    #[must_use]
    pub fn username(&self, executor: Executor) -> String {
        format!("system:serviceaccount:{}:{executor}", self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_service_accounts_of_the_namespace_are_controllers() {
        let ids = Identities::default();
        for executor in Executor::CONTROLLERS {
            assert_eq!(ids.executor(&Author::new(ids.username(executor))), Some(executor));
        }
        for other in [
            "lb-controller",
            "system:serviceaccount:default:lb-controller",
            "system:serviceaccount:berth-systemx:lb-controller",
            "system:serviceaccount:berth-system:person",
            "system:serviceaccount:berth-system:webhook",
        ] {
            assert_eq!(ids.executor(&Author::new(other)), None, "{other}");
        }
    }
}
