//! The system calls that rustix does not have, and who the thread is.

use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Result, ensure};
use rustix::io::Errno;

use super::op::Who;

/// Gives this thread a umask and a working directory of its own.
pub fn own_umask() -> Result<()> {
    // SAFETY: takes no pointers; afterwards only this thread's file system state is its own.
    ensure!(unsafe { libc::unshare(libc::CLONE_FS) } == 0, "unshare(CLONE_FS) failed");
    Ok(())
}

/// Runs `work` as `who` with `umask`; the thread is root again afterwards.
pub fn as_user<T>(who: Who, umask: u32, work: impl FnOnce() -> T) -> T {
    // SAFETY: plain integers. Fs ids and umask belong to this thread, and with a nonzero fsuid
    // the kernel drops the capabilities that override permissions until it is 0 again.
    unsafe {
        libc::umask(umask);
        libc::setfsgid(who);
        libc::setfsuid(who);
    }
    let done = work();
    // SAFETY: as above.
    unsafe {
        libc::setfsuid(0);
        libc::setfsgid(0);
    }
    done
}

/// `fallocate` with any mode, valid or not.
pub fn fallocate(fd: BorrowedFd<'_>, mode: i32, offset: u64, length: u64) -> Result<(), Errno> {
    let (offset, length) = (signed(offset), signed(length));
    // SAFETY: a valid descriptor and integers.
    check(unsafe { libc::fallocate(fd.as_raw_fd(), mode, offset, length) }).map(drop)
}

/// An OFD lock, not waiting: kind 0 read, 1 write, 2 unlock.
pub fn lock(fd: BorrowedFd<'_>, kind: i16, offset: u64, length: u64) -> Result<(), Errno> {
    let kinds = [libc::F_RDLCK, libc::F_WRLCK, libc::F_UNLCK];
    // SAFETY: all zeros are a valid `flock`.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = i16::try_from(kinds[usize::try_from(kind).unwrap_or(2)]).unwrap_or(0);
    lock.l_whence = 0;
    lock.l_start = signed(offset);
    lock.l_len = signed(length);
    // SAFETY: a valid descriptor and a `flock` that lives through the call.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) }).map(drop)
}

/// `flock`, not waiting.
pub fn flock(fd: BorrowedFd<'_>, kind: i32) -> Result<(), Errno> {
    // SAFETY: a valid descriptor and an integer.
    check(unsafe { libc::flock(fd.as_raw_fd(), kind | libc::LOCK_NB) }).map(drop)
}

/// Stores `bytes` through a shared mapping of the page range around `offset`, then msyncs.
/// The range must lie within the file, which must not shrink meanwhile.
pub fn map_write(fd: BorrowedFd<'_>, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
    const PAGE: u64 = 4096;
    let start = offset / PAGE * PAGE;
    let skip = usize::try_from(offset - start).map_err(|_| Errno::INVAL)?;
    let length = skip + bytes.len();
    // SAFETY: a fresh mapping of `length` bytes, used within its bounds and unmapped below; the
    // caller has made sure that the file covers it, so no access faults.
    unsafe {
        let map = libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            signed(start),
        );
        if map == libc::MAP_FAILED {
            return Err(last());
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), map.cast::<u8>().add(skip), bytes.len());
        let synced = check(libc::msync(map, length, libc::MS_SYNC));
        libc::munmap(map, length);
        synced.map(drop)
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn check(result: i32) -> Result<i32, Errno> {
    if result < 0 { Err(last()) } else { Ok(result) }
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
