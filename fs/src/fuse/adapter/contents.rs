//! Contents of files: read, written, synced and moved about.

use super::super::abi::{self, fopen};
use super::super::call::Call;
use super::super::reply::Reply;
use super::super::serve::{Payload, Request};
use super::{Adapter, done, kill, refuse};
use crate::home::{ErrorKind, Falloc, Result, Seek, WriteMode};
use crate::view::Pair;

/// One `copy_file_range`; the answer is a 32-bit number, and the caller comes again.
const COPY_BYTES_MAX: u64 = 1 << 30;

impl Adapter {
    pub(super) fn open(&self, call: &mut Call<'_>) -> Result<()> {
        if self.is_local() {
            return refuse(call, libc::ENOSYS);
        }
        let arg = call.arg::<abi::OpenIn>()?;
        let writes = arg.flags & libc::O_ACCMODE != libc::O_RDONLY;
        if writes && self.runner.view.is_read_only(call.number()) {
            return refuse(call, libc::EROFS);
        }
        call.reply().opened(self.next_handle(), fopen::KEEP_CACHE);
        Ok(())
    }

    pub(super) fn read(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::ReadIn>()?;
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.read(target, arg.offset, arg.size).await }
        };
        let request = self.request("read", call.number())?;
        self.run(request, call.reply(), make, |reply, pieces| reply.pieces(&pieces));
        Ok(())
    }

    pub(super) fn write(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::WriteIn>()?;
        let (view, who) = (self.runner.view.clone(), call.who());
        let cached = arg.write_flags & abi::write::CACHE != 0;
        let mode = WriteMode {
            // Another node may have made the file longer than this kernel thinks.
            append: arg.flags & libc::O_APPEND != 0 && !cached && !self.is_local(),
            whole: cached,
            kill: kill(arg.write_flags & abi::write::KILL_SUIDGID != 0),
        };
        let data = Payload::new(call.bytes(arg.size)?);
        // The kernel takes a page that it wrote on its own for lost where not all of it is taken.
        let part = (!cached).then(|| data.clone());
        let make = move |target| {
            let (view, data) = (view.clone(), data.get());
            async move { view.write(who, target, arg.offset, data, mode).await }
        };
        let request = self.request("write", call.number())?;
        let request = Request { bytes: u64::from(arg.size), data: part, ..request };
        self.run(request, call.reply(), make, Reply::written);
        Ok(())
    }

    pub(super) fn flush(&self, call: &mut Call<'_>) -> Result<()> {
        if self.is_local() {
            return refuse(call, libc::ENOSYS);
        }
        let arg = call.arg::<abi::FlushIn>()?;
        if let Ok(target) = self.runner.view.target(call.number()) {
            self.runner.view.closed(&target, arg.lock_owner);
        }
        call.reply().ok();
        Ok(())
    }

    pub(super) fn release(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::ReleaseIn>()?;
        if let Ok(target) = self.runner.view.target(call.number()) {
            let unlocks = arg.release_flags & abi::RELEASE_FLOCK_UNLOCK != 0;
            let flock = unlocks.then_some(arg.lock_owner);
            self.runner.view.released(&target, arg.fh, flock);
        }
        call.reply().ok();
        Ok(())
    }

    pub(super) fn sync(&self, op: &'static str, call: &mut Call<'_>) -> Result<()> {
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.fsync(target).await }
        };
        let request = self.request(op, call.number())?;
        self.run(request, call.reply(), make, done);
        Ok(())
    }

    pub(super) fn fallocate(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::FallocateIn>()?;
        let (view, who, what) = (self.runner.view.clone(), call.who(), falloc(arg.mode)?);
        let make = move |target| {
            let view = view.clone();
            async move { view.fallocate(who, target, what, arg.offset, arg.length).await }
        };
        let request = self.request("fallocate", call.number())?;
        self.run(request, call.reply(), make, done);
        Ok(())
    }

    pub(super) fn lseek(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::LseekIn>()?;
        let view = self.runner.view.clone();
        let whence = match arg.whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return refuse(call, libc::EINVAL),
        };
        let offset = u64::try_from(arg.offset).map_err(|_| ErrorKind::NoData)?;
        let make = move |target| {
            let view = view.clone();
            async move { view.seek(target, offset, whence).await }
        };
        let request = self.request("lseek", call.number())?;
        self.run(request, call.reply(), make, |reply, found| {
            let offset = i64::try_from(found).unwrap_or(i64::MAX);
            reply.body(&abi::LseekOut { offset });
        });
        Ok(())
    }

    pub(super) fn copy_file_range(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::CopyFileRangeIn>()?;
        let (view, who) = (self.runner.view.clone(), call.who());
        let pair = view.pair(call.number(), arg.nodeid_out)?;
        if matches!(pair, Pair::Apart) {
            // The kernel then copies through the page cache.
            return refuse(call, libc::EXDEV);
        }
        let (offsets, len) = ([arg.off_in, arg.off_out], arg.len.min(COPY_BYTES_MAX));
        let make = move |_| {
            let (view, pair) = (view.clone(), pair.clone());
            async move { view.copy_range(who, pair, offsets, len).await }
        };
        let request = self.request("copy_file_range", arg.nodeid_out)?;
        self.run(request, call.reply(), make, |reply, copied| {
            reply.written(u32::try_from(copied).expect("no more than was asked for"));
        });
        Ok(())
    }
}

/// What `fallocate(2)` is asked for.
fn falloc(mode: i32) -> Result<Falloc> {
    let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    Ok(match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => Falloc::Allocate { keep_size },
        libc::FALLOC_FL_PUNCH_HOLE if keep_size => Falloc::PunchHole,
        libc::FALLOC_FL_ZERO_RANGE => Falloc::ZeroRange { keep_size },
        _ => return Err(ErrorKind::NotSupported.into()),
    })
}
