//! The kernel's requests: decode, run, reply. No decision about homes is made here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::abi::{self, fattr, fopen, op};
use super::attr::{kind, perm, set_times};
use super::call::Call;
use super::errno::errno;
use super::event_loop::Serve;
use super::interrupts::Interrupts;
use super::listing::Listing;
use super::reply::Reply;
use super::serve::{Payload, Request, Runner};
use crate::home::{
    ErrorKind, Falloc, Kill, Kind, LockKind, Name, NewNode, RenameMode, Result, Seek, SetAttr,
    WriteMode, XattrMode,
};
use crate::view::{Form, Line, LockAnswer, LockRequest, Node, Pair, Room, Target, Who, is_chown};

/// Lines of a listing with attributes: what fits the 32 KiB that readers of directories use.
const LINES_PLUS_MAX: usize = 192;
/// Lines of a plain listing, likewise.
const LINES_MAX: usize = 1024;
/// One `copy_file_range`; the answer is a 32-bit number, and the caller comes again.
const COPY_BYTES_MAX: u64 = 1 << 30;
/// The unit of `statfs`.
const ROOM_BLOCK_BYTES: u32 = 4096;
/// How long the kernel remembers that a name is not there; it is told when one is made.
const ABSENCE_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The kinds of renaming that there are.
const RENAME_FLAGS: u32 = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT;

/// One mount, as the kernel asks for it.
#[derive(Debug)]
pub struct Adapter {
    runner: Runner,
    /// Handles tell open files of the shared form apart, for the locks taken through them.
    handles: AtomicU64,
    interrupts: Arc<Interrupts>,
}

impl Adapter {
    /// Serves the view of `runner`.
    pub fn new(runner: Runner) -> Self {
        Self { runner, handles: AtomicU64::new(1), interrupts: Arc::default() }
    }

    fn start(&self, call: &mut Call<'_>) -> Result<()> {
        match call.opcode() {
            op::LOOKUP => self.lookup(call),
            op::FORGET => self.forget(call),
            op::BATCH_FORGET => self.forget_many(call),
            op::GETATTR => self.getattr(call),
            op::SETATTR => self.setattr(call),
            op::READLINK => self.readlink(call),
            op::SYMLINK => self.symlink(call),
            op::MKNOD => self.mknod(call),
            op::MKDIR => self.mkdir(call),
            op::CREATE => self.create(call),
            op::LINK => self.link(call),
            op::UNLINK => self.remove("unlink", call, false),
            op::RMDIR => self.remove("rmdir", call, true),
            op::RENAME => self.rename(call),
            op::RENAME2 => self.rename_as_told(call),
            op::OPEN => self.open(call),
            op::OPENDIR => self.opendir(call),
            op::READ => self.read(call),
            op::WRITE => self.write(call),
            op::FLUSH => self.flush(call),
            op::RELEASE => self.release(call),
            op::FSYNC => self.sync("fsync", call),
            op::FSYNCDIR => self.sync("fsyncdir", call),
            op::READDIR => self.readdir(call),
            op::READDIRPLUS => self.readdirplus(call),
            op::STATFS => self.statfs(call),
            op::SETXATTR => self.setxattr(call),
            op::GETXATTR => self.getxattr(call),
            op::LISTXATTR => self.listxattr(call),
            op::REMOVEXATTR => self.removexattr(call),
            op::FALLOCATE => self.fallocate(call),
            op::LSEEK => self.lseek(call),
            op::COPY_FILE_RANGE => self.copy_file_range(call),
            op::GETLK => self.getlk(call),
            op::SETLK => self.setlk(call, false),
            op::SETLKW => self.setlk(call, true),
            op::INTERRUPT => self.interrupt(call),
            op::RELEASEDIR => {
                call.reply().ok();
                Ok(())
            }
            op::IOCTL => refuse(call, libc::ENOTTY),
            op::NOTIFY_REPLY => {
                call.reply().none();
                Ok(())
            }
            // ACCESS, BMAP, POLL, STATX, TMPFILE and what later kernels may ask.
            _ => refuse(call, libc::ENOSYS),
        }
    }

