//! One of the two directories: executes operations and says what came of them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{
    self as rfs, AtFlags, Dev, FileType, Gid, Mode, OFlags, RenameFlags, SeekFrom, Timespec,
    Timestamps, Uid, XattrFlags,
};
use rustix::io::{self as rio, Errno};

use super::op::{Op, SLOTS};
use super::sys;

/// What an operation gave: bytes, numbers, names.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing but success.
    Done,
    /// A number.
    Number(u64),
    /// Contents, a target, an attribute's value.
    Bytes(Vec<u8>),
    /// Attributes.
    Stat {
        mode: u32,
        nlink: u64,
        uid: u32,
        gid: u32,
        size: u64,
        rdev: u64,
        mtime: Option<(i64, i64)>,
    },
    /// Sorted names with types or sorted attribute names.
    Names(Vec<(Vec<u8>, u8)>),
    /// Something that no file system may do.
    Wrong(String),
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Bytes(bytes) if bytes.len() > 64 => {
                let hash = blake3::hash(bytes).to_hex();
                write!(f, "{} bytes, hash {}", bytes.len(), &hash[..16])
            }
            Self::Bytes(bytes) => write!(f, "{bytes:?}"),
            Self::Stat { mode, nlink, uid, gid, size, rdev, mtime } => {
                write!(
                    f,
                    "mode {mode:o} nlink {nlink} owner {uid}:{gid} size {size} rdev {rdev} mtime {mtime:?}"
                )
            }
            Self::Names(names) => {
                let shown = names.iter().map(|(name, kind)| (String::from_utf8_lossy(name), kind));
                f.debug_list().entries(shown).finish()
            }
            Self::Wrong(what) => write!(f, "WRONG: {what}"),
        }
    }
}

type Outcome = Result<Value, Errno>;

/// A directory with the descriptors that are open in it.
pub struct Side {
    root: OwnedFd,
    slots: Vec<Option<OwnedFd>>,
}

