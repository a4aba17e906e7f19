//! Reading a snapshot: the operations of a home that change nothing.
//!
//! Nothing is kept decoded here: records come from the kept tables through the caches that all
//! tables share, contents through those of the home. So a snapshot that is open for reading
//! costs no memory of its own, and a thousand that nobody reads cost nothing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::SnapshotInfo;
use crate::home::ReadPieces;
use crate::home::core::Core;
use crate::home::data::{Part, Parts};
use crate::home::error::{Error, ErrorKind, Result};
use crate::home::extent::WINDOW_BYTES;
use crate::home::key;
use crate::home::record::{ExtentRecord, InodeRecord, Place, decode_bucket, decode_small};
use crate::home::table::TableReader;
use crate::home::types::{Attr, DirEntry, DirPage, Ino, Kind, Name, Seek};

/// Rows of extents per scan.
const ROWS: usize = 1024;
/// Numbers of siblings with at most this gap are read in one scan.
const INO_GAP_MAX: u64 = 16;

/// A snapshot of an open home. Cheap to clone; it is opened when it is read.
#[derive(Clone)]
pub struct Snapshot {
    core: Arc<Core>,
    info: SnapshotInfo,
}

impl Snapshot {
    pub(super) fn new(core: Arc<Core>, info: SnapshotInfo) -> Self {
        Self { core, info }
    }

    /// What is known of it.
    #[must_use]
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    async fn open(&self) -> Result<Arc<TableReader>> {
        if !self.core.tenure.is_valid() {
            self.core.patient(self.core.tenure.admit()).await?;
        }
        self.core.patient(self.core.open_snapshot(self.info.txn)).await
    }

    /// What an error means where the snapshot may have been removed meanwhile.
    fn gone_or(&self, error: Error) -> Error {
        let there =
            self.core.snapshots.find(self.info.txn).is_some_and(|r| r.name == self.info.name);
        if there { error } else { ErrorKind::Stale.into() }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let reader = self.open().await?;
        self.core.patient(reader.get(key)).await.map_err(|error| self.gone_or(error))
    }

    async fn scan(&self, range: Range<Vec<u8>>, rows: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let reader = self.open().await?;
        self.core.patient(reader.scan(range, rows)).await.map_err(|error| self.gone_or(error))
    }

    async fn inode(&self, ino: Ino) -> Result<InodeRecord> {
        let value = self.get(&key::inode(ino)).await?.ok_or(ErrorKind::Stale)?;
        InodeRecord::decode(ino, &value)
    }

    async fn file(&self, ino: Ino) -> Result<InodeRecord> {
        let record = self.inode(ino).await?;
        match record.attr.kind {
            Kind::File => Ok(record),
            Kind::Dir => Err(ErrorKind::IsDir.into()),
            _ => Err(ErrorKind::Invalid.into()),
        }
    }

    /// Attributes.
    ///
    /// # Errors
    /// `Stale` where there is no such inode, or the snapshot is gone; `Unavailable`, `Corrupt`.
    pub async fn getattr(&self, ino: Ino) -> Result<Attr> {
        if ino == Ino::ROOT {
            return Ok(self.info.root);
        }
        Ok(self.inode(ino).await?.attr)
    }

    /// Name to inode.
    ///
    /// # Errors
    /// `NotFound`, `NotDir`, and as for [`Snapshot::getattr`].
    pub async fn lookup(&self, parent: Ino, name: &Name) -> Result<Attr> {
        let hash = key::name_hash(name.as_bytes());
        let Some(value) = self.get(&key::bucket(parent, hash)).await? else {
            let kind = self.getattr(parent).await?.kind;
            let why = if kind == Kind::Dir { ErrorKind::NotFound } else { ErrorKind::NotDir };
            return Err(why.into());
        };
        let bucket = decode_bucket(&value)?;
        let entry = bucket.iter().find(|e| e.name == *name).ok_or(ErrorKind::NotFound)?;
        self.getattr(entry.ino).await
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// `Invalid` for anything else, and as for [`Snapshot::getattr`].
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        let record = self.inode(ino).await?;
        match record.attr.kind {
            Kind::Symlink => Ok(record.target),
            _ => Err(ErrorKind::Invalid.into()),
        }
    }

