//! From what an authority says to a user of this registry.
//!
//! A name belongs to one authority's realm: the catalogue's owner record says to which, and a
//! login under somebody else's name is refused. What the authority said (id, groups) is noted in
//! `auth/users/NAME`, so that any instance can turn a token back into a user without asking the
//! authority.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use yadokari_catalog::{Catalog, CatalogError, Identity, Kind, OwnerName, Seams};
use yadokari_store::object_store::ObjectStore;

use super::authority::Account;
use super::caller::User;
use super::config::{AuthConfig, SYSTEM_REALM};
use super::refusal::Refusal;
use super::shelf::Shelf;

/// How old the note of a user may be; a group that was taken away counts no longer after that.
const NOTE_AGE_MAX: Duration = Duration::from_secs(30);
/// Root's name, which only the kernel gives.
const ROOT: &str = "root";

/// What of the catalogue is needed here.
#[async_trait]
pub trait Names: Debug + Send + Sync {
    /// Does the name belong to somebody else? The text says to whom.
    async fn claim(&self, name: &OwnerName, identity: &Identity) -> Result<(), Claim>;
    /// The name here of a login that was mapped, or that OCI can say.
    async fn of_login(&self, realm: &str, login: &str) -> Result<Option<OwnerName>, String>;
}

/// Why a name is not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is somebody else's.
    Clash(String),
    /// The store failed.
    Unknown(String),
}

#[async_trait]
impl Names for Catalog {
    async fn claim(&self, name: &OwnerName, identity: &Identity) -> Result<(), Claim> {
        match self.claim_user(name, identity, false).await {
            Ok(_) => Ok(()),
            Err(error @ CatalogError::Clash { .. }) => Err(Claim::Clash(error.to_string())),
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(Claim::Unknown(error.to_string())),
        }
    }

    async fn of_login(&self, realm: &str, login: &str) -> Result<Option<OwnerName>, String> {
        self.owner_of_login(realm, login).await.map_err(|error| error.to_string())
    }
}

/// What was noted of a user, by the realm that said it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    realms: BTreeMap<String, Noted>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    uid: Option<u32>,
    login: Option<String>,
    groups: BTreeSet<String>,
}

/// Users, as this registry knows them.
#[derive(Debug)]
pub struct People {
    names: Arc<dyn Names>,
    mapped: BTreeMap<String, OwnerName>,
    admins: BTreeSet<OwnerName>,
    notes: Shelf<Note>,
}

impl People {
    pub fn new(
        config: &AuthConfig,
        names: Arc<dyn Names>,
        store: Arc<dyn ObjectStore>,
        seams: &Seams,
    ) -> Self {
        let notes = Shelf::new(store, "auth/users", Arc::clone(&seams.clock));
        Self { names, mapped: config.names.clone(), admins: config.admins.clone(), notes }
    }

    /// The user whom an authority of this realm has let in; refused when the name cannot be
    /// theirs.
    pub async fn user(&self, realm: &str, account: &Account) -> Result<Arc<User>, Refusal> {
        let Some(name) = self.name_of(realm, &account.login).await? else {
            return Err(Refusal::Denied(format!(
                "the name `{}` cannot be part of an image's name: an administrator must map it \
                 (`[auth.names]`)",
                account.login
            )));
        };
        if name.as_str() == ROOT {
            return Err(Refusal::Denied("nobody logs in as root".to_owned()));
        }
        let login = (name.as_str() != account.login).then(|| account.login.clone());
        let identity = Identity { authority: realm.to_owned(), uid: account.uid, login };
        match self.names.claim(&name, &identity).await {
            Ok(()) => {}
            Err(Claim::Clash(why)) => {
                tracing::warn!(%name, realm, %why, "a login under a name that is somebody else's");
                return Err(Refusal::Denied(format!(
                    "the name {name} belongs to somebody else here: ask an administrator"
                )));
            }
            Err(Claim::Unknown(why)) => {
                tracing::error!(%name, %why, "a login cannot be checked");
                return Err(Refusal::Unavailable);
            }
        }
        let admin = self.admins.contains(&name);
        Ok(Arc::new(User { name, identity, groups: account.groups.clone(), admin }))
    }

