//! The connection to the kernel: requests in, answers and notifications out.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::abi::OutHeader;

/// Pieces of one answer that the kernel is given as they are; more of them are joined before. It
/// refuses more than 1,024, and each costs it a little.
const PIECES_MAX: usize = 64;

/// What a read of the connection gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A request.
    Request,
    /// Nothing waits.
    Nothing,
    /// The file system was unmounted.
    Unmounted,
}

/// An open `/dev/fuse` that is mounted. Reading never waits.
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
    done: AtomicU64,
}

impl Device {
    /// Takes the connection over.
    ///
    /// # Errors
    /// Those of `fcntl(2)`.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self { fd, done: AtomicU64::new(0) })
    }

    /// Reads one request into the spare room of `buffer`, which must hold the largest.
    ///
    /// # Errors
    /// Those of the system, other than that a request was taken back meanwhile.
    pub fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<Received> {
        buffer.clear();
        match rustix::io::read(&self.fd, rustix::buffer::spare_capacity(buffer)) {
            Ok(_) => Ok(Received::Request),
            // A request that its caller gave up is told as ENOENT.
            Err(Errno::AGAIN | Errno::INTR | Errno::NOENT) => Ok(Received::Nothing),
            // The file system may be aborted by its administrator, too.
            Err(Errno::NODEV | Errno::CONNABORTED) => Ok(Received::Unmounted),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sleeps until there is something to read.
    ///
    /// # Errors
    /// Those of `poll(2)`.
    pub fn wait(&self) -> io::Result<()> {
        self.poll(None).map(drop)
    }

    /// Sleeps until there is something to read, and no longer than `time`; false where there is
    /// nothing.
    ///
    /// # Errors
    /// Those of `poll(2)`.
    pub fn wait_for(&self, time: Duration) -> io::Result<bool> {
        self.poll(Timespec::try_from(time).ok().as_ref())
    }

    fn poll(&self, time: Option<&Timespec>) -> io::Result<bool> {
        let mut events = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(&mut events, time) {
            Ok(ready) => Ok(ready > 0),
            // Whoever waits looks again.
            Err(Errno::INTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// How many requests were answered, or needed no answer.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// One more is done.
    pub fn note_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends an answer, or with `unique` 0 a notification, made of `pieces`.
    ///
    /// # Errors
    /// `NotFound` where nobody waits for it any more; those of the system.
    pub fn send(&self, unique: u64, error: i32, pieces: &[&[u8]]) -> io::Result<()> {
        if pieces.len() > PIECES_MAX {
            return self.send(unique, error, &[&pieces.concat()]);
        }
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let len = u32::try_from(size_of::<OutHeader>() + bytes).expect("at most 1 MiB and a page");
        let header = OutHeader { len, error, unique };
        let mut parts = smallvec::SmallVec::<[IoSlice<'_>; 4]>::new();
        parts.push(IoSlice::new(header.as_bytes()));
        parts.extend(pieces.iter().map(|piece| IoSlice::new(piece)));
        // The kernel takes all of it or nothing.
        rustix::io::writev(&self.fd, &parts)?;
        Ok(())
    }
}
