//! A home: one user's directory tree, kept in an object store.
//!
//! What always holds: every operation is atomic and sees every acknowledged one before it; no
//! operation waits for the store unless what it reads is not in memory; nothing here knows of
//! FUSE, sockets or this node. A first poll of an operation's future either finishes it from
//! memory or leaves no trace, so that a caller may poll once where it stands and hand the
//! future to a runtime only when it would wait.

mod acl;
mod clock;
mod error;
mod segment;
mod types;

use std::sync::Arc;

use bytes::Bytes;

pub use clock::{Clock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use types::*;

/// Settings of all homes of a process. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Decoded and raw data that is kept for reading.
    pub data_cache_bytes: u64,
    /// Blocks and indexes of the tables.
    pub table_cache_bytes: u64,
    /// Acknowledged data that is not in the store yet, over all homes; writers wait beyond it.
    pub dirty_bytes_max: u64,
    /// Inodes and names that are kept decoded, over all homes.
    pub cached_inodes_max: usize,
    /// Namespace changes are committed at the latest after this.
    pub commit_interval: std::time::Duration,
    /// Data is written to the store at the latest after this.
    pub flush_interval: std::time::Duration,
    /// An operation that waits for the store fails after this.
    pub store_timeout: std::time::Duration,
}

/// What all homes of a process share: caches, budgets, the clock.
#[derive(Debug)]
pub struct Shared {
    _private: (),
}

impl Shared {
    /// With the system's clock.
    #[must_use]
    pub fn new(_config: Config) -> Arc<Self> {
        todo!()
    }
}

/// An open home. Cheap to clone; the home closes by [`Home::close`].
#[derive(Clone)]
pub struct Home {
    _inner: Arc<()>,
}

/// A part of a file's contents, in order; together they are what a read gives.
pub type ReadPieces = smallvec::SmallVec<[Bytes; 2]>;

// Every operation is an `async fn(&self, …owned arguments…)`; clone the home into an
// `async move` block to get a `'static` future. Operations that give the attributes of a name
// (lookup, make, link) count one reference of `client` on the inode, given back by `forget`.
#[allow(clippy::unused_async)]
impl Home {
    /// A number for a new user of this home (a mount, a command).
    #[must_use]
    pub fn attach(&self) -> ClientId {
        todo!()
    }
    /// Gives all references and locks of `client` back.
    pub fn detach(&self, _client: ClientId) {
        todo!()
    }
    /// Changes that other clients make, for the caches of this one. A slow receiver that
    /// misses some sees the channel's `Lagged` and must drop everything it caches.
    #[must_use]
    pub fn changes(&self, _client: ClientId) -> tokio::sync::broadcast::Receiver<(ClientId, Change)> {
        todo!()
    }
    /// Name to inode.
    pub async fn lookup(&self, _client: ClientId, _parent: Ino, _name: Name) -> Result<Attr> {
        todo!()
    }
    /// Counts one more reference on each inode (entries of `readdir` with attributes that the kernel took).
    pub fn remember(&self, _client: ClientId, _inos: &[Ino]) {
        todo!()
    }
    /// Gives references back. Never waits.
    pub fn forget(&self, _client: ClientId, _ino: Ino, _count: u64) {
        todo!()
    }
    /// Attributes.
    pub async fn getattr(&self, _ino: Ino) -> Result<Attr> {
        todo!()
    }
    /// Changes attributes, the size included.
    pub async fn setattr(&self, _caller: Caller, _ino: Ino, _set: SetAttr) -> Result<Attr> {
        todo!()
    }
    /// Target of a symbolic link.
    pub async fn readlink(&self, _ino: Ino) -> Result<Bytes> {
        todo!()
    }
    /// Makes a file, directory, link or special node; applies umask or default ACL, set-gid directories.
    pub async fn make(&self, _caller: Caller, _parent: Ino, _name: Name, _node: NewNode) -> Result<Attr> {
        todo!()
    }
    /// One more name for an inode.
    pub async fn link(&self, _caller: Caller, _ino: Ino, _parent: Ino, _name: Name) -> Result<Attr> {
        todo!()
    }
    /// Removes a name of anything but a directory.
    pub async fn unlink(&self, _caller: Caller, _parent: Ino, _name: Name) -> Result<()> {
        todo!()
    }
    /// Removes an empty directory.
    pub async fn rmdir(&self, _caller: Caller, _parent: Ino, _name: Name) -> Result<()> {
        todo!()
    }
    /// Renames, swaps, or renames leaving a whiteout.
    pub async fn rename(
        &self,
        _caller: Caller,
        _from: (Ino, Name),
        _to: (Ino, Name),
        _mode: RenameMode,
    ) -> Result<()> {
        todo!()
    }
    /// A part of a listing from `cookie` (0 = start), at most `entries_max`; empty at the end.
    pub async fn readdir(&self, _ino: Ino, _cookie: u64, _attrs: bool, _entries_max: usize) -> Result<DirPage> {
        todo!()
    }
    /// Contents; shorter than `len` only at the end of the file.
    pub async fn read(&self, _ino: Ino, _offset: u64, _len: u32) -> Result<ReadPieces> {
        todo!()
    }
    /// Writes; gives the bytes taken, fewer than given only where the quota ends.
    pub async fn write(&self, _caller: Caller, _ino: Ino, _offset: u64, _data: Bytes, _mode: WriteMode) -> Result<u32> {
        todo!()
    }
    /// Reserves, punches, zeroes.
    pub async fn fallocate(&self, _caller: Caller, _ino: Ino, _what: Falloc, _offset: u64, _len: u64) -> Result<()> {
        todo!()
    }
    /// The next data or hole from `offset`.
    pub async fn seek(&self, _ino: Ino, _offset: u64, _whence: Seek) -> Result<u64> {
        todo!()
    }
    /// Clones a range without copying data; gives the bytes cloned.
    pub async fn copy_range(&self, _caller: Caller, _from: (Ino, u64), _to: (Ino, u64), _len: u64) -> Result<u64> {
        todo!()
    }
    /// Makes a file's data and names durable (a directory's names likewise).
    pub async fn fsync(&self, _ino: Ino) -> Result<()> {
        todo!()
    }
    /// Makes everything durable.
    pub async fn sync(&self) -> Result<()> {
        todo!()
    }
    /// Sets an extended attribute; ACLs change the mode as POSIX.1e has it.
    pub async fn setxattr(&self, _caller: Caller, _ino: Ino, _name: Bytes, _value: Bytes, _mode: XattrMode) -> Result<()> {
        todo!()
    }
    /// Value of an extended attribute.
    pub async fn getxattr(&self, _ino: Ino, _name: Bytes) -> Result<Bytes> {
        todo!()
    }
    /// Names, each with a terminating NUL, as `listxattr` gives them.
    pub async fn listxattr(&self, _ino: Ino) -> Result<Bytes> {
        todo!()
    }
    /// Removes an extended attribute.
    pub async fn removexattr(&self, _caller: Caller, _ino: Ino, _name: Bytes) -> Result<()> {
        todo!()
    }
    /// Use and limits. Never waits.
    #[must_use]
    pub fn usage(&self) -> Usage {
        todo!()
    }
    /// New limits, at once. Never waits.
    pub fn set_quota(&self, _quota: Quota) {
        todo!()
    }
    /// Commits everything and gives the home up. Idempotent.
    pub async fn close(&self) -> Result<()> {
        todo!()
    }
}
