//! A tree of inodes in hash maps, with nothing behind it: no durability, quota, permissions or
//! limits. What it answers is right, so that every workload runs on it; what it leaves out is
//! what a real file system adds to the cost of FUSE.

use std::collections::{BTreeMap, HashMap};

use fuser::{Errno, FileType};

/// The root of every FUSE mount.
pub const ROOT: u64 = 1;
/// Contents lie in pieces of this many bytes, so that a growing file is never copied.
const PIECE_BYTES: usize = 1 << 20;

/// Seconds and nanoseconds since 1970.
pub type Time = (i64, u32);

/// Contents of a file.
#[derive(Debug, Default)]
pub struct Contents {
    pieces: Vec<Vec<u8>>,
    /// The size of the file; what no piece holds is zero.
    pub size: u64,
}

impl Contents {
    /// Puts bytes at an offset.
    pub fn write(&mut self, offset: u64, mut data: &[u8]) {
        let mut at = usize::try_from(offset).unwrap_or(usize::MAX);
        self.size = self.size.max(offset + data.len() as u64);
        while !data.is_empty() {
            let (number, from) = (at / PIECE_BYTES, at % PIECE_BYTES);
            let len = data.len().min(PIECE_BYTES - from);
            if self.pieces.len() <= number {
                self.pieces.resize_with(number + 1, Vec::new);
            }
            let piece = &mut self.pieces[number];
            if piece.len() == from {
                piece.extend_from_slice(&data[..len]);
            } else {
                let end = piece.len().max(from + len);
                piece.resize(end, 0);
                piece[from..from + len].copy_from_slice(&data[..len]);
            }
            at += len;
            data = &data[len..];
        }
    }

    /// Gives a range to `done`; without a copy where it lies in one piece.
    pub fn read<T>(&self, offset: u64, len: u32, done: impl FnOnce(&[u8]) -> T) -> T {
        let end = self.size.min(offset + u64::from(len));
        if offset >= end {
            return done(&[]);
        }
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let len = usize::try_from(end - offset).unwrap_or(0);
        let (number, from) = (at / PIECE_BYTES, at % PIECE_BYTES);
        if let Some(piece) = self.pieces.get(number)
            && let Some(bytes) = piece.get(from..from + len)
        {
            return done(bytes);
        }
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            let (number, from) = ((at + filled) / PIECE_BYTES, (at + filled) % PIECE_BYTES);
            let part = (len - filled).min(PIECE_BYTES - from);
            if let Some(piece) = self.pieces.get(number)
                && piece.len() > from
            {
                let there = part.min(piece.len() - from);
                bytes[filled..filled + there].copy_from_slice(&piece[from..from + there]);
            }
            filled += part;
        }
        done(&bytes)
    }

    /// Cuts off or adds zeros.
    pub fn set_size(&mut self, size: u64) {
        let at = usize::try_from(size).unwrap_or(usize::MAX);
        let (number, from) = (at / PIECE_BYTES, at % PIECE_BYTES);
        if size < self.size {
            self.pieces.truncate(number + 1);
            if let Some(piece) = self.pieces.get_mut(number) {
                piece.truncate(from);
            }
        }
        self.size = size;
    }
}

/// One inode.
#[derive(Debug)]
pub struct Inode {
    pub kind: FileType,
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub nlink: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub parent: u64,
    pub contents: Contents,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub entries: HashMap<Vec<u8>, (u64, u64)>,
    /// Names by the cookie of their line, for listings.
    pub lines: BTreeMap<u64, (Vec<u8>, u64)>,
    next_line: u64,
    lookups: u64,
}

/// What a new inode is.
#[derive(Clone, Debug)]
pub struct New {
    pub kind: FileType,
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub target: Vec<u8>,
}

/// All inodes.
#[derive(Debug)]
pub struct Tree {
    inodes: HashMap<u64, Inode>,
    next: u64,
}

type Result<T> = std::result::Result<T, Errno>;

impl Default for Tree {
    fn default() -> Self {
        let mut tree = Self { inodes: HashMap::new(), next: ROOT };
        let kind = FileType::Directory;
        let new = New { kind, perm: 0o755, uid: 0, gid: 0, rdev: 0, target: Vec::new() };
        tree.add(ROOT, &new, (0, 0));
        tree
    }
}

impl Tree {
    /// An inode.
    pub fn get(&mut self, ino: u64) -> Result<&mut Inode> {
        self.inodes.get_mut(&ino).ok_or(Errno::ESTALE)
    }

    fn add(&mut self, parent: u64, new: &New, now: Time) -> u64 {
        let ino = self.next;
        self.next += 1;
        let nlink = if new.kind == FileType::Directory { 2 } else { 1 };
        let inode = Inode {
            kind: new.kind,
            perm: new.perm,
            uid: new.uid,
            gid: new.gid,
            rdev: new.rdev,
            nlink,
            atime: now,
            mtime: now,
            ctime: now,
            parent,
            contents: Contents { size: new.target.len() as u64, ..Contents::default() },
            target: new.target.clone(),
            xattrs: BTreeMap::new(),
            entries: HashMap::new(),
            lines: BTreeMap::new(),
            // 1 and 2 are `.` and `..`.
            next_line: 3,
            lookups: 0,
        };
        self.inodes.insert(ino, inode);
        ino
    }

