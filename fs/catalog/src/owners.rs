//! Owner records: users and groups, and who may have a name.
//!
//! Record and rights of an owner are two heads that are read together and remembered together,
//! under the edition that the directory names. Whoever changes one of them opens the owner's
//! entry in the directory first and closes it behind the change with a new edition; while it is
//! open, everybody reads the heads themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::path::Path;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::cell::{self, Cell, Next};
use crate::directory::{Directory, DirectoryOp};
use crate::error::{CatalogError, Result, What};
use crate::log::{Decided, Moment};
use crate::names::OwnerName;
use crate::rights::rights_path;
use crate::types::{Identity, Owner, OwnerKind, Page, Rights};

/// Owners whose record and rights are remembered.
const VIEWS_MAX: usize = 20_000;

/// Record and rights of an owner.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) owner: Option<Owner>,
    pub(crate) rights: Arc<Rights>,
}

/// What is remembered of owners, each with its edition.
#[derive(Debug)]
pub(crate) struct Views {
    known: Cache<OwnerName, (u64, Arc<View>)>,
    nobody: Arc<View>,
}

impl Default for Views {
    fn default() -> Self {
        Views { known: Cache::new(VIEWS_MAX), nobody: Arc::default() }
    }
}

/// A login that is mapped to an owner name.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Mapped {
    authority: String,
    login: String,
    owner: OwnerName,
}

fn owner_path(owner: &str) -> Path {
    Path::from_iter(["owners", owner, "owner"])
}

fn login_path(authority: &str, login: &str) -> Path {
    let mut hash = blake3::Hasher::new();
    hash.update(authority.as_bytes()).update(b"\0").update(login.as_bytes());
    Path::from_iter(["logins", hash.finalize().to_hex().as_str()])
}

impl Catalog {
    /// Record and rights of an owner, at most `head_age_max` old.
    pub(crate) async fn view(&self, name: &str) -> Result<Arc<View>> {
        let look = |directory: &Directory| {
            let entry = directory.owners.get(name);
            entry.map(|entry| (entry.edition, entry.open.is_empty()))
        };
        let views = &self.inner.views;
        let Some((edition, is_closed)) = self.directory().look(self.age_max(), look).await? else {
            return Ok(Arc::clone(&views.nobody));
        };
        if is_closed
            && let Some((known, view)) = views.known.get(name)
            && known == edition
        {
            return Ok(view);
        }
        let view = Arc::new(self.read_view(name).await?);
        if is_closed && let Ok(name) = name.parse() {
            views.known.insert(name, (edition, Arc::clone(&view)));
        }
        Ok(view)
    }

    async fn read_view(&self, name: &str) -> Result<View> {
        let (meta, writer) = (&*self.inner.store.meta, &self.inner.writer);
        let (owner, rights) = (owner_path(name), rights_path(name));
        let (owner, rights): (Option<Cell<Owner>>, Option<Cell<Rights>>) = tokio::try_join!(
            cell::read_again(meta, writer, &owner),
            cell::read_again(meta, writer, &rights),
        )?;
        let rights = rights.map(|cell| Arc::new(cell.value)).unwrap_or_default();
        Ok(View { owner: owner.map(|cell| cell.value), rights })
    }

    /// Changes a head of an owner, with the directory's entry open around it.
    pub(crate) async fn change_owner<T>(
        &self,
        name: &OwnerName,
        path: Path,
        mut decide: impl FnMut(Option<&T>) -> Result<Option<T>> + Send + 'static,
    ) -> Result<Option<T>>
    where
        T: Serialize + for<'de> Deserialize<'de> + Clone + Send + Sync + 'static,
    {
        let (this, name) = (self.clone(), name.clone());
        Catalog::detached(async move {
            let (id, edition) = this.open_entry(&name).await?;
            let decide = |known: Option<&Cell<T>>| {
                let next = match decide(known.map(|cell| &cell.value))? {
                    None => Next::Keep,
                    Some(value) => Next::Swap(value, bytes::Bytes::new()),
                };
                Ok((next, ()))
            };
            let (meta, writer) = (&*this.inner.store.meta, &this.inner.writer);
            let changed = cell::update(meta, writer, &path, decide).await;
            // A swap that nobody knows about may still happen: the entry stays open, and
            // collection closes it when it cannot any more.
            if !matches!(changed, Err(CatalogError::Unavailable { .. })) {
                this.close_entry(&name, &id, edition).await?;
            }
            Ok(changed?.1.map(|cell| cell.value))
        })
        .await
    }

