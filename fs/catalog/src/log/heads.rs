//! All logs of one kind that this instance knows, within a bound of bytes.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::RwLock;

use super::State;
use super::slot::Slot;
use crate::seam::Clock;

const SHARDS: usize = 16;
/// What a slot takes beside its state.
const SLOT_BYTES: u64 = 512;
/// New slots between two looks at the bound.
const TRIM_EVERY: u64 = 64;

type Shard<S> = HashMap<Arc<str>, Arc<Slot<S>>>;

/// Logs by name. What is in use stays, whatever the bound.
#[derive(Debug)]
pub(crate) struct Heads<S: State> {
    shards: [RwLock<Shard<S>>; SHARDS],
    hash: RandomState,
    meta: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    path_of: fn(&str) -> Path,
    bytes_max: u64,
    made: AtomicU64,
}

impl<S: State> Heads<S> {
    pub(crate) fn new(
        meta: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        path_of: fn(&str) -> Path,
        bytes_max: u64,
    ) -> Self {
        let (shards, hash) = (Default::default(), RandomState::new());
        Heads { shards, hash, meta, clock, path_of, bytes_max, made: AtomicU64::new(0) }
    }

    /// The log of that name, which need not exist.
    pub(crate) fn slot(&self, name: &str) -> Arc<Slot<S>> {
        let shard = &self.shards[self.hash.hash_one(name) as usize % SHARDS];
        if let Some(slot) = shard.read().get(name) {
            slot.touch();
            return Arc::clone(slot);
        }
        if self.made.fetch_add(1, Ordering::Relaxed) % TRIM_EVERY == TRIM_EVERY - 1 {
            self.trim();
        }
        let mut shard = shard.write();
        let new = || {
            let (meta, clock) = (Arc::clone(&self.meta), Arc::clone(&self.clock));
            Arc::new(Slot::new((self.path_of)(name), meta, clock))
        };
        let slot = Arc::clone(shard.entry(name.into()).or_insert_with(new));
        slot.touch();
        slot
    }

    /// Forgets what was not used for longest, down to seven eighths of the bound.
    pub(crate) fn trim(&self) {
        let mut all = Vec::new();
        let mut bytes = 0;
        for (at, shard) in self.shards.iter().enumerate() {
            for (name, slot) in shard.read().iter() {
                let weight = slot.weight.load(Ordering::Relaxed) + SLOT_BYTES;
                bytes += weight;
                all.push((slot.used_ms.load(Ordering::Relaxed), at, Arc::clone(name), weight));
            }
        }
        if bytes <= self.bytes_max {
            return;
        }
        all.sort_unstable();
        // One that is larger than the bound would be read again and again.
        all.pop();
        for (_, at, name, weight) in all {
            if bytes <= self.bytes_max / 8 * 7 {
                break;
            }
            let mut shard = self.shards[at].write();
            // Nobody gets hold of it while the shard is locked.
            if shard.get(&name).is_some_and(|slot| Arc::strong_count(slot) == 1) {
                shard.remove(&name);
                bytes -= weight;
            }
        }
    }
}
