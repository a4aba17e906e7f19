//! What is kept of the store for reading: chunks as they read, and windows of segments as they
//! are stored.
//!
//! What always holds: both are bounded in bytes over all homes of a process, and so is what is
//! fetched ahead at the same time. Nothing here is verified; chunks are before they come in,
//! windows when a chunk is cut out of them.

use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::maps::SameHash;
use super::super::segment::{ChunkId, SegmentId};
use super::segments::WINDOW_BYTES;

/// Requests of reading ahead that run at the same time, over all homes.
const FLIGHTS_MAX: usize = 4;
/// Bytes of large files that may be held because somebody is likely to ask for them, over all
/// homes.
pub const HELD_BYTES_MAX: u64 = 16 << 20;
/// The unit of that.
const HELD_UNIT_BYTES: u64 = 64 << 10;
/// Room for each chunk that is kept, as the cache is sized: small files are some KiB.
const ITEM_BYTES: u64 = 16 << 10;

/// Weighs what is cached by its bytes.
#[derive(Clone, Debug)]
pub struct ByBytes;

impl<K> Weighter<K, Bytes> for ByBytes {
    fn weight(&self, _key: &K, value: &Bytes) -> u64 {
        value.len() as u64 + 64
    }
}

/// A cache that drops the same things in every run.
pub fn new_cache<K: Eq + Hash, V: Clone, W: Weighter<K, V> + Clone>(
    items: usize,
    weight: u64,
    weighter: W,
) -> Cache<K, V, W, SameHash> {
    Cache::with(items, weight, weighter, SameHash::default(), DefaultLifecycle::default())
}

/// The data caches of all homes of a process. Keys carry the home's number.
#[derive(Debug)]
pub struct DataCache {
    /// Chunks, verified.
    pub plain: Cache<(u64, ChunkId), Bytes, ByBytes, SameHash>,
    /// Windows of segments, by their number in the segment.
    pub raw: Cache<(u64, SegmentId, u64), Bytes, ByBytes, SameHash>,
    flights: Arc<Semaphore>,
    held: Arc<Semaphore>,
}

impl DataCache {
    /// Caches of `bytes` in all.
    #[must_use]
    pub fn new(bytes: u64) -> Arc<Self> {
        // Enough for two who read ahead; more would be taken from who reads here and there.
        let raw = bytes / 4;
        let plain = bytes - raw;
        let items = |all: u64, of: u64| usize::try_from(all / of).unwrap_or(usize::MAX);
        Arc::new(Self {
            plain: new_cache(items(plain, ITEM_BYTES).max(64), plain, ByBytes),
            // Said as they are: told of more, the cache would be cut into parts with room for a
            // few windows each, and drop what was just fetched ahead.
            raw: new_cache(items(raw, WINDOW_BYTES).max(16), raw, ByBytes),
            flights: Arc::new(Semaphore::new(FLIGHTS_MAX)),
            held: Arc::new(Semaphore::new((HELD_BYTES_MAX / HELD_UNIT_BYTES) as usize)),
        })
    }

    /// The right to fetch something ahead, where not too much is fetched ahead at this moment.
    #[must_use]
    pub fn try_fly(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.flights).try_acquire_owned().ok()
    }

    /// Room for `bytes` of a large file that nobody asked for yet, where there is some.
    #[must_use]
    pub fn try_hold(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(HELD_UNIT_BYTES)).ok()?;
        Arc::clone(&self.held).try_acquire_many_owned(units).ok()
    }
}