    async fn open_entry(&self, name: &OwnerName) -> Result<(String, u64)> {
        let id = self.inner.writer.id();
        let (o, i) = (name.clone(), id.clone());
        let open = move |directory: &Directory, moment: Moment| {
            let edition = directory.owners.get(&o).map_or(0, |entry| entry.edition);
            let op = DirectoryOp::Open { o: o.clone(), i: i.clone(), t: moment.now_ms };
            Ok(Decided { ops: vec![op], answer: edition })
        };
        let opened = self.directory().change(&self.inner.writer, open).await?;
        Ok((id, opened.answer))
    }

    /// `edition` is the one of before the change.
    pub(crate) async fn close_entry(&self, name: &OwnerName, id: &str, edition: u64) -> Result<()> {
        let view = self.read_view(name.as_str()).await?;
        let is_group = matches!(view.owner, Some(Owner { kind: OwnerKind::Group { .. }, .. }));
        let is_private = !is_group && view.rights.are_empty();
        let (o, i) = (name.clone(), id.to_owned());
        let close = move |directory: &Directory, moment: Moment| {
            let entry = directory.owners.get(&o);
            // Others who were at it meanwhile may have made it otherwise.
            let is_alone = entry.is_some_and(|entry| {
                entry.edition == edition && entry.open.len() == 1 && entry.open.contains_key(&i)
            });
            let private = is_private && is_alone;
            let (o, i) = (o.clone(), i.clone());
            let op = DirectoryOp::Close { o, i, e: moment.seq + 1, private };
            Ok(Decided { ops: vec![op], answer: () })
        };
        self.directory().change(&self.inner.writer, close).await?;
        Ok(())
    }

    /// Closes an entry that somebody left open: first makes sure that what they wrote cannot
    /// come any more.
    pub(crate) async fn close_left_open(&self, name: &OwnerName, id: &str) -> Result<()> {
        let (meta, writer) = (&*self.inner.store.meta, &self.inner.writer);
        let same = |known: Option<&Cell<Owner>>| {
            let next = known.map(|cell| Next::Swap(cell.value.clone(), cell.bytes.clone()));
            Ok((next.unwrap_or(Next::Keep), known.is_some()))
        };
        if !cell::update(meta, writer, &owner_path(name.as_str()), same).await?.0 {
            // A record may still be made by whoever opened the entry.
            return Ok(());
        }
        // One that is being made is made empty first.
        let same = |known: Option<&Cell<Rights>>| {
            let rights = known.map(|cell| cell.value.clone()).unwrap_or_default();
            Ok((Next::Swap(rights, bytes::Bytes::new()), ()))
        };
        cell::update(meta, writer, &rights_path(name.as_str()), same).await?;
        let edition = |directory: &Directory| {
            directory.owners.get(name.as_str()).map_or(0, |entry| entry.edition)
        };
        let edition = self.directory().look(std::time::Duration::ZERO, edition).await?;
        self.close_entry(name, id, edition).await
    }

    /// An owner's record, at most `head_age_max` old.
    ///
    /// # Errors
    /// What the store says.
    pub async fn owner(&self, name: &OwnerName) -> Result<Option<Owner>> {
        Ok(self.view(name.as_str()).await?.owner.clone())
    }

