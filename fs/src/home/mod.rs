//! A home: one user's directory tree, kept in an object store.
//!
//! What always holds: every operation is atomic and sees every acknowledged one before it; no
//! operation waits for the store unless what it reads is not in memory; nothing here knows of
//! FUSE, sockets or this node. The future of an operation may be polled once where the request
//! arrived and handed to a runtime only when it would wait.
//!
//! How it works, from the top: [`Home`] offers operations; each is a step over the in-memory
//! [`state`] that may ask for a [`load`]. Names and attributes change at once and are committed
//! by the driver in [`core`] as one batch ([`commit`]). Data collects in [`dirty`] buffers, is
//! taken as a [`capture`], written by [`flush`] in [`segment`]s, and enters the transaction when
//! it is durable.

mod acl;
mod ahead;
mod attributes;
mod brought;
mod capture;
mod clean;
mod clock;
mod commit;
mod core;
mod data;
mod dirty;
mod error;
mod extent;
mod flush;
#[cfg(test)]
mod format;
pub mod fsck;
mod holds;
pub mod homes;
mod key;
mod load;
mod lock;
mod maps;
#[cfg(not(feature = "mutants"))]
mod mutants;
#[cfg(feature = "mutants")]
pub mod mutants;
mod namespace;
mod notice;
mod open;
pub mod owner;
mod parked;
mod readahead;
mod reader;
mod reap;
mod record;
mod references;
mod segment;
mod snapshot;
mod state;
mod sweep;
mod table;
mod tenure;
mod tidy;
mod transaction;
mod trouble;
mod types;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast;
use yadokari_store::BlockingPool;

pub use clock::{Clock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use lock::{
    Lock, LockKind, LockOwner, LockSpace, LockTable, Progress, RANGE_END_MAX, WaiterId,
};
pub use open::OpenHome;
pub use references::References;
pub use snapshot::{
    Keep, Origin, Plan, SNAPSHOTS_INO, SNAPSHOTS_MAX, SNAPSHOTS_NAME, Snapshot, SnapshotInfo,
    SnapshotUse,
};
pub use tenure::{Tenure, Undisputed};
pub use types::*;

use self::core::Core;
use self::dirty::Budget;
use self::reader::DataCache;
use self::state::Inode;
use self::table::TableShared;

/// Settings of all homes of a process. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Decoded and raw data that is kept for reading.
    pub data_cache_bytes: u64,
    /// Blocks and indexes of the tables, and rows that they were given lately.
    pub table_cache_bytes: u64,
    /// Acknowledged data that is not in the store yet, over all homes; writers wait beyond it.
    pub dirty_bytes_max: u64,
    /// Inodes that are kept decoded, over all homes.
    pub cached_inodes_max: usize,
    /// Namespace changes are committed at the latest after this.
    pub commit_interval: Duration,
    /// Data is written to the store at the latest after this.
    pub flush_interval: Duration,
    /// An operation that waits for the store fails after this.
    pub store_timeout: Duration,
    /// Hashing and compression run where they are asked for: for simulations on one thread.
    pub compute_inline: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_cache_bytes: 40 << 20,
            table_cache_bytes: 44 << 20,
            dirty_bytes_max: 64 << 20,
            cached_inodes_max: 20_000,
            commit_interval: Duration::from_secs(1),
            flush_interval: Duration::from_secs(2),
            store_timeout: Duration::from_secs(60),
            compute_inline: false,
        }
    }
}

