//! The reference: a POSIX tree over plain maps. No transactions, no caches, no sharing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use yadokari_fs::home::*;

use super::bytes::Contents;

/// What an operation fails with: the name of the kind.
pub type Fails<T> = Result<T, &'static str>;

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
pub const ACCESS: &[u8] = b"system.posix_acl_access";
pub const DEFAULT: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";

/// What commits in the order of operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pub kind: Kind,
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub target: Vec<u8>,
    pub nlink: u32,
    pub parent: u64,
    pub entries: BTreeMap<Vec<u8>, u64>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub atime: Time,
    pub btime: Time,
    /// Of anything but files.
    pub mtime: Time,
    /// Of anything but files: that of a file is not promised after a crash.
    pub ctime: Time,
}

/// What commits when its data is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    pub size: u64,
    pub mtime: Time,
    pub contents: Contents,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub names: Arc<Names>,
    /// Files only.
    pub data: Option<Arc<Data>>,
    pub ctime: Time,
    pub charged: u64,
}

impl Node {
    fn is_dir(&self) -> bool {
        self.names.kind == Kind::Dir
    }

    pub fn attr(&self, ino: u64) -> Attr {
        let n = &self.names;
        let size = match n.kind {
            Kind::Dir => 4096,
            Kind::Symlink => n.target.len() as u64,
            _ => self.data.as_ref().map_or(0, |d| d.size),
        };
        Attr {
            ino: Ino(ino),
            kind: n.kind,
            perm: n.perm,
            nlink: n.nlink,
            uid: n.uid,
            gid: n.gid,
            rdev: n.rdev,
            size,
            charged: self.charged,
            atime: n.atime,
            mtime: self.data.as_ref().map_or(n.mtime, |d| d.mtime),
            ctime: if self.data.is_some() { self.ctime } else { n.ctime },
            btime: n.btime,
        }
    }

    pub fn xattr_bytes(&self) -> u64 {
        self.names.xattrs.values().map(|v| v.len() as u64).sum()
    }
}

/// The tree and who uses it.
#[derive(Clone, Debug)]
pub struct Tree {
    pub nodes: BTreeMap<u64, Node>,
    pub refs: BTreeMap<(u32, u64), u64>,
    pub quota: Quota,
    pub bytes: u64,
    /// What the last operation did to names: for the order of durability.
    pub named: Vec<u64>,
    /// And to data.
    pub wrote: Vec<u64>,
}

impl Tree {
    pub fn usage(&self) -> Usage {
        Usage {
            bytes: self.bytes,
            bytes_limit: self.quota.bytes,
            inodes: self.nodes.len() as u64,
            inodes_limit: self.quota.inodes,
        }
    }

