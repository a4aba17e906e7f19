//! Names: lookup, make, link, unlink, rename, list. Steps over [`State`].

use std::sync::Arc;

use super::acl;
use super::error::ErrorKind;
use super::key;
use super::mutants::{self, Mutant};
use super::record::EntryRecord;
use super::state::{Inode, Need, Slot, State, Step, Stop};
use super::types::{
    Attr, Caller, Change, ClientId, DirEntry, DirPage, Ino, Kind, LINKS_MAX, Name, NewNode,
    RenameMode, SYMLINK_BYTES_MAX, Time,
};

/// What a directory shows as its size.
pub const DIR_SIZE: u64 = 4096;
const SET_GID: u16 = 0o2000;
/// Directories deeper than this are taken for a circle, which is damage.
const DEPTH_MAX: usize = 100_000;

impl State {
    /// Name to inode, counting a reference.
    pub fn lookup(&mut self, client: ClientId, parent: Ino, name: &Name) -> Step<Attr> {
        let Some(entry) = self.entry(parent, name)? else {
            return Err(ErrorKind::NotFound.into());
        };
        let attr = self.inode(entry.ino)?.attr;
        self.refer(client, entry.ino);
        Ok(attr)
    }

    fn add_entry(&mut self, parent: Ino, name: &Name, ino: Ino, kind: Kind) -> Step<()> {
        let hash = key::name_hash(name.as_bytes());
        let inode = self.dir(parent)?;
        inode.entries += 1;
        let dir = inode.dir.as_mut().expect("checked by dir");
        let names = dir.buckets.len();
        let slot = dir
            .buckets
            .entry(hash)
            .or_insert_with(|| Slot { bucket: super::record::Bucket::new(), saved: false });
        let free = (0..=u8::MAX).find(|n| slot.bucket.iter().all(|e| e.slot != *n));
        let Some(number) = free else { return Err(ErrorKind::NoSpace.into()) };
        slot.bucket.push(EntryRecord { slot: number, kind, ino, name: name.clone() });
        let more = dir.buckets.len() - names;
        self.names += more;
        self.txn.buckets.insert((parent, hash));
        self.announce(Change::Entry { parent, name: name.clone() });
        Ok(())
    }

    fn remove_entry(&mut self, parent: Ino, name: &Name) -> Step<()> {
        let hash = key::name_hash(name.as_bytes());
        let inode = self.dir(parent)?;
        inode.entries = inode.entries.saturating_sub(1);
        let dir = inode.dir.as_mut().expect("checked by dir");
        if let Some(slot) = dir.buckets.get_mut(&hash) {
            slot.bucket.retain(|e| e.name != *name);
        }
        self.txn.buckets.insert((parent, hash));
        self.announce(Change::Entry { parent, name: name.clone() });
        Ok(())
    }

    /// The directory's own times and its number of subdirectories.
    fn dir_changed(&mut self, dir: Ino, subdirs: i32, now: Time) {
        if let Some(inode) = self.inodes.get_mut(&dir) {
            inode.attr.mtime = now;
            inode.attr.ctime = now;
            inode.attr.nlink = inode.attr.nlink.saturating_add_signed(subdirs);
        }
        self.touch(dir);
        self.announce(Change::Inode { ino: dir, data: false });
    }

