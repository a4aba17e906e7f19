//! Opening and closing a home.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, watch};

use super::clean::Graves;
use super::core::{Core, Durable};
use super::dirty::HomeBudget;
use super::error::{Error, ErrorKind, Result};
use super::holds::{Holds, RefKey};
use super::key;
use super::namespace::DIR_SIZE;
use super::notice::NoticeStore;
use super::reader::{JoinPath, Reader};
use super::record::{Counters, InodeRecord, decode_small};
use super::snapshot::Snapshots;
use super::state::{Inode, State};
use super::sweep::Candidates;
use super::table::{Table, TableOptions};
use super::tenure::Tenure;
use super::trouble::Troubles;
use super::types::{Attr, Ino, Kind, Quota};
use super::{Home, Shared};

/// Changes that a client may be behind before it must drop its caches.
const CHANGES_MAX: usize = 4096;
/// First and longest pause before what an earlier daemon left over is looked for again.
const SEARCH_PAUSE_MIN: Duration = Duration::from_millis(100);
const SEARCH_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Rows per scan while opening.
const ROWS: usize = 4096;
/// And small values, of up to 48 KiB each.
const SMALL_ROWS: usize = 256;

/// What it takes to open a home. The caller holds its owner record.
pub struct OpenHome {
    /// Its name.
    pub name: String,
    /// Where segments are.
    pub data: Arc<dyn ObjectStore>,
    /// Where tables and heads are.
    pub meta: Arc<dyn ObjectStore>,
    /// Everything of the home lies under this prefix in both: `homes/NAME`.
    pub prefix: Path,
    /// Limits.
    pub quota: Quota,
    /// Owner of the root directory, used when the home is opened for the first time.
    pub root_uid: u32,
    /// Its group.
    pub root_gid: u32,
    /// Its permission bits.
    pub root_perm: u16,
    /// What all homes share.
    pub shared: Arc<Shared>,
    /// The right to acknowledge changes.
    pub tenure: Arc<dyn Tenure>,
    /// Seed of the tables' randomness, for simulations.
    pub seed: Option<u64>,
}

impl Home {
    /// Opens a home for writing, or makes it where the store has none of its tables.
    ///
    /// # Errors
    /// `Fenced` when another writer has it, `Unavailable`, `Corrupt`.
    pub async fn open(open: OpenHome) -> Result<Home> {
        let shared = Arc::clone(&open.shared);
        let number = shared.next_home.fetch_add(1, Ordering::Relaxed);
        let tables = open.prefix.clone().join_path("tables");
        let options = TableOptions { seed: open.seed, ..TableOptions::default() };
        let troubles = Arc::new(Troubles::default());
        let meta = NoticeStore::new(Arc::clone(&open.meta), Arc::clone(&troubles), &open.name);
        let table = Table::open(Arc::new(meta), tables.as_ref(), &shared.tables, options).await?;
        let counters = match table.get(&key::counters()).await? {
            Some(value) => Some(Counters::decode(&value)?),
            None => None,
        };
        let last = table.last_txn();
        let fresh = counters.is_none();
        if fresh && last > 0 {
            return Err(Error::corrupt(format_args!(
                "home {}: its counters are missing",
                open.name
            )));
        }
        let counters = counters.unwrap_or(Counters {
            next_ino: Ino::ROOT.0 + 1,
            next_small: 1,
            ..Counters::default()
        });
        let next_ino = counters.next_ino;
        let mut state = State::new(counters, open.quota, last + 1, open.shared.parked_per_home());
        if fresh {
            make_root(&mut state, &open);
        }
        let core = Arc::new_cyclic(|me| Core {
            me: me.clone(),
            reader: Reader::new(
                number,
                open.name.clone(),
                open.prefix.clone(),
                Arc::clone(&open.data),
                Arc::clone(&shared.cache),
                Arc::clone(&troubles),
            ),
            budget: HomeBudget::new(Arc::clone(&shared.budget)),
            reading: HomeBudget::new(Arc::clone(&shared.reading)),
            name: open.name,
            tenure: open.tenure,
            runtime: Handle::current(),
            state: Mutex::new(state),
            table,
            data: open.data,
            prefix: open.prefix,
            holds: Arc::new(Holds::default()),
            segments: AtomicU64::new(1),
            free_ino: [next_ino, next_ino].map(AtomicU64::new),
            wake: Notify::new(),
            gate: Notify::new(),
            durable: watch::Sender::new(Durable { txn: last, failed: None }),
            wanted: AtomicU64::new(0),
            changes: broadcast::Sender::new(CHANGES_MAX),
            root_set: Notify::new(),
            troubles,
            graves: Graves::default(),
            candidates: Candidates::default(),
            snapshots: Snapshots::default(),
            tidying: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            pressed: AtomicBool::new(false),
            behind: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            reaping: AtomicBool::new(false),
            carrying: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            searched: watch::Sender::new(false),
            shared,
        });
        core.find_snapshots().await?;
        core.find_orphans().await?;
        core.find_smalls().await?;
        core.find_unused().await?;
        core.shared.open_homes.fetch_add(1, Ordering::Relaxed);
        core.runtime.spawn(Arc::clone(&core).drive());
        let (searcher, epoch) = (Arc::clone(&core), core.table.epoch());
        core.runtime.spawn(async move {
            let mut pause = SEARCH_PAUSE_MIN;
            while let Err(error) = searcher.find_left_over(epoch, last).await {
                tracing::debug!(home = %searcher.name, %error, "what is left over is looked for later");
                if searcher.state.lock().failed.is_some() {
                    break;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(SEARCH_PAUSE_MAX);
            }
            let _nobody_waits = searcher.searched.send_replace(true);
            searcher.wake.notify_one();
        });
        if fresh {
            core.wait_durable(last + 1).await?;
        }
        Ok(Home { core })
    }
}

fn make_root(state: &mut State, open: &OpenHome) {
    let now = open.shared.clock.now();
    let attr = Attr {
        ino: Ino::ROOT,
        kind: Kind::Dir,
        perm: open.root_perm,
        nlink: 2,
        uid: open.root_uid,
        gid: open.root_gid,
        rdev: 0,
        size: DIR_SIZE,
        charged: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
    };
    let mut root = Inode::new(attr);
    root.parent = Ino::ROOT;
    state.inodes.insert(Ino::ROOT, Box::new(root));
    state.inodes_used = 1;
    state.touch(Ino::ROOT);
}

impl Core {
    /// What an earlier daemon left half-way.
    async fn find_left_over(&self, epoch: u64, last: u64) -> Result<()> {
        self.finish_making(last).await?;
        self.finish_removals().await?;
        self.find_graves(epoch).await
    }

