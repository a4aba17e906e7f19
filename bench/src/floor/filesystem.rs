//! Requests to the tree and back.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType,
    Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use yadokari_fs::fuse;
use yadokari_fs::view::Form;

use super::tree::{Inode, New, Time, Tree};

/// As homes have it: the kernel is told of every change, and here there is none but its own.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
const GENERATION: Generation = Generation(0);

/// The file system.
#[derive(Debug)]
pub struct Floor {
    tree: Mutex<Tree>,
    form: Form,
}

impl Floor {
    /// An empty one.
    pub fn new(form: Form) -> Self {
        Self { tree: Mutex::default(), form }
    }

    fn make(&self, req: &Request, parent: INodeNo, name: &OsStr, new: New, reply: ReplyEntry) {
        let new = New { uid: req.uid(), gid: req.gid(), ..new };
        let mut tree = self.tree.lock();
        match tree.make(parent.0, name.as_bytes(), new, now()) {
            Ok(ino) => enter(&mut tree, ino, reply),
            Err(error) => reply.error(error),
        }
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, dir: bool, reply: ReplyEmpty) {
        empty(self.tree.lock().remove(parent.0, name.as_bytes(), dir, now()), reply);
    }
}

fn now() -> Time {
    since_1970(SystemTime::now())
}

fn since_1970(time: SystemTime) -> Time {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs().cast_signed(), since.subsec_nanos())
}

fn system_time((seconds, nanos): Time) -> SystemTime {
    UNIX_EPOCH + Duration::new(seconds.cast_unsigned(), nanos)
}

fn attr(ino: u64, inode: &Inode) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: if inode.kind == FileType::Directory { 4096 } else { inode.contents.size },
        blocks: inode.contents.size.div_ceil(512),
        atime: system_time(inode.atime),
        mtime: system_time(inode.mtime),
        ctime: system_time(inode.ctime),
        crtime: UNIX_EPOCH,
        kind: inode.kind,
        perm: inode.perm,
        nlink: inode.nlink,
        uid: inode.uid,
        gid: inode.gid,
        rdev: inode.rdev,
        blksize: 4096,
        flags: 0,
    }
}

fn bare(kind: FileType) -> FileAttr {
    let (time, zero) = (UNIX_EPOCH, 0);
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: 0,
        nlink: zero,
        uid: zero,
        gid: zero,
        rdev: zero,
        blksize: 4096,
        flags: zero,
    }
}

fn enter(tree: &mut Tree, ino: u64, reply: ReplyEntry) {
    tree.refer(ino);
    match tree.get(ino) {
        Ok(inode) => reply.entry_with_ttls(&TTL, &TTL, &attr(ino, inode), GENERATION),
        Err(error) => reply.error(error),
    }
}