    /// The inode at a path from the root; the empty path is the root.
    pub fn at(&self, path: &str) -> Option<u64> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        parts.try_fold(1, |dir, name| {
            self.nodes.get(&dir)?.names.entries.get(name.as_bytes()).copied()
        })
    }

    pub fn node(&self, ino: u64) -> Fails<&Node> {
        self.nodes.get(&ino).ok_or("Stale")
    }

    fn dir(&self, ino: u64) -> Fails<&Node> {
        let node = self.node(ino)?;
        if node.is_dir() { Ok(node) } else { Err("NotDir") }
    }

    fn dir_for_new(&self, ino: u64) -> Fails<&Node> {
        let node = self.dir(ino)?;
        if node.names.nlink == 0 { Err("NotFound") } else { Ok(node) }
    }

    pub fn file(&self, ino: u64) -> Fails<&Arc<Data>> {
        let node = self.node(ino)?;
        match node.names.kind {
            Kind::Dir => Err("IsDir"),
            _ => node.data.as_ref().ok_or("Invalid"),
        }
    }

    pub fn names(&mut self, ino: u64) -> &mut Names {
        self.named.push(ino);
        Arc::make_mut(&mut self.nodes.get_mut(&ino).expect("is there").names)
    }

    fn changed(&mut self, ino: u64, now: Time) {
        self.nodes.get_mut(&ino).expect("is there").ctime = now;
        self.names(ino).ctime = now;
    }

    fn dir_changed(&mut self, dir: u64, now: Time) {
        self.changed(dir, now);
        self.names(dir).mtime = now;
    }

    /// Changes contents, size and times of a file, and accounts for it.
    fn data(&mut self, ino: u64, now: Time, change: impl FnOnce(&mut Data)) {
        self.wrote.push(ino);
        let node = self.nodes.get_mut(&ino).expect("is there");
        let before = node.charged;
        let data = Arc::make_mut(node.data.as_mut().expect("a file"));
        change(data);
        data.mtime = now;
        node.charged = data.contents.charged();
        node.ctime = now;
        self.bytes = self.bytes + node.charged - before;
    }

    fn entry(&self, parent: u64, name: &[u8]) -> Fails<Option<u64>> {
        Ok(self.dir(parent)?.names.entries.get(name).copied())
    }

    fn room(&self, bytes: u64, inodes: u64) -> Fails<()> {
        let bytes_ok = bytes == 0 || self.bytes + bytes <= self.quota.bytes;
        let inodes_ok = inodes == 0 || self.nodes.len() as u64 + inodes <= self.quota.inodes;
        if bytes_ok && inodes_ok { Ok(()) } else { Err("OverQuota") }
    }

    pub fn refer(&mut self, client: u32, ino: u64) {
        *self.refs.entry((client, ino)).or_insert(0) += 1;
    }

    pub fn forget(&mut self, client: u32, ino: u64, count: u64) {
        if let Some(held) = self.refs.get_mut(&(client, ino)) {
            *held = held.saturating_sub(count);
            if *held == 0 {
                self.refs.remove(&(client, ino));
                self.free_if_unused(ino);
            }
        }
    }

    fn free_if_unused(&mut self, ino: u64) {
        let used = self.refs.keys().any(|(_, held)| *held == ino);
        let gone = self.nodes.get(&ino).is_some_and(|n| n.names.nlink == 0);
        if gone && !used {
            let node = self.nodes.remove(&ino).expect("just seen");
            self.bytes -= node.charged + node.xattr_bytes();
        }
    }

    /// What a restart leaves: no references, so no files without names.
    pub fn restart(&mut self) {
        self.refs.clear();
        let inos: Vec<u64> = self.nodes.keys().copied().collect();
        for ino in inos {
            self.free_if_unused(ino);
        }
    }

    pub fn lookup(&mut self, client: u32, parent: u64, name: &[u8]) -> Fails<Attr> {
        let ino = self.entry(parent, name)?.ok_or("NotFound")?;
        self.refer(client, ino);
        Ok(self.nodes[&ino].attr(ino))
    }

    /// Checks whether `make` would work; the number is the home's to choose.
    pub fn can_make(&self, parent: u64, name: &[u8], node: &NewNode) -> Fails<()> {
        let above = self.dir_for_new(parent)?;
        if above.names.entries.contains_key(name) {
            return Err("Exists");
        }
        let acls = inherit(above, node).1;
        self.room(acls.iter().map(|(_, v)| v.len() as u64).sum(), 1)
    }

    pub fn make(
        &mut self,
        caller: &Caller,
        (parent, name): (u64, &[u8]),
        node: &NewNode,
        ino: u64,
        now: Time,
    ) -> Attr {
        let above = &self.nodes[&parent];
        let (mut perm, acls) = inherit(above, node);
        let set_gid = above.names.perm & SET_GID != 0;
        let gid = if set_gid { above.names.gid } else { caller.gid };
        let is_dir = node.kind == Kind::Dir;
        if set_gid && is_dir {
            perm |= SET_GID;
        }
        let names = Names {
            kind: node.kind,
            perm,
            uid: caller.uid,
            gid,
            rdev: node.rdev,
            target: node.target.to_vec(),
            nlink: if is_dir { 2 } else { 1 },
            parent: if is_dir { parent } else { 0 },
            entries: BTreeMap::new(),
            xattrs: acls.into_iter().collect(),
            atime: now,
            btime: now,
            mtime: now,
            ctime: now,
        };
        let data = (node.kind == Kind::File)
            .then(|| Arc::new(Data { size: 0, mtime: now, contents: Contents::default() }));
        let new = Node { names: Arc::new(names), data, ctime: now, charged: 0 };
        self.bytes += new.xattr_bytes();
        self.insert(ino, new);
        self.dir_changed(parent, now);
        self.names(parent).entries.insert(name.to_vec(), ino);
        if is_dir {
            self.names(parent).nlink += 1;
        }
        self.refer(caller.client.0, ino);
        self.nodes[&ino].attr(ino)
    }

    pub fn link(&mut self, client: u32, ino: u64, to: (u64, &[u8]), now: Time) -> Fails<Attr> {
        let node = self.node(ino)?;
        let (is_dir, nlink) = (node.is_dir(), node.names.nlink);
        if self.dir_for_new(to.0)?.names.entries.contains_key(to.1) {
            return Err("Exists");
        }
        if is_dir {
            return Err("NotPermitted");
        }
        if nlink == 0 {
            return Err("NotFound");
        }
        self.names(ino).nlink += 1;
        self.changed(ino, now);
        self.names(to.0).entries.insert(to.1.to_vec(), ino);
        self.dir_changed(to.0, now);
        self.refer(client, ino);
        Ok(self.nodes[&ino].attr(ino))
    }

    fn drop_link(&mut self, ino: u64, now: Time) {
        let is_dir = self.nodes[&ino].is_dir();
        self.changed(ino, now);
        let names = self.names(ino);
        names.nlink = if is_dir { 0 } else { names.nlink - 1 };
        self.free_if_unused(ino);
    }

    pub fn unlink(&mut self, parent: u64, name: &[u8], now: Time) -> Fails<()> {
        let ino = self.entry(parent, name)?.ok_or("NotFound")?;
        if self.nodes[&ino].is_dir() {
            return Err("IsDir");
        }
        self.names(parent).entries.remove(name);
        self.dir_changed(parent, now);
        self.drop_link(ino, now);
        Ok(())
    }

    pub fn rmdir(&mut self, parent: u64, name: &[u8], now: Time) -> Fails<()> {
        let ino = self.entry(parent, name)?.ok_or("NotFound")?;
        let node = &self.nodes[&ino];
        if !node.is_dir() {
            return Err("NotDir");
        }
        if !node.names.entries.is_empty() {
            return Err("NotEmpty");
        }
        self.names(parent).entries.remove(name);
        self.names(parent).nlink -= 1;
        self.dir_changed(parent, now);
        self.drop_link(ino, now);
        Ok(())
    }

    fn is_below(&self, mut dir: u64, top: u64) -> bool {
        loop {
            if dir == top {
                return true;
            }
            if dir == 1 {
                return false;
            }
            dir = self.nodes[&dir].names.parent;
        }
    }

    /// Checks whether a rename would work. Gives source and target; `None`: nothing to do.
    #[allow(clippy::type_complexity)]
    pub fn can_rename(
        &self,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        mode: RenameMode,
    ) -> Fails<Option<(u64, Option<u64>)>> {
        if mode.exchange && (mode.no_replace || mode.whiteout) {
            return Err("Invalid");
        }
        let source = self.entry(from.0, from.1)?.ok_or("NotFound")?;
        self.dir_for_new(to.0)?;
        let target = self.entry(to.0, to.1)?;
        let source_dir = self.nodes[&source].is_dir();
        if source_dir && self.is_below(to.0, source) {
            return Err("Invalid");
        }
        let Some(there) = target else {
            if mode.exchange {
                return Err("NotFound");
            }
            self.room(0, u64::from(mode.whiteout))?;
            return Ok(Some((source, None)));
        };
        if mode.no_replace {
            return Err("Exists");
        }
        let target_dir = self.nodes[&there].is_dir();
        if mode.exchange {
            if target_dir && self.is_below(from.0, there) {
                return Err("Invalid");
            }
            return Ok((source != there).then_some((source, target)));
        }
        if source == there {
            return Ok(None);
        }
        match (source_dir, target_dir) {
            (true, false) => return Err("NotDir"),
            (false, true) => return Err("IsDir"),
            (true, true) if !self.nodes[&there].names.entries.is_empty() => {
                return Err("NotEmpty");
            }
            _ => {}
        }
        self.room(0, u64::from(mode.whiteout))?;
        Ok(Some((source, target)))
    }

    fn move_to(&mut self, ino: u64, dir: u64, name: &[u8], now: Time) {
        self.changed(ino, now);
        self.names(dir).entries.insert(name.to_vec(), ino);
        if self.nodes[&ino].is_dir() {
            let old = self.nodes[&ino].names.parent;
            self.names(old).nlink -= 1;
            self.names(dir).nlink += 1;
            self.names(ino).parent = dir;
        }
    }

    /// A rename that [`Tree::can_rename`] allows; the whiteout's number is the home's to choose.
    pub fn rename(
        &mut self,
        caller: &Caller,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        whiteout: Option<u64>,
        mode: RenameMode,
        now: Time,
    ) {
        let Ok(Some((source, target))) = self.can_rename(from, to, mode) else { return };
        self.dir_changed(from.0, now);
        self.dir_changed(to.0, now);
        self.names(from.0).entries.remove(from.1);
        if let Some(target) = target {
            if mode.exchange {
                self.move_to(target, from.0, from.1, now);
            } else {
                if self.nodes[&target].is_dir() {
                    self.names(to.0).nlink -= 1;
                }
                self.names(to.0).entries.remove(to.1);
                self.drop_link(target, now);
            }
        }
        self.move_to(source, to.0, to.1, now);
        if let Some(ino) = whiteout {
            let above = Arc::clone(&self.nodes[&from.0].names);
            let names = Names {
                kind: Kind::CharDevice,
                perm: 0,
                uid: caller.uid,
                gid: if above.perm & SET_GID != 0 { above.gid } else { caller.gid },
                rdev: 0,
                target: Vec::new(),
                nlink: 1,
                parent: 0,
                entries: BTreeMap::new(),
                xattrs: BTreeMap::new(),
                atime: now,
                btime: now,
                mtime: now,
                ctime: now,
            };
            self.insert(ino, Node { names: Arc::new(names), data: None, ctime: now, charged: 0 });
            self.names(from.0).entries.insert(from.1.to_vec(), ino);
        }
    }

    fn insert(&mut self, ino: u64, node: Node) {
        let fresh = self.nodes.insert(ino, node).is_none();
        assert!(fresh, "inode number {ino} was given twice");
        self.named.push(ino);
        self.wrote.push(ino);
    }

    pub fn setattr(&mut self, ino: u64, set: &SetAttr, now: Time) -> Fails<Attr> {
        self.node(ino)?;
        if let Some(size) = set.size {
            self.file(ino)?;
            if size > FILE_BYTES_MAX {
                return Err("FileTooLarge");
            }
            self.data(ino, now, |data| {
                data.contents.punch(size..u64::MAX - 4096);
                data.size = size;
            });
        }
        if let Some(perm) = set.perm {
            let names = self.names(ino);
            names.perm = perm & 0o7777;
            if let Some(acl) = names.xattrs.get_mut(ACCESS) {
                acl_set_mode(acl, perm);
            }
        }
        self.kill_priv(ino, set.kill);
        let names = self.names(ino);
        names.uid = set.uid.unwrap_or(names.uid);
        names.gid = set.gid.unwrap_or(names.gid);
        let time = |t: SetTime| match t {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        if let Some(atime) = set.atime {
            names.atime = time(atime);
        }
        if let Some(mtime) = set.mtime {
            names.mtime = time(mtime);
            let node = self.nodes.get_mut(&ino).expect("is there");
            if let Some(data) = node.data.as_mut() {
                Arc::make_mut(data).mtime = time(mtime);
                self.wrote.push(ino);
            }
        }
        self.changed(ino, now);
        Ok(self.nodes[&ino].attr(ino))
    }

    fn kill_priv(&mut self, ino: u64, kill: Kill) {
        if self.nodes[&ino].is_dir() || kill == Kill::Nothing {
            return;
        }
        let perm = self.nodes[&ino].names.perm;
        let alive = perm & 0o010 != 0 || kill == Kill::ByOutsider;
        let group = if alive { SET_GID } else { 0 };
        self.names(ino).perm &= !(SET_UID | group);
        if let Some(old) = self.names(ino).xattrs.remove(CAPABILITY) {
            self.bytes -= old.len() as u64;
        }
    }

    pub fn write(
        &mut self,
        ino: u64,
        offset: u64,
        bytes: &[u8],
        mode: WriteMode,
        now: Time,
    ) -> Fails<u32> {
        let data = self.file(ino)?;
        let offset = if mode.append { data.size } else { offset };
        if offset >= FILE_BYTES_MAX && !bytes.is_empty() {
            return Err("FileTooLarge");
        }
        let wanted = (bytes.len() as u64).min(FILE_BYTES_MAX - offset);
        let room = self.quota.bytes.saturating_sub(self.bytes);
        let range = offset..offset + wanted;
        let holes = wanted - data.contents.covered(range.clone());
        let len = if holes <= room { wanted } else { data.contents.fitting(range, room) };
        if len == 0 && !bytes.is_empty() {
            return Err("OverQuota");
        }
        self.kill_priv(ino, mode.kill);
        if len > 0 {
            self.data(ino, now, |data| {
                data.contents.write(offset, &bytes[..len as usize]);
                data.size = data.size.max(offset + len);
            });
        }
        Ok(len as u32)
    }

    pub fn fallocate(&mut self, ino: u64, what: Falloc, range: Range<u64>, now: Time) -> Fails<()> {
        let len = range.end - range.start;
        if len == 0 {
            return Err("Invalid");
        }
        let (keep_size, reserves, clears) = match what {
            Falloc::Allocate { keep_size } => (keep_size, true, false),
            Falloc::PunchHole => (true, false, true),
            Falloc::ZeroRange { keep_size } => (keep_size, true, true),
        };
        if range.end > FILE_BYTES_MAX {
            return Err("FileTooLarge");
        }
        let data = self.file(ino)?;
        if reserves {
            self.room(len - data.contents.covered(range.clone()), 0)?;
        }
        self.data(ino, now, |data| {
            if clears {
                data.contents.punch(range.clone());
            }
            if reserves {
                data.contents.reserve(range.clone());
            }
            if !keep_size {
                data.size = data.size.max(range.end);
            }
        });
        Ok(())
    }

    pub fn copy_range(
        &mut self,
        from: (u64, u64),
        to: (u64, u64),
        len: u64,
        now: Time,
    ) -> Fails<u64> {
        let source = Arc::clone(self.file(from.0)?);
        let len = len.min(source.size.saturating_sub(from.1));
        let target = self.file(to.0)?;
        if len == 0 {
            return Ok(0);
        }
        if to.1 > FILE_BYTES_MAX - len {
            return Err("FileTooLarge");
        }
        let (reads, writes) = (from.1..from.1 + len, to.1..to.1 + len);
        if from.0 == to.0 && reads.start < writes.end && writes.start < reads.end {
            return Err("Invalid");
        }
        let taken = source.contents.covered(reads.clone());
        let freed = target.contents.covered(writes.clone());
        self.room(taken.saturating_sub(freed), 0)?;
        self.data(to.0, now, |data| {
            data.contents.copy_from(&source.contents, reads, to.1);
            data.size = data.size.max(writes.end);
        });
        Ok(len)
    }

    pub fn seek(&self, ino: u64, offset: u64, whence: Seek) -> Fails<u64> {
        let data = self.file(ino)?;
        if offset >= data.size {
            return Err("NoData");
        }
        let found = data.contents.next(offset..data.size, whence == Seek::Data);
        match whence {
            Seek::Data => found.ok_or("NoData"),
            Seek::Hole => Ok(found.unwrap_or(data.size)),
        }
    }

    pub fn setxattr(
        &mut self,
        ino: u64,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
        now: Time,
    ) -> Fails<()> {
        self.node(ino)?;
        check_name(name)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err("AttributeTooBig");
        }
        let names = &self.nodes[&ino].names;
        let old = names.xattrs.get(name).map(|v| v.len() as u64);
        if mode.create && old.is_some() {
            return Err("Exists");
        }
        if mode.replace && old.is_none() {
            return Err("NoAttribute");
        }
        let mut stored = Some(value.to_vec());
        let mut perm = names.perm;
        if name == ACCESS || name == DEFAULT {
            acl_check(value)?;
            if name == DEFAULT && names.kind != Kind::Dir {
                return Err("NotPermitted");
            }
        }
        if name == ACCESS {
            perm = perm & 0o7000 | acl_mode(value);
            if mode.kill_sgid {
                perm &= !SET_GID;
            }
            stored = (value.len() > 4 + 3 * 8).then(|| value.to_vec());
        }
        let new = stored.as_ref().map_or(0, |v| v.len() as u64);
        self.room(new.saturating_sub(old.unwrap_or(0)), 0)?;
        self.bytes = self.bytes + new - old.unwrap_or(0);
        let names = self.names(ino);
        names.perm = perm;
        match stored {
            Some(value) => drop(names.xattrs.insert(name.to_vec(), value)),
            None => drop(names.xattrs.remove(name)),
        }
        self.changed(ino, now);
        Ok(())
    }

    pub fn removexattr(&mut self, ino: u64, name: &[u8], now: Time) -> Fails<()> {
        self.node(ino)?;
        check_name(name)?;
        let there = self.nodes[&ino].names.xattrs.contains_key(name);
        if !there && (name == ACCESS || name == DEFAULT) {
            return Ok(());
        }
        let old = self.nodes[&ino].names.xattrs.get(name).ok_or("NoAttribute")?.len() as u64;
        self.names(ino).xattrs.remove(name);
        self.bytes -= old;
        self.changed(ino, now);
        Ok(())
    }
}