    /// Files that lost their last name while they were open, when an earlier daemon ended.
    async fn find_orphans(&self) -> Result<()> {
        let mut range = key::range_of_kind(key::ORPHAN);
        loop {
            let rows = self.table.scan(range.clone(), ROWS).await?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            range.start = [last, &[0][..]].concat();
            for (orphan, _) in &rows {
                let Some(ino) = key::ino_of(orphan) else { continue };
                let value = self.table.get(&key::inode(ino)).await?;
                let mut state = self.state.lock();
                let Some(value) = value else {
                    state.txn.delete(key::orphan(ino));
                    continue;
                };
                let inode = Inode::from_record(InodeRecord::decode(ino, &value)?);
                state.inodes.insert(ino, Box::new(inode));
                state.set_orphaned(ino, 0);
                state.free(ino);
            }
        }
    }

    /// Chunks without references that memory held when an earlier daemon ended; the next commit
    /// frees them.
    async fn find_unused(&self) -> Result<()> {
        let mut range = key::range_of_kind(key::UNUSED);
        loop {
            let rows = self.table.scan(range.clone(), ROWS).await?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            range.start = [last, &[0][..]].concat();
            let mut state = self.state.lock();
            for (key, _) in &rows {
                let Some(id) = key::chunk_of(key) else { continue };
                state.txn.refs.entry(RefKey::Chunk(id)).or_insert(0);
                state.txn.delete(key::unused(id));
            }
        }
    }

    async fn find_smalls(&self) -> Result<()> {
        let mut range = key::range_of_kind(key::SMALL);
        loop {
            let rows = self.table.scan(range.clone(), SMALL_ROWS).await?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            range.start = [last, &[0][..]].concat();
            for (key, value) in &rows {
                let (ino, refs, data) = decode_small(value)?;
                let mut state = self.state.lock();
                if let (0, Some(id)) = (refs, key::number_of(key)) {
                    // It was held when an earlier daemon ended; the next commit frees it.
                    state.txn.refs.entry(RefKey::Small(id)).or_insert(0);
                    state.txn.start();
                }
                state.small_bytes += data.len() as u64;
                state.untidy.note(ino, None);
            }
        }
    }

    /// Commits everything and gives the tables up. Idempotent.
    ///
    /// # Errors
    /// What could not be made durable.
    pub async fn close(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let synced = self.sync().await;
        let first = !self.closing.swap(true, Ordering::AcqRel);
        self.wake.notify_one();
        let mut ended = self.ended.subscribe();
        let driver = async {
            ended.wait_for(|ended| *ended).await.map(drop).map_err(|_| ErrorKind::Closed.into())
        };
        let ended = self.patient(driver).await;
        if first {
            self.shared.open_homes.fetch_sub(1, Ordering::Relaxed);
            self.state.lock().failed.get_or_insert_with(|| Error::from(ErrorKind::Closed));
            // What still waits for a commit waits in vain.
            self.durable.send_modify(|durable| {
                durable.failed.get_or_insert_with(|| Error::from(ErrorKind::Closed));
            });
            self.close_snapshots();
            self.patient(self.table.close()).await?;
        }
        synced.and(ended)?;
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}
