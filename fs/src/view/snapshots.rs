//! `.snapshots` in a home's root: reached by name, never listed there; in it the home as each
//! snapshot shows it.
//!
//! Everything here is read-only (`ReadOnly`). Every snapshot has a volume number of its own, so
//! that its inodes have other numbers than the home's, and the same ones always; it gets one when
//! somebody first looks, as most are never looked at. Who may look follows the modes: the list has
//! those of the home's root as it is now, what is in a snapshot those that it had then.

use std::sync::Arc;

use bytes::Bytes;

use super::{Attachment, HEAD_TTL, Line, Node, Target, View};
use crate::home::{
    Attr, ErrorKind, Ino, Kind, Name, ReadPieces, Result, SNAPSHOTS_INO, SNAPSHOTS_NAME, Seek,
    Snapshot, SnapshotInfo,
};

/// An inode of a snapshot.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The home.
    pub at: Arc<Attachment>,
    /// Which snapshot of it.
    pub txn: u64,
    /// In front of its inode numbers.
    pub volume: u32,
    /// The inode in it.
    pub ino: Ino,
}

impl Kept {
    async fn open(&self) -> Result<Snapshot> {
        self.at.home().await?.home.snapshot_of(self.txn)
    }

    /// Target of a symbolic link.
    pub(super) async fn readlink(&self) -> Result<Bytes> {
        self.open().await?.readlink(self.ino).await
    }

    /// Contents.
    pub(super) async fn read(&self, offset: u64, len: u32) -> Result<ReadPieces> {
        self.open().await?.read(self.ino, offset, len).await
    }

    /// The next data or hole.
    pub(super) async fn seek(&self, offset: u64, whence: Seek) -> Result<u64> {
        self.open().await?.seek(self.ino, offset, whence).await
    }

    /// Value of an extended attribute.
    pub(super) async fn getxattr(&self, name: &[u8]) -> Result<Bytes> {
        self.open().await?.getxattr(self.ino, name).await
    }

    /// Names of the extended attributes.
    pub(super) async fn listxattr(&self) -> Result<Bytes> {
        self.open().await?.listxattr(self.ino).await
    }
}

/// Whether a name in a directory is that of the list of snapshots.
pub(super) fn is_list(parent: Ino, name: &Name) -> bool {
    parent == Ino::ROOT && name.as_bytes() == SNAPSHOTS_NAME
}

impl View {
    /// The list of a home's snapshots, as a directory.
    pub(super) async fn list_node(&self, at: &Arc<Attachment>) -> Result<Node> {
        let home = &at.home().await?.home;
        let root = home.getattr(Ino::ROOT).await?;
        let count = home.snapshot_use().count;
        let newest = home.newest_snapshot().unwrap_or(root.btime);
        let attr = Attr {
            ino: SNAPSHOTS_INO,
            // Who may not enter the home may not enter here; nobody may write.
            perm: root.perm & 0o555,
            nlink: 2 + u32::try_from(count).unwrap_or(u32::MAX - 2),
            atime: newest,
            mtime: newest,
            ctime: newest,
            ..root
        };
        Ok(Node { attr_ttl: HEAD_TTL, name_ttl: HEAD_TTL, ..self.node(at, attr) })
    }

    /// The snapshots of a home, each with a number for its inodes.
    async fn numbered(&self, at: &Arc<Attachment>) -> Result<Vec<SnapshotInfo>> {
        let open = at.home().await?;
        let all = open.home.snapshots()?;
        let bare: Vec<u64> = all.iter().filter(|s| s.volume == 0).map(|s| s.txn).collect();
        let all = if bare.is_empty() {
            all
        } else {
            let count = u32::try_from(bare.len()).unwrap_or(u32::MAX);
            let first = self.table.directory().take_volumes(count).await?;
            let numbers: Vec<(u64, u32)> = bare.into_iter().zip(first..).collect();
            open.home.set_snapshot_volumes(&numbers).await?;
            open.home.snapshots()?
        };
        let mut known = self.kept.write();
        for snapshot in &all {
            known.insert(snapshot.volume, (Arc::clone(at), snapshot.txn));
        }
        Ok(all)
    }