    /// A part of a listing from `cookie` (0 = start), at most `max`; empty at the end. Of the
    /// root, `..` is the root.
    ///
    /// # Errors
    /// `NotDir`, and as for [`Snapshot::getattr`].
    pub async fn readdir(&self, ino: Ino, cookie: u64, attrs: bool, max: usize) -> Result<DirPage> {
        let record = self.inode(ino).await?;
        if record.attr.kind != Kind::Dir {
            return Err(ErrorKind::NotDir.into());
        }
        let above = if ino == Ino::ROOT { ino } else { record.parent };
        let mut page = DirPage::new();
        for (next, name, ino) in [(1, &b"."[..], ino), (2, &b".."[..], above)] {
            if cookie < next {
                let kind = Kind::Dir;
                page.push(DirEntry { ino, kind, name: name.into(), next, attr: None });
            }
        }
        let mut range = key::range_of(key::BUCKET, ino);
        range.start = key::bucket(ino, cookie >> 8).to_vec();
        for (key, value) in self.scan(range, max.max(1) + 1).await? {
            let hash = key::bucket_hash_of(&key).ok_or_else(|| Error::corrupt("a bucket's key"))?;
            let mut bucket = decode_bucket(&value)?;
            bucket.sort_by_key(|e| e.slot);
            for entry in bucket {
                let next = (hash << 8) | u64::from(entry.slot);
                if next > cookie {
                    let name: Arc<[u8]> = entry.name.as_bytes().into();
                    let (ino, kind) = (entry.ino, entry.kind);
                    page.push(DirEntry { ino, kind, name, next, attr: None });
                }
            }
        }
        page.truncate(max.max(1));
        if attrs {
            self.fill_attrs(&mut page).await?;
        }
        Ok(page)
    }

    async fn fill_attrs(&self, page: &mut DirPage) -> Result<()> {
        let mut wanted: Vec<Ino> = page.iter().filter(|e| e.next > 2).map(|e| e.ino).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut found: BTreeMap<Ino, Attr> = BTreeMap::new();
        let mut rest = wanted.as_slice();
        while let Some(first) = rest.first() {
            let near = |pair: &[Ino]| pair[1].0 - pair[0].0 <= INO_GAP_MAX;
            let len = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
            let end = Ino(rest[len - 1].0 + 1);
            let range = key::inode(*first).to_vec()..key::inode(end).to_vec();
            for (key, value) in self.scan(range, usize::MAX).await? {
                if let Some(ino) = key::ino_of(&key) {
                    found.insert(ino, InodeRecord::decode(ino, &value)?.attr);
                }
            }
            rest = &rest[len..];
        }
        for entry in page.iter_mut().filter(|e| e.next > 2) {
            entry.attr = found.get(&entry.ino).copied();
        }
        Ok(())
    }

    /// Extents of a file that touch `range`, in order.
    async fn extents(
        &self,
        ino: Ino,
        record: &InodeRecord,
        range: Range<u64>,
    ) -> Result<Vec<(u64, ExtentRecord)>> {
        let touches = |(at, e): &(u64, ExtentRecord)| {
            *at < range.end && at.saturating_add(e.len) > range.start
        };
        if let Some(inline) = &record.inline {
            let mut found: Vec<_> = inline.iter().copied().filter(touches).collect();
            found.sort_unstable_by_key(|(at, _)| *at);
            return Ok(found);
        }
        // None crosses a window, so what covers the start begins in its window.
        let from = range.start / WINDOW_BYTES * WINDOW_BYTES;
        let mut rows = key::extent(ino, from).to_vec()..key::extent(ino, range.end).to_vec();
        let mut found = Vec::new();
        loop {
            let page = self.scan(rows.clone(), ROWS).await?;
            for (key, value) in &page {
                let at =
                    key::extent_offset_of(key).ok_or_else(|| Error::corrupt("an extent's key"))?;
                found.push((at, ExtentRecord::decode(value)?));
            }
            match page.last() {
                Some((last, _)) if page.len() == ROWS => rows.start = [last, &[0][..]].concat(),
                _ => break,
            }
        }
        found.retain(touches);
        Ok(found)
    }

