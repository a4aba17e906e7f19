//! The locks of one home's files: `fcntl` byte ranges (of processes and of open files) and
//! `flock`, each in a space of its own as on Linux, where one never sees the other.
//!
//! What always holds: locks of different owners on a byte are all shared, or there is one. An
//! owner's locks of one kind never touch or overlap each other. A request is refused or waits
//! only because of locks that are held, never because of others that wait: so a try succeeds
//! whenever POSIX says it must. Those who wait are served in the order of their arrival. Waiting
//! for `fcntl` locks in a circle is refused at the request that would close it.
//!
//! Pure: nothing here waits. Whoever may go on is returned as [`Woken`], and the caller tells
//! them. When an owner closes or a client leaves, the caller says so ([`LockTable::release_owner`],
//! [`LockTable::release_client`]); nothing of this is stored.
#![allow(dead_code)] // The operations of the home take it up next.

mod ranges;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};

use super::error::{ErrorKind, Result};
use super::types::{ClientId, Ino};
use ranges::Ranges;

/// End of a range that reaches to the end of the file, however long it becomes.
pub const RANGE_END_MAX: u64 = u64::MAX;

/// The family that a lock belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockSpace {
    /// `fcntl`: byte ranges; owners are processes or open files.
    Posix,
    /// `flock`: the whole file; owners are open files.
    Flock,
}

/// Who holds a lock: as the client tells its own owners apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockOwner {
    /// Through whom.
    pub client: ClientId,
    /// Which of that client's.
    pub id: u64,
}

/// How a lock excludes others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Others may share it: a read lock.
    Shared,
    /// Nobody else has any: a write lock.
    Exclusive,
}

impl LockKind {
    fn excludes(self, other: LockKind) -> bool {
        self == LockKind::Exclusive || other == LockKind::Exclusive
    }
}

/// A lock that is held or asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Whose.
    pub owner: LockOwner,
    /// How it excludes.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte (included, as in FUSE); [`RANGE_END_MAX`] for the end of the file.
    pub end: u64,
    /// Process that `F_GETLK` shows.
    pub pid: u32,
}

impl Lock {
    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start <= end && start <= self.end
    }

    fn conflicts(&self, other: &Lock) -> bool {
        self.owner != other.owner
            && self.kind.excludes(other.kind)
            && self.overlaps(other.start, other.end)
    }
}

/// One that waits for a lock. Numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// Waiters that have their locks now.
pub type Woken = Vec<WaiterId>;

/// What became of a request that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The lock is held.
    Granted,
    /// The lock is held when this waiter is woken.
    Waiting(WaiterId),
}

type Place = (Ino, LockSpace);

#[derive(Debug, Default)]
struct Queue {
    held: Ranges,
    waiting: VecDeque<(WaiterId, Lock)>,
}

impl Queue {
    /// Gives their locks to those who wait and need not any more.
    fn wake(&mut self) -> Woken {
        let mut woken = Woken::new();
        loop {
            let before = woken.len();
            self.waiting.retain(|(id, lock)| {
                let blocked = self.held.conflict(lock).is_some();
                if !blocked {
                    self.held.set(*lock);
                    woken.push(*id);
                }
                blocked
            });
            // A lock that weakens one of its own owner's makes room for those before it.
            if woken.len() == before {
                return woken;
            }
        }
    }
}

/// All locks of a home.
#[derive(Debug, Default)]
pub struct LockTable {
    queues: HashMap<Place, Queue>,
    waiters: HashMap<WaiterId, Place>,
    last_waiter: u64,
}

impl LockTable {
    /// A table without locks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The first lock that keeps `wanted` from being held, if any.
    #[must_use]
    pub fn get(&self, ino: Ino, space: LockSpace, wanted: Lock) -> Option<Lock> {
        self.queues.get(&(ino, space))?.held.conflict(&in_space(space, wanted)).copied()
    }

