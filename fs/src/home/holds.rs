//! Holds on chunks and small values that something in memory refers to but no durable record
//! yet: a clone that is not committed, a chunk that was found for content about to be written.
//!
//! What is held is not freed, even with no reference left; the committer looks again when the
//! last hold goes.

use std::sync::Arc;

use parking_lot::Mutex;

use super::maps::{HashMap, HashSet};
use super::mutants::{self, Mutant};
use super::record::Place;
use super::segment::ChunkId;

/// What references are counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefKey {
    /// A chunk.
    Chunk(ChunkId),
    /// A small value.
    Small(u64),
}

impl RefKey {
    /// What a place refers to; reserved space refers to nothing.
    #[must_use]
    pub fn of(place: Place) -> Option<Self> {
        match place {
            Place::Chunk { id, .. } => Some(Self::Chunk(id)),
            Place::Small { id, .. } => Some(Self::Small(id)),
            Place::Reserved => None,
        }
    }
}

/// The holds of a home.
#[derive(Debug, Default)]
pub struct Holds {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    held: HashMap<RefKey, u32>,
    doomed: HashSet<RefKey>,
}

impl Holds {
    /// Holds `key` until the hold is dropped.
    #[must_use]
    pub fn hold(self: &Arc<Self>, key: RefKey) -> Hold {
        *self.inner.lock().held.entry(key).or_insert(0) += 1;
        Hold { holds: Arc::clone(self), key }
    }

    /// Holds `key`, unless the committer is freeing it.
    #[must_use]
    pub fn hold_living(self: &Arc<Self>, key: RefKey) -> Option<Hold> {
        let mut inner = self.inner.lock();
        if inner.doomed.contains(&key) {
            return None;
        }
        *inner.held.entry(key).or_insert(0) += 1;
        drop(inner);
        Some(Hold { holds: Arc::clone(self), key })
    }

    /// True while somebody holds `key`.
    #[must_use]
    pub fn is_held(&self, key: RefKey) -> bool {
        self.inner.lock().held.contains_key(&key)
    }

    /// Dooms `key` unless somebody holds it: from now on nobody finds it, until the database
    /// does not show it any more and [`Holds::forget_doomed`] is called.
    #[must_use]
    pub fn doom(&self, key: RefKey) -> bool {
        let mut inner = self.inner.lock();
        let held = inner.held.contains_key(&key) && !mutants::is(Mutant::FreeHeldChunk);
        !held && inner.doomed.insert(key)
    }

    /// The database does not show what was doomed any more.
    pub fn forget_doomed(&self) {
        self.inner.lock().doomed.clear();
    }
}

/// One hold.
#[derive(Debug)]
pub struct Hold {
    holds: Arc<Holds>,
    key: RefKey,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut inner = self.holds.inner.lock();
        if let Some(count) = inner.held.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                inner.held.remove(&self.key);
            }
        }
    }
}