    /// Contents; shorter than `len` only at the end of the file.
    ///
    /// # Errors
    /// `IsDir`, `Invalid` for what has no contents, and as for [`Snapshot::getattr`].
    pub async fn read(&self, ino: Ino, offset: u64, len: u32) -> Result<ReadPieces> {
        let record = self.file(ino).await?;
        let size = record.attr.size;
        let range = offset.min(size)..offset.saturating_add(u64::from(len)).min(size);
        let mut parts = Parts::new();
        let mut at = range.start;
        for (start, extent) in self.extents(ino, &record, range.clone()).await? {
            let from = start.max(range.start);
            let to = (start + extent.len).min(range.end);
            if from > at {
                parts.push(Part::Zeros(from - at));
            }
            parts.push(self.part(extent.place, from - start, to - from).await?);
            at = to;
        }
        if at < range.end {
            parts.push(Part::Zeros(range.end - at));
        }
        let reader = &self.core.reader;
        if let Some(pieces) = reader.try_fetch(&parts) {
            return Ok(pieces);
        }
        let fetched = self.core.patient(reader.fetch(&self.core.table, &parts)).await;
        let at = || format!("snapshot {}, inode {ino} from byte {offset}", self.info.name);
        let fetched =
            fetched.map_err(|error| self.gone_or(error.in_place(&self.core.name, at())))?;
        fetched.ok_or_else(|| {
            let (home, name) = (&self.core.name, &self.info.name);
            self.gone_or(Error::corrupt(format_args!(
                "home {home}, snapshot {name}: inode {ino}: bytes at {offset} refer to a chunk \
                 that is not there"
            )))
        })
    }

    /// Bytes `skip` to `skip + len` of an extent. Small values are in the snapshot's own tables.
    async fn part(&self, place: Place, skip: u64, len: u64) -> Result<Part> {
        let skip = u32::try_from(skip).unwrap_or(u32::MAX);
        Ok(match place {
            Place::Reserved => Part::Zeros(len),
            Place::Chunk { id, at } => {
                Part::Stored(Place::Chunk { id, at: at.saturating_add(skip) }, len)
            }
            Place::Small { id, at } => {
                let short = || Error::corrupt(format_args!("small value {id} is too short"));
                let value = self.get(&key::small(id)).await?.ok_or_else(short)?;
                let (_, _, data) = decode_small(&value)?;
                let from = at.saturating_add(skip) as usize;
                let to = usize::try_from(len).ok().and_then(|len| from.checked_add(len));
                let to = to.filter(|to| *to <= data.len()).ok_or_else(short)?;
                Part::Memory(data.slice(from..to))
            }
        })
    }

    /// The next data or hole from `offset`.
    ///
    /// # Errors
    /// `NoData` behind the end, and as for [`Snapshot::read`].
    pub async fn seek(&self, ino: Ino, offset: u64, whence: Seek) -> Result<u64> {
        let record = self.file(ino).await?;
        let size = record.attr.size;
        if offset >= size {
            return Err(ErrorKind::NoData.into());
        }
        let mut at = offset;
        // A window at a time, then more: most answers are near.
        let mut windows = 1_u64;
        while at < size {
            let to = (at / WINDOW_BYTES + windows).saturating_mul(WINDOW_BYTES).min(size);
            windows = windows.saturating_mul(2);
            for (start, extent) in self.extents(ino, &record, at..to).await? {
                if extent.place == Place::Reserved {
                    continue;
                }
                match whence {
                    Seek::Data => return Ok(start.max(at)),
                    Seek::Hole if start > at => return Ok(at),
                    Seek::Hole => at = at.max(start + extent.len),
                }
            }
            if whence == Seek::Hole && at < to {
                return Ok(at);
            }
            at = at.max(to);
        }
        match whence {
            Seek::Data => Err(ErrorKind::NoData.into()),
            Seek::Hole => Ok(size),
        }
    }

    /// Value of an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`, and as for [`Snapshot::getattr`].
    pub async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Bytes> {
        let value = self.get(&key::xattr(ino, name)).await?.ok_or(ErrorKind::NoAttribute)?;
        Ok(value.slice(1.min(value.len())..))
    }

    /// Names, each with a terminating NUL, as `listxattr` gives them.
    ///
    /// # Errors
    /// As for [`Snapshot::getattr`].
    pub async fn listxattr(&self, ino: Ino) -> Result<Bytes> {
        let mut names = Vec::new();
        for (key, _) in self.scan(key::range_of(key::XATTR, ino), usize::MAX).await? {
            names.extend_from_slice(&key[6..]);
            names.push(0);
        }
        Ok(names.into())
    }
}
