//! Which homes appear, and for whom one is made.
//!
//! What always holds: a look by root or by anybody else makes nothing, so a loop over all users
//! makes no homes; a look by the very user whom the home would belong to makes it, and so does
//! `mkdir` by root (`useradd -m`, `mkhomedir`). Both make the same: a home owned by the user,
//! mode 0700, filled from the skeleton, with the default quota. A home that exists is found
//! without asking the name service. A home that was removed is not made again by looking.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::accounts::Accounts;
use super::records::{NewHome, Records};
use super::skeleton;
use crate::home::{Attr, ErrorKind, Home, Ino, Name, Quota, Result, Usage};
use crate::view::{Directory, Head, Space};

/// How long it is remembered that there is no home: shells and tools look for names like
/// `/home/.git` all the time.
const ABSENCE_KEPT: Duration = Duration::from_secs(1);
/// Absences that are remembered.
const ABSENCES_MAX: usize = 10_000;
/// The group of the directory of everybody's homes, so that none of those who need them is in it.
const NOBODYS_GROUP: u32 = u32::MAX - 1;

/// Whose homes a daemon shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's: the daemon of root.
    Everyone,
    /// One user's own, and no other: the daemon of that user.
    Own {
        /// The user's name, which is the home's.
        name: String,
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

/// How homes are made.
#[derive(Clone, Debug)]
pub struct Making {
    /// Whose homes there are.
    pub whose: Whose,
    /// What new homes are filled with.
    pub skeleton: PathBuf,
    /// Limits of new homes.
    pub quota: Quota,
}

/// The homes of a store, as this daemon shows them.
pub struct Homes {
    records: Arc<dyn Records>,
    accounts: Accounts,
    making: Making,
    absent: Mutex<HashMap<Name, Instant>>,
}

impl Homes {
    /// The homes of `records`.
    #[must_use]
    pub fn new(records: Arc<dyn Records>, accounts: Accounts, making: Making) -> Self {
        Self { records, accounts, making, absent: Mutex::default() }
    }

    /// Makes a home by command, for a user whom the name service knows or for given ids.
    ///
    /// # Errors
    /// `Exists`, `NotFound` for an unknown user, `NotPermitted`, `Unavailable`.
    pub async fn create(
        &self,
        name: &str,
        owner: Option<(u32, u32)>,
        quota: Option<Quota>,
    ) -> Result<Head> {
        let owner = match owner {
            Some(owner) => owner,
            None => self.user(name).await?.ok_or(ErrorKind::NotFound)?,
        };
        let quota = quota.unwrap_or(self.making.quota);
        let head = self.records.create(NewHome { name: name.to_owned(), owner, quota }).await?;
        self.absent.lock().clear();
        tracing::info!(home = name, uid = owner.0, "home made");
        Ok(head)
    }

    /// The ids of the user called `name`, if that user may have a home.
    ///
    /// # Errors
    /// `Unavailable` where the name service does not answer.
    pub async fn user(&self, name: &str) -> Result<Option<(u32, u32)>> {
        match &self.making.whose {
            Whose::Everyone => {
                let account = self.accounts.find(name).await?;
                Ok(account.map(|account| (account.uid, account.gid)))
            }
            Whose::Own { name: own, uid, gid } => Ok((own == name).then_some((*uid, *gid))),
        }
    }

    /// Limits of new homes.
    #[must_use]
    pub fn default_quota(&self) -> Quota {
        self.making.quota
    }

    /// The records behind.
    #[must_use]
    pub fn records(&self) -> &Arc<dyn Records> {
        &self.records
    }

    /// A home that was restored or made elsewhere may be looked at at once.
    pub fn look_again(&self) {
        self.absent.lock().clear();
    }

    fn shows(&self, name: &str) -> bool {
        match &self.making.whose {
            Whose::Everyone => true,
            Whose::Own { name: own, .. } => own == name,
        }
    }

    fn is_absent(&self, name: &Name) -> bool {
        self.absent.lock().get(name).is_some_and(|since| since.elapsed() < ABSENCE_KEPT)
    }

    fn note_absent(&self, name: &Name) {
        let mut absent = self.absent.lock();
        if absent.len() >= ABSENCES_MAX {
            absent.clear();
        }
        absent.insert(name.clone(), Instant::now());
    }

    async fn recorded(&self, name: &Name, text: &str) -> Result<Option<Head>> {
        if self.is_absent(name) {
            return Ok(None);
        }
        let head = self.records.show(text).await?;
        if head.is_none() {
            self.note_absent(name);
        }
        Ok(head)
    }
}

/// The name as text; homes are named like users, whose names are.
fn text(name: &Name) -> Result<&str> {
    Ok(std::str::from_utf8(name.as_bytes()).map_err(|_| ErrorKind::NotFound)?)
}

/// Whether a user could be called so: spares the name service what tools look for.
fn could_be_user(name: &str) -> bool {
    !name.starts_with(['.', '-']) && name.len() <= 32 && !name.contains([':', '\n', ' '])
}

#[async_trait]
impl Directory for Homes {
    async fn find(&self, name: &Name, uid: u32) -> Result<Head> {
        let text = text(name)?;
        if !self.shows(text) {
            return Err(ErrorKind::NotFound.into());
        }
        if let Some(head) = self.recorded(name, text).await? {
            return Ok(head);
        }
        let own = match &self.making.whose {
            Whose::Everyone => uid != 0,
            Whose::Own { uid: own, .. } => uid == *own,
        };
        if !own || !could_be_user(text) {
            return Err(ErrorKind::NotFound.into());
        }
        match self.user(text).await? {
            Some(owner) if owner.0 == uid => match self.create(text, Some(owner), None).await {
                // Two looks at once, or a removed home, which looking does not bring back.
                Err(error) if matches!(error.kind(), ErrorKind::Exists) => {
                    Ok(self.records.show(text).await?.ok_or(ErrorKind::NotFound)?)
                }
                Err(error) if matches!(error.kind(), ErrorKind::NotPermitted) => {
                    Err(ErrorKind::NotFound.into())
                }
                result => result,
            },
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    async fn make(&self, name: &Name, uid: u32) -> Result<Head> {
        let text = text(name)?;
        if self.records.show(text).await?.is_some() {
            return Err(ErrorKind::Exists.into());
        }
        let user = self.user(text).await?;
        match user {
            Some(owner) if uid == 0 || uid == owner.0 => self.create(text, Some(owner), None).await,
            _ => Err(ErrorKind::NotPermitted.into()),
        }
    }

    async fn list(&self) -> Result<Vec<Head>> {
        let mut heads = self.records.list().await?;
        heads.retain(|head| self.shows(&head.name));
        Ok(heads)
    }

    async fn open(&self, head: &Head) -> Result<Home> {
        let home = self.records.open(head).await?;
        let root = home.getattr(Ino::ROOT).await?;
        if skeleton::is_untouched(&root, home.usage().inodes) {
            let filled = skeleton::fill(&home, (root.uid, root.gid), &self.making.skeleton).await;
            if let Err(error) = filled {
                tracing::warn!(home = %head.name, %error, "the skeleton was not copied whole");
            }
        }
        Ok(home)
    }

    async fn closed(&self, head: &Head, root: Attr, usage: Usage) -> Result<Head> {
        self.records.closed(head, root, usage).await
    }

    async fn take_volumes(&self, count: u32) -> Result<u32> {
        self.records.take_volumes(count).await
    }

    fn space(&self) -> Option<Space> {
        self.records.space()
    }

    fn trouble(&self) -> Option<String> {
        self.records.trouble()
    }

    fn owner(&self) -> (u32, u32) {
        match &self.making.whose {
            Whose::Everyone => (0, NOBODYS_GROUP),
            Whose::Own { uid, gid, .. } => (*uid, *gid),
        }
    }
}