    fn request(&self, op: &'static str, number: u64) -> Result<Request> {
        let target = self.runner.view.living(number)?;
        Ok(Request { op, number, target, bytes: 0, data: None })
    }

    fn is_local(&self) -> bool {
        self.runner.view.form() == Form::Local
    }

    fn next_handle(&self) -> u64 {
        self.handles.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs an operation and answers by `done` where it succeeds.
    fn run<T, F, Fut, D>(&self, request: Request, reply: Reply, make: F, done: D)
    where
        T: Send + 'static,
        F: Fn(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
        D: FnOnce(Reply, T) + Send + 'static,
    {
        self.runner.run(request, make, move |result| match result {
            Ok(value) => done(reply, value),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn lookup(&self, call: &mut Call<'_>) -> Result<()> {
        let (view, who) = (self.runner.view.clone(), call.who());
        let request = self.request("lookup", call.number())?;
        let name = match call.text()? {
            // Only handles that outlive the kernel's memory of an inode look these up.
            dots @ (b"." | b"..") => {
                let up = dots.len() == 2;
                let make = move |target| {
                    let view = view.clone();
                    async move {
                        match up {
                            true => view.lookup_parent(target).await,
                            false => view.lookup_self(target).await,
                        }
                    }
                };
                self.run(request, call.reply(), make, entered);
                return Ok(());
            }
            name => Name::new(name)?,
        };
        let remembers = view.remembers_absence(&request.target);
        let make = move |parent| {
            let (view, name) = (view.clone(), name.clone());
            async move { view.lookup(who, parent, name).await }
        };
        let reply = call.reply();
        self.runner.run(request, make, move |result| match result {
            Ok(node) => reply.entry(&node),
            Err(error) if remembers && matches!(error.kind(), ErrorKind::NotFound) => {
                reply.absent(ABSENCE_TTL);
            }
            Err(error) => reply.error(errno(&error)),
        });
        Ok(())
    }

    fn forget(&self, call: &mut Call<'_>) -> Result<()> {
        call.reply().none();
        let arg = call.arg::<abi::ForgetIn>()?;
        self.runner.view.forget(call.number(), arg.nlookup);
        Ok(())
    }

    fn forget_many(&self, call: &mut Call<'_>) -> Result<()> {
        call.reply().none();
        for _ in 0..call.arg::<abi::BatchForgetIn>()?.count {
            let one = call.arg::<abi::ForgetOne>()?;
            self.runner.view.forget(one.nodeid, one.nlookup);
        }
        Ok(())
    }

    fn getattr(&self, call: &mut Call<'_>) -> Result<()> {
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.getattr(target).await }
        };
        let request = self.request("getattr", call.number())?;
        self.run(request, call.reply(), make, attributes);
        Ok(())
    }

    fn setattr(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::SetattrIn>()?;
        let (view, who) = (self.runner.view.clone(), call.who());
        let sets = |bit: u32| arg.valid & bit != 0;
        let [atime, mtime] = set_times(&arg);
        let set = SetAttr {
            perm: sets(fattr::MODE).then(|| perm(arg.mode)),
            uid: sets(fattr::UID).then_some(arg.uid),
            gid: sets(fattr::GID).then_some(arg.gid),
            size: sets(fattr::SIZE).then_some(arg.size),
            atime,
            mtime,
            kill: kill(takes_set_id(arg.valid, who)),
        };
        let make = move |target| {
            let view = view.clone();
            async move { view.setattr(who, target, set).await }
        };
        let request = self.request("setattr", call.number())?;
        self.run(request, call.reply(), make, attributes);
        Ok(())
    }

    fn readlink(&self, call: &mut Call<'_>) -> Result<()> {
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.readlink(target).await }
        };
        let request = self.request("readlink", call.number())?;
        self.run(request, call.reply(), make, |reply, target| reply.bytes(&target));
        Ok(())
    }

    fn mknod(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::MknodIn>()?;
        let node = new_node(arg.mode, arg.umask, arg.rdev)?;
        self.make("mknod", call, node)
    }

    fn mkdir(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::MkdirIn>()?;
        let (perm, umask) = (perm(arg.mode), perm(arg.umask));
        let node = NewNode { kind: Kind::Dir, perm, umask, rdev: 0, target: Bytes::new() };
        self.make("mkdir", call, node)
    }

    fn symlink(&self, call: &mut Call<'_>) -> Result<()> {
        let name = call.name()?;
        let target = Bytes::copy_from_slice(call.text()?);
        let node = NewNode { kind: Kind::Symlink, perm: 0o777, umask: 0, rdev: 0, target };
        self.make_named("symlink", call, name, node)
    }

    fn make(&self, op: &'static str, call: &mut Call<'_>, node: NewNode) -> Result<()> {
        let name = call.name()?;
        self.make_named(op, call, name, node)
    }

    fn make_named(
        &self,
        op: &'static str,
        call: &mut Call<'_>,
        name: Name,
        node: NewNode,
    ) -> Result<()> {
        let (view, who) = (self.runner.view.clone(), call.who());
        let make = move |parent| {
            let (view, name, node) = (view.clone(), name.clone(), node.clone());
            async move { view.make(who, parent, name, node).await }
        };
        let request = self.request(op, call.number())?;
        self.run(request, call.reply(), make, entered);
        Ok(())
    }

    fn create(&self, call: &mut Call<'_>) -> Result<()> {
        if self.is_local() {
            // The kernel then makes by MKNOD and opens without asking: no RELEASE later.
            return refuse(call, libc::ENOSYS);
        }
        let arg = call.arg::<abi::CreateIn>()?;
        let (name, node) = (call.name()?, new_node(arg.mode, arg.umask, 0)?);
        let (view, who) = (self.runner.view.clone(), call.who());
        let make = move |target| {
            let (view, name, node) = (view.clone(), name.clone(), node.clone());
            async move { view.make(who, target, name, node).await }
        };
        let request = self.request("create", call.number())?;
        let handle = self.next_handle();
        self.run(request, call.reply(), make, move |reply, node| {
            reply.created(&node, handle, fopen::KEEP_CACHE);
        });
        Ok(())
    }

    fn remove(&self, op: &'static str, call: &mut Call<'_>, dir: bool) -> Result<()> {
        let (view, who, name) = (self.runner.view.clone(), call.who(), call.name()?);
        let make = move |target| {
            let (view, name) = (view.clone(), name.clone());
            async move { view.remove(who, target, name, dir).await }
        };
        let request = self.request(op, call.number())?;
        self.run(request, call.reply(), make, done);
        Ok(())
    }

    fn rename(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::RenameIn>()?;
        self.rename_to(call, arg.newdir, 0)
    }

    fn rename_as_told(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::Rename2In>()?;
        self.rename_to(call, arg.newdir, arg.flags)
    }

    fn rename_to(&self, call: &mut Call<'_>, newdir: u64, flags: u32) -> Result<()> {
        let (view, who) = (self.runner.view.clone(), call.who());
        let (names, mode) = ([call.name()?, call.name()?], rename_mode(flags)?);
        let pair = view.pair(call.number(), newdir)?;
        if matches!(pair, Pair::Apart) {
            return refuse(call, libc::EXDEV);
        }
        let make = move |_| {
            let (view, pair, names) = (view.clone(), pair.clone(), names.clone());
            async move { view.rename(who, pair, names, mode).await }
        };
        let request = self.request("rename", call.number())?;
        self.run(request, call.reply(), make, done);
        Ok(())
    }

    fn link(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::LinkIn>()?;
        let (view, who, name) = (self.runner.view.clone(), call.who(), call.name()?);
        let pair = view.pair(arg.oldnodeid, call.number())?;
        if matches!(pair, Pair::Apart) {
            return refuse(call, libc::EXDEV);
        }
        let make = move |_| {
            let (view, pair, name) = (view.clone(), pair.clone(), name.clone());
            async move { view.link(who, pair, name).await }
        };
        let request = self.request("link", call.number())?;
        self.run(request, call.reply(), make, entered);
        Ok(())
    }

    fn open(&self, call: &mut Call<'_>) -> Result<()> {
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

    fn opendir(&self, call: &mut Call<'_>) -> Result<()> {
        if self.is_local() {
            return refuse(call, libc::ENOSYS);
        }
        call.reply().opened(0, fopen::KEEP_CACHE | fopen::CACHE_DIR);
        Ok(())
    }

    fn read(&self, call: &mut Call<'_>) -> Result<()> {
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

    fn write(&self, call: &mut Call<'_>) -> Result<()> {
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

    fn flush(&self, call: &mut Call<'_>) -> Result<()> {
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

    fn release(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::ReleaseIn>()?;
        if let Ok(target) = self.runner.view.target(call.number()) {
            let unlocks = arg.release_flags & abi::RELEASE_FLOCK_UNLOCK != 0;
            let flock = unlocks.then_some(arg.lock_owner);
            self.runner.view.released(&target, arg.fh, flock);
        }
        call.reply().ok();
        Ok(())
    }

    fn sync(&self, op: &'static str, call: &mut Call<'_>) -> Result<()> {
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.fsync(target).await }
        };
        let request = self.request(op, call.number())?;
        self.run(request, call.reply(), make, done);
        Ok(())
    }

    fn readdir(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::ReadIn>()?;
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.readdir(target, arg.offset, false, LINES_MAX).await }
        };
        let request = self.request("readdir", call.number())?;
        self.run(request, call.reply(), make, move |reply, lines: Vec<Line>| {
            let mut listing = Listing::new(arg.size, false);
            let _fitted = lines.iter().take_while(|line| listing.add(line)).count();
            reply.bytes(listing.as_bytes());
        });
        Ok(())
    }

    fn readdirplus(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::ReadIn>()?;
        let view = self.runner.view.clone();
        let counting = view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.readdir(target, arg.offset, true, LINES_PLUS_MAX).await }
        };
        let request = self.request("readdirplus", call.number())?;
        self.run(request, call.reply(), make, move |reply, lines: Vec<Line>| {
            let mut listing = Listing::new(arg.size, true);
            let fitted = lines.iter().take_while(|line| listing.add(line));
            let with_attributes = fitted.filter(|line| line.node.is_some());
            let taken: Vec<u64> = with_attributes.map(|line| line.number).collect();
            // Before the kernel can give them back.
            counting.taken(&taken);
            reply.bytes(listing.as_bytes());
        });
        Ok(())
    }

    fn statfs(&self, call: &mut Call<'_>) -> Result<()> {
        let view = &self.runner.view;
        let room = view.room(&view.target(call.number())?);
        call.reply().body(&statfs_out(room));
        Ok(())
    }

    fn setxattr(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::SetxattrIn>()?;
        let (view, who) = (self.runner.view.clone(), call.who());
        let name = Bytes::copy_from_slice(call.text()?);
        let value = call.bytes(arg.size)?;
        let mode = XattrMode {
            create: arg.flags & libc::XATTR_CREATE != 0,
            replace: arg.flags & libc::XATTR_REPLACE != 0,
            kill_sgid: false,
        };
        let make = move |target| {
            let (view, name, value) = (view.clone(), name.clone(), value.clone());
            async move { view.setxattr(who, target, name, value, mode).await }
        };
        let request = self.request("setxattr", call.number())?;
        self.run(request, call.reply(), make, done);
        Ok(())
    }

    fn getxattr(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::GetxattrIn>()?;
        let (view, name) = (self.runner.view.clone(), Bytes::copy_from_slice(call.text()?));
        let make = move |target| {
            let (view, name) = (view.clone(), name.clone());
            async move { view.getxattr(target, name).await }
        };
        let request = self.request("getxattr", call.number())?;
        self.run(request, call.reply(), make, move |reply, value| {
            value_reply(reply, &value, arg.size);
        });
        Ok(())
    }

    fn listxattr(&self, call: &mut Call<'_>) -> Result<()> {
        let arg = call.arg::<abi::GetxattrIn>()?;
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.listxattr(target).await }
        };
        let request = self.request("listxattr", call.number())?;
        self.run(request, call.reply(), make, move |reply, names| {
            value_reply(reply, &names, arg.size);
        });
        Ok(())
    }

    fn removexattr(&self, call: &mut Call<'_>) -> Result<()> {
        let (view, who) = (self.runner.view.clone(), call.who());
        let name = Bytes::copy_from_slice(call.text()?);
        let make = move |target| {
            let (view, name) = (view.clone(), name.clone());
            async move { view.removexattr(who, target, name).await }
        };
        let request = self.request("removexattr", call.number())?;
        self.run(request, call.reply(), make, done);
        Ok(())
    }

    fn fallocate(&self, call: &mut Call<'_>) -> Result<()> {
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

    fn lseek(&self, call: &mut Call<'_>) -> Result<()> {
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

    fn copy_file_range(&self, call: &mut Call<'_>) -> Result<()> {
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

    fn getlk(&self, call: &mut Call<'_>) -> Result<()> {
        let (view, lock) = (&self.runner.view, lock_request(&call.arg::<abi::LkIn>()?));
        let held = view.get_lock(&view.target(call.number())?, &lock)?;
        let free = abi::FileLock { start: 0, end: 0, kind: libc::F_UNLCK, pid: 0 };
        let lock = held.map_or(free, |held| {
            let kind = match held.kind {
                LockKind::Shared => libc::F_RDLCK,
                LockKind::Exclusive => libc::F_WRLCK,
            };
            abi::FileLock { start: held.start, end: held.end, kind, pid: held.pid }
        });
        call.reply().body(&lock);
        Ok(())
    }

    fn setlk(&self, call: &mut Call<'_>, waits: bool) -> Result<()> {
        let view = self.runner.view.clone();
        let lock = lock_request(&call.arg::<abi::LkIn>()?);
        let request = self.request("setlk", call.number())?;
        let (target, reply) = (request.target.clone(), call.reply());
        let (waiting, interrupted) = waits.then(|| self.interrupts.enter(call.unique())).unzip();
        let future = async move {
            let _waiting = waiting;
            view.set_lock(target, lock, interrupted).await
        };
        self.runner.run_unbounded(request, future, |result| match result {
            Ok(LockAnswer::Done) => reply.ok(),
            Ok(LockAnswer::Interrupted) => reply.error(libc::EINTR),
            Err(error) => reply.error(errno(&error)),
        });
        Ok(())
    }

    fn interrupt(&self, call: &mut Call<'_>) -> Result<()> {
        call.reply().none();
        self.interrupts.interrupt(call.arg::<abi::InterruptIn>()?.unique);
        Ok(())
    }
}

impl Serve for Adapter {
    /// Answers now, or hands on to where the request waits.
    fn serve(&self, mut call: Call<'_>) {
        if let Err(error) = self.start(&mut call) {
            call.fail(errno(&error));
        }
    }
}

fn refuse(call: &mut Call<'_>, errno: i32) -> Result<()> {
    call.reply().error(errno);
    Ok(())
}

fn entered(reply: Reply, node: Node) {
    reply.entry(&node);
}

fn attributes(reply: Reply, node: Node) {
    reply.attr(&node);
}

fn done(reply: Reply, (): ()) {
    reply.ok();
}

/// A value of `size` at most, or its length where `size` is 0.
fn value_reply(reply: Reply, value: &Bytes, size: u32) {
    match u32::try_from(value.len()) {
        Ok(len) if size == 0 => reply.body(&abi::GetxattrOut { size: len, reserved: 0 }),
        Ok(len) if len <= size => reply.bytes(value),
        _ => reply.error(libc::ERANGE),
    }
}

fn statfs_out(room: Room) -> abi::StatfsOut {
    let blocks = |bytes: u64| bytes / u64::from(ROOM_BLOCK_BYTES);
    let free = blocks(room.bytes_free);
    abi::StatfsOut {
        blocks: blocks(room.bytes),
        bfree: free,
        bavail: free,
        files: room.inodes,
        ffree: room.inodes_free,
        bsize: ROOM_BLOCK_BYTES,
        namelen: crate::home::NAME_BYTES_MAX as u32,
        frsize: ROOM_BLOCK_BYTES,
        reserved: [0; 7],
    }
}

/// A new inode that a request asks for.
fn new_node(mode: u32, umask: u32, rdev: u32) -> Result<NewNode> {
    let kind = kind(mode).ok_or(ErrorKind::Invalid)?;
    let (perm, umask) = (perm(mode), perm(umask));
    Ok(NewNode { kind, perm, umask, rdev, target: Bytes::new() })
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

fn lock_request(arg: &abi::LkIn) -> LockRequest {
    let kind = match arg.lk.kind {
        libc::F_RDLCK => Some(LockKind::Shared),
        libc::F_WRLCK => Some(LockKind::Exclusive),
        _ => None,
    };
    let abi::FileLock { start, end, pid, .. } = arg.lk;
    let flock = arg.lk_flags & abi::LK_FLOCK != 0;
    LockRequest { flock, handle: arg.fh, owner: arg.owner, kind, start, end, pid }
}

fn rename_mode(flags: u32) -> Result<RenameMode> {
    let mode = RenameMode {
        no_replace: flags & libc::RENAME_NOREPLACE != 0,
        exchange: flags & libc::RENAME_EXCHANGE != 0,
        whiteout: flags & libc::RENAME_WHITEOUT != 0,
    };
    let unknown = flags & !RENAME_FLAGS != 0;
    match unknown || (mode.exchange && (mode.no_replace || mode.whiteout)) {
        true => Err(ErrorKind::Invalid.into()),
        false => Ok(mode),
    }
}

/// What falls; whether the caller is in the file's group is looked at where it matters.
fn kill(asked: bool) -> Kill {
    if asked { Kill::ByMember } else { Kill::Nothing }
}

/// Whether a SETATTR of `valid` attributes takes set-uid, set-gid and capabilities away. A new
/// owner always does; a truncation unless the caller may keep them, which the kernel says. One
/// that sets nothing at all is sent for nothing else: a chown to nobody, or fallocate,
/// copy_file_range or a write by a caller who may not keep them; for root, who may, the kernel
/// sends it too when it has just removed capabilities, and only the system call tells.
fn takes_set_id(valid: u32, who: Who) -> bool {
    let owner = valid & (fattr::UID | fattr::GID) != 0;
    let cut = valid & fattr::SIZE != 0 && valid & fattr::KILL_SUIDGID != 0;
    let sets = fattr::MODE | fattr::SIZE | fattr::ATIME | fattr::MTIME;
    let nothing = !owner && valid & sets == 0;
    owner || cut || (nothing && (who.uid != 0 || is_chown(who.tid).unwrap_or(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_id_bits_fall_with_a_new_owner_a_cut_by_a_user_and_a_request_that_sets_nothing() {
        // A thread that there is not: what it does cannot be told.
        let who = |uid| Who { uid, gid: 0, tid: u32::MAX };
        assert!(takes_set_id(fattr::UID, who(0)));
        assert!(takes_set_id(fattr::SIZE | fattr::MTIME | fattr::KILL_SUIDGID, who(1000)));
        assert!(takes_set_id(0, who(0)));
        assert!(!takes_set_id(fattr::SIZE | fattr::MTIME, who(0)));
        assert!(!takes_set_id(fattr::MTIME, who(1000)));
    }
}
