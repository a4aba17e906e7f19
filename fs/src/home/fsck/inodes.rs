//! The pass over inodes, with their extents, attributes and orphan records: all of them sort by
//! inode number, so that four cursors move along together.

use super::check::{Check, LONG_ROWS, ROWS};
use super::extents::{Walk, Wrong};
use super::finding::Invariant;
use super::plan::{Fix, InodeFix};
use super::rows::InodeRow;
use super::source::Cursor;
use crate::home::error::{Error, Result};
use crate::home::key;
use crate::home::record::{ExtentRecord, InodeRecord, Place};
use crate::home::types::{Ino, Kind};

/// What the records beside an inode's own add up to.
#[derive(Default)]
struct Beside {
    xattrs: u32,
    xattr_bytes: u32,
    keyed: u64,
}

/// The cursors beside that of the inodes.
struct Cursors<'a> {
    extents: Cursor<'a>,
    xattrs: Cursor<'a>,
    orphans: Cursor<'a>,
}

impl Check<'_> {
    pub(super) async fn read_inodes(&mut self) -> Result<()> {
        let cursor = |kind, rows| Cursor::new(self.source.view, key::range_of_kind(kind), rows);
        let mut inodes = cursor(key::INODE, ROWS);
        let mut beside = Cursors {
            extents: cursor(key::EXTENT, ROWS),
            xattrs: cursor(key::XATTR, LONG_ROWS),
            orphans: cursor(key::ORPHAN, ROWS),
        };
        self.recount.next_ino = Ino::ROOT.0 + 1;
        self.recount.next_small = self.recount.next_small.max(1);
        while let Some((key, value)) = inodes.next().await? {
            self.step(1);
            let Some(ino) = key::ino_of(&key).filter(|_| key.len() == 6) else {
                let error = Error::corrupt("a key of a length that its kind does not have");
                self.unreadable(format_args!("key {:02x?}", &key[..]), &error, &[]);
                continue;
            };
            self.skip_to(&mut beside, ino).await?;
            let orphan = self.take_orphan(&mut beside.orphans, ino).await?;
            self.totals.inodes += 1;
            self.recount.next_ino = self.recount.next_ino.max(ino.0 + 1);
            self.recount.inodes += 1;
            match InodeRecord::decode(ino, &value) {
                Ok(record) => self.read_inode(&record, orphan, &mut beside).await?,
                Err(error) => {
                    self.unreadable(format_args!("inode {ino}"), &error, &[ino]);
                    self.rows.inodes.push(InodeRow { ino: ino.0, orphan, ..InodeRow::default() });
                    // What lies beside it is still referred to.
                    let mut walk = Walk::new(None);
                    self.read_extents(&mut beside.extents, ino, &mut walk).await?;
                    self.read_xattrs(&mut beside.xattrs, ino).await?;
                }
            }
        }
        self.skip_to(&mut beside, Ino(Ino::MAX.0 + 1)).await?;
        if self.rows.inode_at(Ino::ROOT.0).is_none() {
            self.find(Invariant::RootMissing, "inode #1", "", &[]);
        }
        Ok(())
    }

    /// Records of inodes before `ino` that have none of their own.
    async fn skip_to(&mut self, beside: &mut Cursors<'_>, ino: Ino) -> Result<()> {
        let before = |key: Option<&bytes::Bytes>| {
            key.is_some_and(|key| key::ino_of(key).is_none_or(|found| found < ino))
        };
        while before(beside.extents.peek().await?) {
            let Some((key, value)) = beside.extents.next().await? else { break };
            self.stray(&key, Invariant::ExtentWithoutFile, &value);
        }
        while before(beside.xattrs.peek().await?) {
            let Some((key, value)) = beside.xattrs.next().await? else { break };
            self.stray(&key, Invariant::XattrWithoutInode, &value);
        }
        while before(beside.orphans.peek().await?) {
            let Some((key, value)) = beside.orphans.next().await? else { break };
            self.stray(&key, Invariant::OrphanNowhere, &value);
        }
        Ok(())
    }

    fn stray(&mut self, key: &[u8], kind: Invariant, value: &[u8]) {
        let object = match key::ino_of(key) {
            Some(ino) => format!("inode {ino}"),
            None => format!("key {key:02x?}"),
        };
        self.find(kind, object, format_args!("a record of {} bytes", value.len()), &[]);
        self.fix(Fix::Delete(key::Key::from_slice(key)));
    }

    async fn take_orphan(&mut self, orphans: &mut Cursor<'_>, ino: Ino) -> Result<bool> {
        let mut found = false;
        while orphans.peek().await?.is_some_and(|key| key::ino_of(key) == Some(ino)) {
            found = orphans.next().await?.is_some();
        }
        Ok(found)
    }

    async fn read_inode(
        &mut self,
        record: &InodeRecord,
        orphan: bool,
        beside: &mut Cursors<'_>,
    ) -> Result<()> {
        let attr = &record.attr;
        let ino = attr.ino;
        if orphan && attr.nlink > 0 {
            let detail = format!("{} links", attr.nlink);
            self.find(Invariant::OrphanNamed, format_args!("inode {ino}"), detail, &[ino]);
            self.fix(Fix::Delete(key::orphan(ino)));
        }
        let orphan = orphan && attr.nlink == 0;
        self.totals.orphans += u64::from(orphan);
        self.totals.directories += u64::from(attr.kind == Kind::Dir);
        self.rows.inodes.push(InodeRow {
            ino: ino.0,
            parent: record.parent.0,
            entries: record.entries,
            nlink: attr.nlink,
            kind: Some(attr.kind),
            orphan,
            ..InodeRow::default()
        });
        // An orphan's extents go a batch at a time, its charge went at once.
        let size = (!orphan).then_some(attr.size);
        let mut walk = Walk::new(size);
        for (offset, extent) in record.inline.iter().flatten() {
            self.take_extent(ino, *offset, extent, &mut walk);
        }
        let mut found = Beside::default();
        if record.inline.is_some() {
            self.drop_extents(&mut beside.extents, ino).await?;
        } else {
            found.keyed = self.read_extents(&mut beside.extents, ino, &mut walk).await?;
        }
        (found.xattrs, found.xattr_bytes) = self.read_xattrs(&mut beside.xattrs, ino).await?;
        self.compare_inode(record, orphan, &walk, &found);
        Ok(())
    }

    fn compare_inode(&mut self, record: &InodeRecord, orphan: bool, walk: &Walk, found: &Beside) {
        let attr = &record.attr;
        let ino = attr.ino;
        let charged = if orphan { attr.charged } else { walk.bytes };
        if attr.charged != charged && !self.doubtful {
            let detail = format!("{}, should be {charged}", attr.charged);
            self.find(Invariant::ChargedBytes, format_args!("inode {ino}"), detail, &[ino]);
            let fix = InodeFix { charged: Some(charged), ..InodeFix::default() };
            self.fix(Fix::SetInode(ino, fix));
        }
        if (record.xattrs, record.xattr_bytes) != (found.xattrs, found.xattr_bytes) {
            let detail = format!(
                "{} of {} bytes, should be {} of {}",
                record.xattrs, record.xattr_bytes, found.xattrs, found.xattr_bytes
            );
            self.find(Invariant::XattrCount, format_args!("inode {ino}"), detail, &[ino]);
            let xattrs = Some((found.xattrs, found.xattr_bytes));
            self.fix(Fix::SetInode(ino, InodeFix { xattrs, ..InodeFix::default() }));
        }
        // The counters say what the records say; a wrong record is a finding of its own.
        self.recount.bytes += record.charged();
        self.totals.charged_bytes += charged + u64::from(found.xattr_bytes);
    }

    async fn read_extents(
        &mut self,
        extents: &mut Cursor<'_>,
        ino: Ino,
        walk: &mut Walk,
    ) -> Result<u64> {
        let mut count = 0;
        while extents.peek().await?.is_some_and(|key| key::ino_of(key) == Some(ino)) {
            let Some((key, value)) = extents.next().await? else { break };
            self.step(1);
            count += 1;
            let offset = key::extent_offset_of(&key).filter(|_| key.len() == 14);
            match (offset, ExtentRecord::decode(&value)) {
                (Some(offset), Ok(extent)) => self.take_extent(ino, offset, &extent, walk),
                (_, Err(error)) => {
                    self.unreadable(format_args!("extent of {ino}"), &error, &[ino]);
                }
                (None, Ok(_)) => {
                    let error = Error::corrupt("a key of a length that its kind does not have");
                    self.unreadable(format_args!("extent of {ino}"), &error, &[ino]);
                }
            }
        }
        Ok(count)
    }

    /// Extents beside those that the inode record holds: nobody reads them.
    async fn drop_extents(&mut self, extents: &mut Cursor<'_>, ino: Ino) -> Result<()> {
        while extents.peek().await?.is_some_and(|key| key::ino_of(key) == Some(ino)) {
            let Some((key, value)) = extents.next().await? else { break };
            self.stray(&key, Invariant::ExtentInlineAndKeyed, &value);
        }
        Ok(())
    }

    fn take_extent(&mut self, ino: Ino, offset: u64, extent: &ExtentRecord, walk: &mut Walk) {
        self.totals.extents += 1;
        let object = format_args!("inode {ino}").to_string();
        let at = format!("{} bytes at {offset}", extent.len);
        for wrong in walk.step(offset, extent) {
            let kind = match wrong {
                Wrong::Overlap => Invariant::ExtentOverlap,
                Wrong::Window => Invariant::ExtentWindow,
                Wrong::Limit => Invariant::ExtentLimit,
                Wrong::BehindEnd => Invariant::ExtentBehindEnd,
            };
            self.find(kind, &object, &at, &[ino]);
        }
        let (bytes, from, what) = match extent.place {
            Place::Reserved => return,
            Place::Chunk { id, at } => {
                let row = self.rows.chunk_at(id).map(|at| &mut self.rows.chunks[at]);
                let bytes = row.map(|row| {
                    row.found = row.found.saturating_add(1);
                    row.plain_bytes
                });
                (bytes, at, format!("chunk {id}"))
            }
            Place::Small { id, at } => {
                let bytes = self.rows.small(id).map(|row| {
                    row.found = row.found.saturating_add(1);
                    row.bytes
                });
                (bytes, at, format!("small value {id}"))
            }
        };
        match bytes {
            None => {
                let detail = format!("{at}: there is no {what}");
                self.find(Invariant::ExtentNowhere, object, detail, &[ino]);
            }
            Some(bytes) if u64::from(from).saturating_add(extent.len) > u64::from(bytes) => {
                let detail = format!("{at}: from byte {from} of {what}, which has {bytes}");
                self.find(Invariant::ExtentPastSource, object, detail, &[ino]);
            }
            Some(_) => {}
        }
    }

    async fn read_xattrs(&mut self, xattrs: &mut Cursor<'_>, ino: Ino) -> Result<(u32, u32)> {
        let (mut count, mut bytes) = (0, 0_u32);
        while xattrs.peek().await?.is_some_and(|key| key::ino_of(key) == Some(ino)) {
            let Some((_, value)) = xattrs.next().await? else { break };
            self.step(1);
            self.totals.xattrs += 1;
            count += 1;
            match value.first() {
                Some(&crate::home::record::RECORD_VERSION) => {
                    let len = u32::try_from(value.len() - 1).unwrap_or(u32::MAX);
                    bytes = bytes.saturating_add(len);
                }
                version => {
                    let error = Error::corrupt(format_args!("xattr: version {version:?}"));
                    self.unreadable(format_args!("attribute of {ino}"), &error, &[ino]);
                }
            }
        }
        Ok((count, bytes))
    }
}