    /// Makes a new inode with a name, counting a reference.
    pub fn make(
        &mut self,
        caller: &Caller,
        parent: Ino,
        name: &Name,
        node: &NewNode,
        now: Time,
    ) -> Step<Attr> {
        self.check()?;
        self.dir_for_new(parent)?;
        if self.entry(parent, name)?.is_some() {
            return Err(ErrorKind::Exists.into());
        }
        if node.kind == Kind::Symlink && node.target.len() > SYMLINK_BYTES_MAX {
            return Err(ErrorKind::NameTooLong.into());
        }
        let above = self.xattrs(parent)?;
        let (above_gid, above_perm) = (above.attr.gid, above.attr.perm);
        let xattrs = above.xattrs.as_ref().expect("loaded by xattrs");
        let inherited = inherit(xattrs.get(acl::DEFAULT_NAME.as_bytes()), node)?;
        let acl_bytes: u64 = inherited.acls.iter().map(|(_, v)| v.len() as u64).sum();
        self.check_quota(acl_bytes, 1)?;

        let ino = self.new_ino(parent)?;
        let set_gid = above_perm & SET_GID != 0;
        let mut perm = inherited.perm;
        if set_gid && node.kind == Kind::Dir {
            perm |= SET_GID;
        }
        let attr = Attr {
            ino,
            kind: node.kind,
            perm,
            nlink: if node.kind == Kind::Dir { 2 } else { 1 },
            uid: caller.uid,
            gid: if set_gid { above_gid } else { caller.gid },
            rdev: node.rdev,
            size: match node.kind {
                Kind::Dir => DIR_SIZE,
                Kind::Symlink => node.target.len() as u64,
                _ => 0,
            },
            charged: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
        };
        let mut inode = Inode::new(attr);
        inode.target = node.target.clone();
        if node.kind == Kind::Dir {
            inode.parent = parent;
        }
        self.inodes.insert(ino, Box::new(inode));
        self.inodes_used += 1;
        for (name, value) in inherited.acls {
            self.put_xattr(ino, name, value);
        }
        self.add_entry(parent, name, ino, node.kind)?;
        self.touch(ino);
        self.dir_changed(parent, i32::from(node.kind == Kind::Dir), now);
        self.refer(caller.client, ino);
        Ok(attr)
    }