/// What all homes of a process share: caches, budgets, the clock.
pub struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    budget: Arc<Budget>,
    reading: Arc<Budget>,
    /// Of the threads that hash and compress.
    computing: BlockingPool,
    cache: Arc<DataCache>,
    tables: TableShared,
    next_home: AtomicU64,
    open_homes: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Shared {
    /// With the system's clock.
    #[must_use]
    pub fn new(config: Config) -> Arc<Self> {
        Self::with_clock(config, Arc::new(SystemClock))
    }

    /// With a clock of the caller's.
    #[must_use]
    pub fn with_clock(config: Config, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            budget: Budget::new(config.dirty_bytes_max),
            reading: Budget::new(READING_BYTES_MAX),
            computing: BlockingPool::new("compute", computing_max()),
            cache: DataCache::new(config.data_cache_bytes),
            tables: TableShared::new(config.table_cache_bytes, Arc::clone(&clock)),
            next_home: AtomicU64::new(1),
            open_homes: AtomicUsize::new(0),
            clock,
            config,
        })
    }

    /// Acknowledged bytes, over all homes, that are not in the store yet.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        self.budget.used()
    }

    /// Inodes that one home may keep: its share, but never too few to work with.
    fn inodes_per_home(&self) -> usize {
        const INODES_MIN: usize = 2_000;
        let homes = self.open_homes.load(Ordering::Relaxed).max(1);
        let most = self.config.cached_inodes_max;
        (most / homes).max(INODES_MIN.min(most))
    }

    /// Inodes by which the room for parked records of one home is measured: its share.
    fn parked_per_home(&self) -> usize {
        self.config.cached_inodes_max / self.open_homes.load(Ordering::Relaxed).max(1)
    }
}

/// An open home. Cheap to clone; the home closes by [`Home::close`].
#[derive(Clone)]
pub struct Home {
    core: Arc<Core>,
}

/// A part of a file's contents, in order; together they are what a read gives.
pub type ReadPieces = smallvec::SmallVec<[Bytes; 2]>;

/// What a home holds in memory and in the store, for `stats`.
#[derive(Clone, Copy, Debug, Default)]
pub struct HomeStats {
    /// Inodes in memory.
    pub cached_inodes: u64,
    /// Acknowledged bytes that are not in the store yet.
    pub dirty_bytes: u64,
    /// The running transaction.
    pub transaction: u64,
    /// Transactions up to this one survive anything.
    pub durable_transaction: u64,
}

/// Threads that hash and compress at the same time, over all homes.
fn computing_max() -> usize {
    2 * std::thread::available_parallelism().map_or(1, usize::from)
}

/// Room for what reads fetch from the store, over all homes; reads wait beyond it.
const READING_BYTES_MAX: u64 = 32 << 20;
/// The least that a read takes of it: what comes along with a small chunk.
const READ_BYTES_MIN: u64 = 256 << 10;
/// What a home had acknowledged and could not keep when it ended.
#[derive(Clone, Debug)]
pub struct Unkept {
    /// Inodes with changes that are not durable.
    pub inodes: Vec<Ino>,
    /// From here on inode numbers are known to nobody else, and are given again.
    pub free_from: Ino,
}

/// How often a read looks again because what it found was moved or freed meanwhile.
const READ_TRIES: usize = 8;

// Every operation is an `async fn(&self, …owned arguments…)`; clone the home into an
// `async move` block to get a `'static` future. Operations that give the attributes of a name
// (lookup, make, link) count one reference of `client` on the inode, given back by `forget`.
impl Home {
    /// The name of the home.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// A number for a new user of this home (a mount, a command).
    #[must_use]
    pub fn attach(&self) -> ClientId {
        self.core.state.lock().attach()
    }

    /// Gives all references of `client` back.
    pub fn detach(&self, client: ClientId) {
        self.core.state.lock().detach(client);
        self.core.wake.notify_one();
    }

