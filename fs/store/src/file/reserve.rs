//! Space that is kept so that metadata can still be written when the disk is full.
//!
//! Deleting data in a home needs log records and tables first. So a file of fixed length keeps
//! blocks allocated; a metadata put that meets ENOSPC takes a piece of it and tries again, while a
//! data put fails. It is filled up again when deleting has made room.

use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Enough for the log and tables of many deletes, nothing on a disk of today.
const RESERVE_BYTES_DEFAULT: u64 = 32 << 20;
/// A small disk gives at most this part of itself by default.
const RESERVE_FRACTION_DEFAULT: u64 = 100;
/// What one put takes at least, so that a full disk does not take one block at a time.
const TAKE_BYTES_MIN: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Reserve {
    file: Mutex<File>,
    target: u64,
}

impl Reserve {
    pub(super) fn open(own: &Path, bytes: Option<u64>) -> io::Result<Reserve> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(own.join("reserve"))?;
        let space = rustix::fs::fstatvfs(&file)?;
        let whole = space.f_blocks.saturating_mul(space.f_frsize);
        let target = bytes.unwrap_or(RESERVE_BYTES_DEFAULT.min(whole / RESERVE_FRACTION_DEFAULT));
        let reserve = Reserve { file: Mutex::new(file), target };
        reserve.refill();
        Ok(reserve)
    }

    /// Gives at least `bytes` back to the disk; false when there is nothing left to give.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let file = self.file.lock();
        let Ok(length) = file.metadata().map(|metadata| metadata.len()) else {
            return false;
        };
        let take = bytes.saturating_mul(2).max(TAKE_BYTES_MIN);
        length > 0 && file.set_len(length.saturating_sub(take)).is_ok()
    }

    /// Fills the reserve up when there is twice as much room as that takes.
    pub(super) fn refill(&self) {
        let file = self.file.lock();
        let Ok(length) = file.metadata().map(|metadata| metadata.len()) else {
            return;
        };
        if length >= self.target {
            return;
        }
        let missing = self.target - length;
        let Ok(space) = rustix::fs::fstatvfs(&*file) else {
            return;
        };
        if space.f_bavail.saturating_mul(space.f_frsize) > 2 * missing {
            let flags = rustix::fs::FallocateFlags::empty();
            let filled = rustix::fs::fallocate(&*file, flags, 0, self.target);
            if let Err(error) = filled {
                tracing::debug!(%error, "the file store keeps no reserve");
            }
        }
    }
}
