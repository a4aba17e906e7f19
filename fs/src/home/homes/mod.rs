//! The homes of a store: which there are, and opening them as their owner.
//!
//! What always holds: a home exists when its head `homes/NAME/head` does, and says live; heads
//! change by compare-and-swap, so of two who change one at the same time each sees the other's
//! change. Whoever opens, removes or purges a home holds its owner record while doing so. A
//! volume number is never given to a second home.
//!
//! A removed home keeps everything but the permission to be opened, for a week. Then `purge`
//! marks it (from there nobody can bring it back), deletes what lies under its prefix in both
//! stores, then the head, and at last the owner record, under whose protection it worked: until
//! then nobody opens a new home of that name.
//!
//! Left to others: who may do what, users and their defaults, and the mount.

mod error;
mod fsck;
mod info;
mod name;
mod purge;
mod record;
mod serve;
mod volumes;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use object_store::ObjectStore;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use yadokari_store::head::{HeadError, HeadVersion, create_head, find_head, swap_head};

pub use error::{HomesError, Result};
pub use info::{HomeDetails, HomeInfo, HomeState, Listing, NewHome, RootAttrs};
pub use name::check as check_name;
pub use purge::Purged;
pub use serve::OwnedHome;

use self::record::{Record, State, head_path, homes_prefix};
use super::owner::{self, Heartbeat, HeartbeatOptions, NodeIdentity};
use super::{Quota, Shared, SnapshotUse, Usage};

/// Heads that are read together: a thousand homes in a few round trips.
const HEADS_AT_ONCE: usize = 64;
/// A listing waits this long for one head.
const HEAD_WAIT: Duration = Duration::from_secs(2);
/// Others who change the same head, before one gives up.
const RACES_MAX: usize = 16;

/// What homes need beside their stores.
#[derive(Clone, Debug, Default)]
pub struct HomesOptions {
    /// Lease, clocks and other seams of ownership.
    pub heartbeat: HeartbeatOptions,
    /// Seed of the tables' randomness, for simulations.
    pub seed: Option<u64>,
}

/// The homes of a store, as one process sees them.
pub struct Homes {
    data: Arc<dyn ObjectStore>,
    meta: Arc<dyn ObjectStore>,
    identity: NodeIdentity,
    shared: Arc<Shared>,
    options: HomesOptions,
    /// Started by the first claim: who only looks leaves no trace.
    heartbeat: OnceCell<Heartbeat>,
    /// One for each home that was opened, removed or purged here.
    slots: Mutex<HashMap<String, Slot>>,
}

/// What is open of a home; held while that changes.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<OwnedHome>>>>;

impl Homes {
    /// The homes whose segments are in `data` and everything else in `meta`.
    #[must_use]
    pub fn new(
        data: Arc<dyn ObjectStore>,
        meta: Arc<dyn ObjectStore>,
        identity: NodeIdentity,
        shared: Arc<Shared>,
    ) -> Self {
        Self::with_options(data, meta, identity, shared, HomesOptions::default())
    }

    /// The same, with other clocks and times.
    #[must_use]
    pub fn with_options(
        data: Arc<dyn ObjectStore>,
        meta: Arc<dyn ObjectStore>,
        identity: NodeIdentity,
        shared: Arc<Shared>,
        options: HomesOptions,
    ) -> Self {
        let (heartbeat, slots) = (OnceCell::new(), Mutex::default());
        Self { data, meta, identity, shared, options, heartbeat, slots }
    }