    /// Name to inode.
    pub fn find(&mut self, parent: u64, name: &[u8]) -> Result<Option<u64>> {
        Ok(self.get(parent)?.entries.get(name).map(|(ino, _)| *ino))
    }

    /// Counts a reference of the kernel's.
    pub fn refer(&mut self, ino: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.lookups += 1;
        }
    }

    /// Gives references back; what has no name goes with the last.
    pub fn forget(&mut self, ino: u64, count: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.lookups = inode.lookups.saturating_sub(count);
            if inode.lookups == 0 && inode.nlink == 0 {
                self.inodes.remove(&ino);
            }
        }
    }

    fn enter(&mut self, parent: u64, name: &[u8], ino: u64, now: Time) -> Result<()> {
        let dir = self.get(parent)?;
        let line = dir.next_line;
        dir.next_line += 1;
        dir.entries.insert(name.to_vec(), (ino, line));
        dir.lines.insert(line, (name.to_vec(), ino));
        (dir.mtime, dir.ctime) = (now, now);
        Ok(())
    }

    fn leave(&mut self, parent: u64, name: &[u8], now: Time) -> Result<u64> {
        let dir = self.get(parent)?;
        let (ino, line) = dir.entries.remove(name).ok_or(Errno::ENOENT)?;
        dir.lines.remove(&line);
        (dir.mtime, dir.ctime) = (now, now);
        Ok(ino)
    }

    /// Makes an inode with a name.
    pub fn make(&mut self, parent: u64, name: &[u8], mut new: New, now: Time) -> Result<u64> {
        let dir = self.get(parent)?;
        if dir.entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let is_dir = new.kind == FileType::Directory;
        if dir.perm & 0o2000 != 0 {
            new.gid = dir.gid;
            new.perm |= if is_dir { 0o2000 } else { 0 };
        }
        dir.nlink += u32::from(is_dir);
        let ino = self.add(parent, &new, now);
        self.enter(parent, name, ino, now)?;
        Ok(ino)
    }

    /// One more name.
    pub fn link(&mut self, ino: u64, parent: u64, name: &[u8], now: Time) -> Result<()> {
        if self.find(parent, name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        let inode = self.get(ino)?;
        inode.nlink += 1;
        inode.ctime = now;
        self.enter(parent, name, ino, now)
    }

    /// Takes a name away.
    pub fn remove(&mut self, parent: u64, name: &[u8], dir: bool, now: Time) -> Result<()> {
        let ino = self.find(parent, name)?.ok_or(Errno::ENOENT)?;
        let inode = self.get(ino)?;
        match (inode.kind == FileType::Directory, dir) {
            (true, false) => return Err(Errno::EISDIR),
            (false, true) => return Err(Errno::ENOTDIR),
            (true, true) if !inode.entries.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.leave(parent, name, now)?;
        self.unlinked(parent, ino, now);
        Ok(())
    }

    fn unlinked(&mut self, parent: u64, ino: u64, now: Time) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let is_dir = inode.kind == FileType::Directory;
        inode.nlink = if is_dir { 0 } else { inode.nlink.saturating_sub(1) };
        inode.ctime = now;
        if inode.nlink == 0 && inode.lookups == 0 {
            self.inodes.remove(&ino);
        }
        if is_dir && let Some(above) = self.inodes.get_mut(&parent) {
            above.nlink = above.nlink.saturating_sub(1);
        }
    }

    /// Renames; `flags` as of renameat2.
    pub fn rename(
        &mut self,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        flags: u32,
        now: Time,
    ) -> Result<()> {
        let moved = self.find(from.0, from.1)?.ok_or(Errno::ENOENT)?;
        let there = self.find(to.0, to.1)?;
        if flags & libc::RENAME_NOREPLACE != 0 && there.is_some() {
            return Err(Errno::EEXIST);
        }
        if flags & libc::RENAME_EXCHANGE != 0 {
            let other = there.ok_or(Errno::ENOENT)?;
            self.leave(from.0, from.1, now)?;
            self.leave(to.0, to.1, now)?;
            self.enter(from.0, from.1, other, now)?;
            self.enter(to.0, to.1, moved, now)?;
            self.moved(other, to.0, from.0);
            self.moved(moved, from.0, to.0);
            return Ok(());
        }
        if there == Some(moved) {
            return Ok(());
        }
        if let Some(other) = there {
            if !self.get(other)?.entries.is_empty() {
                return Err(Errno::ENOTEMPTY);
            }
            self.leave(to.0, to.1, now)?;
            self.unlinked(to.0, other, now);
        }
        self.leave(from.0, from.1, now)?;
        self.enter(to.0, to.1, moved, now)?;
        self.moved(moved, from.0, to.0);
        if flags & libc::RENAME_WHITEOUT != 0 {
            let kind = FileType::CharDevice;
            let new = New { kind, perm: 0, uid: 0, gid: 0, rdev: 0, target: Vec::new() };
            self.make(from.0, from.1, new, now)?;
        }
        Ok(())
    }

    fn moved(&mut self, ino: u64, from: u64, to: u64) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        if inode.kind != FileType::Directory || from == to {
            return;
        }
        inode.parent = to;
        for (dir, by) in [(from, -1), (to, 1)] {
            if let Some(dir) = self.inodes.get_mut(&dir) {
                dir.nlink = dir.nlink.saturating_add_signed(by);
            }
        }
    }
}
