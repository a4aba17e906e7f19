//! The plain values that operations of a home take and give: no behaviour, no I/O.
//!
//! They are what a remote node will send to the owner of a home one day, so they name no file
//! descriptor, no kernel structure and nothing of this node.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::error::{Error, ErrorKind};

/// Longest name of a directory entry in bytes, as POSIX `NAME_MAX` on Linux.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest target of a symbolic link in bytes (`PATH_MAX` less the terminating NUL).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Longest value of an extended attribute in bytes, the limit of the Linux VFS.
pub const XATTR_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Longest name of an extended attribute in bytes, the limit of the Linux VFS.
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Longest list of names that the VFS hands to `listxattr`.
pub const XATTR_LIST_BYTES_MAX: usize = 64 * 1024;
/// Hard links that one inode may have; ext4 allows 65,000.
pub const LINKS_MAX: u32 = 65_000;
/// Largest size of a file: what `off_t` can say.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// A home-local inode number of 40 bits. Numbers are never used again within a home.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory of every home.
    pub const ROOT: Ino = Ino(1);
    /// Numbers are below this: a mount puts a volume number of 24 bits in front.
    pub const BITS: u32 = 40;
    /// The largest number that fits.
    pub const MAX: Ino = Ino((1 << Self::BITS) - 1);
}

impl fmt::Debug for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The name of a directory entry: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// Checks `bytes` and keeps a copy.
    ///
    /// # Errors
    /// `NameTooLong` over 255 bytes, `Invalid` for a name that no directory can hold.
    pub fn new(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > NAME_BYTES_MAX {
            return Err(ErrorKind::NameTooLong.into());
        }
        let reserved = matches!(bytes, b"" | b"." | b"..");
        if reserved || bytes.iter().any(|b| matches!(b, b'/' | 0)) {
            return Err(ErrorKind::Invalid.into());
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Regular file.
    File = 1,
    /// Directory.
    Dir = 2,
    /// Symbolic link.
    Symlink = 3,
    /// Named pipe.
    Fifo = 4,
    /// Unix domain socket.
    Socket = 5,
    /// Character device; 0/0 is the whiteout of overlayfs.
    CharDevice = 6,
    /// Block device.
    BlockDevice = 7,
}

impl Kind {
    /// Reads the value of a record.
    #[must_use]
    pub fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::File,
            2 => Self::Dir,
            3 => Self::Symlink,
            4 => Self::Fifo,
            5 => Self::Socket,
            6 => Self::CharDevice,
            7 => Self::BlockDevice,
            _ => return None,
        })
    }
}

/// A point in time: seconds since 1970 (negative before) and nanoseconds 0 to 999,999,999.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Whole seconds, rounded towards the past.
    pub sec: i64,
    /// Nanoseconds after `sec`.
    pub nsec: u32,
}

/// The attributes of an inode as `stat` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Home-local number.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-uid, set-gid and sticky: `0o7777`.
    pub perm: u16,
    /// Links; a directory has 2 and one per subdirectory.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, as the kernel encodes it.
    pub rdev: u32,
    /// Bytes of a file, of a link's target; 4096 for a directory.
    pub size: u64,
    /// Bytes that the quota charges for its data: extents, not holes.
    pub charged: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the contents.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Birth.
    pub btime: Time,
}

/// One attached user of a home (a mount, a command): references and changes are told apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u32);

/// On whose behalf an operation runs. Permission was checked before, by the kernel
/// (`default_permissions`); what is left is whom a new inode belongs to and which bits fall.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Effective (file system) user id.
    pub uid: u32,
    /// Effective (file system) group id.
    pub gid: u32,
    /// Through whom the operation came.
    pub client: ClientId,
}

