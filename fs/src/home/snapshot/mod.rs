//! Snapshots: the home as a transaction left it, readable until it is removed.
//!
//! A snapshot is the number of a transaction. Its records are a checkpoint of the tables
//! ([`super::table`]), which share what did not change; its data are the home's own chunks. What
//! always holds: a chunk that a snapshot refers to is not freed, because no chunk is freed while
//! a snapshot lies between its birth and its death; where chunks lie now is asked of the live
//! tables, so that the cleaner may move them.
//!
//! What a crash leaves: the record of a snapshot is part of the very transaction that it shows
//! ([`make`]). Whether the tables keep that moment decides whether it is whole; if not, it is
//! gone. A removal first says so in the record, and goes on after a crash ([`remove`]).

pub(super) mod make;
mod record;
mod remove;
pub(super) mod schedule;
mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

pub use make::SNAPSHOTS_MAX;
pub use record::{HeldTotal, Origin, Phase, SnapshotRecord, check_name, encode_held};
pub use schedule::{Keep, Plan};
pub use view::Snapshot;

use self::make::Wanted;
use super::Home;
use super::core::Core;
use super::error::{Error, ErrorKind, Result};
use super::key;
use super::record::InodeRecord;
use super::table::TableReader;
use super::types::{Attr, Change, ClientId, Ino, Name, Time};

/// The directory that lists the snapshots, in the root of the home; no inode has this number.
pub const SNAPSHOTS_INO: Ino = Ino::MAX;
/// Its name.
pub const SNAPSHOTS_NAME: &[u8] = b".snapshots";
/// Snapshots of a home that are open for reading at the same time.
const OPEN_MAX: usize = 8;
/// One that nobody read for so long is closed.
const OPEN_IDLE: Duration = Duration::from_secs(60);
/// Rows per scan.
const ROWS: usize = 1024;

/// A snapshot as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The transaction that it shows the home after: its number, never used again.
    pub txn: u64,
    /// Its name.
    pub name: String,
    /// Who made it.
    pub origin: Origin,
    /// When.
    pub created: Time,
    /// In front of the inode numbers that a mount shows; 0 until one was given.
    pub volume: u32,
    /// Charged bytes that it shows.
    pub bytes: u64,
    /// Inodes that it shows.
    pub inodes: u64,
    /// Its root directory.
    pub root: Attr,
}

/// What snapshots cost beside the quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotUse {
    /// How many there are.
    pub count: u64,
    /// Bytes, as stored, that only snapshots refer to.
    pub bytes: u64,
}

/// The snapshots of an open home.
#[derive(Default)]
pub struct Snapshots {
    inner: Mutex<Inner>,
    /// Held while one is made or removed: one after the other.
    turn: tokio::sync::Mutex<()>,
    /// What the driver shall make next.
    wanted: Mutex<Option<Wanted>>,
    /// The last transaction with a change that somebody asked for.
    changed: AtomicU64,
}

#[derive(Default)]
struct Inner {
    /// By transaction, in any phase.
    all: Vec<(u64, SnapshotRecord)>,
    held: HeldTotal,
    open: HashMap<u64, (Arc<TableReader>, Instant)>,
}

impl Snapshots {
    /// Whether a snapshot lies between birth and death.
    pub fn hold(&self, birth: u64, death: u64) -> bool {
        let inner = self.inner.lock();
        let first = inner.all.partition_point(|(txn, _)| *txn < birth);
        inner.all.get(first).is_some_and(|(txn, _)| *txn < death)
    }

    /// What they hold in all.
    pub fn held(&self) -> HeldTotal {
        self.inner.lock().held
    }

    /// Sets it.
    pub fn set_held(&self, held: HeldTotal) {
        self.inner.lock().held = held;
    }

    /// A client changed something.
    pub fn note_change(&self, txn: u64) {
        self.changed.store(txn, Ordering::Relaxed);
    }

    /// The driver ends: nobody makes what is wanted.
    pub fn give_up(&self) {
        self.wanted.lock().take();
    }

