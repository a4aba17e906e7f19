//! The kernel's requests as the `fuser` crate hands them over: decode, run, reply. No decision
//! about homes is made here.
//!
//! What the crate does not pass on is made up for where the callers below say so: the flag of
//! `setattr` that a file loses its set-id bits (told by the caller's uid), seconds before 1970,
//! the size of a listing's buffer.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs,
    ReplyWrite, ReplyXattr, TimeOrNow, WriteFlags,
};

use super::ask::ask_kernel;
use super::attr::{GENERATION, bare_attr, file_attr, file_type, kind, perm, set_time};
use super::errno::errno;
use super::serve::{Payload, Request, Runner};
use crate::home::{
    ErrorKind, Falloc, Kill, Kind, LockKind, Name, NewNode, ReadPieces, RenameMode, Result, Seek,
    SetAttr, WriteMode, XattrMode,
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

/// One mount, as `fuser` sees it.
#[derive(Debug)]
pub struct Adapter {
    runner: Runner,
    /// Handles tell open files of the shared form apart, for the locks taken through them.
    handles: AtomicU64,
}

impl Adapter {
    /// Serves the view of `runner`.
    pub fn new(runner: Runner) -> Self {
        Self { runner, handles: AtomicU64::new(1) }
    }

    fn request(&self, op: &'static str, number: INodeNo) -> Result<Request> {
        let target = self.runner.view.living(number.0)?;
        Ok(Request { op, number: number.0, target, bytes: 0, data: None })
    }

    fn is_local(&self) -> bool {
        self.runner.view.form() == Form::Local
    }

    /// An operation that makes a name or looks one up.
    fn entry<F, Fut>(
        &self,
        op: &'static str,
        parent: INodeNo,
        name: &OsStr,
        make: F,
        reply: ReplyEntry,
    ) where
        F: Fn(Target, Name) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Node>> + Send + 'static,
    {
        let (request, name) = match self.named(op, parent, name) {
            Ok(named) => named,
            Err(error) => return reply.error(errno(&error)),
        };
        let remembers = op == "lookup" && self.runner.view.remembers_absence(&request.target);
        let make = move |target| make(target, name.clone());
        self.runner.run(request, make, move |result| entry_reply(result, remembers, reply));
    }

    /// An operation that gives nothing but success.
    fn empty<F, Fut>(&self, op: &'static str, number: INodeNo, make: F, reply: ReplyEmpty)
    where
        F: Fn(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        match self.request(op, number) {
            Ok(request) => self.runner.run(request, make, |result| empty_reply(&result, reply)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn named(&self, op: &'static str, parent: INodeNo, name: &OsStr) -> Result<(Request, Name)> {
        Ok((self.request(op, parent)?, Name::new(name.as_bytes())?))
    }
}

fn who(req: &fuser::Request) -> Who {
    Who { uid: req.uid(), gid: req.gid(), tid: req.pid() }
}

fn entry_reply(result: Result<Node>, remembers_absence: bool, reply: ReplyEntry) {
    match result {
        Ok(node) => {
            reply.entry_with_ttls(&node.attr_ttl, &node.name_ttl, &file_attr(&node), GENERATION);
        }
        Err(error) if remembers_absence && matches!(error.kind(), ErrorKind::NotFound) => {
            reply.entry(&ABSENCE_TTL, &bare_attr(0, Kind::File), GENERATION);
        }
        Err(error) => reply.error(errno(&error)),
    }
}

fn empty_reply(result: &Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn attr_reply(result: Result<Node>, reply: ReplyAttr) {
    match result {
        Ok(node) => reply.attr(&node.attr_ttl, &file_attr(&node)),
        Err(error) => reply.error(errno(&error)),
    }
}

fn data_reply(result: Result<ReadPieces>, reply: ReplyData) {
    match result.as_deref() {
        Ok([]) => reply.data(&[]),
        Ok([piece]) => reply.data(piece),
        // The transport takes one slice; pieces come from several chunks, so this is a copy.
        Ok(pieces) => reply.data(&pieces.concat()),
        Err(error) => reply.error(errno(error)),
    }
}

/// A value of `size` at most, or its length where `size` is 0.
fn xattr_reply(result: Result<Bytes>, size: u32, reply: ReplyXattr) {
    match result {
        Ok(value) => match u32::try_from(value.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
        Err(error) => reply.error(errno(&error)),
    }
}

fn statfs_reply(room: Room, reply: ReplyStatfs) {
    let blocks = |bytes: u64| bytes / u64::from(ROOM_BLOCK_BYTES);
    let (size, free) = (blocks(room.bytes), blocks(room.bytes_free));
    reply.statfs(
        size,
        free,
        free,
        room.inodes,
        room.inodes_free,
        ROOM_BLOCK_BYTES,
        crate::home::NAME_BYTES_MAX as u32,
        ROOM_BLOCK_BYTES,
    );
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

fn lock_request(
    fh: FileHandle,
    owner: LockOwner,
    start: u64,
    end: u64,
    typ: i32,
    pid: u32,
) -> LockRequest {
    let kind = match typ {
        libc::F_RDLCK => Some(LockKind::Shared),
        libc::F_WRLCK => Some(LockKind::Exclusive),
        _ => None,
    };
    LockRequest { handle: fh.0, owner: owner.0, kind, start, end, pid }
}

fn rename_mode(flags: RenameFlags) -> Result<RenameMode> {
    let mode = RenameMode {
        no_replace: flags.contains(RenameFlags::RENAME_NOREPLACE),
        exchange: flags.contains(RenameFlags::RENAME_EXCHANGE),
        whiteout: flags.contains(RenameFlags::RENAME_WHITEOUT),
    };
    let unknown = !flags.difference(RenameFlags::all()).is_empty();
    match unknown || (mode.exchange && (mode.no_replace || mode.whiteout)) {
        true => Err(ErrorKind::Invalid.into()),
        false => Ok(mode),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &fuser::Request, config: &mut KernelConfig) -> std::io::Result<()> {
        ask_kernel(self.runner.view.form(), config);
        Ok(())
    }

    fn destroy(&mut self) {
        self.runner.view.detach();
    }

    fn lookup(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (view, who) = (self.runner.view.clone(), who(req));
        match name.as_bytes() {
            // Only handles that outlive the kernel's memory of an inode look these up.
            dots @ (b"." | b"..") => {
                let up = dots.len() == 2;
                let request = match self.request("lookup", parent) {
                    Ok(request) => request,
                    Err(error) => return reply.error(errno(&error)),
                };
                let make = move |target| {
                    let view = view.clone();
                    async move {
                        match up {
                            true => view.lookup_parent(target).await,
                            false => view.lookup_self(target).await,
                        }
                    }
                };
                self.runner.run(request, make, |result| entry_reply(result, false, reply));
            }
            _ => {
                let make = move |parent, name| {
                    let view = view.clone();
                    async move { view.lookup(who, parent, name).await }
                };
                self.entry("lookup", parent, name, make, reply);
            }
        }
    }

    fn forget(&self, _req: &fuser::Request, ino: INodeNo, nlookup: u64) {
        self.runner.view.forget(ino.0, nlookup);
    }

    fn getattr(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        _fh: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.getattr(target).await }
        };
        match self.request("getattr", ino) {
            Ok(request) => self.runner.run(request, make, |result| attr_reply(result, reply)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setattr(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (view, who) = (self.runner.view.clone(), who(req));
        let attributes = mode.is_some() || atime.is_some() || mtime.is_some();
        let takes = takes_set_id(uid.or(gid), size, attributes, who);
        let set = SetAttr {
            perm: mode.map(perm),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            kill: kill(takes),
        };
        let make = move |target| {
            let view = view.clone();
            async move { view.setattr(who, target, set).await }
        };
        match self.request("setattr", ino) {
            Ok(request) => self.runner.run(request, make, |result| attr_reply(result, reply)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readlink(&self, _req: &fuser::Request, ino: INodeNo, reply: ReplyData) {
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.readlink(target).await }
        };
        match self.request("readlink", ino) {
            Ok(request) => self.runner.run(request, make, |result| match result {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(errno(&error)),
            }),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mknod(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        match new_node(mode, umask, rdev) {
            Ok(node) => self.make("mknod", req, parent, name, node, reply),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mkdir(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let (perm, umask) = (perm(mode), perm(umask));
        let node = NewNode { kind: Kind::Dir, perm, umask, rdev: 0, target: Bytes::new() };
        self.make("mkdir", req, parent, name, node, reply);
    }

    fn symlink(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = Bytes::copy_from_slice(target.as_os_str().as_bytes());
        let node = NewNode { kind: Kind::Symlink, perm: 0o777, umask: 0, rdev: 0, target };
        self.make("symlink", req, parent, link_name, node, reply);
    }

    fn create(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        if self.is_local() {
            // The kernel then makes by MKNOD and opens without asking: no RELEASE later.
            return reply.error(Errno::ENOSYS);
        }
        let (view, who) = (self.runner.view.clone(), who(req));
        let named = self.named("create", parent, name);
        let (request, name, node) = match named
            .and_then(|(request, name)| new_node(mode, umask, 0).map(|node| (request, name, node)))
        {
            Ok(all) => all,
            Err(error) => return reply.error(errno(&error)),
        };
        let make = move |target| {
            let (view, name, node) = (view.clone(), name.clone(), node.clone());
            async move { view.make(who, target, name, node).await }
        };
        let handle = self.next_handle();
        self.runner.run(request, make, move |result| match result {
            Ok(node) => {
                let (ttl, attr) = (node.attr_ttl, file_attr(&node));
                reply.created(&ttl, &attr, GENERATION, handle, FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn unlink(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove("unlink", req, parent, name, false, reply);
    }

    fn rmdir(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove("rmdir", req, parent, name, true, reply);
    }

    fn rename(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (view, who) = (self.runner.view.clone(), who(req));
        let decoded = || -> Result<_> {
            let names = [Name::new(name.as_bytes())?, Name::new(newname.as_bytes())?];
            Ok((names, rename_mode(flags)?, view.pair(parent.0, newparent.0)?))
        };
        let (names, mode, pair) = match decoded() {
            Ok(decoded) => decoded,
            Err(error) => return reply.error(errno(&error)),
        };
        if matches!(pair, Pair::Apart) {
            return reply.error(Errno::EXDEV);
        }
        let make = move |_| {
            let (view, pair, names) = (view.clone(), pair.clone(), names.clone());
            async move { view.rename(who, pair, names, mode).await }
        };
        self.empty("rename", parent, make, reply);
    }

    fn link(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let (view, who) = (self.runner.view.clone(), who(req));
        let pair = match view.pair(ino.0, newparent.0) {
            Ok(Pair::Apart) => return reply.error(Errno::EXDEV),
            Ok(pair) => pair,
            Err(error) => return reply.error(errno(&error)),
        };
        let make = move |_, name| {
            let (view, pair) = (view.clone(), pair.clone());
            async move { view.link(who, pair, name).await }
        };
        self.entry("link", newparent, newname, make, reply);
    }

    fn open(&self, _req: &fuser::Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writes = flags.0 & libc::O_ACCMODE != libc::O_RDONLY;
        match self.is_local() {
            true => reply.error(Errno::ENOSYS),
            false if writes && self.runner.view.is_read_only(ino.0) => {
                reply.error(Errno::EROFS);
            }
            false => reply.opened(self.next_handle(), FopenFlags::FOPEN_KEEP_CACHE),
        }
    }

    fn opendir(&self, _req: &fuser::Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let cached = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        match self.is_local() {
            true => reply.error(Errno::ENOSYS),
            false => reply.opened(FileHandle(0), cached),
        }
    }

    fn read(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.read(target, offset, size).await }
        };
        match self.request("read", ino) {
            Ok(request) => self.runner.run(request, make, |result| data_reply(result, reply)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn write(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (view, who) = (self.runner.view.clone(), who(req));
        let cached = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let mode = WriteMode {
            // Another node may have made the file longer than this kernel thinks.
            append: flags.0 & libc::O_APPEND != 0 && !cached && !self.is_local(),
            whole: cached,
            kill: kill(write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID)),
        };
        let bytes = data.len() as u64;
        let data = Payload::new(Bytes::copy_from_slice(data));
        // The kernel takes a page that it wrote on its own for lost where not all of it is taken.
        let part = (!cached).then(|| data.clone());
        let make = move |target| {
            let (view, data) = (view.clone(), data.get());
            async move { view.write(who, target, offset, data, mode).await }
        };
        match self.request("write", ino) {
            Ok(request) => {
                self.runner.run(Request { bytes, data: part, ..request }, make, |result| {
                    match result {
                        Ok(written) => reply.written(written),
                        Err(error) => reply.error(errno(&error)),
                    }
                });
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn flush(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        _fh: FileHandle,
        lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        if self.is_local() {
            return reply.error(Errno::ENOSYS);
        }
        if let Ok(target) = self.runner.view.target(ino.0) {
            self.runner.view.closed(&target, lock_owner.0);
        }
        reply.ok();
    }

    fn release(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Ok(target) = self.runner.view.target(ino.0) {
            self.runner.view.released(&target, fh.0, lock_owner.map(|owner| owner.0));
        }
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.sync("fsync", ino, reply);
    }

    fn fsyncdir(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.sync("fsyncdir", ino, reply);
    }

    fn readdir(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.readdir(target, offset, false, LINES_MAX).await }
        };
        let done = |result: Result<Vec<Line>>| match result {
            Ok(lines) => {
                for line in lines {
                    let name = OsStr::from_bytes(&line.name);
                    if reply.add(INodeNo(line.number), line.next, file_type(line.kind), name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(errno(&error)),
        };
        match self.request("readdir", ino) {
            Ok(request) => self.runner.run(request, make, done),
            Err(error) => done(Err(error)),
        }
    }

    fn readdirplus(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let view = self.runner.view.clone();
        let counting = view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.readdir(target, offset, true, LINES_PLUS_MAX).await }
        };
        let done = move |result: Result<Vec<Line>>| match result {
            Ok(lines) => {
                let mut taken = Vec::with_capacity(lines.len());
                for line in lines {
                    let (attr, ttl) = match &line.node {
                        Some(node) => (file_attr(node), node.attr_ttl),
                        None => (bare_attr(line.number, line.kind), Duration::ZERO),
                    };
                    let (number, name) = (INodeNo(line.number), OsStr::from_bytes(&line.name));
                    if reply.add(number, line.next, name, &ttl, &attr, GENERATION) {
                        break;
                    }
                    if line.node.is_some() {
                        taken.push(line.number);
                    }
                }
                // Before the kernel can give them back.
                counting.taken(&taken);
                reply.ok();
            }
            Err(error) => reply.error(errno(&error)),
        };
        match self.request("readdirplus", ino) {
            Ok(request) => self.runner.run(request, make, done),
            Err(error) => done(Err(error)),
        }
    }

    fn statfs(&self, _req: &fuser::Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.runner.view.target(ino.0) {
            Ok(target) => statfs_reply(self.runner.view.room(&target), reply),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setxattr(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (view, who) = (self.runner.view.clone(), who(req));
        let name = Bytes::copy_from_slice(name.as_bytes());
        let value = Bytes::copy_from_slice(value);
        let mode = XattrMode {
            create: flags & libc::XATTR_CREATE != 0,
            replace: flags & libc::XATTR_REPLACE != 0,
            kill_sgid: false,
        };
        let make = move |target| {
            let (view, name, value) = (view.clone(), name.clone(), value.clone());
            async move { view.setxattr(who, target, name, value, mode).await }
        };
        self.empty("setxattr", ino, make, reply);
    }

    fn getxattr(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let view = self.runner.view.clone();
        let name = Bytes::copy_from_slice(name.as_bytes());
        let make = move |target| {
            let (view, name) = (view.clone(), name.clone());
            async move { view.getxattr(target, name).await }
        };
        match self.request("getxattr", ino) {
            Ok(request) => {
                self.runner.run(request, make, move |result| xattr_reply(result, size, reply));
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn listxattr(&self, _req: &fuser::Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.listxattr(target).await }
        };
        match self.request("listxattr", ino) {
            Ok(request) => {
                self.runner.run(request, make, move |result| xattr_reply(result, size, reply));
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn removexattr(&self, req: &fuser::Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (view, who) = (self.runner.view.clone(), who(req));
        let name = Bytes::copy_from_slice(name.as_bytes());
        let make = move |target| {
            let (view, name) = (view.clone(), name.clone());
            async move { view.removexattr(who, target, name).await }
        };
        self.empty("removexattr", ino, make, reply);
    }

    fn fallocate(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (view, who) = (self.runner.view.clone(), who(req));
        let what = match falloc(mode) {
            Ok(what) => what,
            Err(error) => return reply.error(errno(&error)),
        };
        let make = move |target| {
            let view = view.clone();
            async move { view.fallocate(who, target, what, offset, length).await }
        };
        self.empty("fallocate", ino, make, reply);
    }

    fn lseek(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let view = self.runner.view.clone();
        let whence = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(Errno::ENXIO);
        };
        let make = move |target| {
            let view = view.clone();
            async move { view.seek(target, offset, whence).await }
        };
        match self.request("lseek", ino) {
            Ok(request) => self.runner.run(request, make, |result| match result {
                Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
                Err(error) => reply.error(errno(&error)),
            }),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn copy_file_range(
        &self,
        req: &fuser::Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (view, who) = (self.runner.view.clone(), who(req));
        let pair = match view.pair(ino_in.0, ino_out.0) {
            // The kernel then copies through the page cache.
            Ok(Pair::Apart) => return reply.error(Errno::EXDEV),
            Ok(pair) => pair,
            Err(error) => return reply.error(errno(&error)),
        };
        let (offsets, len) = ([offset_in, offset_out], len.min(COPY_BYTES_MAX));
        let make = move |_| {
            let (view, pair) = (view.clone(), pair.clone());
            async move { view.copy_range(who, pair, offsets, len).await }
        };
        match self.request("copy_file_range", ino_out) {
            Ok(request) => self.runner.run(request, make, |result| match result {
                Ok(copied) => {
                    let copied = u32::try_from(copied).expect("no more than was asked for");
                    reply.written(copied);
                }
                Err(error) => reply.error(errno(&error)),
            }),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn getlk(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let view = &self.runner.view;
        let lock = lock_request(fh, lock_owner, start, end, typ, pid);
        let found = view.target(ino.0).and_then(|target| view.get_lock(&target, &lock));
        match found {
            Ok(Some(held)) => {
                let typ = match held.kind {
                    LockKind::Shared => libc::F_RDLCK,
                    LockKind::Exclusive => libc::F_WRLCK,
                };
                reply.locked(held.start, held.end, typ, held.pid);
            }
            Ok(None) => reply.locked(0, 0, libc::F_UNLCK, 0),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setlk(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let (view, who) = (self.runner.view.clone(), who(req));
        let lock = lock_request(fh, lock_owner, start, end, typ, pid);
        let request = match self.request("setlk", ino) {
            Ok(request) => request,
            Err(error) => return reply.error(errno(&error)),
        };
        let target = request.target.clone();
        let future = async move { view.set_lock(who, target, lock, sleep).await };
        self.runner.run_unbounded(request, future, |result| match result {
            Ok(LockAnswer::Done) => reply.ok(),
            Ok(LockAnswer::Interrupted) => reply.error(Errno::EINTR),
            Ok(LockAnswer::Unknown) => reply.error(Errno::ENOLCK),
            Err(error) => reply.error(errno(&error)),
        });
    }

    // What is left has no meaning here; without these the transport would log every request.

    fn access(&self, _req: &fuser::Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn bmap(
        &self,
        _req: &fuser::Request,
        _ino: INodeNo,
        _blocksize: u32,
        _idx: u64,
        reply: ReplyBmap,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _req: &fuser::Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _req: &fuser::Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }
}

impl Adapter {
    fn next_handle(&self) -> FileHandle {
        FileHandle(self.handles.fetch_add(1, Ordering::Relaxed))
    }

    fn make(
        &self,
        op: &'static str,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        node: NewNode,
        reply: ReplyEntry,
    ) {
        let (view, who) = (self.runner.view.clone(), who(req));
        let make = move |parent, name| {
            let (view, node) = (view.clone(), node.clone());
            async move { view.make(who, parent, name, node).await }
        };
        self.entry(op, parent, name, make, reply);
    }

    fn remove(
        &self,
        op: &'static str,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        dir: bool,
        reply: ReplyEmpty,
    ) {
        let (view, who) = (self.runner.view.clone(), who(req));
        let (request, name) = match self.named(op, parent, name) {
            Ok(named) => named,
            Err(error) => return reply.error(errno(&error)),
        };
        let make = move |target| {
            let (view, name) = (view.clone(), name.clone());
            async move { view.remove(who, target, name, dir).await }
        };
        self.runner.run(request, make, |result| empty_reply(&result, reply));
    }

    fn sync(&self, op: &'static str, ino: INodeNo, reply: ReplyEmpty) {
        let view = self.runner.view.clone();
        let make = move |target| {
            let view = view.clone();
            async move { view.fsync(target).await }
        };
        self.empty(op, ino, make, reply);
    }
}

/// What falls; whether the caller is in the file's group is looked at where it matters.
fn kill(asked: bool) -> Kill {
    if asked { Kill::ByMember } else { Kill::Nothing }
}

/// Whether a SETATTR takes set-uid, set-gid and capabilities away. A new owner always does; a
/// truncation unless the caller may keep them, which the kernel says in a flag that the transport
/// drops. One that sets nothing at all is sent for nothing else: a chown to nobody, or fallocate,
/// copy_file_range or a write by a caller who may not keep them; for root, who may, the kernel
/// sends it too when it has just removed capabilities, and only the system call tells.
fn takes_set_id(owner: Option<u32>, size: Option<u64>, others: bool, who: Who) -> bool {
    let nothing = owner.is_none() && size.is_none() && !others;
    owner.is_some()
        || (size.is_some() && who.uid != 0)
        || (nothing && (who.uid != 0 || is_chown(who.tid).unwrap_or(true)))
}

#[cfg(test)]
mod tests {
    use super::{Who, takes_set_id};

    #[test]
    fn set_id_bits_fall_with_a_new_owner_a_cut_by_a_user_and_a_request_that_sets_nothing() {
        // A thread that there is not: what it does cannot be told.
        let who = |uid| Who { uid, gid: 0, tid: u32::MAX };
        assert!(takes_set_id(Some(5), None, false, who(0)));
        assert!(takes_set_id(None, Some(0), true, who(1000)));
        assert!(takes_set_id(None, None, false, who(0)));
        assert!(!takes_set_id(None, Some(0), true, who(0)));
        assert!(!takes_set_id(None, None, true, who(1000)));
    }
}