/// A new inode for [`super::Home::make`].
#[derive(Clone, Debug)]
pub struct NewNode {
    /// What it is.
    pub kind: Kind,
    /// Permission bits that were asked for, before umask and default ACL.
    pub perm: u16,
    /// The caller's umask, applied unless the directory has a default ACL.
    pub umask: u16,
    /// Device number for device nodes.
    pub rdev: u32,
    /// Target of a symbolic link.
    pub target: Bytes,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The home's own clock.
    Now,
    /// This time.
    At(Time),
}

/// What [`super::Home::setattr`] changes; `None` leaves as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// New permission bits (`0o7777`).
    pub perm: Option<u16>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size: a truncation or a hole up to there.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last modification.
    pub mtime: Option<SetTime>,
    /// Which privileges of a file fall.
    pub kill: Kill,
}

/// Which privileges of a file fall with a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kill {
    /// None.
    #[default]
    Nothing,
    /// Set-uid, set-gid if group-executable, and `security.capability`.
    ByMember,
    /// The same and set-gid in any case: the caller is not in the file's group.
    ByOutsider,
}

/// How [`super::Home::write`] writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteMode {
    /// Ignore the offset and write at the end of the file.
    pub append: bool,
    /// A part is an error, though it is written: for write-back of the kernel's cache, which
    /// takes a short write for a whole one, so that nobody would hear of the rest.
    pub whole: bool,
    /// Which privileges of the file fall.
    pub kill: Kill,
}

/// What `fallocate` does with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Falloc {
    /// Reserve the holes in the range.
    Allocate {
        /// Leave the size of the file even if the range goes beyond it.
        keep_size: bool,
    },
    /// Make the range a hole; the size stays.
    PunchHole,
    /// Make the range zeros that stay reserved.
    ZeroRange {
        /// Leave the size of the file even if the range goes beyond it.
        keep_size: bool,
    },
}

/// What `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that is not in a hole.
    Data,
    /// The next hole; the end of the file counts as one.
    Hole,
}

/// What `rename` does about its destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameMode {
    /// Fail with `Exists` where the destination exists.
    pub no_replace: bool,
    /// Swap both names; both must exist.
    pub exchange: bool,
    /// Leave a character device 0/0 in the place of the source.
    pub whiteout: bool,
}

/// What `setxattr` does about a value that is (not) there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XattrMode {
    /// Fail with `Exists` where the attribute is there.
    pub create: bool,
    /// Fail with `NoAttribute` where it is not there.
    pub replace: bool,
    /// The caller may not keep set-gid when setting an access ACL.
    pub kill_sgid: bool,
}

/// One line of a directory listing.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Inode of the entry.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// `.` and `..` come first, then the names in the order of their hashes.
    pub name: Arc<[u8]>,
    /// Cookie that continues the listing behind this entry: positive, stable while the entry
    /// lives, whatever else changes in the directory.
    pub next: u64,
    /// The attributes, when they were asked for (never for `.` and `..`).
    pub attr: Option<Attr>,
}

/// A part of a directory listing; empty at the end.
pub type DirPage = Vec<DirEntry>;

/// What `statfs` shows of a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Charged bytes: extents before dedup and compression, and xattr values.
    pub bytes: u64,
    /// Limit of bytes, `u64::MAX` for none.
    pub bytes_limit: u64,
    /// Inodes.
    pub inodes: u64,
    /// Limit of inodes, `u64::MAX` for none.
    pub inodes_limit: u64,
}

/// Limits of a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes, `u64::MAX` for none.
    pub bytes: u64,
    /// Inodes, `u64::MAX` for none.
    pub inodes: u64,
}

impl Quota {
    /// No limit at all.
    pub const NONE: Quota = Quota { bytes: u64::MAX, inodes: u64::MAX };
}

/// A change that one client made and that the caches of the others must learn of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Attributes (and, with `data`, the contents) of an inode.
    Inode {
        /// Which one.
        ino: Ino,
        /// Contents too.
        data: bool,
    },
    /// A name in a directory points elsewhere now, or nowhere.
    Entry {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Name,
    },
}
