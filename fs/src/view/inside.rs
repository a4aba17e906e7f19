//! Operations on the inodes of a mount: each goes to the directory of homes or into one home.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::caller::{self, Capability};
use super::snapshots::is_list;
use super::{Attachment, Line, MOUNT_ROOT, Node, Room, Target, View, Who, add};
use crate::home::{
    Attr, ErrorKind, Falloc, Home, Ino, Kill, Kind, Name, NewNode, ReadPieces, RenameMode, Result,
    Seek, SetAttr, WriteMode, XattrMode,
};

/// Access ACLs, whose setting can cost a file its set-gid bit.
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// A tenth of a second together.
const PAUSES_FOR_ROOM_MS: [u64; 5] = [3, 7, 15, 30, 45];
/// Set-user-id.
const S_ISUID: u16 = 0o4000;
/// Set-group-id.
const S_ISGID: u16 = 0o2000;
/// Execution by the group.
const S_IXGRP: u16 = 0o010;

/// Two inodes that an operation names.
#[derive(Clone, Debug)]
pub enum Pair {
    /// Both in one home.
    Same(Arc<Attachment>, Ino, Ino),
    /// In two homes, or not in a home.
    Apart,
    /// One of them in a snapshot, or a name that stands for the snapshots.
    ReadOnly,
}

impl View {
    /// Name to inode; counts a reference.
    ///
    /// # Errors
    /// `NotFound`, and those of the home.
    pub async fn lookup(&self, who: Who, parent: Target, name: Name) -> Result<Node> {
        match parent {
            Target::Homes => self.homes_lookup(who, &name).await,
            Target::Snapshots(at) => self.list_lookup(&at, &name).await,
            Target::Kept(kept) => self.kept_lookup(&kept, &name).await,
            Target::Inside(at, ino) if is_list(ino, &name) => self.list_node(&at).await,
            Target::Inside(at, ino) => {
                let open = at.home().await?;
                let attr = open.home.lookup(at.client(), ino, name).await?;
                if at.slot.lost().is_gone(attr.ino) {
                    // Another file has the number of one that the kernel still knows.
                    open.home.forget(at.client(), attr.ino, 1);
                    return Err(ErrorKind::Stale.into());
                }
                at.referred(attr.ino);
                Ok(self.node(&at, attr))
            }
        }
    }

    /// The inode itself (`.`), for handles that outlive the kernel's memory; counts a reference.
    ///
    /// # Errors
    /// `Stale` where it is gone, and those of the home.
    pub async fn lookup_self(&self, target: Target) -> Result<Node> {
        let node = self.getattr(target.clone()).await?;
        if let Target::Inside(at, ino) = target {
            at.taken(ino);
        }
        Ok(node)
    }

    /// The directory above a directory (`..`); counts a reference.
    ///
    /// # Errors
    /// Those of the home.
    pub async fn lookup_parent(&self, target: Target) -> Result<Node> {
        let above = match target {
            Target::Homes => Target::Homes,
            Target::Inside(_, Ino::ROOT) => self.target(MOUNT_ROOT)?,
            Target::Snapshots(at) => Target::Inside(at, Ino::ROOT),
            Target::Kept(kept) => self.kept_parent(&kept).await?,
            Target::Inside(at, ino) => {
                let page = at.home().await?.home.readdir(ino, 0, false, 2).await?;
                let up = page.iter().find(|entry| &*entry.name == b"..");
                Target::Inside(at, up.ok_or(ErrorKind::Stale)?.ino)
            }
        };
        self.lookup_self(above).await
    }

    /// Whether a name that is not there may be remembered as such.
    #[must_use]
    pub fn remembers_absence(&self, parent: &Target) -> bool {
        // Whether a home is made depends on who asks, so every asker must come here.
        matches!(parent, Target::Inside(..) | Target::Kept(_))
    }

    /// Gives references back. Never waits.
    pub fn forget(&self, number: u64, count: u64) {
        if let Ok(Target::Inside(at, ino)) = self.target(number) {
            at.forget(ino, count);
        }
    }

    /// The kernel took these inodes of a listing with their attributes. Never waits.
    pub fn taken(&self, numbers: &[u64]) {
        for &number in numbers {
            if let Ok(Target::Inside(at, ino)) = self.target(number) {
                at.taken(ino);
            }
        }
    }

    /// Attributes.
    ///
    /// # Errors
    /// Those of the home.
    pub async fn getattr(&self, target: Target) -> Result<Node> {
        match target {
            Target::Homes => Ok(self.homes_node()),
            Target::Snapshots(at) => self.list_node(&at).await,
            Target::Kept(kept) => self.kept_getattr(&kept).await,
            Target::Inside(at, ino) => {
                let open = match at.slot.opened() {
                    Some(open) => open,
                    None if ino == Ino::ROOT => return Ok(self.head_node(&at.slot.head())),
                    None => at.home().await?,
                };
                let attr = open.home.getattr(ino).await?;
                Ok(self.node(&at, attr))
            }
        }
    }