    /// Makes the record of a user, or checks that it is that user's. To be called at login,
    /// with `create` only when the user is about to push: a record fills in the uid when it had
    /// none.
    ///
    /// # Errors
    /// `Clash` if the name belongs to a group, to a user of another authority, with another uid
    /// or with another login; `NotFound` without a record and without `create`.
    pub async fn claim_user(
        &self,
        name: &OwnerName,
        identity: &Identity,
        create: bool,
    ) -> Result<Owner> {
        match &self.view(name.as_str()).await?.owner {
            Some(owner) if claim(owner, identity)?.is_none() => return Ok(owner.clone()),
            None if !create => return Err(CatalogError::not_found(What::Owner, name)),
            Some(_) | None => {}
        }
        let (wanted, now_ms) = (identity.clone(), self.now_ms());
        let of = name.clone();
        let decide = move |known: Option<&Owner>| match known {
            Some(owner) => claim(owner, &wanted),
            None => {
                let kind = OwnerKind::User(wanted.clone());
                Ok(Some(Owner { name: of.clone(), kind, created_ms: now_ms }))
            }
        };
        let owner = self.change_owner(name, owner_path(name.as_str()), decide).await?;
        owner.ok_or_else(|| CatalogError::not_found(What::Owner, name))
    }

    /// Makes a group.
    ///
    /// # Errors
    /// `Exists` if the name is taken by anybody.
    pub async fn create_group(
        &self,
        name: &OwnerName,
        managers: BTreeSet<OwnerName>,
    ) -> Result<Owner> {
        let group = Owner {
            name: name.clone(),
            kind: OwnerKind::Group { managers },
            created_ms: self.now_ms(),
        };
        let made = group.clone();
        let decide = move |known: Option<&Owner>| match known {
            // Its own, when the answer of a first try was lost.
            Some(owner) if *owner == made => Ok(None),
            Some(owner) => Err(CatalogError::Exists { name: owner.name.to_string() }),
            None => Ok(Some(made.clone())),
        };
        self.change_owner(name, owner_path(name.as_str()), decide).await?;
        Ok(group)
    }

    /// Replaces the managers of a group.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a user.
    pub async fn set_managers(
        &self,
        name: &OwnerName,
        managers: BTreeSet<OwnerName>,
    ) -> Result<Owner> {
        let of = name.clone();
        let decide = move |known: Option<&Owner>| match known {
            None => Err(CatalogError::not_found(What::Owner, &of)),
            Some(Owner { kind: OwnerKind::User(_), .. }) => {
                Err(CatalogError::Invalid("only groups have managers"))
            }
            Some(owner) => {
                let kind = OwnerKind::Group { managers: managers.clone() };
                Ok(Some(Owner { kind, ..owner.clone() }))
            }
        };
        let owner = self.change_owner(name, owner_path(name.as_str()), decide).await?;
        owner.ok_or_else(|| CatalogError::not_found(What::Owner, name))
    }

    /// An administrator's decision: the name with all it owns belongs to this user from now on.
    ///
    /// # Errors
    /// What the store says.
    pub async fn reassign(&self, name: &OwnerName, identity: &Identity) -> Result<Owner> {
        let (of, wanted, now_ms) = (name.clone(), identity.clone(), self.now_ms());
        let decide = move |known: Option<&Owner>| {
            let created_ms = known.map_or(now_ms, |owner| owner.created_ms);
            let kind = OwnerKind::User(wanted.clone());
            Ok(Some(Owner { name: of.clone(), kind, created_ms }))
        };
        let owner = self.change_owner(name, owner_path(name.as_str()), decide).await?;
        owner.ok_or_else(|| CatalogError::not_found(What::Owner, name))
    }

    /// Owners by name, behind `after`.
    ///
    /// # Errors
    /// What the store says.
    pub async fn owners(&self, after: Option<&str>, limit: usize) -> Result<Page<Owner>> {
        let directory = self.directory().state(self.age_max()).await?;
        let mut items = Vec::new();
        for name in directory.owners.keys() {
            if after.is_some_and(|after| name.as_str() <= after) {
                continue;
            }
            let Some(owner) = self.view(name.as_str()).await?.owner.clone() else {
                continue;
            };
            if items.len() == limit {
                return Ok(Page { items, more: true });
            }
            items.push(owner);
        }
        Ok(Page { items, more: false })
    }