fn empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn kind(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn new_node(mode: u32, umask: u32, rdev: u32) -> New {
    let perm = (mode & 0o7777 & !umask) as u16;
    New { kind: kind(mode), perm, uid: 0, gid: 0, rdev, target: Vec::new() }
}

fn value(found: &[u8], size: u32, reply: ReplyXattr) {
    let len = found.len() as u32;
    match size {
        0 => reply.size(len),
        _ if len <= size => reply.data(found),
        _ => reply.error(Errno::ERANGE),
    }
}

impl Filesystem for Floor {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for flag in InitFlags::from_bits_retain(fuse::wanted(self.form)).iter() {
            // What the kernel does not offer is left out, as for homes.
            let _missing = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(fuse::WRITE_BYTES_MAX);
        let _ = config.set_max_background(fuse::BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut tree = self.tree.lock();
        match tree.find(parent.0, name.as_bytes()) {
            Ok(Some(ino)) => enter(&mut tree, ino, reply),
            Ok(None) => reply.entry(&TTL, &bare(FileType::RegularFile), GENERATION),
            Err(error) => reply.error(error),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.tree.lock().forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.tree.lock().get(ino.0) {
            Ok(inode) => reply.attr(&TTL, &attr(ino.0, inode)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
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
        let set = |time| match time {
            TimeOrNow::SpecificTime(time) => since_1970(time),
            TimeOrNow::Now => now(),
        };
        let mut tree = self.tree.lock();
        let inode = match tree.get(ino.0) {
            Ok(inode) => inode,
            Err(error) => return reply.error(error),
        };
        inode.perm = mode.map_or(inode.perm, |mode| (mode & 0o7777) as u16);
        inode.uid = uid.unwrap_or(inode.uid);
        inode.gid = gid.unwrap_or(inode.gid);
        if let Some(size) = size {
            inode.contents.set_size(size);
            inode.mtime = now();
        }
        inode.atime = atime.map_or(inode.atime, set);
        inode.mtime = mtime.map_or(inode.mtime, set);
        inode.ctime = now();
        reply.attr(&TTL, &attr(ino.0, inode));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.tree.lock().get(ino.0) {
            Ok(inode) => reply.data(&inode.target),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.make(req, parent, name, new_node(mode, umask, rdev), reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let new = new_node(mode & 0o7777 | libc::S_IFDIR, umask, 0);
        self.make(req, parent, name, new, reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, false, reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, true, reply);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes().to_vec();
        let new = New { target, ..new_node(0o777 | libc::S_IFLNK, 0, 0) };
        self.make(req, parent, name, new, reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
        empty(self.tree.lock().rename(from, to, flags.bits(), now()), reply);
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let mut tree = self.tree.lock();
        match tree.link(ino.0, newparent.0, newname.as_bytes(), now()) {
            Ok(()) => enter(&mut tree, ino.0, reply),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        if self.form == Form::Local {
            return reply.error(Errno::ENOSYS);
        }
        let new = New { uid: req.uid(), gid: req.gid(), ..new_node(mode, umask, 0) };
        let mut tree = self.tree.lock();
        let made = tree.make(parent.0, name.as_bytes(), new, now());
        match made.and_then(|ino| {
            tree.refer(ino);
            tree.get(ino).map(|inode| attr(ino, inode))
        }) {
            Ok(attr) => {
                let flags = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&TTL, &attr, GENERATION, FileHandle(1), flags);
            }
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.form {
            Form::Local => reply.error(Errno::ENOSYS),
            Form::Shared => reply.opened(FileHandle(1), FopenFlags::FOPEN_KEEP_CACHE),
        }
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let cached = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        match self.form {
            Form::Local => reply.error(Errno::ENOSYS),
            Form::Shared => reply.opened(FileHandle(0), cached),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.tree.lock().get(ino.0) {
            Ok(inode) => inode.contents.read(offset, size, |bytes| reply.data(bytes)),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.tree.lock().get(ino.0) {
            Ok(inode) => {
                inode.contents.write(offset, data);
                inode.mtime = now();
                inode.ctime = inode.mtime;
                reply.written(data.len() as u32);
            }
            Err(error) => reply.error(error),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        match self.form {
            Form::Local => reply.error(Errno::ENOSYS),
            Form::Shared => reply.ok(),
        }
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(&self, _r: &Request, _i: INodeNo, _f: FileHandle, _d: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _r: &Request, _i: INodeNo, _f: FileHandle, _d: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut tree = self.tree.lock();
        let dir = match tree.get(ino.0) {
            Ok(dir) => dir,
            Err(error) => return reply.error(error),
        };
        let dots: [(u64, &str, u64); 2] = [(1, ".", ino.0), (2, "..", dir.parent)];
        let mut full = false;
        for (line, name, number) in dots {
            full |= line > offset
                && !full
                && reply.add(INodeNo(number), line, FileType::Directory, name);
        }
        let lines: Vec<_> = match full {
            true => Vec::new(),
            false => dir.lines.range(offset + 1..).map(|(l, (n, i))| (*l, n.clone(), *i)).collect(),
        };
        for (line, name, number) in lines {
            let kind = tree.get(number).map_or(FileType::RegularFile, |inode| inode.kind);
            if reply.add(INodeNo(number), line, kind, OsStr::from_bytes(&name)) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        /// More than fit an answer.
        const LINES_MAX: usize = 256;
        let mut tree = self.tree.lock();
        let dir = match tree.get(ino.0) {
            Ok(dir) => dir,
            Err(error) => return reply.error(error),
        };
        let dots: [(u64, &str, u64); 2] = [(1, ".", ino.0), (2, "..", dir.parent)];
        let mut full = false;
        for (line, name, number) in dots {
            let attr = FileAttr { ino: INodeNo(number), ..bare(FileType::Directory) };
            full |= line > offset
                && !full
                && reply.add(INodeNo(number), line, name, &Duration::ZERO, &attr, GENERATION);
        }
        let lines = dir.lines.range(offset + 1..).take(if full { 0 } else { LINES_MAX });
        let lines: Vec<_> = lines.map(|(l, (n, i))| (*l, n.clone(), *i)).collect();
        for (line, name, number) in lines {
            let Ok(inode) = tree.get(number) else { continue };
            let (attr, name) = (attr(number, inode), OsStr::from_bytes(&name));
            if reply.add(INodeNo(number), line, name, &TTL, &attr, GENERATION) {
                break;
            }
            tree.refer(number);
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        const BLOCKS: u64 = 1 << 28;
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, 4096, 255, 4096);
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let mut tree = self.tree.lock();
        let set = tree.get(ino.0).and_then(|inode| {
            let there = inode.xattrs.contains_key(name.as_bytes());
            match flags {
                libc::XATTR_CREATE if there => return Err(Errno::EEXIST),
                libc::XATTR_REPLACE if !there => return Err(Errno::ENODATA),
                _ => {}
            }
            inode.xattrs.insert(name.as_bytes().to_vec(), value.to_vec());
            Ok(())
        });
        empty(set, reply);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.tree.lock().get(ino.0).map(|inode| inode.xattrs.get(name.as_bytes())) {
            Ok(Some(found)) => value(found, size, reply),
            Ok(None) => reply.error(Errno::ENODATA),
            Err(error) => reply.error(error),
        }
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.tree.lock().get(ino.0) {
            Ok(inode) => {
                let names = inode.xattrs.keys().flat_map(|name| name.iter().copied().chain([0]));
                value(&names.collect::<Vec<u8>>(), size, reply);
            }
            Err(error) => reply.error(error),
        }
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut tree = self.tree.lock();
        let gone = tree
            .get(ino.0)
            .and_then(|inode| inode.xattrs.remove(name.as_bytes()).map(drop).ok_or(Errno::ENODATA));
        empty(gone, reply);
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let mut tree = self.tree.lock();
        let done = tree.get(ino.0).map(|inode| {
            let size = inode.contents.size.max(offset + length);
            inode.contents.set_size(size);
        });
        empty(done, reply);
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: ReplyLseek,
    ) {
        // The kernel then answers for itself.
        reply.error(Errno::ENOSYS);
    }

    /// The kernel keeps the locks of a local mount; here every lock is granted, since nothing in
    /// the workloads competes for one.
    fn setlk(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _owner: LockOwner,
        _start: u64,
        _end: u64,
        _typ: i32,
        _pid: u32,
        _sleep: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn getlk(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _owner: LockOwner,
        start: u64,
        end: u64,
        _typ: i32,
        _pid: u32,
        reply: ReplyLock,
    ) {
        reply.locked(start, end, libc::F_UNLCK, 0);
    }

    fn copy_file_range(
        &self,
        _req: &Request,
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
        /// The caller comes again for the rest.
        const BYTES_MAX: u64 = 1 << 30;
        let mut tree = self.tree.lock();
        let bytes = tree.get(ino_in.0).map(|inode| {
            let len = len.min(BYTES_MAX) as u32;
            inode.contents.read(offset_in, len, <[u8]>::to_vec)
        });
        let copied = bytes.and_then(|bytes| {
            let inode = tree.get(ino_out.0)?;
            inode.contents.write(offset_out, &bytes);
            inode.mtime = now();
            inode.ctime = inode.mtime;
            Ok(bytes.len() as u32)
        });
        match copied {
            Ok(copied) => reply.written(copied),
            Err(error) => reply.error(error),
        }
    }

    fn ioctl(
        &self,
        _req: &Request,
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
}