    fn snapshot_node(&self, snapshot: &SnapshotInfo) -> Node {
        Node { name_ttl: HEAD_TTL, ..self.kept_node(snapshot.volume, snapshot.root) }
    }

    /// An inode of a snapshot: what is there never changes.
    fn kept_node(&self, volume: u32, attr: Attr) -> Node {
        let ttl = super::OWNED_TTL;
        Node { number: super::join(volume, attr.ino), attr, attr_ttl: ttl, name_ttl: ttl }
    }

    /// Name of a snapshot to its root.
    pub(super) async fn list_lookup(&self, at: &Arc<Attachment>, name: &Name) -> Result<Node> {
        let text = std::str::from_utf8(name.as_bytes()).map_err(|_| ErrorKind::NotFound)?;
        let open = at.home().await?;
        let snapshot = open.home.snapshot(text)?;
        let info = snapshot.info();
        if info.volume != 0 {
            self.kept.write().insert(info.volume, (Arc::clone(at), info.txn));
            return Ok(self.snapshot_node(info));
        }
        let all = self.numbered(at).await?;
        let found = all.iter().find(|s| s.name.as_bytes() == name.as_bytes());
        Ok(self.snapshot_node(found.ok_or(ErrorKind::NotFound)?))
    }

    /// A part of the list. Cookies are transactions, which are above those of `.` and `..`.
    pub(super) async fn list_readdir(
        &self,
        at: &Arc<Attachment>,
        cookie: u64,
        attrs: bool,
        lines_max: usize,
    ) -> Result<Vec<Line>> {
        let all = self.numbered(at).await?;
        let dots = [(1, SNAPSHOTS_INO, &b"."[..]), (2, Ino::ROOT, &b".."[..])];
        let dots = dots.map(|(next, ino, name)| Line {
            number: self.number(at.slot.volume, ino),
            kind: Kind::Dir,
            name: name.into(),
            next,
            node: None,
        });
        let snapshots = all.iter().map(|snapshot| Line {
            number: super::join(snapshot.volume, Ino::ROOT),
            kind: Kind::Dir,
            name: snapshot.name.as_bytes().into(),
            next: snapshot.txn + 2,
            node: attrs.then(|| self.snapshot_node(snapshot)),
        });
        let lines = dots.into_iter().chain(snapshots);
        Ok(lines.filter(|line| line.next > cookie).take(lines_max).collect())
    }

    /// Name to inode in a snapshot.
    pub(super) async fn kept_lookup(&self, parent: &Kept, name: &Name) -> Result<Node> {
        let attr = parent.open().await?.lookup(parent.ino, name).await?;
        Ok(self.kept_node(parent.volume, attr))
    }

    /// Attributes in a snapshot.
    pub(super) async fn kept_getattr(&self, kept: &Kept) -> Result<Node> {
        let attr = kept.open().await?.getattr(kept.ino).await?;
        Ok(self.kept_node(kept.volume, attr))
    }

    /// The directory above one in a snapshot.
    pub(super) async fn kept_parent(&self, kept: &Kept) -> Result<Target> {
        if kept.ino == Ino::ROOT {
            return Ok(Target::Snapshots(Arc::clone(&kept.at)));
        }
        let page = kept.open().await?.readdir(kept.ino, 0, false, 2).await?;
        let up = page.iter().find(|entry| &*entry.name == b"..").ok_or(ErrorKind::Stale)?;
        Ok(Target::Kept(Kept { ino: up.ino, ..kept.clone() }))
    }

    /// A part of a listing in a snapshot.
    pub(super) async fn kept_readdir(
        &self,
        kept: &Kept,
        cookie: u64,
        attrs: bool,
        lines_max: usize,
    ) -> Result<Vec<Line>> {
        let page = kept.open().await?.readdir(kept.ino, cookie, attrs, lines_max).await?;
        let line = |entry: crate::home::DirEntry| Line {
            number: match &*entry.name {
                b".." if kept.ino == Ino::ROOT => self.number(kept.at.slot.volume, SNAPSHOTS_INO),
                _ => super::join(kept.volume, entry.ino),
            },
            kind: entry.kind,
            next: entry.next,
            node: entry.attr.map(|attr| self.kept_node(kept.volume, attr)),
            name: entry.name,
        };
        Ok(page.into_iter().map(line).collect())
    }
}