    fn phase(&self, phase: Phase) -> Vec<(u64, SnapshotRecord)> {
        let inner = self.inner.lock();
        inner.all.iter().filter(|(_, r)| r.phase == phase).cloned().collect()
    }

    fn find(&self, txn: u64) -> Option<SnapshotRecord> {
        let inner = self.inner.lock();
        inner.all.iter().find(|(t, _)| *t == txn).map(|(_, r)| r.clone())
    }

    fn put(&self, txn: u64, record: SnapshotRecord) {
        let mut inner = self.inner.lock();
        match inner.all.binary_search_by_key(&txn, |(t, _)| *t) {
            Ok(at) => inner.all[at].1 = record,
            Err(at) => inner.all.insert(at, (txn, record)),
        }
    }

    fn take(&self, txn: u64) {
        let mut inner = self.inner.lock();
        inner.all.retain(|(t, _)| *t != txn);
        inner.open.remove(&txn);
    }
}

fn info(txn: u64, record: &SnapshotRecord) -> Result<SnapshotInfo> {
    Ok(SnapshotInfo {
        txn,
        name: record.name.clone(),
        origin: record.origin,
        created: record.created,
        volume: record.volume,
        bytes: record.bytes,
        inodes: record.inodes,
        root: InodeRecord::decode(Ino::ROOT, &record.root)?.attr,
    })
}

impl Home {
    /// The snapshots that there are, oldest first.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let made = self.core.snapshots.phase(Phase::Made);
        made.iter().map(|(txn, record)| info(*txn, record)).collect()
    }

    /// The transaction of the last change that somebody asked for: a snapshot that is newer
    /// shows all of it. Never waits.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.core.snapshots.changed.load(Ordering::Relaxed)
    }

    /// When the newest snapshot was made. Never waits.
    #[must_use]
    pub fn newest_snapshot(&self) -> Option<Time> {
        let inner = self.core.snapshots.inner.lock();
        let made = inner.all.iter().rev().find(|(_, r)| r.phase == Phase::Made);
        made.map(|(_, record)| record.created)
    }

    /// What they cost beside the quota. Never waits.
    #[must_use]
    pub fn snapshot_use(&self) -> SnapshotUse {
        let inner = self.core.snapshots.inner.lock();
        let made = inner.all.iter().filter(|(_, r)| r.phase == Phase::Made).count();
        SnapshotUse { count: made as u64, bytes: inner.held.bytes }
    }

    /// The snapshot called `name`.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn snapshot(&self, name: &str) -> Result<Snapshot> {
        // Of a thousand only this one is looked at.
        let found = {
            let inner = self.core.snapshots.inner.lock();
            let mut made = inner.all.iter().filter(|(_, r)| r.phase == Phase::Made);
            made.find(|(_, record)| record.name == name).cloned()
        };
        let (txn, record) = found.ok_or(ErrorKind::NotFound)?;
        Ok(Snapshot::new(Arc::clone(&self.core), info(txn, &record)?))
    }

    /// The snapshot of transaction `txn`.
    ///
    /// # Errors
    /// `Stale` where it is gone.
    pub fn snapshot_of(&self, txn: u64) -> Result<Snapshot> {
        let found = self.core.snapshots.find(txn).filter(|r| r.phase == Phase::Made);
        let record = found.ok_or(ErrorKind::Stale)?;
        Ok(Snapshot::new(Arc::clone(&self.core), info(txn, &record)?))
    }

    /// Gives snapshots that have none their numbers, durably; who came first wins.
    ///
    /// # Errors
    /// As for `sync`.
    pub async fn set_snapshot_volumes(&self, volumes: &[(u64, u32)]) -> Result<()> {
        let core = &self.core;
        let mut number = 0;
        for (txn, volume) in volumes {
            let Some(record) = core.snapshots.find(*txn) else { continue };
            if record.volume == 0 && record.phase == Phase::Made {
                number = core.put_snapshot(*txn, SnapshotRecord { volume: *volume, ..record });
            }
        }
        core.wait_durable(number).await
    }
}