    /// Maps a login that OCI cannot say to an owner name. The record of the owner remembers it.
    ///
    /// # Errors
    /// `Exists` if the login is mapped to another name.
    pub async fn map_login(&self, authority: &str, login: &str, owner: &OwnerName) -> Result<()> {
        let mapped = Mapped {
            authority: authority.to_owned(),
            login: login.to_owned(),
            owner: owner.clone(),
        };
        let decide = |known: Option<&Cell<Mapped>>| match known {
            Some(cell) if cell.value.owner == mapped.owner => Ok((Next::Keep, ())),
            Some(cell) => Err(CatalogError::Exists { name: cell.value.owner.to_string() }),
            None => Ok((Next::Swap(mapped.clone(), bytes::Bytes::new()), ())),
        };
        let (meta, writer) = (&*self.inner.store.meta, &self.inner.writer);
        cell::update(meta, writer, &login_path(authority, login), decide).await?;
        Ok(())
    }

    /// The owner name of a login: the mapped one, or else the login itself if OCI can say it.
    ///
    /// # Errors
    /// What the store says.
    pub async fn owner_of_login(&self, authority: &str, login: &str) -> Result<Option<OwnerName>> {
        let (meta, writer) = (&*self.inner.store.meta, &self.inner.writer);
        let path = login_path(authority, login);
        let mapped: Option<Cell<Mapped>> = cell::read_again(meta, writer, &path).await?;
        Ok(mapped.map(|cell| cell.value.owner).or_else(|| login.parse().ok()))
    }
}

/// Whether a record is this user's; a new record if it learns something by that.
fn claim(owner: &Owner, identity: &Identity) -> Result<Option<Owner>> {
    let clash = |why: String| Err(CatalogError::Clash { owner: owner.name.clone(), why });
    let OwnerKind::User(known) = &owner.kind else {
        return clash("it is a group".to_owned());
    };
    if known.authority != identity.authority {
        return clash(format!("it is a user of {}", known.authority));
    }
    if known.login != identity.login {
        return clash("it is the name of another login".to_owned());
    }
    match (known.uid, identity.uid) {
        (Some(known), Some(uid)) if known != uid => {
            clash(format!("it belongs to uid {known}, not {uid}"))
        }
        (None, Some(uid)) => {
            let kind = OwnerKind::User(Identity { uid: Some(uid), ..known.clone() });
            Ok(Some(Owner { kind, ..owner.clone() }))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: Option<u32>) -> Owner {
        let identity = Identity { authority: "system".to_owned(), uid, login: None };
        let name = "alice".parse().expect("a name");
        Owner { name, kind: OwnerKind::User(identity), created_ms: 0 }
    }

    #[test]
    fn a_name_stays_with_its_uid_authority_and_login() {
        let identity = |authority: &str, uid, login: Option<&str>| Identity {
            authority: authority.to_owned(),
            uid,
            login: login.map(str::to_owned),
        };
        let known = owner(Some(1000));
        assert!(claim(&known, &identity("system", Some(1000), None)).expect("theirs").is_none());
        assert!(claim(&known, &identity("system", None, None)).expect("theirs").is_none());
        for other in [
            identity("system", Some(1001), None),
            identity("ldap", Some(1000), None),
            identity("system", Some(1000), Some("Alice")),
        ] {
            let error = claim(&known, &other).expect_err("another user");
            assert!(matches!(error, CatalogError::Clash { .. }), "{error}");
        }
        let learnt = claim(&owner(None), &identity("system", Some(7), None)).expect("theirs");
        assert_eq!(learnt, Some(owner(Some(7))));
        let kind = OwnerKind::Group { managers: BTreeSet::new() };
        let group = Owner { kind, ..owner(None) };
        claim(&group, &identity("system", None, None)).expect_err("a group");
    }
}