fn check_name(name: &[u8]) -> Fails<()> {
    let known = [&b"user."[..], b"trusted.", b"security.", b"system.posix_acl_"];
    let ours = known.iter().any(|p| name.starts_with(p) && name.len() > p.len());
    if ours { Ok(()) } else { Err("NotSupported") }
}

#[allow(clippy::type_complexity)]
fn inherit(above: &Node, node: &NewNode) -> (u16, Vec<(Vec<u8>, Vec<u8>)>) {
    if node.kind == Kind::Symlink {
        return (0o777, Vec::new());
    }
    let Some(default) = above.names.xattrs.get(DEFAULT) else {
        return (node.perm & !node.umask, Vec::new());
    };
    let mut access = default.clone();
    let perm = node.perm & (0o7000 | acl_mode(default));
    acl_set_mode(&mut access, perm);
    let mut acls = Vec::new();
    if access.len() > 4 + 3 * 8 {
        acls.push((ACCESS.to_vec(), access));
    }
    if node.kind == Kind::Dir {
        acls.push((DEFAULT.to_vec(), default.clone()));
    }
    (perm, acls)
}

/// An ACL of owner, group, others, and with `named` a named user and a mask.
pub fn acl(perm: u16, named: Option<(u32, u16)>) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    let mut add = |tag: u16, perm: u16, id: u32| {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&(perm & 7).to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    };
    add(0x01, perm >> 6, u32::MAX);
    if let Some((uid, perm)) = named {
        add(0x02, perm, uid);
    }
    add(0x04, perm >> 3, u32::MAX);
    if named.is_some() {
        add(0x10, perm >> 3, u32::MAX);
    }
    add(0x20, perm, u32::MAX);
    bytes
}

