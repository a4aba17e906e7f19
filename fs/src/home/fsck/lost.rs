//! `lost+found`: where inodes without a name get one, `#` and their number.

use super::repair::Patch;
use crate::home::error::Result;
use crate::home::key;
use crate::home::namespace::DIR_SIZE;
use crate::home::record::{EntryRecord, InodeRecord};
use crate::home::types::{Attr, Ino, Kind, Name, Time};

/// The directory in the home's root.
pub const LOST_NAME: &str = "lost+found";
/// Only the owner of the home looks into it.
const LOST_PERM: u16 = 0o700;

impl Patch<'_> {
    /// Gives an inode a name. Its links, and the counts of the directory, are counted again by
    /// the next round.
    pub(super) async fn link_lost(&mut self, ino: Ino) -> Result<bool> {
        let Some(mut record) = self.inode(ino).await? else { return self.link(ino, None).await };
        let kind = record.attr.kind;
        if !self.link(ino, Some(kind)).await? {
            return Ok(false);
        }
        if kind == Kind::Dir
            && let Some(lost) = self.lost
        {
            record.parent = lost;
            self.put_inode(&record);
        }
        Ok(true)
    }

    async fn link(&mut self, ino: Ino, kind: Option<Kind>) -> Result<bool> {
        let Some(kind) = kind else { return Ok(false) };
        let Some(dir) = self.lost_dir().await? else { return Ok(false) };
        // A lost inode with this number is this one: numbers are never used again.
        let name = Name::new(ino.to_string().as_bytes())?;
        self.put_entry(dir, EntryRecord { slot: 0, kind, ino, name }).await
    }

    /// The directory, made where there is none. `None`: there is no root, or something else has
    /// the name.
    async fn lost_dir(&mut self) -> Result<Option<Ino>> {
        if let Some(dir) = self.lost {
            return Ok(Some(dir));
        }
        let Some(root) = self.inode(Ino::ROOT).await? else { return Ok(None) };
        let name = Name::new(LOST_NAME.as_bytes())?;
        let bucket = self.bucket(Ino::ROOT, key::name_hash(name.as_bytes())).await?;
        if let Some(entry) = bucket.iter().find(|e| e.name == name) {
            let dir = (entry.kind == Kind::Dir).then_some(entry.ino);
            self.lost = dir;
            return Ok(dir);
        }
        let Some(mut counters) = self.counters().await? else { return Ok(None) };
        // The counter itself may be one of the things that are wrong.
        let mut number = counters.next_ino.max(Ino::ROOT.0 + 1);
        while self.has(&key::inode(Ino(number))).await? {
            number += 1;
        }
        let ino = Ino(number);
        counters.next_ino = number + 1;
        self.put_counters(&counters);
        self.put_inode(&lost_record(ino, &root.attr));
        self.put_entry(Ino::ROOT, EntryRecord { slot: 0, kind: Kind::Dir, ino, name }).await?;
        self.lost = Some(ino);
        Ok(Some(ino))
    }
}

fn lost_record(ino: Ino, root: &Attr) -> InodeRecord {
    let now: Time = root.mtime;
    let attr = Attr {
        ino,
        perm: LOST_PERM,
        nlink: 2,
        size: DIR_SIZE,
        charged: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        ..*root
    };
    InodeRecord {
        attr,
        parent: Ino::ROOT,
        entries: 0,
        xattr_bytes: 0,
        xattrs: 0,
        target: bytes::Bytes::new(),
        inline: Some(crate::home::record::InlineExtents::new()),
    }
}