impl Core {
    /// Reads the records of all snapshots, when the home is opened.
    ///
    /// # Errors
    /// What the tables say.
    pub async fn find_snapshots(&self) -> Result<()> {
        let mut range = key::range_of_kind(key::SNAPSHOT);
        loop {
            let rows = self.table.scan(range.clone(), ROWS).await?;
            let Some((last, _)) = rows.last() else { break };
            range.start = [last, &[0][..]].concat();
            for (key, value) in &rows {
                let txn = key::number_of(key)
                    .ok_or_else(|| Error::corrupt(format_args!("home {}: a key", self.name)))?;
                self.snapshots.put(txn, SnapshotRecord::decode(value)?);
            }
        }
        if let Some(value) = self.table.get(&key::held_total()).await? {
            self.snapshots.set_held(HeldTotal::decode(&value)?);
        }
        let inner = self.snapshots.inner.lock();
        let newest = inner.all.last().map_or(0, |(txn, _)| *txn);
        self.table.note_kept(inner.all.len());
        // What follows a snapshot directly is its own record.
        let last = self.table.last_txn();
        self.snapshots.note_change(if last > newest + 1 { last } else { newest });
        Ok(())
    }

    /// Changes a record, in the running transaction and at once for all who ask. Gives the
    /// number of that transaction.
    fn put_snapshot(&self, txn: u64, record: SnapshotRecord) -> u64 {
        let mut state = self.state.lock();
        state.txn.put(key::snapshot(txn), record.encode());
        self.snapshots.put(txn, record);
        let number = state.txn.number;
        drop(state);
        self.wake.notify_one();
        number
    }

    /// Tells all clients that the list changed, and whose name goes.
    fn tell_of_snapshots(&self, gone: Option<&str>) {
        let list = Change::Inode { ino: SNAPSHOTS_INO, data: true };
        let gone = gone.and_then(|name| Name::new(name.as_bytes()).ok());
        let gone = gone.map(|name| Change::Entry { parent: SNAPSHOTS_INO, name });
        for change in gone.into_iter().chain([list]) {
            let _nobody_listens = self.changes.send((ClientId(0), change));
        }
    }

    /// The records of a snapshot, opened where they are not.
    async fn open_snapshot(self: &Arc<Self>, txn: u64) -> Result<Arc<TableReader>> {
        let kept = {
            let mut inner = self.snapshots.inner.lock();
            if let Some((reader, used)) = inner.open.get_mut(&txn) {
                *used = Instant::now();
                return Ok(Arc::clone(reader));
            }
            let found = inner.all.iter().find(|(t, r)| *t == txn && r.phase == Phase::Made);
            found.ok_or(ErrorKind::Stale)?.1.kept
        };
        let reader = Arc::new(self.table.open_kept(kept).await?);
        let mut inner = self.snapshots.inner.lock();
        if inner.open.is_empty() {
            self.close_idle_snapshots();
        }
        while inner.open.len() >= OPEN_MAX {
            let oldest = inner.open.iter().min_by_key(|(_, (_, used))| *used).map(|(t, _)| *t);
            let Some(oldest) = oldest else { break };
            inner.open.remove(&oldest);
        }
        inner.open.insert(txn, (Arc::clone(&reader), Instant::now()));
        Ok(reader)
    }

    /// Closes what nobody reads, until none is open; ends with the home.
    fn close_idle_snapshots(&self) {
        let me = self.me.clone();
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(OPEN_IDLE).await;
                let Some(core) = me.upgrade() else { return };
                let mut inner = core.snapshots.inner.lock();
                inner.open.retain(|_, (_, used)| used.elapsed() < OPEN_IDLE);
                if inner.open.is_empty() {
                    return;
                }
            }
        });
    }

    /// Closes all that are open for reading.
    pub fn close_snapshots(&self) {
        self.snapshots.inner.lock().open.clear();
    }
}