    /// Changes that clients make, with who made them, for the caches of the others. A slow
    /// receiver that misses some sees `Lagged` and must drop everything it caches.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<(ClientId, Change)> {
        self.core.changes.subscribe()
    }

    /// Name to inode.
    pub async fn lookup(&self, client: ClientId, parent: Ino, name: Name) -> Result<Attr> {
        self.core.run(None, |state| state.lookup(client, parent, &name)).await
    }

    /// Counts one more reference on each inode (entries of `readdir` that the kernel took).
    pub fn remember(&self, client: ClientId, inos: &[Ino]) {
        let mut state = self.core.state.lock();
        for ino in inos {
            state.refer(client, *ino);
        }
    }

    /// Counts references that `client` had before the home was closed and opened again.
    pub fn remember_all(&self, client: ClientId, counts: impl Iterator<Item = (Ino, u64)>) {
        let mut state = self.core.state.lock();
        for (ino, count) in counts {
            state.refer_often(client, ino, count);
        }
    }

    /// Whether a client refers to an inode that has no name any more and goes when the home is
    /// closed.
    #[must_use]
    pub fn has_used_orphans(&self) -> bool {
        self.core.state.lock().has_used_orphans()
    }

    /// Gives references back. Never waits.
    pub fn forget(&self, client: ClientId, ino: Ino, count: u64) {
        let mut state = self.core.state.lock();
        state.forget(client, ino, count);
        let reap = !state.reap.is_empty();
        let freed = state.txn.is_started() && !self.core.armed.swap(true, Ordering::Relaxed);
        drop(state);
        if reap || freed {
            self.core.wake.notify_one();
        }
    }

    /// Attributes.
    pub async fn getattr(&self, ino: Ino) -> Result<Attr> {
        self.core.run(None, |state| Ok(state.inode(ino)?.attr)).await
    }

    /// Changes attributes, the size included.
    pub async fn setattr(&self, caller: Caller, ino: Ino, set: SetAttr) -> Result<Attr> {
        let now = self.core.now();
        let mut sized = set.size.is_none();
        self.core
            .run(Some(caller.client), |state| {
                // Everything must be in memory before anything changes.
                if set.kill != Kill::Nothing || set.perm.is_some() {
                    state.xattrs(ino)?;
                }
                if let Some(size) = set.size
                    && !sized
                {
                    state.truncate(ino, size, now)?;
                    sized = true;
                }
                state.setattr(ino, &set, now)
            })
            .await
            .inspect(|_| self.tell_of_root(ino))
    }

    /// Target of a symbolic link.
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        self.core
            .run(None, |state| {
                let inode = state.inode(ino)?;
                match inode.attr.kind {
                    Kind::Symlink => Ok(inode.target.clone()),
                    _ => Err(ErrorKind::Invalid.into()),
                }
            })
            .await
    }

    /// Makes a file, directory, link or special node; applies umask or default ACL, and
    /// set-gid directories.
    pub async fn make(
        &self,
        caller: Caller,
        parent: Ino,
        name: Name,
        node: NewNode,
    ) -> Result<Attr> {
        self.core.check_room()?;
        let now = self.core.now();
        let client = Some(caller.client);
        self.core.run(client, |state| state.make(&caller, parent, &name, &node, now)).await
    }

    /// One more name for an inode.
    pub async fn link(&self, caller: Caller, ino: Ino, parent: Ino, name: Name) -> Result<Attr> {
        let now = self.core.now();
        let client = Some(caller.client);
        self.core.run(client, |state| state.link(&caller, ino, parent, &name, now)).await
    }

    /// Removes a name of anything but a directory.
    pub async fn unlink(&self, caller: Caller, parent: Ino, name: Name) -> Result<()> {
        let now = self.core.now();
        self.core.run(Some(caller.client), |state| state.unlink(parent, &name, now)).await
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, caller: Caller, parent: Ino, name: Name) -> Result<()> {
        let now = self.core.now();
        self.core.run(Some(caller.client), |state| state.rmdir(parent, &name, now)).await
    }

    /// Renames, swaps, or renames leaving a whiteout.
    pub async fn rename(
        &self,
        caller: Caller,
        from: (Ino, Name),
        to: (Ino, Name),
        mode: RenameMode,
    ) -> Result<()> {
        let now = self.core.now();
        let (from, to) = ((from.0, &from.1), (to.0, &to.1));
        let client = Some(caller.client);
        self.core.run(client, |state| state.rename(&caller, from, to, mode, now)).await
    }

    /// A part of a listing from `cookie` (0 = start), at most `entries_max`; empty at the end.
    pub async fn readdir(
        &self,
        ino: Ino,
        cookie: u64,
        attrs: bool,
        entries_max: usize,
    ) -> Result<DirPage> {
        let max = entries_max.max(1);
        self.core.run(None, |state| state.readdir(ino, cookie, attrs, max)).await
    }

    /// Contents; shorter than `len` only at the end of the file.
    pub async fn read(&self, ino: Ino, offset: u64, len: u32) -> Result<ReadPieces> {
        for _ in 0..READ_TRIES {
            let parts = self.core.run(None, |state| state.read(ino, offset, len)).await?;
            if let Some(pieces) = self.core.reader.try_fetch(&parts) {
                return Ok(pieces);
            }
            let room = self.core.reading.admit((2 * u64::from(len)).max(READ_BYTES_MIN), || ());
            let _room = self.core.patient(async { Ok(room.await) }).await?;
            self.core.admitted().await?;
            self.core.read_ahead(ino, offset, len);
            let fetched = self.core.reader.fetch(&self.core.table, &parts);
            let at = |error: Error| {
                error.in_place(&self.core.name, format_args!("inode {ino} from byte {offset}"))
            };
            if let Some(pieces) = self.core.patient(fetched).await.map_err(at)? {
                return Ok(pieces);
            }
        }
        Err(Error::corrupt(format_args!(
            "home {}: inode {ino}: bytes at {offset} refer to a chunk that is not there",
            self.core.name
        )))
    }

    /// Writes; gives the bytes taken, fewer than given only where the quota ends.
    pub async fn write(
        &self,
        caller: Caller,
        ino: Ino,
        offset: u64,
        data: Bytes,
        mode: WriteMode,
    ) -> Result<u32> {
        let now = self.core.now();
        let core = &self.core;
        core.check_room()?;
        let mut grant = match data.len() as u64 {
            0 => None,
            bytes => {
                let wait = core.budget.admit(bytes, || core.wake.notify_one());
                Some(core.patient(core.unless_full(async { Ok(wait.await) })).await?)
            }
        };
        let mut large = false;
        let written = core
            .run(Some(caller.client), |state| {
                let written = state.write(ino, offset, &data, mode, &mut grant, now)?;
                let file = state.inodes.get(&ino).and_then(|i| i.file.as_ref());
                large = file.is_some_and(|f| f.fresh_bytes >= self::core::FILE_FRESH_BYTES);
                Ok(written)
            })
            .await?;
        if large {
            core.flush_if_large(ino);
        } else if core.budget.is_tight() {
            core.press();
        }
        if mode.whole && (written as usize) < data.len() {
            return Err(ErrorKind::OverQuota.into());
        }
        Ok(written)
    }

    /// Reserves, punches, zeroes.
    pub async fn fallocate(
        &self,
        caller: Caller,
        ino: Ino,
        what: Falloc,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        if what != Falloc::PunchHole {
            self.core.check_room()?;
        }
        let now = self.core.now();
        let client = Some(caller.client);
        self.core.run(client, |state| state.fallocate(ino, what, offset, len, now)).await
    }

    /// The next data or hole from `offset`.
    pub async fn seek(&self, ino: Ino, offset: u64, whence: Seek) -> Result<u64> {
        self.core.run(None, |state| state.seek(ino, offset, whence)).await
    }

    /// Clones a range without copying data; gives the bytes cloned.
    pub async fn copy_range(
        &self,
        caller: Caller,
        from: (Ino, u64),
        to: (Ino, u64),
        len: u64,
    ) -> Result<u64> {
        self.core.check_room()?;
        let now = self.core.now();
        let holds = &self.core.holds;
        let client = Some(caller.client);
        self.core.run(client, |state| state.copy_range(from, to, len, holds, now)).await
    }

    /// Makes a file's data and names durable (a directory's names likewise).
    pub async fn fsync(&self, ino: Ino) -> Result<()> {
        self.core.fsync(ino).await
    }

    /// Makes everything durable.
    pub async fn sync(&self) -> Result<()> {
        self.core.sync().await
    }

    /// Sets an extended attribute; ACLs change the mode as POSIX.1e has it.
    pub async fn setxattr(
        &self,
        caller: Caller,
        ino: Ino,
        name: Bytes,
        value: Bytes,
        mode: XattrMode,
    ) -> Result<()> {
        self.core.check_room()?;
        let now = self.core.now();
        let client = Some(caller.client);
        self.core.run(client, |state| state.setxattr(ino, &name, &value, mode, now)).await?;
        self.tell_of_root(ino);
        Ok(())
    }

    /// Value of an extended attribute.
    pub async fn getxattr(&self, ino: Ino, name: Bytes) -> Result<Bytes> {
        self.core.run(None, |state| state.getxattr(ino, &name)).await
    }

    /// Names, each with a terminating NUL, as `listxattr` gives them.
    pub async fn listxattr(&self, ino: Ino) -> Result<Bytes> {
        self.core.run(None, |state| state.listxattr(ino)).await
    }

    /// Removes an extended attribute.
    pub async fn removexattr(&self, caller: Caller, ino: Ino, name: Bytes) -> Result<()> {
        let now = self.core.now();
        self.core.run(Some(caller.client), |state| state.removexattr(ino, &name, now)).await?;
        self.tell_of_root(ino);
        Ok(())
    }

    /// Waits until attributes of the root directory were set, once however often since the last
    /// wait; for what shows them while the home is closed.
    pub async fn root_set(&self) {
        self.core.root_set.notified().await;
    }

    fn tell_of_root(&self, ino: Ino) {
        if ino == Ino::ROOT {
            self.core.root_set.notify_one();
        }
    }

    /// Use and limits. Never waits.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let state = self.core.state.lock();
        Usage {
            bytes: state.bytes,
            bytes_limit: state.quota.bytes,
            inodes: state.inodes_used,
            inodes_limit: state.quota.inodes,
        }
    }

    /// New limits, at once. Never waits.
    pub fn set_quota(&self, quota: Quota) {
        self.core.state.lock().quota = quota;
    }

    /// Moves what is worth moving out of wasteful segments now, instead of after they rested.
    ///
    /// # Errors
    /// What the store or the tables say.
    pub async fn clean_now(&self) -> Result<()> {
        self.core.sweep(true).await
    }

    /// What it holds at this moment.
    #[must_use]
    pub fn stats(&self) -> HomeStats {
        let state = self.core.state.lock();
        HomeStats {
            cached_inodes: state.inodes.len() as u64,
            dirty_bytes: self.core.budget.used(),
            transaction: state.txn.number,
            durable_transaction: self.core.durable.borrow().txn,
        }
    }

    /// The store's failure that is not over, in one line.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.core.troubles.last()
    }

    /// Another owner has the home: nothing is acknowledged any more, what is not in the store
    /// is lost to its users.
    pub fn fence(&self) {
        self.core.fail(&ErrorKind::Fenced.into());
    }

    /// Why it answers nothing any more, where that is so. Never waits.
    #[must_use]
    pub fn failed(&self) -> Option<Error> {
        self.core.state.lock().failed.clone()
    }

    /// Waits until it answers nothing any more, or is gone. Does not keep it open.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut durable = self.core.durable.subscribe();
        async move {
            let _gone = durable.wait_for(|durable| durable.failed.is_some()).await;
        }
    }

    /// What is lost when it ends now.
    #[must_use]
    pub fn unkept(&self) -> Unkept {
        let durable = self.core.durable.borrow().txn;
        let state = self.core.state.lock();
        let lost = |inode: &Inode| {
            inode.changed > durable || inode.file.as_ref().is_some_and(|f| f.durable.is_some())
        };
        let inodes = state.inodes.iter().filter(|(_, inode)| lost(inode)).map(|(ino, _)| *ino);
        let free_from = Ino(self.core.free_ino[1].load(Ordering::Acquire));
        Unkept { inodes: inodes.collect(), free_from }
    }

    /// The epoch of its tables: one higher with every opening, by whomever.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.core.table.epoch()
    }

    /// Takes no more changes, commits everything and gives the home up. Idempotent.
    ///
    /// # Errors
    /// What could not be made durable; it is lost with this process.
    pub async fn close(&self) -> Result<()> {
        self.core.close().await
    }
}