    /// Changes attributes.
    ///
    /// # Errors
    /// Those of the home; `NotPermitted` for the directory of homes.
    pub async fn setattr(&self, who: Who, target: Target, mut set: SetAttr) -> Result<Node> {
        let (at, ino) = target.writable()?;
        let open = at.home().await?;
        if set.kill != Kill::Nothing {
            let attr = open.home.getattr(ino).await?;
            set.kill = kill_by(who, &attr, set.kill);
            let nothing_else = SetAttr { kill: set.kill, ..SetAttr::default() };
            if set == nothing_else && is_strangers_chown(who, &attr) {
                return Err(ErrorKind::NotPermitted.into());
            }
        }
        let attr = open.home.setattr(Self::caller(who, &at), ino, set).await?;
        Ok(self.node(&at, attr))
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// Those of the home.
    pub async fn readlink(&self, target: Target) -> Result<Bytes> {
        match target {
            Target::Inside(at, ino) => at.home().await?.home.readlink(ino).await,
            Target::Kept(kept) => kept.readlink().await,
            Target::Homes | Target::Snapshots(_) => Err(ErrorKind::Invalid.into()),
        }
    }

    /// Makes an inode; counts a reference.
    ///
    /// # Errors
    /// Those of the home; in the directory of homes only directories can be made.
    pub async fn make(&self, who: Who, parent: Target, name: Name, node: NewNode) -> Result<Node> {
        match parent {
            Target::Homes if node.kind == Kind::Dir => self.homes_make(who, &name).await,
            Target::Inside(_, ino) if is_list(ino, &name) => Err(ErrorKind::Exists.into()),
            other => {
                let (at, ino) = other.writable()?;
                let open = at.home().await?;
                let caller = Self::caller(who, &at);
                let make = || open.home.make(caller.clone(), ino, name.clone(), node.clone());
                let attr = with_room(&open.home, make).await?;
                at.referred(attr.ino);
                Ok(self.node(&at, attr))
            }
        }
    }

    /// One more name for an inode of the same home; counts a reference.
    ///
    /// # Errors
    /// Those of the home.
    pub async fn link(&self, who: Who, pair: Pair, name: Name) -> Result<Node> {
        let (at, ino, parent) = pair.writable()?;
        if is_list(parent, &name) {
            return Err(ErrorKind::Exists.into());
        }
        let open = at.home().await?;
        let attr = open.home.link(Self::caller(who, &at), ino, parent, name).await?;
        at.referred(attr.ino);
        Ok(self.node(&at, attr))
    }

    /// Removes a name; `dir` tells which kind the caller means.
    ///
    /// # Errors
    /// Those of the home; `NotPermitted` for a home itself, which is removed by command.
    pub async fn remove(&self, who: Who, parent: Target, name: Name, dir: bool) -> Result<()> {
        let (at, ino) = parent.writable()?;
        if is_list(ino, &name) {
            return Err(ErrorKind::ReadOnly.into());
        }
        let open = at.home().await?;
        let caller = Self::caller(who, &at);
        if dir {
            open.home.rmdir(caller, ino, name).await
        } else {
            open.home.unlink(caller, ino, name).await
        }
    }

    /// Renames within one home.
    ///
    /// # Errors
    /// Those of the home.
    pub async fn rename(
        &self,
        who: Who,
        pair: Pair,
        names: [Name; 2],
        mode: RenameMode,
    ) -> Result<()> {
        let (at, from, to) = pair.writable()?;
        let [old, new] = names;
        if is_list(from, &old) || is_list(to, &new) {
            return Err(ErrorKind::ReadOnly.into());
        }
        let open = at.home().await?;
        open.home.rename(Self::caller(who, &at), (from, old), (to, new), mode).await
    }

    /// Both inodes, where one home holds them.
    ///
    /// # Errors
    /// `Stale`.
    pub fn pair(&self, a: u64, b: u64) -> Result<Pair> {
        Ok(match (self.living(a)?, self.living(b)?) {
            (Target::Inside(at, a), Target::Inside(other, b))
                if at.slot.volume == other.slot.volume =>
            {
                Pair::Same(at, a, b)
            }
            // From a snapshot to the home is as from another file system.
            (_, Target::Kept(_) | Target::Snapshots(_)) => Pair::ReadOnly,
            _ => Pair::Apart,
        })
    }

    /// A part of a listing from `cookie` (0 = start); empty at the end.
    ///
    /// # Errors
    /// Those of the home.
    pub async fn readdir(
        &self,
        target: Target,
        cookie: u64,
        attrs: bool,
        lines_max: usize,
    ) -> Result<Vec<Line>> {
        let (at, ino) = match target {
            Target::Homes => return self.homes_list(cookie, attrs, lines_max).await,
            Target::Snapshots(at) => return self.list_readdir(&at, cookie, attrs, lines_max).await,
            Target::Kept(kept) => {
                return self.kept_readdir(&kept, cookie, attrs, lines_max).await;
            }
            Target::Inside(at, ino) => (at, ino),
        };
        let open = at.home().await?;
        let page = open.home.readdir(ino, cookie, attrs, lines_max).await?;
        let line = |entry: crate::home::DirEntry| Line {
            number: match &*entry.name {
                b".." if ino == Ino::ROOT => MOUNT_ROOT,
                _ => self.number(at.slot.volume, entry.ino),
            },
            kind: entry.kind,
            next: entry.next,
            node: entry.attr.map(|attr| self.node(&at, attr)),
            name: entry.name,
        };
        Ok(page.into_iter().map(line).collect())
    }

    /// Contents.
    ///
    /// # Errors
    /// Those of the home.
    pub async fn read(&self, target: Target, offset: u64, len: u32) -> Result<ReadPieces> {
        let (at, pieces) = match target {
            Target::Inside(at, ino) => {
                let pieces = at.home().await?.home.read(ino, offset, len).await?;
                (at, pieces)
            }
            Target::Kept(kept) => (Arc::clone(&kept.at), kept.read(offset, len).await?),
            Target::Homes | Target::Snapshots(_) => return Err(ErrorKind::IsDir.into()),
        };
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        add(&at.slot.counters.read_bytes, bytes as u64);
        Ok(pieces)
    }

    /// Writes; gives the bytes taken.
    ///
    /// # Errors
    /// Those of the home.
    pub async fn write(
        &self,
        who: Who,
        target: Target,
        offset: u64,
        data: Bytes,
        mut mode: WriteMode,
    ) -> Result<u32> {
        let (at, ino) = changed_file(target)?;
        let open = at.home().await?;
        if mode.kill != Kill::Nothing {
            mode.kill = kill_by(who, &open.home.getattr(ino).await?, mode.kill);
        }
        let caller = Self::caller(who, &at);
        let write = || open.home.write(caller.clone(), ino, offset, data.clone(), mode);
        let taken = with_room(&open.home, write).await?;
        add(&at.slot.counters.written_bytes, u64::from(taken));
        Ok(taken)
    }

    /// Reserves, punches, zeroes.
    ///
    /// # Errors
    /// Those of the home.
    pub async fn fallocate(
        &self,
        who: Who,
        target: Target,
        what: Falloc,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        let (at, ino) = changed_file(target)?;
        let open = at.home().await?;
        let caller = Self::caller(who, &at);
        with_room(&open.home, || open.home.fallocate(caller.clone(), ino, what, offset, len)).await
    }

    /// The next data or hole.
    ///
    /// # Errors
    /// `NoData` behind the end, and those of the home.
    pub async fn seek(&self, target: Target, offset: u64, whence: Seek) -> Result<u64> {
        match target {
            Target::Inside(at, ino) => at.home().await?.home.seek(ino, offset, whence).await,
            Target::Kept(kept) => kept.seek(offset, whence).await,
            Target::Homes | Target::Snapshots(_) => Err(ErrorKind::Invalid.into()),
        }
    }

    /// Clones a range within one home.
    ///
    /// # Errors
    /// Those of the home.
    pub async fn copy_range(
        &self,
        who: Who,
        pair: Pair,
        offsets: [u64; 2],
        len: u64,
    ) -> Result<u64> {
        let Pair::Same(at, from, to) = pair else {
            return Err(ErrorKind::Invalid.into());
        };
        let open = at.home().await?;
        let caller = Self::caller(who, &at);
        let (from, to) = ((from, offsets[0]), (to, offsets[1]));
        with_room(&open.home, || open.home.copy_range(caller.clone(), from, to, len)).await
    }

    /// Makes a file or a directory durable.
    ///
    /// # Errors
    /// Those of the home.
    pub async fn fsync(&self, target: Target) -> Result<()> {
        let Target::Inside(at, ino) = target else {
            return Ok(());
        };
        at.home().await?.home.fsync(ino).await?;
        at.slot.lost().check(ino)
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// Those of the home.
    pub async fn setxattr(
        &self,
        who: Who,
        target: Target,
        name: Bytes,
        value: Bytes,
        mode: XattrMode,
    ) -> Result<()> {
        let (at, ino) = target.writable()?;
        let open = at.home().await?;
        let kill_sgid = name[..] == *ACL_ACCESS
            && who.uid != 0
            && loses_set_gid(who, &open.home.getattr(ino).await?);
        let mode = XattrMode { kill_sgid, ..mode };
        let caller = Self::caller(who, &at);
        let set = || {
            let (name, value) = (name.clone(), value.clone());
            open.home.setxattr(caller.clone(), ino, name, value, mode)
        };
        with_room(&open.home, set).await
    }

    /// Value of an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`, and those of the home.
    pub async fn getxattr(&self, target: Target, name: Bytes) -> Result<Bytes> {
        match target {
            Target::Inside(at, ino) if !answers_no_xattrs(&at, ino) => {
                at.home().await?.home.getxattr(ino, name).await
            }
            Target::Kept(kept) => kept.getxattr(&name).await,
            _ => Err(ErrorKind::NoAttribute.into()),
        }
    }

    /// Names of the extended attributes.
    ///
    /// # Errors
    /// Those of the home.
    pub async fn listxattr(&self, target: Target) -> Result<Bytes> {
        match target {
            Target::Inside(at, ino) if !answers_no_xattrs(&at, ino) => {
                at.home().await?.home.listxattr(ino).await
            }
            Target::Kept(kept) => kept.listxattr().await,
            _ => Ok(Bytes::new()),
        }
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`, and those of the home.
    pub async fn removexattr(&self, who: Who, target: Target, name: Bytes) -> Result<()> {
        let (at, ino) = target.writable()?;
        let open = at.home().await?;
        open.home.removexattr(Self::caller(who, &at), ino, name).await
    }

    /// Room where an inode lies. Never opens a home, never waits.
    #[must_use]
    pub fn room(&self, target: &Target) -> Room {
        match target.attachment() {
            None => self.homes_room(),
            Some(at) => self.home_room(match at.slot.opened() {
                Some(open) => open.home.usage(),
                None => at.slot.head().usage,
            }),
        }
    }
}

/// What takes room, tried again for a moment where files without names hold some: that of a file
/// that was removed is free when the kernel says that nobody uses it, which may come just behind
/// the next request.
async fn with_room<T, F: Future<Output = Result<T>>>(home: &Home, op: impl Fn() -> F) -> Result<T> {
    for pause in PAUSES_FOR_ROOM_MS {
        match op().await {
            Err(error)
                if matches!(error.kind(), ErrorKind::OverQuota) && home.has_used_orphans() =>
            {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            done => return done,
        }
    }
    op().await
}

/// The file that a change of contents is for.
fn changed_file(target: Target) -> Result<(Arc<Attachment>, Ino)> {
    match target {
        Target::Homes => Err(ErrorKind::IsDir.into()),
        other => other.writable(),
    }
}

impl Pair {
    /// Both inodes, for what changes them.
    fn writable(self) -> Result<(Arc<Attachment>, Ino, Ino)> {
        match self {
            Self::Same(at, a, b) => Ok((at, a, b)),
            Self::Apart => Err(ErrorKind::NotPermitted.into()),
            Self::ReadOnly => Err(ErrorKind::ReadOnly.into()),
        }
    }
}

/// Whether the head of a closed home says that its root has no extended attributes.
fn answers_no_xattrs(at: &Attachment, ino: Ino) -> bool {
    ino == Ino::ROOT && at.slot.opened().is_none() && !at.slot.head().root_xattrs
}

/// Whether a chown to nobody, which the kernel lets pass, would take set-id bits of a file of
/// somebody else.
fn is_strangers_chown(who: Who, attr: &Attr) -> bool {
    let alive = attr.perm & S_ISGID != 0 && attr.perm & S_IXGRP != 0;
    let falls = attr.perm & S_ISUID != 0 || alive || loses_set_gid(who, attr);
    who.uid != 0
        && who.uid != attr.uid
        && attr.kind != Kind::Dir
        && falls
        && caller::is_chown(who.tid) == Some(true)
        && !caller::stands_above(who.tid, Capability::Fowner, attr.uid, attr.gid)
}

/// Whose change it is. Root may keep the set-gid bit of any group.
fn kill_by(who: Who, attr: &Attr, kill: Kill) -> Kill {
    match kill {
        Kill::ByMember if who.uid != 0 && loses_set_gid(who, attr) => Kill::ByOutsider,
        other => other,
    }
}

/// Whether the caller is neither in the group of a set-gid file nor the root of a container that
/// the file is of, so that writing to it or setting its ACL takes the bit. For ACLs the kernel
/// tells only on request, by a flag that the present transport cannot ask for; for other changes
/// not at all.
fn loses_set_gid(who: Who, attr: &Attr) -> bool {
    attr.perm & S_ISGID != 0
        && attr.gid != who.gid
        && !caller::groups_of(who.tid).contains(&attr.gid)
        && !caller::stands_above(who.tid, Capability::Fsetid, attr.uid, attr.gid)
}