    /// Who this process is to others.
    #[must_use]
    pub fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    /// All homes, by name, the removed ones too.
    ///
    /// # Errors
    /// `Unavailable`. A head that cannot be read is in the listing, and hides no other.
    pub async fn list(&self) -> Result<Listing> {
        let found = self.meta.list_with_delimiter(Some(&homes_prefix())).await;
        let found = found.map_err(|error| HomesError::unavailable("(all)", error))?;
        let names = found.common_prefixes.into_iter().filter_map(|prefix| {
            let name = prefix.filename()?;
            name::check(name).is_ok().then(|| name.to_owned())
        });
        // One head that does not answer hides no other.
        let read = |name: String| async move {
            let found = tokio::time::timeout(HEAD_WAIT, self.find(&name)).await;
            found
                .unwrap_or_else(|_| Err(HomesError::unavailable(&name, "its head does not answer")))
        };
        let mut heads = stream::iter(names).map(read).buffer_unordered(HEADS_AT_ONCE);
        let mut listing = Listing::default();
        while let Some(found) = heads.next().await {
            match found {
                Ok(Some((record, _))) => listing.homes.push(record.info()),
                // What a purge left half-way, or an object that is none of ours.
                Ok(None) => {}
                Err(error) => listing.damaged.push(error),
            }
        }
        listing.homes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listing)
    }

    /// One home, in whatever state.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `Unavailable`, `Corrupt`.
    pub async fn head(&self, name: &str) -> Result<HomeInfo> {
        Ok(self.read(name).await?.0.info())
    }

    /// One home that can be opened.
    ///
    /// # Errors
    /// `NotFound`, `Removed`, `Purging`, `Invalid`, `Unavailable`, `Corrupt`.
    pub async fn live(&self, name: &str) -> Result<HomeInfo> {
        let (record, _) = self.read(name).await?;
        record.require_live()?;
        Ok(record.info())
    }

    /// One home and whom its owner record names.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `Unavailable`, `Corrupt`.
    pub async fn show(&self, name: &str) -> Result<HomeDetails> {
        let (record, _) = self.read(name).await?;
        let served_by = owner::find_owner(&*self.meta, name).await?;
        Ok(HomeDetails { info: record.info(), served_by })
    }

    /// Makes an empty home.
    ///
    /// # Errors
    /// `Exists`, `Removed` where one can still be brought back, `Invalid`, `Full`, `Unavailable`.
    pub async fn create(&self, new: NewHome) -> Result<HomeInfo> {
        self.create_as(new, State::Live).await
    }

    /// Makes a home that nobody sees before [`Homes::filled`]. Where its filling ends before,
    /// whoever needs the name next deletes it, or [`Homes::purge_expired`].
    ///
    /// # Errors
    /// As for [`Homes::create`].
    pub async fn create_to_fill(&self, new: NewHome) -> Result<HomeInfo> {
        self.create_as(new, State::Filling).await
    }

    async fn create_as(&self, new: NewHome, state: State) -> Result<HomeInfo> {
        let name = &new.name;
        name::check(name)?;
        if let Some((record, _)) = self.find(name).await? {
            let left_over = record.state == State::Filling;
            if !left_over || self.purge(name, i64::MAX).await.is_err() {
                return Err(taken(&record));
            }
        }
        let volume = volumes::take(&*self.meta, name).await?;
        let now = self.shared.clock.now();
        let root = RootAttrs::new(new.owner_uid, new.owner_gid, new.perm, now);
        let mut record = Record::new(name, volume, root, new.quota, now.sec);
        record.state = state;
        match create_head(&*self.meta, &head_path(name), &record.encode()).await {
            Ok(_) => Ok(record.info()),
            Err(HeadError::Exists(_)) => match self.find(name).await? {
                Some((record, _)) => Err(taken(&record)),
                None => Err(HomesError::Exists { home: new.name }),
            },
            Err(error) => Err(HomesError::head(name, error)),
        }
    }

    /// A home that was filled, closed and is still owned here is seen from now on.
    ///
    /// # Errors
    /// `Exists` when it is none that was filled, `NotFound`, `Full`, `Unavailable`.
    pub async fn filled(&self, name: &str, root: RootAttrs, used: Usage) -> Result<HomeInfo> {
        let change = |record: &mut Record| {
            if record.state != State::Filling {
                return Err(taken(record));
            }
            record.state = State::Live;
            record.root = root;
            record.set_used(used);
            Ok(())
        };
        Ok(self.update(name, change).await?.info())
    }

    /// New limits: at once where it is open here, soon where it is open elsewhere.
    ///
    /// # Errors
    /// `NotFound`, `Removed`, `Invalid`, `Full`, `Unavailable`.
    pub async fn set_quota(&self, name: &str, quota: Quota) -> Result<HomeInfo> {
        let record = self
            .update(name, |record| {
                record.require_live()?;
                record.set_quota(quota);
                Ok(())
            })
            .await?;
        if let Some(open) = self.opened(name) {
            open.home().set_quota(quota);
        }
        Ok(record.info())
    }

    /// Takes numbers that no home and no snapshot ever has had; gives the first of `count`.
    ///
    /// # Errors
    /// `Full`, `Unavailable`, `Corrupt`.
    pub async fn take_volumes(&self, count: u32) -> Result<u32> {
        volumes::take_many(&*self.meta, "(snapshots)", count).await
    }

    /// Switches the schedule of snapshots of a home on or off.
    ///
    /// # Errors
    /// `NotFound`, `Removed`, `Invalid`, `Full`, `Unavailable`.
    pub async fn set_schedule(&self, name: &str, on: bool) -> Result<HomeInfo> {
        let change = |record: &mut Record| {
            record.require_live()?;
            record.unscheduled = !on;
            Ok(())
        };
        Ok(self.update(name, change).await?.info())
    }

    /// Notes what the snapshots of an open home cost.
    pub(super) async fn note_snapshots(&self, name: &str, cost: SnapshotUse) -> Result<()> {
        let change = |record: &mut Record| {
            record.require_live()?;
            record.snapshots = cost.count;
            record.snapshot_bytes = cost.bytes;
            Ok(())
        };
        self.update(name, change).await.map(drop)
    }

    /// Notes what a listing shows of the root directory.
    ///
    /// # Errors
    /// `NotFound`, `Removed`, `Invalid`, `Full`, `Unavailable`.
    pub async fn set_root_attrs(&self, name: &str, root: RootAttrs) -> Result<HomeInfo> {
        self.note(name, Some(root), None).await
    }

    /// Notes what an open home looked like last: its root directory, its use, or both.
    ///
    /// # Errors
    /// `NotFound`, `Removed`, `Invalid`, `Full`, `Unavailable`.
    pub async fn note(
        &self,
        name: &str,
        root: Option<RootAttrs>,
        used: Option<Usage>,
    ) -> Result<HomeInfo> {
        let change = |record: &mut Record| {
            record.require_live()?;
            record.root = root.unwrap_or(record.root);
            if let Some(used) = used {
                record.set_used(used);
            }
            Ok(())
        };
        Ok(self.update(name, change).await?.info())
    }

    /// Removes a home, which can be brought back for a week. One that is open here is closed.
    ///
    /// # Errors
    /// `NotFound`, `Removed` when it was already, `OwnedElsewhere`, `Invalid`, `Unavailable`.
    pub async fn remove(&self, name: &str) -> Result<HomeInfo> {
        self.read(name).await?.0.require_live()?;
        let slot = self.slot(name);
        let mut slot = slot.lock().await;
        self.close_slot(&mut slot).await?;
        let claim = owner::claim(self.heartbeat(name).await?, name, false).await?;
        let at = self.shared.clock.now().sec;
        let removed = self
            .update(name, |record| {
                record.require_live()?;
                record.state = State::Removed { at };
                Ok(())
            })
            .await;
        serve::release(&claim).await;
        Ok(removed?.info())
    }

    /// Brings a removed home back.
    ///
    /// # Errors
    /// `NotFound`, `Exists` when it was not removed, `Purging` when it is too late, `Invalid`,
    /// `Full`, `Unavailable`.
    pub async fn restore(&self, name: &str) -> Result<HomeInfo> {
        let change = |record: &mut Record| match record.state {
            State::Live => Err(HomesError::Exists { home: record.name.clone() }),
            State::Filling => Err(HomesError::Filling { home: record.name.clone() }),
            State::Purging => Err(HomesError::Purging { home: record.name.clone() }),
            State::Removed { .. } => {
                record.state = State::Live;
                Ok(())
            }
        };
        Ok(self.update(name, change).await?.info())
    }

    /// The heartbeat of this process, from the first time that one is needed.
    async fn heartbeat(&self, home: &str) -> Result<&Heartbeat> {
        let start = || async {
            let meta = Arc::clone(&self.meta);
            let options = self.options.heartbeat.clone();
            Heartbeat::start(meta, self.identity.clone(), options).await
        };
        let started = self.heartbeat.get_or_try_init(start).await;
        started.map_err(|error| HomesError::unavailable(home, error))
    }

    /// What is wrong with the store, as the heartbeat sees it, in one line. Never waits.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.heartbeat.get()?.trouble()
    }

    fn slot(&self, name: &str) -> Slot {
        Arc::clone(self.slots.lock().entry(name.to_owned()).or_default())
    }

    async fn find(&self, name: &str) -> Result<Option<(Record, HeadVersion)>> {
        let found = find_head(&*self.meta, &head_path(name)).await;
        let Some(head) = found.map_err(|error| HomesError::head(name, error))? else {
            return Ok(None);
        };
        Ok(Some((Record::decode(name, &head.data)?, head.version)))
    }

    async fn read(&self, name: &str) -> Result<(Record, HeadVersion)> {
        name::check(name)?;
        self.find(name).await?.ok_or_else(|| HomesError::not_found(name))
    }

    /// Changes the head of a home, on top of whatever others change meanwhile.
    async fn update(
        &self,
        name: &str,
        mut change: impl FnMut(&mut Record) -> Result<()>,
    ) -> Result<Record> {
        for _ in 0..RACES_MAX {
            let (before, version) = self.read(name).await?;
            let mut record = before.clone();
            change(&mut record)?;
            if record == before {
                return Ok(record);
            }
            let path = head_path(name);
            match swap_head(&*self.meta, &path, &version, &record.encode()).await {
                Ok(_) => return Ok(record),
                Err(HeadError::Conflict(_)) => {}
                Err(error) => return Err(HomesError::head(name, error)),
            }
        }
        Err(HomesError::unavailable(name, "others change its head all the time"))
    }
}

/// Why no home can be made where there is one.
fn taken(record: &Record) -> HomesError {
    let taken = record.require_live().err();
    taken.unwrap_or_else(|| HomesError::Exists { home: record.name.clone() })
}
