//! The index: which objects there are, sorted by name, in omap shards of the meta pool.
//!
//! RADOS lists a pool in the order of hashes and knows no prefixes, so names are kept again here.
//! Object and entry are two writes that no transaction covers. These rules keep the promise that
//! a listing never misses an object whose put was acknowledged, whatever crash falls between:
//!
//! 1. A put writes its own *pending* entry and its object in parallel, and is acknowledged when
//!    both are there. Afterwards, in the background, it turns its own entry into a *confirmed*
//!    one, by compare-and-swap.
//! 2. A delete first replaces the entry by its own *deleting* one, by compare-and-swap and only
//!    if the entry belongs to the object it has read; then it removes the object, by version;
//!    then it removes its own entry, by compare-and-swap, in the background. If it cannot find
//!    the object's own entry it leaves a pending one.
//! 3. A listing believes confirmed entries. For all others it asks the object.
//! 4. Nobody else touches an entry before [`GRACE`] is over; then whoever sees it puts it right.
//!
//! So an entry disappears only by 2, for an object that is gone, or by 4, when every put that
//! wrote it has long failed: puts end before [`PUT_TIME_MAX`]. Every value is written by one
//! writer only (it holds a nonce), so a compare-and-swap never hits somebody else's.

use super::cluster::Pool;
use super::format::{self, Entry, Nonce, State};
use super::op::{Errno, Full, Omap, Read, ReadOp, WriteOp};
use object_store::path::Path;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// After this time nobody is expected to come back to an entry of his. Clocks of the nodes may
/// differ by the half of it.
pub(super) const GRACE: Duration = Duration::from_secs(3600);
/// A put that took longer writes its entry again before it is acknowledged.
pub(super) const PUT_TIME_MAX: Duration = Duration::from_secs(900);
/// Entries per request; an OSD gives about a thousand at once by default.
pub(super) const PAGE: u64 = 1000;

#[derive(Debug)]
pub(super) struct Index {
    meta: Arc<Pool>,
    /// The pool whose objects it names.
    space: i64,
}

/// An entry as it was read, with its exact value for a compare.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) path: Path,
    /// None when the value is not of our form, or of a later version.
    pub(super) entry: Option<Entry>,
    pub(super) value: Vec<u8>,
}

/// What happens to an entry that still has a value.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) path: Path,
    pub(super) old: Vec<u8>,
    /// None: it is removed.
    pub(super) new: Option<Entry>,
}

impl Found {
    /// True when its writer is not expected to come back.
    pub(super) fn is_old(&self, now: SystemTime) -> bool {
        let written = self.entry.map(|entry| entry.written);
        written.is_none_or(|at| now.duration_since(at).is_ok_and(|age| age > GRACE))
    }
}

impl Index {
    pub(super) fn new(meta: Arc<Pool>, space: i64) -> Index {
        Index { meta, space }
    }

    fn shard(&self, path: &Path) -> CString {
        format::shard_name(self.space, format::shard_of(path))
    }

    /// Writes a fresh entry over whatever is there.
    pub(super) async fn write(
        &self,
        path: &Path,
        state: State,
        nonce: Nonce,
        full: Full,
    ) -> Result<Vec<u8>, Errno> {
        let value = Entry { state, nonce, written: SystemTime::now() }.encode();
        let op = WriteOp::new().omap_set(path.as_ref(), &value);
        self.meta.write(&self.shard(path), op, full, 0).await?;
        Ok(value)
    }

    pub(super) async fn get(&self, path: &Path) -> Result<Option<Found>, Errno> {
        let omap = Some(Omap::Key(path.to_string()));
        let ask = ReadOp { omap, ..ReadOp::default() };
        let read = match self.meta.read(&self.shard(path), ask).await {
            Err(Errno(libc::ENOENT)) => return Ok(None),
            read => read?,
        };
        Ok(found(read).into_iter().next())
    }

    /// Replaces an entry that still has this value; false when it has not.
    pub(super) async fn swap(&self, path: &Path, old: &[u8], new: &[u8]) -> Result<bool, Errno> {
        let op = WriteOp::new().omap_is(path.as_ref(), old).omap_set(path.as_ref(), new);
        self.conditional(&self.shard(path), op).await
    }

    /// Removes an entry that still has this value; false when it has not.
    pub(super) async fn remove(&self, path: &Path, old: &[u8]) -> Result<bool, Errno> {
        let op = WriteOp::new().omap_is(path.as_ref(), old).omap_remove(path.as_ref());
        self.conditional(&self.shard(path), op).await
    }

    /// Replaces or removes several entries of one shard that all still have their values; changes
    /// none of them and gives false when one has not.
    pub(super) async fn change_all(&self, shard: u8, changes: &[Change]) -> Result<bool, Errno> {
        let mut op = WriteOp::new();
        for Change { path, old, .. } in changes {
            op = op.omap_is(path.as_ref(), old);
        }
        for Change { path, new, .. } in changes {
            op = match new {
                Some(entry) => op.omap_set(path.as_ref(), &entry.encode()),
                None => op.omap_remove(path.as_ref()),
            };
        }
        self.conditional(&format::shard_name(self.space, shard), op).await
    }

    async fn conditional(&self, shard: &CStr, op: WriteOp) -> Result<bool, Errno> {
        // What an entry's owner does to it comes after its put, and frees space after deletes.
        match self.meta.write(shard, op, Full::Force, 0).await {
            Ok(_) => Ok(true),
            Err(Errno(libc::ECANCELED | libc::ENOENT)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One page of a shard: entries with a prefix, behind a name, and whether there are more.
    pub(super) async fn page(
        &self,
        shard: u8,
        prefix: &str,
        after: &str,
    ) -> Result<(Vec<Found>, bool), Errno> {
        let text = |text: &str| CString::new(text).map_err(|_nul| Errno(libc::EINVAL));
        let omap = Omap::Range { after: text(after)?, prefix: text(prefix)?, max: PAGE };
        let ask = ReadOp { omap: Some(omap), ..ReadOp::default() };
        match self.meta.read(&format::shard_name(self.space, shard), ask).await {
            Err(Errno(libc::ENOENT)) => Ok((Vec::new(), false)),
            read => {
                let read = read?;
                let more = read.omap_more;
                Ok((found(read), more))
            }
        }
    }
}

fn found(read: Read) -> Vec<Found> {
    let one = |(key, value): (String, Vec<u8>)| {
        let path = Path::parse(&key).ok()?;
        Some(Found { path, entry: Entry::decode(&value), value })
    };
    read.omap.into_iter().filter_map(one).collect()
}
