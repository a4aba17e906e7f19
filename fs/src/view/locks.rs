//! Locks of files that a mount of the shared form leaves to the daemon: who waits, who is told,
//! what ends with a closed file.
//!
//! The rules are in [`LockTable`]; here requests wait, without a thread, until they are granted
//! or a signal ends them. The present transport neither says whether a request is `flock` or
//! `fcntl` nor that a signal came; both are read from `/proc` of the thread that waits (see
//! `fs/decisions/0003-locks-over-fuser.md`).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::caller::{LockCall, is_interrupted, lock_call};
use super::{Attachment, Target, View, Who};
use crate::home::{
    ClientId, ErrorKind, Ino, Lock, LockKind, LockOwner, LockSpace, LockTable, Progress,
    RANGE_END_MAX, Result, WaiterId,
};

/// The kernel's word for the end of a file: the largest `off_t`.
const KERNEL_END_MAX: u64 = i64::MAX as u64;
/// How often it is looked whether a signal came for a thread that waits for a lock.
const SIGNAL_LOOK: Duration = Duration::from_millis(20);
/// How often, and for how long, the system call of a thread is looked for: right after the
/// request it may still be on its way to sleep.
const CALL_LOOK: Duration = Duration::from_micros(200);
const CALL_LOOKS_MAX: u32 = 500;

/// What a lock request asks for.
#[derive(Clone, Copy, Debug)]
pub struct LockRequest {
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
    /// It could not be told which family of locks is meant.
    Unknown,
}

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

    /// Takes a lock, waiting for it as long as no signal comes for thread `tid`.
    async fn set(&self, ino: Ino, space: LockSpace, lock: Lock, tid: u32) -> Result<LockAnswer> {
        let (waiter, mut granted) = {
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
        loop {
            tokio::select! {
                // Also where the mount went away, and everything of it: nobody hears the answer.
                _ = &mut granted => return Ok(LockAnswer::Done),
                () = tokio::time::sleep(SIGNAL_LOOK) => {}
            }
            if is_interrupted(tid) {
                let mut state = self.state.lock();
                state.waiting.remove(&waiter);
                return Ok(match state.table.cancel(waiter) {
                    true => LockAnswer::Interrupted,
                    false => LockAnswer::Done,
                });
            }
        }
    }
}

impl View {
    /// Takes, changes or gives up a lock.
    ///
    /// # Errors
    /// `WouldBlock` where it is held and `wait` is not asked for; `Deadlock`.
    pub async fn set_lock(
        &self,
        who: Who,
        target: Target,
        request: LockRequest,
        wait: bool,
    ) -> Result<LockAnswer> {
        // On a read-only file system locks guard nothing that could change.
        let Target::Inside(at, ino) = target else { return Err(ErrorKind::NotSupported.into()) };
        let Some(space) = space(who.tid, &request).await else { return Ok(LockAnswer::Unknown) };
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
            true => locks.set(ino, space, lock, who.tid).await,
            false => locks.try_set(ino, space, lock).map(|()| LockAnswer::Done),
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

/// The family of locks that a request means; `None` where it cannot be told.
async fn space(tid: u32, request: &LockRequest) -> Option<LockSpace> {
    if request.start != 0 || request.end < KERNEL_END_MAX {
        // `flock` is always for the whole file.
        return Some(LockSpace::Posix);
    }
    for _ in 0..CALL_LOOKS_MAX {
        match lock_call(tid) {
            Some(LockCall::Flock) => return Some(LockSpace::Flock),
            Some(LockCall::Fcntl) => return Some(LockSpace::Posix),
            None => tokio::time::sleep(CALL_LOOK).await,
        }
    }
    None
}
