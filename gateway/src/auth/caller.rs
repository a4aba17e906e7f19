//! Who a request comes from, as far as rights are concerned.
//!
//! A [`Caller`] is an identity and a ceiling. What the identity may do is the catalogue's to say
//! at every request; the ceiling, which tokens carry, only ever takes away.

use std::collections::BTreeSet;
use std::sync::Arc;

use yadokari_catalog::{Identity, OwnerName, Permission};

use super::scope::{Action, Scope};

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The identity.
    pub who: Who,
    /// What of the identity's rights may be used.
    pub ceiling: Ceiling,
    /// How it was proved, for the audit line.
    pub proof: Proof,
}

/// The identity of a caller. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Who {
    /// Nobody in particular: only what is public.
    Anonymous,
    /// A person.
    User(Arc<User>),
    /// A program that acts for a person, below a ceiling.
    Robot(Arc<Robot>),
}

/// A person, or root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The owner name: first component of the repositories that are theirs.
    pub name: OwnerName,
    /// Where they are known and as whom, for the catalogue's owner record.
    pub identity: Identity,
    /// Groups by the authority's names.
    pub groups: BTreeSet<String>,
    /// May do everything everywhere.
    pub admin: bool,
}

/// A robot token's bearer.
#[derive(Clone, Debug)]
pub struct Robot {
    /// Its own name, without its user's: `ci` of `ada+ci`.
    pub name: String,
    /// What tokens call it.
    pub id: String,
    /// For whom it acts; never as an administrator.
    pub user: Arc<User>,
}

/// What may be used of an identity's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// All of them.
    Everything,
    /// These only, and no management.
    Scopes(Arc<[Scope]>),
}

/// How a caller has proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Not at all.
    Nothing,
    /// Name and password, or name and robot token.
    Basic,
    /// A token of `/token`, or a robot token as it is.
    Bearer,
    /// The kernel said who owns the other end of the connection.
    Kernel,
}

impl Caller {
    /// The caller whom nobody knows.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { who: Who::Anonymous, ceiling: Ceiling::Everything, proof: Proof::Nothing }
    }

    /// The person who calls, or for whom a robot does.
    #[must_use]
    pub fn user(&self) -> Option<&Arc<User>> {
        match &self.who {
            Who::Anonymous => None,
            Who::User(user) => Some(user),
            Who::Robot(robot) => Some(&robot.user),
        }
    }

    /// Nobody in particular.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        matches!(self.who, Who::Anonymous)
    }

    /// An administrator in person, with nothing taken away.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        matches!(&self.who, Who::User(user) if user.admin) && self.ceiling == Ceiling::Everything
    }

    /// For log and audit: `ada`, `ada+ci`, `-`.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.who {
            Who::Anonymous => "-".to_owned(),
            Who::User(user) => user.name.to_string(),
            Who::Robot(robot) => format!("{}+{}", robot.user.name, robot.name),
        }
    }

    /// Whether the ceiling leaves this action on this repository. Says nothing of rights.
    #[must_use]
    pub fn ceiling_allows(&self, repository: &str, action: Action) -> bool {
        self.ceiling.allows_repository(repository, action)
    }

    /// What the ceiling leaves of a permission on a repository.
    #[must_use]
    pub fn capped(&self, repository: &str, permission: Permission) -> Permission {
        permission.min(self.ceiling.permission_max(repository))
    }

    /// What the catalogue is asked with. The ceiling is not in it: see [`Caller::capped`].
    #[must_use]
    pub fn for_catalog(&self) -> yadokari_catalog::Caller {
        let Some(user) = self.user() else { return yadokari_catalog::Caller::default() };
        yadokari_catalog::Caller {
            user: Some(user.name.clone()),
            groups: user.groups.clone(),
            admin: user.admin && matches!(self.who, Who::User(_)),
        }
    }
}

impl Ceiling {
    /// Whether it leaves this action on this repository.
    #[must_use]
    pub fn allows_repository(&self, repository: &str, action: Action) -> bool {
        match self {
            Self::Everything => true,
            Self::Scopes(scopes) => scopes.iter().any(|s| s.covers_repository(repository, action)),
        }
    }

    /// Whether the list of repositories may be asked for.
    #[must_use]
    pub fn allows_catalog(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Scopes(scopes) => scopes.iter().any(Scope::is_catalog),
        }
    }

    /// The most that it leaves on a repository. Managing needs no ceiling at all.
    #[must_use]
    pub fn permission_max(&self, repository: &str) -> Permission {
        if *self == Self::Everything {
            Permission::Manage
        } else if self.allows_repository(repository, Action::Push)
            || self.allows_repository(repository, Action::Delete)
        {
            Permission::Write
        } else if self.allows_repository(repository, Action::Pull) {
            Permission::Read
        } else {
            Permission::None
        }
    }

    /// What both leave.
    #[must_use]
    pub fn and(&self, asked: &[Scope]) -> Self {
        match self {
            Self::Everything => Self::Scopes(asked.into()),
            Self::Scopes(mine) => {
                asked.iter().filter_map(|scope| scope.within(mine)).collect::<Vec<_>>().into()
            }
        }
    }
}

impl From<Vec<Scope>> for Ceiling {
    fn from(scopes: Vec<Scope>) -> Self {
        Self::Scopes(scopes.into())
    }
}