impl Side {
    /// On the directory `root`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(root: &std::path::Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rfs::open(root, flags, Mode::empty());
        let root = fd.with_context(|| format!("opening {}", root.display()))?;
        Ok(Self { root, slots: (0..SLOTS).map(|_| None).collect() })
    }

    /// Closes everything and removes everything below `root`, the path that it was opened by.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn empty(&mut self, root: &std::path::Path) -> Result<()> {
        self.slots.fill_with(|| None);
        for entry in std::fs::read_dir(root)? {
            let path = entry?.path();
            let removed = if path.symlink_metadata()?.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            removed.with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }

    /// Executes one operation.
    pub fn execute(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Open { who, slot, path, flags, mode, umask } => {
                let flags = OFlags::from_bits_retain(flags.cast_unsigned())
                    | OFlags::CLOEXEC
                    | OFlags::NONBLOCK;
                let mode = Mode::from_raw_mode(mode & 0o7777);
                // Whether devices open is a matter of the mount's options.
                if self.is_device(path) {
                    return Err(Errno::ACCESS);
                }
                let opened = sys::as_user(*who, *umask, || {
                    rfs::openat(&self.root, path.as_str(), flags, mode)
                });
                // The old descriptor goes only now, so that its inode lives through the open.
                self.slots[*slot] = None;
                self.slots[*slot] = Some(opened?);
                Ok(Value::Done)
            }
            Op::Close { slot } => {
                self.slots[*slot] = None;
                Ok(Value::Done)
            }
            Op::Lock { slot, kind, offset, length } => {
                done(sys::lock(self.slot(*slot)?, *kind, *offset, *length))
            }
            Op::Flock { slot, kind } => done(sys::flock(self.slot(*slot)?, *kind)),
            Op::Read { .. }
            | Op::Write { .. }
            | Op::MapWrite { .. }
            | Op::Ftruncate { .. }
            | Op::Truncate { .. }
            | Op::Fallocate { .. }
            | Op::Seek { .. }
            | Op::Copy { .. }
            | Op::Fstat { .. }
            | Op::Fsync { .. } => self.data(op),
            _ => self.names(op),
        }
    }

    /// Operations on contents.
    fn data(&self, op: &Op) -> Outcome {
        match op {
            Op::Read { slot, offset, length } => {
                read_full(self.file(*slot)?, *offset, *length).map(Value::Bytes)
            }
            Op::Write { who, slot, offset, length, seed } => {
                let fd = self.file(*slot)?;
                let bytes = bytes(*seed, *length);
                // Whose write it is decides whether set-uid falls.
                let written = sys::as_user(*who, 0o022, || rio::pwrite(fd, &bytes, *offset));
                Ok(Value::Number(written? as u64))
            }
            Op::MapWrite { slot, offset, length, seed } => {
                let fd = self.file(*slot)?;
                let size = size_of(fd)?;
                let end = offset.saturating_add(*length).min(size);
                if end <= *offset {
                    return Ok(Value::Done);
                }
                done(sys::map_write(fd, *offset, &bytes(*seed, end - offset)))
            }
            Op::Ftruncate { slot, length } => done(rfs::ftruncate(self.file(*slot)?, *length)),
            Op::Truncate { who, path, length } => {
                if self.is_device(path) {
                    return Err(Errno::ACCESS);
                }
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                sys::as_user(*who, 0o022, || {
                    let fd = rfs::openat(&self.root, path.as_str(), flags, Mode::empty())?;
                    done(rfs::ftruncate(&fd, *length))
                })
            }
            Op::Fallocate { slot, mode, offset, length } => {
                done(sys::fallocate(self.file(*slot)?, *mode, *offset, *length))
            }
            Op::Seek { slot, hole, offset } => seek(self.file(*slot)?, *hole, *offset),
            Op::Copy { from, to, offset, target, length } => {
                copy(self.file(*from)?, self.file(*to)?, *offset, *target, *length)
            }
            Op::Fstat { slot } => Ok(stat_value(&rfs::fstat(self.slot(*slot)?)?, false)),
            Op::Fsync { slot } => done(rfs::fsync(self.file(*slot)?)),
            other => unreachable!("{other:?} is not about contents"),
        }
    }

    /// Operations on names and attributes.
    fn names(&self, op: &Op) -> Outcome {
        let root = self.root.as_fd();
        match op {
            Op::Stat { who, path, follow } => {
                let flags = if *follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
                let stat = sys::as_user(*who, 0, || rfs::statat(root, path.as_str(), flags))?;
                Ok(stat_value(&stat, false))
            }
            Op::Mkdir { who, path, mode, umask } => {
                let mode = Mode::from_raw_mode(*mode);
                done(sys::as_user(*who, *umask, || rfs::mkdirat(root, path.as_str(), mode)))
            }
            Op::Mknod { who, path, mode, device, umask } => {
                let kind = FileType::from_raw_mode(*mode);
                let device: Dev = rfs::makedev(device.0, device.1);
                let perm = Mode::from_raw_mode(mode & 0o7777);
                done(sys::as_user(*who, *umask, || {
                    rfs::mknodat(root, path.as_str(), kind, perm, device)
                }))
            }
            Op::Symlink { who, path, target } => {
                done(sys::as_user(*who, 0, || rfs::symlinkat(target.as_str(), root, path.as_str())))
            }
            Op::Readlink { path } => {
                Ok(Value::Bytes(rfs::readlinkat(root, path.as_str(), Vec::new())?.into_bytes()))
            }
            Op::Link { who, from, to } => done(sys::as_user(*who, 0, || {
                rfs::linkat(root, from.as_str(), root, to.as_str(), AtFlags::empty())
            })),
            Op::Remove { who, path, directory } => {
                let flags = if *directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                done(sys::as_user(*who, 0, || rfs::unlinkat(root, path.as_str(), flags)))
            }
            Op::Rename { who, from, to, flags } => {
                let flags = RenameFlags::from_bits_retain(*flags);
                done(sys::as_user(*who, 0, || {
                    rfs::renameat_with(root, from.as_str(), root, to.as_str(), flags)
                }))
            }
            Op::List { who, path } => sys::as_user(*who, 0, || list(root, path)),
            Op::Access { who, path, mode } => {
                let access = rfs::Access::from_bits_retain(*mode);
                // On the effective ids: the real ones are always root's here.
                let flags = AtFlags::EACCESS;
                done(sys::as_user(*who, 0, || rfs::accessat(root, path.as_str(), access, flags)))
            }
            _ => self.attributes(op),
        }
    }

    /// Operations on attributes, plain and extended.
    fn attributes(&self, op: &Op) -> Outcome {
        let root = self.root.as_fd();
        // Whether the whiteout of a rename inherits an ACL differs between local file systems.
        if let Op::Chmod { path, .. }
        | Op::SetXattr { path, .. }
        | Op::GetXattr { path, .. }
        | Op::RemoveXattr { path, .. }
        | Op::ListXattr { path, .. } = op
            && self.is_device(path)
        {
            return Err(Errno::ACCESS);
        }
        match op {
            Op::Chmod { who, path, mode } => {
                let mode = Mode::from_raw_mode(*mode);
                done(sys::as_user(*who, 0, || {
                    rfs::chmodat(root, path.as_str(), mode, AtFlags::empty())
                }))
            }
            Op::Chown { who, path, uid, gid } => {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                done(sys::as_user(*who, 0, || rfs::chownat(root, path.as_str(), uid, gid, flags)))
            }
            Op::Times { who, path, mtime } => {
                let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1 };
                let times = Timestamps { last_access: time, last_modification: time };
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                sys::as_user(*who, 0, || rfs::utimensat(root, path.as_str(), &times, flags))?;
                Ok(stat_value(&rfs::statat(root, path.as_str(), flags)?, true))
            }
            Op::SetXattr { who, path, name, value, flags } => {
                let at = self.in_proc(path)?;
                let flags = XattrFlags::from_bits_retain(*flags);
                done(sys::as_user(*who, 0, || {
                    rfs::lsetxattr(at.as_str(), name.as_str(), value, flags)
                }))
            }
            Op::GetXattr { who, path, name } => {
                let at = self.in_proc(path)?;
                let mut value = vec![0; 4096];
                let length = sys::as_user(*who, 0, || {
                    rfs::lgetxattr(at.as_str(), name.as_str(), &mut value[..])
                })?;
                value.truncate(length);
                Ok(Value::Bytes(value))
            }
            Op::RemoveXattr { who, path, name } => {
                let at = self.in_proc(path)?;
                done(sys::as_user(*who, 0, || rfs::lremovexattr(at.as_str(), name.as_str())))
            }
            Op::ListXattr { path } => {
                let at = self.in_proc(path)?;
                let mut names = vec![0_u8; 4096];
                let length = rfs::llistxattr(at.as_str(), &mut names[..])?;
                let mut names: Vec<_> =
                    names[..length].split(|b| *b == 0).map(|name| (name.to_vec(), 0)).collect();
                names.sort();
                Ok(Value::Names(names))
            }
            other => unreachable!("{other:?} is not about attributes"),
        }
    }

    fn slot(&self, slot: usize) -> Result<BorrowedFd<'_>, Errno> {
        self.slots[slot].as_ref().map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    /// A slot that holds a regular file: devices and pipes are the kernel's, not ours.
    fn file(&self, slot: usize) -> Result<BorrowedFd<'_>, Errno> {
        let fd = self.slot(slot)?;
        let kind = FileType::from_raw_mode(rfs::fstat(fd)?.st_mode);
        if kind == FileType::RegularFile { Ok(fd) } else { Err(Errno::BADF) }
    }

    fn is_device(&self, path: &str) -> bool {
        let stat = rfs::statat(&self.root, path, AtFlags::empty());
        let kind = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
        matches!(kind, Ok(FileType::CharacterDevice | FileType::BlockDevice))
    }

    /// There are no `…xattrat` calls yet, so the root is reached through /proc.
    fn in_proc(&self, path: &str) -> Result<String, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let fd = std::os::fd::AsRawFd::as_raw_fd(&self.root);
        Ok(format!("/proc/self/fd/{fd}/{path}"))
    }
}

