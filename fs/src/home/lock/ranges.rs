//! The locks that are held on one inode in one space: setting merges, unsetting splits.
//!
//! What always holds: locks lie in the order of their first bytes; an owner's never overlap, and
//! those of one kind never touch. Conflicts between owners are the table's to prevent.

use super::{Lock, LockOwner};
use crate::home::types::ClientId;

/// Held locks. A file has few; a scan beats an index.
#[derive(Debug, Default)]
pub struct Ranges(Vec<Lock>);

impl Ranges {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Lock> {
        self.0.iter()
    }

    /// The first lock that excludes `wanted`.
    pub fn conflict(&self, wanted: &Lock) -> Option<&Lock> {
        self.0.iter().find(|lock| lock.conflicts(wanted))
    }

    /// Holds a lock in place of what its owner had in the range.
    pub fn set(&mut self, mut lock: Lock) {
        self.unset(lock.owner, lock.start, lock.end);
        // What is left of the owner's lies outside: neighbours of its kind become part of it.
        let (reach_start, reach_end) = (lock.start.saturating_sub(1), lock.end.saturating_add(1));
        self.0.retain(|old| {
            let joins = old.owner == lock.owner
                && old.kind == lock.kind
                && old.overlaps(reach_start, reach_end);
            if joins {
                lock.start = lock.start.min(old.start);
                lock.end = lock.end.max(old.end);
            }
            !joins
        });
        self.insert(lock);
    }

    /// Gives up what an owner has in a range; what sticks out stays.
    pub fn unset(&mut self, owner: LockOwner, start: u64, end: u64) {
        let mut left = Vec::new();
        self.0.retain(|old| {
            let goes = old.owner == owner && old.overlaps(start, end);
            if goes && old.start < start {
                left.push(Lock { end: start - 1, ..*old });
            }
            if goes && old.end > end {
                left.push(Lock { start: end + 1, ..*old });
            }
            !goes
        });
        for lock in left {
            self.insert(lock);
        }
    }

    /// Gives up everything that the owners of a client have.
    pub fn unset_client(&mut self, client: ClientId) {
        self.0.retain(|lock| lock.owner.client != client);
    }

    fn insert(&mut self, lock: Lock) {
        let at = self.0.partition_point(|other| other.start <= lock.start);
        self.0.insert(at, lock);
    }
}