fn acl_tags(acl: &[u8]) -> impl Iterator<Item = (u8, usize)> + '_ {
    (4..acl.len()).step_by(8).map(|at| (acl[at], at + 2))
}

/// Owner, group (or mask) and others are told by their tags.
fn acl_slots(acl: &[u8]) -> [usize; 3] {
    let find = |tag| acl_tags(acl).find(|(t, _)| *t == tag).map(|(_, at)| at);
    let group = find(0x10).or(find(0x04)).expect("has a group");
    [find(0x01).expect("has an owner"), group, find(0x20).expect("has others")]
}

fn acl_check(acl: &[u8]) -> Fails<()> {
    match acl.first_chunk() {
        None => Err("Invalid"),
        Some(version) if u32::from_le_bytes(*version) != 2 => Err("NotSupported"),
        Some(_) if acl.len() < 4 + 3 * 8 => Err("Invalid"),
        Some(_) => Ok(()),
    }
}

fn acl_mode(acl: &[u8]) -> u16 {
    let [u, g, o] = acl_slots(acl);
    u16::from(acl[u]) << 6 | u16::from(acl[g]) << 3 | u16::from(acl[o])
}

fn acl_set_mode(acl: &mut [u8], perm: u16) {
    for (slot, shift) in acl_slots(acl).into_iter().zip([6, 3, 0]) {
        acl[slot] = (perm >> shift & 7) as u8;
    }
}