    /// Root, whom only the kernel knows. It owns `root/` and nothing more, for what runs as root
    /// is often a program that does something for somebody else.
    pub fn root(&self) -> Arc<User> {
        let name = ROOT.parse().expect("is a valid name");
        let identity = Identity { authority: SYSTEM_REALM.to_owned(), uid: Some(0), login: None };
        Arc::new(User { name, identity, groups: BTreeSet::new(), admin: false })
    }

    /// Notes what is known of a user, so that tokens can be turned back into them. Writes only
    /// what has changed.
    pub async fn note(&self, user: &User) -> Result<(), Refusal> {
        let realm = &user.identity.authority;
        let noted = Noted {
            uid: user.identity.uid,
            login: user.identity.login.clone(),
            groups: user.groups.clone(),
        };
        let unavailable = |error: yadokari_store::head::HeadError| {
            tracing::error!(user = %user.name, %error, "what is known of a user cannot be noted");
            Refusal::Unavailable
        };
        let known = self.notes.get(&user.name, NOTE_AGE_MAX).await.map_err(unavailable)?;
        if known.realms.get(realm) == Some(&noted) {
            return Ok(());
        }
        let write = |note: &mut Note| {
            note.realms.insert(realm.clone(), noted.clone());
            Ok::<_, yadokari_store::head::HeadError>(())
        };
        self.notes.change(&user.name, write).await.map_err(unavailable)
    }

    /// The user of a token.
    pub async fn noted(&self, name: &OwnerName, realm: &str) -> Result<Option<Arc<User>>, Refusal> {
        if name.as_str() == ROOT && realm == SYSTEM_REALM {
            return Ok(Some(self.root()));
        }
        let note = self.notes.get(name, NOTE_AGE_MAX).await.map_err(|error| {
            tracing::error!(user = %name, %error, "the user of a token cannot be read");
            Refusal::Unavailable
        })?;
        Ok(note.realms.get(realm).map(|noted| {
            let identity = Identity {
                authority: realm.to_owned(),
                uid: noted.uid,
                login: noted.login.clone(),
            };
            let (groups, admin) = (noted.groups.clone(), self.admins.contains(name));
            Arc::new(User { name: name.clone(), identity, groups, admin })
        }))
    }

    /// The user for whom a robot acts, by whichever realm noted them; there is rarely more than
    /// one.
    pub async fn any_noted(&self, name: &OwnerName) -> Result<Option<Arc<User>>, Refusal> {
        let note = self.notes.get(name, NOTE_AGE_MAX).await.map_err(|error| {
            tracing::error!(user = %name, %error, "the user of a robot cannot be read");
            Refusal::Unavailable
        })?;
        for realm in note.realms.keys() {
            if let Some(user) = self.noted(name, realm).await? {
                // A name that has since gone to somebody else takes its robots with it.
                if self.names.claim(name, &user.identity).await.is_ok() {
                    return Ok(Some(user));
                }
            }
        }
        if name.as_str() == ROOT { self.noted(name, SYSTEM_REALM).await } else { Ok(None) }
    }

    async fn name_of(&self, realm: &str, login: &str) -> Result<Option<OwnerName>, Refusal> {
        if let Some(name) = self.mapped.get(&format!("{realm}:{login}")) {
            return Ok(Some(name.clone()));
        }
        if let Some(name) = self.mapped.get(login) {
            return Ok(Some(name.clone()));
        }
        // A name that configuration gives to somebody is nobody else's.
        let found = self.names.of_login(realm, login).await.map_err(|why| {
            tracing::error!(login, %why, "the name of a login cannot be read");
            Refusal::Unavailable
        })?;
        Ok(found.filter(|name| !self.mapped.values().any(|taken| taken == name)))
    }
}
