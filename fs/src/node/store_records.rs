//! The records of homes as the daemon asks for them, over the homes of a store.
//!
//! What always holds: a home that is open here is owned by this process, and released only after
//! it was closed and what it looked like was noted. In the background the free space is looked
//! at and homes are purged whose time to be brought back is over; both end with this value.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use yadokari_store::Store;

use super::records::{NewHome, Records};
use crate::home::homes::{self, HomeInfo, Homes, HomesError, RootAttrs};
use crate::home::owner::NodeIdentity;
use crate::home::{Attr, Error, Home, Quota, Result, Shared, Usage};
use crate::view::{Head, Space};

/// How old the free space that `df` shows may be.
const SPACE_LOOK: Duration = Duration::from_secs(10);
/// A look at a home that was seen before waits this long for its head.
const SHOW_WAIT: Duration = Duration::from_secs(1);
/// The same for a home that was not seen yet: there is nothing to show instead.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// A listing waits this long for the store before it shows what the last one showed.
const LIST_WAIT: Duration = Duration::from_secs(3);
/// After a listing or a look that was not answered, those that follow do not wait for so long:
/// a reader of a directory asks several times, and so does who opens files by their paths.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// How often expired homes are looked for: they had a week.
const PURGE_LOOK: Duration = Duration::from_secs(3600);
/// Permission bits of a new home: nobody else's business.
const HOME_PERM: u16 = 0o700;

/// The records of homes in a store.
pub struct StoreRecords {
    homes: Arc<Homes>,
    take_over: bool,
    space: Arc<Mutex<Option<Space>>>,
    seen: Mutex<HashMap<String, Seen>>,
    listed: Mutex<Option<Vec<Head>>>,
    /// Until then the store counts as one that answers no listing.
    silent_until: Mutex<Option<Instant>>,
    /// Homes that this process has owned: what it lost since is not taken over again.
    owned: Mutex<HashSet<String>>,
    /// Why the free space could not be asked for.
    space_trouble: Arc<Mutex<Option<String>>>,
    tasks: Vec<JoinHandle<()>>,
}

/// A home as it was last seen.
struct Seen {
    head: Head,
    /// Until then its head counts as one that does not answer.
    silent_until: Option<Instant>,
}

impl StoreRecords {
    /// The records of `store`, for the process `identity`. With `take_over` homes are opened even
    /// while another owner may live. Runs on the current runtime.
    pub async fn start(
        store: Store,
        identity: NodeIdentity,
        shared: Arc<Shared>,
        take_over: bool,
    ) -> Self {
        let (data, meta) = (Arc::clone(&store.data), Arc::clone(&store.meta));
        let homes = Arc::new(Homes::new(data, meta, identity, shared));
        let space = Arc::new(Mutex::new(look_at_space(&store).await.unwrap_or_default()));
        let space_trouble = Arc::new(Mutex::new(None));
        let tasks = vec![
            tokio::spawn(keep_space(store, Arc::clone(&space), Arc::clone(&space_trouble))),
            tokio::spawn(keep_purging(Arc::downgrade(&homes))),
        ];
        Self {
            homes,
            take_over,
            space,
            seen: Mutex::default(),
            listed: Mutex::default(),
            silent_until: Mutex::default(),
            owned: Mutex::default(),
            space_trouble,
            tasks,
        }
    }

    /// The homes behind.
    #[must_use]
    pub fn homes(&self) -> &Arc<Homes> {
        &self.homes
    }

    /// A home whose head did not answer a moment ago, as it was seen before.
    fn seen_in_silence(&self, name: &str) -> Option<Head> {
        let seen = self.seen.lock();
        let seen = seen.get(name)?;
        seen.silent_until.is_some_and(|until| Instant::now() < until).then(|| seen.head.clone())
    }

    /// A home whose head does not answer, as it was last seen: it must not stall the mount.
    fn seen_instead(&self, name: &str) -> Option<Head> {
        let mut seen = self.seen.lock();
        let seen = seen.get_mut(name)?;
        seen.silent_until = Some(Instant::now() + SILENT_FOR);
        Some(seen.head.clone())
    }

    fn saw(&self, head: &Head) {
        let seen = Seen { head: head.clone(), silent_until: None };
        self.seen.lock().insert(head.name.to_string(), seen);
    }

    /// Closes what is still open and ends this process for other nodes. For after the daemon has
    /// shut down.
    ///
    /// # Errors
    /// The first home that could not be made durable.
    pub async fn shutdown(&self) -> homes::Result<()> {
        self.homes.shutdown().await
    }
}