fn done(result: Result<(), Errno>) -> Outcome {
    result.map(|()| Value::Done)
}

/// Bytes that do not compress well and differ at every offset.
fn bytes(seed: u8, length: u64) -> Vec<u8> {
    let mut state = u32::from(seed) | 0x100;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn size_of(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    Ok(rfs::fstat(fd)?.st_size.cast_unsigned())
}

fn read_full(fd: BorrowedFd<'_>, offset: u64, length: u64) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| Errno::INVAL)?];
    let mut filled = 0;
    while filled < bytes.len() {
        match rio::pread(fd, &mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Where data and holes lie is the file system's choice, but what is skipped must be zeros, and
/// behind the end there is neither.
fn seek(fd: BorrowedFd<'_>, hole: bool, offset: u64) -> Outcome {
    let size = size_of(fd)?;
    let whence = if hole { SeekFrom::Hole(offset) } else { SeekFrom::Data(offset) };
    let found = match rfs::seek(fd, whence) {
        Err(Errno::NXIO) if offset >= size => return Err(Errno::NXIO),
        // No data from here to the end.
        Err(Errno::NXIO) if !hole => size,
        Err(errno) => return Err(errno),
        Ok(found) => found,
    };
    if found < offset || found > size {
        return Ok(Value::Wrong(format!("seek from {offset} of {size} found {found}")));
    }
    if !hole {
        let skipped = match read_full(fd, offset, found - offset) {
            // Opened for writing only: nothing to look at.
            Err(Errno::BADF) => return Ok(Value::Done),
            skipped => skipped?,
        };
        if let Some(at) = skipped.iter().position(|byte| *byte != 0) {
            return Ok(Value::Wrong(format!("data at {} was skipped", offset + at as u64)));
        }
    }
    Ok(Value::Done)
}

/// All of it: a call may copy less than was asked for.
fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    offset: u64,
    target: u64,
    length: u64,
) -> Outcome {
    let (mut read, mut written) = (offset, target);
    let mut left = usize::try_from(length).map_err(|_| Errno::INVAL)?;
    loop {
        match rfs::copy_file_range(from, Some(&mut read), to, Some(&mut written), left) {
            Ok(0) => return Ok(Value::Number(written - target)),
            Ok(count) => left -= count,
            Err(errno) if written == target => return Err(errno),
            Err(_) => return Ok(Value::Number(written - target)),
        }
        if left == 0 {
            return Ok(Value::Number(written - target));
        }
    }
}

fn stat_value(stat: &rfs::Stat, times: bool) -> Value {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
    Value::Stat {
        mode: stat.st_mode,
        nlink: stat.st_nlink,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: if kind == FileType::Directory { 0 } else { stat.st_size.cast_unsigned() },
        rdev: if device { stat.st_rdev } else { 0 },
        mtime: times.then_some((stat.st_mtime, stat.st_mtime_nsec as i64)),
    }
}

fn list(root: BorrowedFd<'_>, path: &str) -> Outcome {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rfs::Dir::new(rfs::openat(root, path, flags, Mode::empty())?)?;
    let mut names = Vec::new();
    for entry in dir {
        let entry = entry?;
        names.push((entry.file_name().to_bytes().to_vec(), kind_number(entry.file_type())));
    }
    names.sort();
    Ok(Value::Names(names))
}

fn kind_number(kind: FileType) -> u8 {
    match kind {
        FileType::RegularFile => 1,
        FileType::Directory => 2,
        FileType::Symlink => 3,
        FileType::Fifo => 4,
        FileType::Socket => 5,
        FileType::CharacterDevice => 6,
        FileType::BlockDevice => 7,
        FileType::Unknown => 0,
    }
}
