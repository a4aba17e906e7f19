//! What the kernel and a FUSE daemon say to each other, byte by byte: operation codes, flags and
//! structures of protocol 7.40, in the byte order of the machine.
//!
//! Source: `include/uapi/linux/fuse.h` of Linux. Only what a mount of ours sends or is sent is
//! here. Structures are named as there, without the `fuse_`. What reads `reserved` is 0.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol that is spoken. The kernel takes the smaller minor number of its own and this.
pub const MAJOR: u32 = 7;
/// See [`MAJOR`]. The oldest that is spoken with is [`MINOR_MIN`].
pub const MINOR: u32 = 40;
/// Linux 4.20: from then on the kernel says how many pages a request may have.
pub const MINOR_MIN: u32 = 28;

/// Operation codes.
pub mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const NOTIFY_REPLY: u32 = 41;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
}

/// Notifications: what the daemon tells the kernel unasked.
pub mod notify {
    pub const INVAL_INODE: i32 = 2;
    pub const INVAL_ENTRY: i32 = 3;
    /// Linux 6.16: every name is asked for again.
    pub const INC_EPOCH: i32 = 8;
}

/// What the two sides agree on at the start.
pub mod init {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const EXPORT_SUPPORT: u64 = 1 << 4;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const NO_OPEN_SUPPORT: u64 = 1 << 17;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
}

/// Which attributes a SETATTR sets.
pub mod fattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    /// A truncation by one who may not keep set-id bits.
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// How a file is opened.
pub mod fopen {
    pub const KEEP_CACHE: u32 = 1 << 1;
    pub const CACHE_DIR: u32 = 1 << 3;
}

/// How a WRITE came about.
pub mod write {
    /// By the kernel's own page cache, on behalf of nobody in particular.
    pub const CACHE: u32 = 1 << 0;
    pub const KILL_SUIDGID: u32 = 1 << 2;
}

/// A lock is one of `flock(2)`.
pub const LK_FLOCK: u32 = 1 << 0;
/// The RELEASE of a file ends the `flock`s of its owner.
pub const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;

/// Before every request.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InHeader {
    /// Of the whole request.
    pub len: u32,
    pub opcode: u32,
    /// By which the answer names the request.
    pub unique: u64,
    pub nodeid: u64,
    pub uid: u32,
    pub gid: u32,
    /// Thread that asks.
    pub pid: u32,
    pub reserved: u32,
}

/// Before every answer and notification.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct OutHeader {
    /// Of the whole answer.
    pub len: u32,
    /// A negative `errno`, or 0; of a notification its code.
    pub error: i32,
    /// Of the request; 0 of a notification.
    pub unique: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InitIn {
    pub major: u32,
    pub minor: u32,
    pub max_readahead: u32,
    pub flags: u32,
}

#[derive(Clone, Copy, Debug, Default, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct InitOut {
    pub major: u32,
    pub minor: u32,
    pub max_readahead: u32,
    pub flags: u32,
    pub max_background: u16,
    pub congestion_threshold: u16,
    pub max_write: u32,
    /// Nanoseconds.
    pub time_gran: u32,
    pub max_pages: u16,
    pub map_alignment: u16,
    pub flags2: u32,
    pub max_stack_depth: u32,
    pub request_timeout: u16,
    pub reserved: [u16; 11],
}

#[derive(Clone, Copy, Debug, Default, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Attr {
    pub ino: u64,
    pub size: u64,
    /// Of 512 bytes.
    pub blocks: u64,
    /// Seconds since 1970, with a sign.
    pub atime: i64,
    pub mtime: i64,
    pub ctime: i64,
    pub atimensec: u32,
    pub mtimensec: u32,
    pub ctimensec: u32,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub blksize: u32,
    pub flags: u32,
}

#[derive(Clone, Copy, Debug, Default, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct EntryOut {
    pub nodeid: u64,
    pub generation: u64,
    pub entry_valid: u64,
    pub attr_valid: u64,
    pub entry_valid_nsec: u32,
    pub attr_valid_nsec: u32,
    pub attr: Attr,
}

#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct AttrOut {
    pub attr_valid: u64,
    pub attr_valid_nsec: u32,
    pub reserved: u32,
    pub attr: Attr,
}

#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct OpenOut {
    pub fh: u64,
    pub open_flags: u32,
    pub backing_id: u32,
}

#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct CreateOut {
    pub entry: EntryOut,
    pub open: OpenOut,
}