    /// Takes a lock, or changes the kind of what the owner has in its range. Whatever becomes of
    /// the request, others may go on: where it replaced a stronger lock, or lost a shared one.
    ///
    /// # Errors
    /// `WouldBlock`; an `flock` that was to be changed is lost then, as on Linux.
    pub fn try_set(&mut self, ino: Ino, space: LockSpace, wanted: Lock) -> (Result<()>, Woken) {
        let (taken, woken) = self.take(ino, space, in_space(space, wanted));
        let result = if taken { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) };
        (result, woken)
    }

    /// As [`LockTable::try_set`], but waits where that fails.
    ///
    /// # Errors
    /// `Deadlock` when, among `fcntl` locks, those who hold it wait for this owner. An owner with
    /// several threads counts as waiting when one of them does, as on Linux.
    pub fn set(&mut self, ino: Ino, space: LockSpace, wanted: Lock) -> (Result<Progress>, Woken) {
        let wanted = in_space(space, wanted);
        let (taken, woken) = self.take(ino, space, wanted);
        if taken {
            return (Ok(Progress::Granted), woken);
        }
        if space == LockSpace::Posix && self.closes_a_circle(ino, &wanted) {
            return (Err(ErrorKind::Deadlock.into()), woken);
        }
        self.last_waiter += 1;
        let id = WaiterId(self.last_waiter);
        let queue = self.queues.entry((ino, space)).or_default();
        queue.waiting.push_back((id, wanted));
        self.waiters.insert(id, (ino, space));
        (Ok(Progress::Waiting(id)), woken)
    }

    /// Gives up what the owner has in a range (for `flock`, all).
    pub fn unset(
        &mut self,
        ino: Ino,
        space: LockSpace,
        owner: LockOwner,
        start: u64,
        end: u64,
    ) -> Woken {
        let (start, end) = match space {
            LockSpace::Posix => (start, end),
            LockSpace::Flock => (0, RANGE_END_MAX),
        };
        self.change((ino, space), |queue| queue.held.unset(owner, start, end))
    }

    /// Ends a wait, as a signal does. `false` when there is none: the lock was granted meanwhile
    /// and is held.
    pub fn cancel(&mut self, waiter: WaiterId) -> bool {
        let Some(place) = self.waiters.get(&waiter).copied() else { return false };
        self.change(place, |queue| queue.waiting.retain(|(id, _)| *id != waiter));
        self.waiters.remove(&waiter);
        true
    }

    /// Gives up all that an owner holds on an inode: the close of a file. Those of its requests
    /// that wait go on waiting: each belongs to a thread that is still in its call.
    pub fn release_owner(&mut self, ino: Ino, space: LockSpace, owner: LockOwner) -> Woken {
        self.unset(ino, space, owner, 0, RANGE_END_MAX)
    }

    /// Forgets a client: what its owners hold, and those who wait.
    pub fn release_client(&mut self, client: ClientId) -> Woken {
        let places: Vec<Place> = self.queues.keys().copied().collect();
        let mut woken = Woken::new();
        for place in places {
            woken.extend(self.change(place, |queue| {
                queue.held.unset_client(client);
                queue.waiting.retain(|(_, lock)| lock.owner.client != client);
            }));
        }
        let queues = &self.queues;
        self.waiters.retain(|id, place| {
            queues.get(place).is_some_and(|queue| queue.waiting.iter().any(|(w, _)| w == id))
        });
        woken
    }

    /// No lock at all, and nobody who waits?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Holds a lock if nobody else's is in the way; gives whether, and who may go on.
    fn take(&mut self, ino: Ino, space: LockSpace, wanted: Lock) -> (bool, Woken) {
        let place = (ino, space);
        let blocked = self.queues.get(&place).is_some_and(|q| q.held.conflict(&wanted).is_some());
        if !blocked {
            return (true, self.change(place, |queue| queue.held.set(wanted)));
        }
        match space {
            LockSpace::Posix => (false, Woken::new()),
            // The old lock goes first, so that two who want more do not wait for each other.
            LockSpace::Flock => (false, self.release_owner(ino, space, wanted.owner)),
        }
    }

    /// Changes a queue and serves it; drops it when nothing is left.
    fn change(&mut self, place: Place, change: impl FnOnce(&mut Queue)) -> Woken {
        let queue = self.queues.entry(place).or_default();
        change(queue);
        let woken = queue.wake();
        if queue.held.is_empty() && queue.waiting.is_empty() {
            self.queues.remove(&place);
        }
        for id in &woken {
            self.waiters.remove(id);
        }
        woken
    }

    /// Would those who keep `wanted` from being held wait, over others, for its owner?
    fn closes_a_circle(&self, ino: Ino, wanted: &Lock) -> bool {
        let mut seen = HashSet::new();
        let mut ahead = self.holders(ino, wanted);
        while let Some(owner) = ahead.pop() {
            if owner == wanted.owner {
                return true;
            }
            if seen.insert(owner) {
                ahead.extend(self.waited_for_by(owner));
            }
        }
        false
    }

    /// Owners of `fcntl` locks that conflict with `wanted`.
    fn holders(&self, ino: Ino, wanted: &Lock) -> Vec<LockOwner> {
        let queue = self.queues.get(&(ino, LockSpace::Posix));
        let held = queue.into_iter().flat_map(|queue| queue.held.iter());
        held.filter(|lock| lock.conflicts(wanted)).map(|lock| lock.owner).collect()
    }

    /// Owners whose `fcntl` locks an owner waits for.
    fn waited_for_by(&self, owner: LockOwner) -> Vec<LockOwner> {
        let waits = self.queues.iter().filter(|((_, space), _)| *space == LockSpace::Posix);
        waits
            .flat_map(|((ino, _), queue)| queue.waiting.iter().map(|(_, lock)| (*ino, lock)))
            .filter(|(_, lock)| lock.owner == owner)
            .flat_map(|(ino, lock)| self.holders(ino, lock))
            .collect()
    }
}

/// `flock` knows no ranges.
fn in_space(space: LockSpace, lock: Lock) -> Lock {
    assert!(lock.start <= lock.end, "a range that ends before it starts");
    match space {
        LockSpace::Posix => lock,
        LockSpace::Flock => Lock { start: 0, end: RANGE_END_MAX, ..lock },
    }
}
