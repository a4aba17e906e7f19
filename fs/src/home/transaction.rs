//! The running transaction: what differs from the database, by reference where it can.
//!
//! Inodes and buckets are only marked and are encoded when the transaction is frozen, so that a
//! hundred changes of one inode are one record. Everything else is encoded where it arises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::dirty::Piece;
use super::holds::RefKey;
use super::key::Key;
use super::maps::{HashMap, HashSet};
use super::record::{ChunkRecord, Place};
use super::segment::{ChunkId, SegmentId};
use super::types::Ino;

/// A chunk that was written to the store and is not accounted for yet.
#[derive(Clone, Debug)]
pub struct Birth {
    /// Its name.
    pub id: ChunkId,
    /// Its record, without references.
    pub record: ChunkRecord,
}

/// A segment that was written to the store.
#[derive(Clone, Copy, Debug)]
pub struct NewSegment {
    /// Its name.
    pub id: SegmentId,
    /// Bytes of the object.
    pub object_bytes: u64,
}

/// A chunk that the cleaner wrote again elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// Its name.
    pub id: ChunkId,
    /// The segment that it was in; somewhere else by now means: leave it there.
    pub from: SegmentId,
    /// The segment that it is in now.
    pub to: SegmentId,
    /// Where in it.
    pub offset: u32,
}

/// Changes since the last commit.
#[derive(Debug)]
pub struct Transaction {
    /// Transactions are numbered from 1, without gaps.
    pub number: u64,
    /// When the first change came; `None`: nothing to commit.
    pub since: Option<Instant>,
    /// Changed inodes.
    pub inodes: Vec<Ino>,
    /// Changed buckets.
    pub buckets: HashSet<(Ino, u64)>,
    /// Records that are ready: a value, or a deletion.
    pub records: BTreeMap<Key, Option<Bytes>>,
    /// Changes of reference counts.
    pub refs: HashMap<RefKey, i64>,
    /// New small values, by number: for which file, and the contents.
    pub smalls: HashMap<u64, (Ino, Bytes)>,
    /// New chunks.
    pub births: Vec<Birth>,
    /// New segments.
    pub segments: Vec<NewSegment>,
    /// Chunks that moved.
    pub moved: Vec<Moved>,
    /// Files that replaced another by a rename: their data goes with this transaction.
    pub carried: BTreeSet<Ino>,
    /// Pieces that must stay held until the transaction is accounted for.
    pub pieces: Vec<Arc<Piece>>,
}

impl Transaction {
    /// An empty transaction.
    pub fn new(number: u64) -> Self {
        Self {
            number,
            since: None,
            inodes: Vec::new(),
            buckets: HashSet::default(),
            records: BTreeMap::new(),
            refs: HashMap::default(),
            smalls: HashMap::default(),
            births: Vec::new(),
            segments: Vec::new(),
            moved: Vec::new(),
            carried: BTreeSet::new(),
            pieces: Vec::new(),
        }
    }

    /// Notes that there is something to commit.
    pub fn start(&mut self) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
        }
    }

    /// True when there is something to commit.
    pub fn is_started(&self) -> bool {
        self.since.is_some()
    }

    /// Records, roughly.
    pub fn len(&self) -> usize {
        self.inodes.len() + self.buckets.len() + self.records.len() + self.births.len()
    }

    /// Adds a record.
    pub fn put(&mut self, key: Key, value: Vec<u8>) {
        // Without room to grow: it stays in memory until it is durable.
        self.records.insert(key, Some(value.into_boxed_slice().into()));
        self.start();
    }

    /// Deletes a record.
    pub fn delete(&mut self, key: Key) {
        self.records.insert(key, None);
        self.start();
    }

    /// Counts references of an extent.
    pub fn count(&mut self, place: Place, by: i64) {
        if let Some(key) = RefKey::of(place) {
            *self.refs.entry(key).or_insert(0) += by;
            self.start();
        }
    }
}
