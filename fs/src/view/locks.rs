//! Locks of files that a mount of the shared form leaves to the daemon: who waits, who is told,
//! what ends with a closed file.
//!
//! The rules are in [`LockTable`]; here requests wait, without a thread, until they are granted
//! or a signal ends them.
//!
//! Locks end with their owners: FLUSH ends a process's `fcntl` locks; RELEASE ends the `flock` that
//! it names, and all `fcntl` locks that were taken through that open file, which are those of the
//! open file itself (OFD locks): the kernel says nothing else of them. By then a process that
//! locked through the same open file has closed it, and its locks are gone already.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Attachment, Target, View};
use crate::home::{
    ClientId, ErrorKind, Ino, Lock, LockKind, LockOwner, LockSpace, LockTable, Progress,
    RANGE_END_MAX, Result, WaiterId,
};

/// The kernel's word for the end of a file: the largest `off_t`.
const KERNEL_END_MAX: u64 = i64::MAX as u64;

/// What a lock request asks for.
#[derive(Clone, Copy, Debug)]
pub struct LockRequest {
    /// One of `flock(2)`, else of `fcntl(2)`. The two never see each other.
    pub flock: bool,
    /// The open file that it came through.
    pub handle: u64,
    /// The owner, as the kernel numbers them.
    pub owner: u64,
    /// How it excludes; `None` gives the range up.
    pub kind: Option<LockKind>,
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
    /// Process that others are shown.
    pub pid: u32,
}

/// What became of a lock request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockAnswer {
    /// It is done.
    Done,
    /// A signal ended the wait.
    Interrupted,
}

/// Sent to when a signal comes for the thread that waits.
pub type Interrupted = oneshot::Receiver<()>;

/// The locks of one home's files.
#[derive(Debug, Default)]
pub struct FileLocks {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    table: LockTable,
    waiting: HashMap<WaiterId, oneshot::Sender<()>>,
    /// What was locked through an open file: its last close gives up the locks that belong to
    /// the open file itself, of which the kernel tells nothing else.
    through: HashMap<(ClientId, u64), HashSet<(Ino, LockOwner)>>,
}

impl State {
    fn wake(&mut self, woken: Vec<WaiterId>) {
        for waiter in woken {
            if let Some(granted) = self.waiting.remove(&waiter) {
                // One that was interrupted meanwhile looks again and finds its lock held.
                let _ = granted.send(());
            }
        }
    }
}

impl FileLocks {
    /// Gives up everything of a mount that is gone.
    pub fn release_mount(&self, mount: ClientId) {
        let mut state = self.state.lock();
        state.through.retain(|(client, _), _| *client != mount);
        let woken = state.table.release_client(mount);
        state.wake(woken);
    }

    fn release_owner(&self, ino: Ino, space: LockSpace, owner: LockOwner) {
        let mut state = self.state.lock();
        let woken = state.table.release_owner(ino, space, owner);
        state.wake(woken);
    }

    fn release_handle(&self, mount: ClientId, handle: u64) {
        let mut state = self.state.lock();
        for (ino, owner) in state.through.remove(&(mount, handle)).unwrap_or_default() {
            let woken = state.table.release_owner(ino, LockSpace::Posix, owner);
            state.wake(woken);
        }
    }

    fn unset(&self, ino: Ino, space: LockSpace, lock: &Lock) {
        let mut state = self.state.lock();
        let woken = state.table.unset(ino, space, lock.owner, lock.start, lock.end);
        state.wake(woken);
    }

    fn note_handle(&self, mount: ClientId, handle: u64, ino: Ino, owner: LockOwner) {
        let mut state = self.state.lock();
        state.through.entry((mount, handle)).or_default().insert((ino, owner));
    }

    fn try_set(&self, ino: Ino, space: LockSpace, lock: Lock) -> Result<()> {
        let mut state = self.state.lock();
        let (result, woken) = state.table.try_set(ino, space, lock);
        state.wake(woken);
        result
    }