/// Before the name of a line of a listing, which is filled up to 8 bytes.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Dirent {
    pub ino: u64,
    /// Where the listing goes on after this line.
    pub off: u64,
    pub namelen: u32,
    /// The upper bits of `st_mode`, by 12 to the right.
    pub kind: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ForgetIn {
    pub nlookup: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ForgetOne {
    pub nodeid: u64,
    pub nlookup: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BatchForgetIn {
    pub count: u32,
    pub reserved: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetattrIn {
    pub valid: u32,
    pub reserved: u32,
    pub fh: u64,
    pub size: u64,
    pub lock_owner: u64,
    pub atime: i64,
    pub mtime: i64,
    pub ctime: i64,
    pub atimensec: u32,
    pub mtimensec: u32,
    pub ctimensec: u32,
    pub mode: u32,
    pub reserved4: u32,
    pub uid: u32,
    pub gid: u32,
    pub reserved5: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MknodIn {
    pub mode: u32,
    pub rdev: u32,
    pub umask: u32,
    pub reserved: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MkdirIn {
    pub mode: u32,
    pub umask: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RenameIn {
    pub newdir: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rename2In {
    pub newdir: u64,
    pub flags: u32,
    pub reserved: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LinkIn {
    pub oldnodeid: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OpenIn {
    pub flags: i32,
    pub open_flags: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CreateIn {
    pub flags: i32,
    pub mode: u32,
    pub umask: u32,
    pub open_flags: u32,
}

/// Of READ, READDIR and READDIRPLUS.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReadIn {
    pub fh: u64,
    pub offset: u64,
    pub size: u32,
    pub read_flags: u32,
    pub lock_owner: u64,
    pub flags: i32,
    pub reserved: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WriteIn {
    pub fh: u64,
    pub offset: u64,
    pub size: u32,
    pub write_flags: u32,
    pub lock_owner: u64,
    pub flags: i32,
    pub reserved: u32,
}

/// Of WRITE and COPY_FILE_RANGE.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct WriteOut {
    pub size: u32,
    pub reserved: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReleaseIn {
    pub fh: u64,
    pub flags: i32,
    pub release_flags: u32,
    pub lock_owner: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlushIn {
    pub fh: u64,
    pub reserved: u32,
    pub reserved2: u32,
    pub lock_owner: u64,
}

#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct StatfsOut {
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub bsize: u32,
    pub namelen: u32,
    pub frsize: u32,
    pub reserved: [u32; 7],
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetxattrIn {
    pub size: u32,
    pub flags: i32,
}

/// Of GETXATTR and LISTXATTR.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetxattrIn {
    /// The most that is taken; 0 asks how long it is.
    pub size: u32,
    pub reserved: u32,
}

#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct GetxattrOut {
    pub size: u32,
    pub reserved: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct FileLock {
    pub start: u64,
    /// Last byte.
    pub end: u64,
    pub kind: i32,
    pub pid: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LkIn {
    pub fh: u64,
    pub owner: u64,
    pub lk: FileLock,
    pub lk_flags: u32,
    pub reserved: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FallocateIn {
    pub fh: u64,
    pub offset: u64,
    pub length: u64,
    pub mode: i32,
    pub reserved: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LseekIn {
    pub fh: u64,
    pub offset: i64,
    pub whence: i32,
    pub reserved: u32,
}

#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct LseekOut {
    pub offset: i64,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CopyFileRangeIn {
    pub fh_in: u64,
    pub off_in: u64,
    pub nodeid_out: u64,
    pub fh_out: u64,
    pub off_out: u64,
    pub len: u64,
    pub flags: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InterruptIn {
    /// The request that is interrupted.
    pub unique: u64,
}

/// Of a notification that attributes of an inode changed and, from `off`, its data. A negative
/// `off` leaves the data alone; a `len` of 0 reaches to the end.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct InvalInodeOut {
    pub ino: u64,
    pub off: i64,
    pub len: i64,
}

/// Of a notification that a name changed; the name and a NUL follow.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct InvalEntryOut {
    pub parent: u64,
    pub namelen: u32,
    pub flags: u32,
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernels_header() {
        assert_eq!((size_of::<InHeader>(), size_of::<OutHeader>()), (40, 16));
        assert_eq!((size_of::<InitOut>(), size_of::<Attr>()), (64, 88));
        assert_eq!((size_of::<EntryOut>(), size_of::<AttrOut>()), (128, 104));
        assert_eq!((size_of::<OpenOut>(), size_of::<CreateOut>()), (16, 144));
        assert_eq!((size_of::<Dirent>(), size_of::<SetattrIn>()), (24, 88));
        assert_eq!((size_of::<ReadIn>(), size_of::<WriteIn>()), (40, 40));
        assert_eq!((size_of::<StatfsOut>(), size_of::<LkIn>()), (80, 48));
        assert_eq!((size_of::<ReleaseIn>(), size_of::<FlushIn>()), (24, 24));
        assert_eq!((size_of::<FallocateIn>(), size_of::<LseekIn>()), (32, 24));
        assert_eq!((size_of::<CopyFileRangeIn>(), size_of::<InvalInodeOut>()), (56, 24));
    }
}