impl Drop for StoreRecords {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[async_trait]
impl Records for StoreRecords {
    async fn show(&self, name: &str) -> Result<Option<Head>> {
        if let Some(head) = self.seen_in_silence(name) {
            return Ok(Some(head));
        }
        let was_seen = self.seen.lock().contains_key(name);
        let wait = if was_seen { SHOW_WAIT } else { FIRST_WAIT };
        let Ok(live) = tokio::time::timeout(wait, self.homes.live(name)).await else {
            let silent =
                || Error::unavailable(format_args!("home {name}: its head does not answer"));
            return self.seen_instead(name).map(Some).ok_or_else(silent);
        };
        match live {
            Err(error @ HomesError::Unavailable { .. }) => {
                self.seen_instead(name).map(Some).ok_or_else(|| error.into())
            }
            Ok(info) => {
                let head = head(&info);
                self.saw(&head);
                Ok(Some(head))
            }
            Err(error) if is_absence(&error) => {
                self.seen.lock().remove(name);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn list(&self) -> Result<Vec<Head>> {
        let last = self.listed.lock().clone();
        let silent = self.silent_until.lock().is_some_and(|until| Instant::now() < until);
        let listing = match last {
            None => self.homes.list().await?,
            Some(last) if silent => return Ok(last),
            Some(last) => match tokio::time::timeout(LIST_WAIT, self.homes.list()).await {
                Ok(Ok(listing)) => listing,
                Ok(Err(_)) | Err(_) => {
                    *self.silent_until.lock() = Some(Instant::now() + SILENT_FOR);
                    return Ok(last);
                }
            },
        };
        let mut heads: Vec<Head> =
            listing.homes.iter().filter(|info| info.is_live()).map(head).collect();
        heads.iter().for_each(|head| self.saw(head));
        for error in &listing.damaged {
            // As it was last seen, where it was: a store that hangs for one home hides none.
            let seen = match error {
                HomesError::Unavailable { home, .. } => self.seen_instead(home),
                _ => None,
            };
            match seen {
                Some(seen) => heads.push(seen),
                None => tracing::error!(%error, "a home is not listed"),
            }
        }
        *self.listed.lock() = Some(heads.clone());
        Ok(heads)
    }

    async fn create(&self, new: NewHome) -> Result<Head> {
        let made = self.homes.create(new_home(new)).await?;
        self.silent_until.lock().take();
        Ok(head(&made))
    }

    async fn begin(&self, new: NewHome) -> Result<(Head, Home)> {
        let info = self.homes.create_to_fill(new_home(new)).await?;
        let open = self.homes.open_to_fill(&info.name, info.volume).await.map_err(told)?;
        Ok((head(&info), open.home().clone()))
    }

    async fn filled(&self, filled: &Head, root: Attr, usage: Usage) -> Result<Head> {
        let root = RootAttrs::from_attr(&root, filled.root_xattrs);
        let shown = self.homes.filled(&filled.name, root, usage).await?;
        self.homes.close(&filled.name).await?;
        Ok(head(&shown))
    }

    async fn set_quota(&self, name: &str, quota: Quota) -> Result<Head> {
        let head = head(&self.homes.set_quota(name, quota).await?);
        self.saw(&head);
        Ok(head)
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.seen.lock().remove(name);
        self.homes.remove(name).await.map(drop).map_err(told)
    }

    async fn discard(&self, name: &str) -> Result<()> {
        self.seen.lock().remove(name);
        self.homes.discard(name).await.map_err(told)
    }

    async fn restore(&self, name: &str) -> Result<Head> {
        Ok(head(&self.homes.restore(name).await?))
    }

    async fn open(&self, head: &Head) -> Result<Home> {
        // Two that were both started with it would take a home from each other for ever.
        let take_over = self.take_over && !self.owned.lock().contains(&*head.name);
        let open = self.homes.open(&head.name, take_over).await.map_err(told)?;
        self.owned.lock().insert(head.name.to_string());
        Ok(open.home().clone())
    }

    async fn closed(&self, closed: &Head, root: Attr, usage: Usage) -> Result<Head> {
        let root = RootAttrs::from_attr(&root, closed.root_xattrs);
        let noted = self.homes.note(&closed.name, Some(root), Some(usage)).await;
        // Released even where nothing could be noted.
        self.homes.close(&closed.name).await?;
        Ok(head(&noted?))
    }

    async fn take_volumes(&self, count: u32) -> Result<u32> {
        Ok(self.homes.take_volumes(count).await?)
    }

    async fn set_schedule(&self, name: &str, on: bool) -> Result<Head> {
        Ok(head(&self.homes.set_schedule(name, on).await?))
    }

    fn space(&self) -> Option<Space> {
        *self.space.lock()
    }

    fn trouble(&self) -> Option<String> {
        self.homes.trouble().or_else(|| self.space_trouble.lock().clone())
    }
}

fn new_home(new: NewHome) -> homes::NewHome {
    let (owner_uid, owner_gid) = new.owner;
    homes::NewHome { name: new.name, owner_uid, owner_gid, perm: HOME_PERM, quota: new.quota }
}

/// Whether a mount shows nothing of this name.
fn is_absence(error: &HomesError) -> bool {
    match error {
        HomesError::NotFound { .. }
        | HomesError::Filling { .. }
        | HomesError::Removed { .. }
        | HomesError::Purging { .. }
        | HomesError::Invalid { .. } => true,
        HomesError::Exists { .. }
        | HomesError::OwnedElsewhere { .. }
        | HomesError::Full { .. }
        | HomesError::Unavailable { .. }
        | HomesError::Newer { .. }
        | HomesError::Corrupt { .. }
        | HomesError::Home { .. } => false,
    }
}

/// Who owns a home does not fit into an errno, so it is told here.
fn told(error: HomesError) -> Error {
    if matches!(error, HomesError::OwnedElsewhere { .. }) {
        tracing::warn!(%error, "refused");
    }
    error.into()
}

fn head(info: &HomeInfo) -> Head {
    Head {
        name: info.name.as_str().into(),
        volume: info.volume,
        root: info.root.attr(),
        root_xattrs: info.root.xattrs,
        usage: info.usage(),
        snapshots: info.snapshots,
        snapshot_bytes: info.snapshot_bytes,
        scheduled: info.scheduled,
    }
}

/// The room in the store where that can be known, or why it cannot be asked for.
async fn look_at_space(store: &Store) -> Result<Option<Space>, String> {
    let usage = tokio::time::timeout(SPACE_LOOK, store.usage()).await;
    let usage = usage.map_err(|_| format!("no answer within {} s", SPACE_LOOK.as_secs()))?;
    let usage = usage.map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })?;
    // A cluster that has just started has not reckoned yet: that is unknown, not full.
    let known = usage.filter(|usage| usage.capacity_bytes > 0);
    Ok(known.map(|known| Space { bytes: known.capacity_bytes, bytes_free: known.free_bytes }))
}

async fn keep_space(
    store: Store,
    space: Arc<Mutex<Option<Space>>>,
    trouble: Arc<Mutex<Option<String>>>,
) {
    loop {
        tokio::time::sleep(SPACE_LOOK).await;
        match look_at_space(&store).await {
            Ok(now) => {
                trouble.lock().take();
                // What was true a while ago is better than nothing.
                if now.is_some() {
                    *space.lock() = now;
                }
            }
            Err(why) => {
                *trouble.lock() = Some(format!("the store does not tell its free space: {why}"));
            }
        }
    }
}

async fn keep_purging(homes: Weak<Homes>) {
    loop {
        tokio::time::sleep(PURGE_LOOK).await;
        let Some(homes) = homes.upgrade() else { return };
        match homes.purge_expired().await {
            Ok(purged) => {
                for home in &purged.homes {
                    tracing::info!(home, "deleted for good a week after it was removed");
                }
                for error in &purged.failed {
                    tracing::warn!(%error, "not deleted yet");
                }
            }
            Err(error) => tracing::warn!(%error, "removed homes are not looked for"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::{Config, ErrorKind, Ino};

    async fn records() -> StoreRecords {
        let identity = NodeIdentity::of_this_process(None).unwrap();
        let shared = Shared::new(Config::default());
        StoreRecords::start(Store::memory(), identity, shared, false).await
    }

    fn new(name: &str) -> NewHome {
        NewHome { name: name.into(), owner: (1000, 100), quota: Quota::NONE }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_home_that_the_daemon_closed_is_noted_and_released() {
        let records = records().await;
        let head = records.create(new("ada")).await.unwrap();
        let home = records.open(&head).await.unwrap();
        let root = home.getattr(Ino::ROOT).await.unwrap();
        home.close().await.unwrap();
        let usage = Usage { bytes: 5, inodes: 6, ..home.usage() };
        let head = records.closed(&head, Attr { nlink: 9, ..root }, usage).await.unwrap();
        assert_eq!((head.root.nlink, head.usage.bytes, head.usage.inodes), (9, 5, 6));
        assert!(records.homes().show("ada").await.unwrap().served_by.is_none());
        records.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_removed_home_and_an_impossible_name_are_not_there() {
        let records = records().await;
        records.create(new("ada")).await.unwrap();
        records.remove("ada").await.unwrap();
        assert!(records.show("ada").await.unwrap().is_none());
        assert!(records.show(".git").await.unwrap().is_none());
        assert!(records.list().await.unwrap().is_empty());
        let refused = records.create(new("ada")).await.unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::NotPermitted));
        records.restore("ada").await.unwrap();
        assert!(records.show("ada").await.unwrap().is_some());
        records.shutdown().await.unwrap();
    }
}