    /// One more name for an inode, counting a reference.
    pub fn link(
        &mut self,
        caller: &Caller,
        ino: Ino,
        parent: Ino,
        name: &Name,
        now: Time,
    ) -> Step<Attr> {
        self.check()?;
        let attr = self.inode(ino)?.attr;
        self.dir_for_new(parent)?;
        if self.entry(parent, name)?.is_some() {
            return Err(ErrorKind::Exists.into());
        }
        if attr.kind == Kind::Dir {
            return Err(ErrorKind::NotPermitted.into());
        }
        if attr.nlink == 0 {
            return Err(ErrorKind::NotFound.into());
        }
        if attr.nlink >= LINKS_MAX {
            return Err(ErrorKind::TooManyLinks.into());
        }
        self.add_entry(parent, name, ino, attr.kind)?;
        let inode = self.inode(ino)?;
        inode.attr.nlink += u32::from(!mutants::is(Mutant::MiscountLink));
        inode.attr.ctime = now;
        let attr = inode.attr;
        self.touch(ino);
        self.announce(Change::Inode { ino, data: false });
        self.dir_changed(parent, 0, now);
        self.refer(caller.client, ino);
        Ok(attr)
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(&mut self, parent: Ino, name: &Name, now: Time) -> Step<()> {
        self.check()?;
        let Some(entry) = self.entry(parent, name)? else {
            return Err(ErrorKind::NotFound.into());
        };
        if entry.kind == Kind::Dir {
            return Err(ErrorKind::IsDir.into());
        }
        self.inode(entry.ino)?;
        self.remove_entry(parent, name)?;
        self.dir_changed(parent, 0, now);
        self.drop_link(entry.ino, 1, now);
        Ok(())
    }

    /// Removes an empty directory.
    pub fn rmdir(&mut self, parent: Ino, name: &Name, now: Time) -> Step<()> {
        self.check()?;
        let Some(entry) = self.entry(parent, name)? else {
            return Err(ErrorKind::NotFound.into());
        };
        if entry.kind != Kind::Dir {
            return Err(ErrorKind::NotDir.into());
        }
        if self.dir(entry.ino)?.entries > 0 {
            return Err(ErrorKind::NotEmpty.into());
        }
        self.remove_entry(parent, name)?;
        self.dir_changed(parent, -1, now);
        self.drop_link(entry.ino, 2, now);
        Ok(())
    }

    /// Takes links from an inode; without any it is an orphan, and freed when nobody uses it.
    fn drop_link(&mut self, ino: Ino, links: u32, now: Time) {
        let number = self.txn.number;
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        inode.attr.nlink = inode.attr.nlink.saturating_sub(links);
        inode.attr.ctime = now;
        let gone = inode.attr.nlink == 0;
        if gone {
            self.set_orphaned(ino, number);
        }
        self.touch(ino);
        self.announce(Change::Inode { ino, data: false });
        if gone {
            if !mutants::is(Mutant::ForgetOrphan) {
                self.txn.put(key::orphan(ino), vec![super::record::RECORD_VERSION]);
            }
            if !self.is_referenced(ino) {
                self.free(ino);
            }
        }
    }

    /// Gives references back; an orphan that nobody uses any more is freed.
    pub fn forget(&mut self, client: ClientId, ino: Ino, count: u64) {
        let Some(refs) = self.clients.get_mut(&client) else { return };
        if refs.give_back(ino, count) {
            self.free_if_unused(ino);
        }
    }

    /// Gives all references of a client back.
    pub fn detach(&mut self, client: ClientId) {
        for (ino, _) in self.clients.remove(&client).unwrap_or_default().iter() {
            self.free_if_unused(ino);
        }
    }

    fn free_if_unused(&mut self, ino: Ino) {
        let orphan = self.inodes.get(&ino).is_some_and(|i| i.orphaned.is_some() && !i.dead);
        if orphan && !self.is_referenced(ino) {
            self.free(ino);
        }
    }

    /// Fails where `dir` lies in the directory `top`, or is it.
    fn check_not_below(&mut self, mut dir: Ino, top: Ino) -> Step<()> {
        for _ in 0..DEPTH_MAX {
            if dir == top {
                return Err(ErrorKind::Invalid.into());
            }
            if dir == Ino::ROOT {
                return Ok(());
            }
            dir = self.dir(dir)?.parent;
        }
        Err(super::error::Error::corrupt("directories form a circle").into())
    }

    /// Renames, swaps, or renames leaving a whiteout.
    pub fn rename(
        &mut self,
        caller: &Caller,
        from: (Ino, &Name),
        to: (Ino, &Name),
        mode: RenameMode,
        now: Time,
    ) -> Step<()> {
        self.check()?;
        if mode.exchange && (mode.no_replace || mode.whiteout) {
            return Err(ErrorKind::Invalid.into());
        }
        let Some(source) = self.entry(from.0, from.1)? else {
            return Err(ErrorKind::NotFound.into());
        };
        self.dir_for_new(to.0)?;
        let target = self.entry(to.0, to.1)?;
        self.inode(source.ino)?;
        if source.kind == Kind::Dir && from.0 != to.0 {
            self.check_not_below(to.0, source.ino)?;
        }
        if self.gate_closed && (self.carries(source.ino) || self.carries_any(target.as_ref())) {
            return Err(Stop::Gate);
        }
        match target {
            None if mode.exchange => Err(ErrorKind::NotFound.into()),
            Some(_) if mode.no_replace => Err(ErrorKind::Exists.into()),
            Some(target) if mode.exchange => {
                if target.kind == Kind::Dir && from.0 != to.0 {
                    self.check_not_below(from.0, target.ino)?;
                }
                self.exchange(from, &source, to, &target, now)
            }
            target => self.replace(caller, from, &source, to, target, mode.whiteout, now),
        }
    }

    /// True when a rename of this inode would have to carry data along.
    fn carries(&self, ino: Ino) -> bool {
        self.inodes.get(&ino).and_then(|i| i.file.as_ref()).is_some_and(|f| f.durable.is_some())
    }

    fn carries_any(&self, entry: Option<&EntryRecord>) -> bool {
        entry.is_some_and(|e| self.carries(e.ino))
    }

    fn exchange(
        &mut self,
        from: (Ino, &Name),
        source: &EntryRecord,
        to: (Ino, &Name),
        target: &EntryRecord,
        now: Time,
    ) -> Step<()> {
        self.inode(target.ino)?;
        if source.ino == target.ino {
            return Ok(());
        }
        self.remove_entry(from.0, from.1)?;
        self.remove_entry(to.0, to.1)?;
        self.add_entry(from.0, from.1, target.ino, target.kind)?;
        self.add_entry(to.0, to.1, source.ino, source.kind)?;
        let (a, b) = (i32::from(source.kind == Kind::Dir), i32::from(target.kind == Kind::Dir));
        let across = i32::from(from.0 != to.0);
        self.moved(source, to.0, true, now);
        self.moved(target, from.0, true, now);
        self.dir_changed(from.0, (b - a) * across, now);
        self.dir_changed(to.0, (a - b) * across, now);
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn replace(
        &mut self,
        caller: &Caller,
        from: (Ino, &Name),
        source: &EntryRecord,
        to: (Ino, &Name),
        target: Option<EntryRecord>,
        whiteout: bool,
        now: Time,
    ) -> Step<()> {
        let is_dir = source.kind == Kind::Dir;
        if let Some(target) = &target {
            if target.ino == source.ino {
                return Ok(());
            }
            match (is_dir, target.kind == Kind::Dir) {
                (true, false) => return Err(ErrorKind::NotDir.into()),
                (false, true) => return Err(ErrorKind::IsDir.into()),
                (true, true) if self.dir(target.ino)?.entries > 0 => {
                    return Err(ErrorKind::NotEmpty.into());
                }
                _ => {
                    self.inode(target.ino)?;
                }
            }
        }
        if whiteout {
            self.check_quota(0, 1)?;
        }
        self.remove_entry(from.0, from.1)?;
        if let Some(target) = &target {
            if !mutants::is(Mutant::KeepReplacedEntry) {
                self.remove_entry(to.0, to.1)?;
            }
            let links = if is_dir { 2 } else { 1 };
            self.drop_link(target.ino, links, now);
        }
        self.add_entry(to.0, to.1, source.ino, source.kind)?;
        self.moved(source, to.0, target.is_some(), now);
        let replaced_dir = i32::from(is_dir && target.is_some());
        let across = i32::from(is_dir && from.0 != to.0);
        self.dir_changed(from.0, -across, now);
        self.dir_changed(to.0, across - replaced_dir, now);
        if whiteout {
            self.put_whiteout(caller, from, now)?;
        }
        Ok(())
    }

    /// What an inode notices of its move: its directory, its time, and its data goes along.
    fn moved(&mut self, entry: &EntryRecord, to: Ino, carry: bool, now: Time) {
        if let Some(inode) = self.inodes.get_mut(&entry.ino) {
            inode.attr.ctime = now;
            if entry.kind == Kind::Dir {
                inode.parent = to;
            }
            if carry && inode.file.as_ref().is_some_and(|f| f.durable.is_some()) {
                self.txn.carried.insert(entry.ino);
            }
        }
        self.touch(entry.ino);
        self.announce(Change::Inode { ino: entry.ino, data: false });
    }

    fn put_whiteout(&mut self, caller: &Caller, place: (Ino, &Name), now: Time) -> Step<()> {
        let above = self.dir(place.0)?.attr;
        let gid = if above.perm & SET_GID != 0 { above.gid } else { caller.gid };
        let ino = self.new_ino(place.0)?;
        let attr = Attr {
            ino,
            kind: Kind::CharDevice,
            perm: 0,
            nlink: 1,
            uid: caller.uid,
            gid,
            rdev: 0,
            size: 0,
            charged: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
        };
        self.inodes.insert(ino, Box::new(Inode::new(attr)));
        self.inodes_used += 1;
        self.add_entry(place.0, place.1, ino, Kind::CharDevice)?;
        self.touch(ino);
        Ok(())
    }

    /// A part of a listing behind `cookie`.
    pub fn readdir(&mut self, ino: Ino, cookie: u64, attrs: bool, max: usize) -> Step<DirPage> {
        let inode = self.dir(ino)?;
        let parent = if ino == Ino::ROOT { ino } else { inode.parent };
        let dir = inode.dir.as_ref().expect("checked by dir");
        let mut page = DirPage::new();
        for (number, name, ino) in [(1, &b"."[..], ino), (2, &b".."[..], parent)] {
            if cookie < number {
                let kind = Kind::Dir;
                page.push(DirEntry { ino, kind, name: name.into(), next: number, attr: None });
            }
        }
        let from = cookie >> 8;
        if from >= dir.known_to {
            return Err(Stop::Need(Need::Dir(ino, dir.known_to)));
        }
        for (hash, slot) in dir.buckets.range(from..dir.known_to) {
            if page.len() >= max {
                break;
            }
            let mut bucket: Vec<&EntryRecord> = slot.bucket.iter().collect();
            bucket.sort_by_key(|e| e.slot);
            for entry in bucket {
                let next = (hash << 8) | u64::from(entry.slot);
                if next > cookie {
                    let name: Arc<[u8]> = entry.name.as_bytes().into();
                    page.push(DirEntry {
                        ino: entry.ino,
                        kind: entry.kind,
                        name,
                        next,
                        attr: None,
                    });
                }
            }
        }
        if page.len() < max && dir.known_to != u64::MAX {
            return Err(Stop::Need(Need::Dir(ino, dir.known_to)));
        }
        page.truncate(max);
        if attrs {
            self.fill_attrs(ino, cookie, &mut page)?;
        }
        Ok(page)
    }

    fn fill_attrs(&mut self, dir: Ino, cookie: u64, page: &mut DirPage) -> Step<()> {
        let mut missing = Vec::new();
        for entry in page.iter_mut().filter(|e| e.next > 2) {
            entry.attr = self.attr(entry.ino);
            if entry.attr.is_none() {
                missing.push(entry.ino);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_unstable();
        missing.dedup();
        let next = page.last().map_or(0, |entry| entry.next);
        let most = self.parked.listed_max(cookie > 0);
        Err(Stop::Need(Need::Listed(missing, self.listed_next(dir, next, most))))
    }

    /// Of at most `most` inodes that a listing shows behind `cookie` those whose attributes are
    /// not in memory; sorted.
    /// Names are in the order of their hashes, numbers in that of their making: every part of a
    /// large directory lies scattered over its numbers, which one scan reads for many parts.
    fn listed_next(&self, dir: Ino, cookie: u64, most: usize) -> Vec<Ino> {
        let names = self.inodes.get(&dir).and_then(|inode| inode.dir.as_ref());
        let Some(names) = names else { return Vec::new() };
        let behind = names.buckets.range((cookie >> 8) + 1..);
        let listed = behind.flat_map(|(_, slot)| slot.bucket.iter().map(|entry| entry.ino));
        let mut next: Vec<Ino> = listed.take(most).filter(|ino| !self.has_attr(*ino)).collect();
        next.sort_unstable();
        next.dedup();
        next
    }
}

struct Inherited {
    perm: u16,
    acls: Vec<(&'static str, Vec<u8>)>,
}

/// Permission bits and ACLs of a new inode: by the directory's default ACL, else by the umask.
fn inherit(default: Option<&bytes::Bytes>, node: &NewNode) -> Step<Inherited> {
    let Some(value) = default.filter(|_| node.kind != Kind::Symlink) else {
        let perm = if node.kind == Kind::Symlink { 0o777 } else { node.perm & !node.umask };
        return Ok(Inherited { perm, acls: Vec::new() });
    };
    let default = acl::Acl::parse(value)?;
    let (perm, access) = default.inherit(node.perm);
    let mut acls = Vec::new();
    if let Some(access) = access {
        acls.push((acl::ACCESS_NAME, access.to_bytes()));
    }
    if node.kind == Kind::Dir {
        acls.push((acl::DEFAULT_NAME, value.to_vec()));
    }
    Ok(Inherited { perm, acls })
}