    /// Takes a lock, waiting for it until a signal comes.
    async fn set(
        &self,
        ino: Ino,
        space: LockSpace,
        lock: Lock,
        interrupted: Interrupted,
    ) -> Result<LockAnswer> {
        let (waiter, granted) = {
            let mut state = self.state.lock();
            let (result, woken) = state.table.set(ino, space, lock);
            state.wake(woken);
            match result? {
                Progress::Granted => return Ok(LockAnswer::Done),
                Progress::Waiting(waiter) => {
                    let (grant, granted) = oneshot::channel();
                    state.waiting.insert(waiter, grant);
                    (waiter, granted)
                }
            }
        };
        tokio::select! {
            biased;
            // Also where the mount went away, and everything of it: nobody hears the answer.
            _ = granted => return Ok(LockAnswer::Done),
            _ = interrupted => {}
        }
        let mut state = self.state.lock();
        state.waiting.remove(&waiter);
        Ok(match state.table.cancel(waiter) {
            true => LockAnswer::Interrupted,
            false => LockAnswer::Done,
        })
    }
}

impl View {
    /// Takes, changes or gives up a lock. Waits for one that is held until `wait` is sent to.
    ///
    /// # Errors
    /// `WouldBlock` where it is held and `wait` is not given; `Deadlock`.
    pub async fn set_lock(
        &self,
        target: Target,
        request: LockRequest,
        wait: Option<Interrupted>,
    ) -> Result<LockAnswer> {
        // On a read-only file system locks guard nothing that could change.
        let Target::Inside(at, ino) = target else { return Err(ErrorKind::NotSupported.into()) };
        let space = if request.flock { LockSpace::Flock } else { LockSpace::Posix };
        let lock = lock(&at, &request);
        let locks = &at.slot.locks;
        if request.kind.is_none() {
            locks.unset(ino, space, &lock);
            return Ok(LockAnswer::Done);
        }
        if space == LockSpace::Posix {
            locks.note_handle(at.mount, request.handle, ino, lock.owner);
        }
        match wait {
            Some(interrupted) => locks.set(ino, space, lock, interrupted).await,
            None => locks.try_set(ino, space, lock).map(|()| LockAnswer::Done),
        }
    }

    /// The `fcntl` lock that would keep a request waiting, with the end as the kernel says it.
    ///
    /// # Errors
    /// `Invalid` for the directory of homes.
    pub fn get_lock(&self, target: &Target, request: &LockRequest) -> Result<Option<Lock>> {
        // On a read-only file system locks guard nothing that could change.
        let Target::Inside(at, ino) = target else { return Err(ErrorKind::NotSupported.into()) };
        let state = at.slot.locks.state.lock();
        let held = state.table.get(*ino, LockSpace::Posix, lock(at, request));
        Ok(held.map(|held| Lock { end: held.end.min(KERNEL_END_MAX), ..held }))
    }

    /// A process closed a file: its `fcntl` locks on it go.
    pub fn closed(&self, target: &Target, owner: u64) {
        if let Target::Inside(at, ino) = target {
            let owner = LockOwner { client: at.mount, id: owner };
            at.slot.locks.release_owner(*ino, LockSpace::Posix, owner);
        }
    }

    /// An open file was closed for the last time: what belongs to it goes, and its `flock`
    /// where it may have one.
    pub fn released(&self, target: &Target, handle: u64, flock: Option<u64>) {
        if let Target::Inside(at, ino) = target {
            at.slot.locks.release_handle(at.mount, handle);
            if let Some(id) = flock {
                let owner = LockOwner { client: at.mount, id };
                at.slot.locks.release_owner(*ino, LockSpace::Flock, owner);
            }
        }
    }
}

fn lock(at: &Attachment, request: &LockRequest) -> Lock {
    let end = match request.end {
        KERNEL_END_MAX.. => RANGE_END_MAX,
        end => end,
    };
    Lock {
        owner: LockOwner { client: at.mount, id: request.owner },
        kind: request.kind.unwrap_or(LockKind::Exclusive),
        start: request.start,
        end,
        pid: request.pid,
    }
}
