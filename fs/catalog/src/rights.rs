//! Rights: one object per owner, and what they mean for a caller.

use std::sync::Arc;

use object_store::path::Path;

use crate::catalog::Catalog;
use crate::error::{CatalogError, Result};
use crate::names::{OwnerName, RepoName};
use crate::owners::View;
use crate::types::{Access, Caller, OwnerKind, Permission, Rights};

/// Repositories with rights of their own, and names in one list.
const ENTRIES_MAX: usize = 10_000;

pub(crate) fn rights_path(owner: &str) -> Path {
    Path::from_iter(["owners", owner, "rights"])
}

impl Access {
    /// Whether it gives nobody anything.
    #[must_use]
    pub fn is_private(&self) -> bool {
        *self == Access::default()
    }

    fn permission(&self, caller: &Caller) -> Permission {
        let is_member = |groups: &std::collections::BTreeSet<String>| {
            caller.groups.iter().any(|group| groups.contains(group))
        };
        let is_user = |users: &std::collections::BTreeSet<OwnerName>| {
            caller.user.as_ref().is_some_and(|user| users.contains(user))
        };
        if is_user(&self.write_users) || is_member(&self.write_groups) {
            Permission::Write
        } else if self.public || is_user(&self.read_users) || is_member(&self.read_groups) {
            Permission::Read
        } else {
            Permission::None
        }
    }

    fn names(&self) -> usize {
        self.read_users.len()
            + self.read_groups.len()
            + self.write_users.len()
            + self.write_groups.len()
    }
}

impl Rights {
    /// What holds for a repository, by what follows the owner's name.
    #[must_use]
    pub fn of(&self, rest: &str) -> &Access {
        self.repositories.get(rest).unwrap_or(&self.default)
    }

    /// Whether they give nobody anything.
    pub(crate) fn are_empty(&self) -> bool {
        self.default.is_private() && self.repositories.values().all(Access::is_private)
    }

    fn check(&self) -> Result<()> {
        let names: usize = self.repositories.values().map(Access::names).sum();
        let entries = self.repositories.len() + names + self.default.names();
        if entries > ENTRIES_MAX {
            return Err(CatalogError::Limit {
                what: "rights of one owner",
                limit: ENTRIES_MAX as u64,
            });
        }
        Ok(())
    }
}

impl View {
    /// What a caller may do with a repository of this owner.
    pub(crate) fn permission(&self, caller: &Caller, owner: &str, rest: &str) -> Permission {
        if caller.admin {
            return Permission::Manage;
        }
        let user = caller.user.as_ref();
        match self.owner.as_ref().map(|owner| &owner.kind) {
            None => {
                let is_own = user.is_some_and(|user| user.as_str() == owner);
                return if is_own { Permission::Manage } else { Permission::None };
            }
            Some(OwnerKind::User(_)) if user.is_some_and(|user| user.as_str() == owner) => {
                return Permission::Manage;
            }
            Some(OwnerKind::Group { managers })
                if user.is_some_and(|user| managers.contains(user)) =>
            {
                return Permission::Manage;
            }
            Some(_) => {}
        }
        self.rights.of(rest).permission(caller)
    }
}

impl View {
    /// Whether this owner may have anything that the caller may read.
    pub(crate) fn may_concern(&self, caller: &Caller, owner: &str) -> bool {
        let mut all = self.rights.repositories.values();
        self.permission(caller, owner, "") > Permission::None
            || self.rights.default.permission(caller) > Permission::None
            || all.any(|access| access.permission(caller) > Permission::None)
    }
}

impl Catalog {
    /// What an owner has shared, at most `head_age_max` old.
    ///
    /// # Errors
    /// What the store says.
    pub async fn rights(&self, owner: &OwnerName) -> Result<Arc<Rights>> {
        Ok(Arc::clone(&self.view(owner.as_str()).await?.rights))
    }

    /// Changes what an owner shares. `change` may run several times, on ever newer rights.
    ///
    /// # Errors
    /// What `change` says; what the store says.
    pub async fn change_rights(
        &self,
        owner: &OwnerName,
        mut change: impl FnMut(&mut Rights) -> Result<()> + Send + 'static,
    ) -> Result<Arc<Rights>> {
        let decide = move |known: Option<&Rights>| {
            let mut rights = known.cloned().unwrap_or_default();
            change(&mut rights)?;
            rights.check()?;
            Ok((known != Some(&rights)).then_some(rights))
        };
        let rights = self.change_owner(owner, rights_path(owner.as_str()), decide).await?;
        Ok(Arc::new(rights.unwrap_or_default()))
    }

    /// What a caller may do with a repository, which need not exist. Nobody gets more than
    /// `None` below a name without an owner record, except that user and administrators.
    /// Answers from memory when it can.
    ///
    /// # Errors
    /// What the store says: then nobody may do anything.
    pub async fn permission(&self, caller: &Caller, repo: &RepoName) -> Result<Permission> {
        let owner = repo.owner_str();
        let view = self.view(owner).await?;
        Ok(view.permission(caller, owner, repo.rest()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Identity, Owner};

    fn name(name: &str) -> OwnerName {
        name.parse().expect("a name")
    }

    fn caller(user: &str, groups: &[&str]) -> Caller {
        let user = (!user.is_empty()).then(|| name(user));
        Caller { user, groups: groups.iter().map(|g| (*g).to_owned()).collect(), admin: false }
    }

    fn view(kind: Option<OwnerKind>, rights: Rights) -> View {
        let owner = kind.map(|kind| Owner { name: name("alice"), kind, created_ms: 0 });
        View { owner, rights: Arc::new(rights) }
    }

    #[test]
    fn who_may_do_what() {
        use Permission::{Manage, None, Read, Write};
        let identity =
            Identity { authority: "system".to_owned(), uid: Some(1), login: Option::None };
        let user = || Some(OwnerKind::User(identity.clone()));
        let group = || Some(OwnerKind::Group { managers: [name("bob")].into() });
        let shared = Access {
            read_users: [name("bob")].into(),
            write_groups: ["staff".to_owned()].into(),
            ..Access::default()
        };
        let public = Access { public: true, ..Access::default() };
        let rights = Rights {
            default: public,
            repositories: [
                ("shared".to_owned(), shared),
                ("private".to_owned(), Access::default()),
            ]
            .into(),
        };
        let cases = [
            (user(), "alice", &[][..], "private", Manage),
            (user(), "bob", &[], "private", None),
            (user(), "", &[], "private", None),
            (user(), "", &[], "other", Read),
            (user(), "bob", &[], "shared", Read),
            (user(), "carol", &[], "shared", None),
            (user(), "carol", &["staff"], "shared", Write),
            (user(), "bob", &["staff"], "shared", Write),
            (group(), "alice", &[], "private", None),
            (group(), "bob", &[], "private", Manage),
            (Option::None, "alice", &[], "other", Manage),
            (Option::None, "bob", &[], "other", None),
        ];
        for (kind, user, groups, rest, expected) in cases {
            let view = view(kind.clone(), rights.clone());
            let permission = view.permission(&caller(user, groups), "alice", rest);
            assert_eq!(permission, expected, "{kind:?} {user} {groups:?} {rest}");
        }
        let admin = Caller { admin: true, ..Caller::default() };
        assert_eq!(View::default().permission(&admin, "alice", "x"), Manage);
    }
}
