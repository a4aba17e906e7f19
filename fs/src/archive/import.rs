//! From a stream into a home that has just been made.
//!
//! What an entry says is set in an order in which nothing undoes another: owner, mode, attributes,
//! times; and of directories at the very end, when nothing more is made in them.

use std::collections::HashMap;
use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use tar::{Archive, Entry, EntryType};
use tokio::runtime::Handle;

use super::{ArchiveError, Moved, Result, acl_text, pax, shown};
use crate::home::{
    self, Caller, ErrorKind, FILE_BYTES_MAX, Home, Ino, Kind, Name, NewNode, SNAPSHOTS_NAME,
    SYMLINK_BYTES_MAX, SetAttr, SetTime, Time, WriteMode, XattrMode,
};

/// Bytes that one write takes.
const WRITE_BYTES: usize = 1 << 20;
/// An archive ends with two blocks of zeros; some write only one.
const END_BYTES: usize = 512;
/// The map of a sparse file that is taken.
const MAP_BYTES_MAX: u64 = 64 << 20;

/// Makes everything that `from` holds in `home`, and makes it durable; tells `progress` now and
/// then.
///
/// # Errors
/// `Io` where `from` cannot be read or is no archive, `Invalid` for entries that no home can
/// hold, `Home` with the path of what cannot be written.
pub fn import<R: Read>(
    runtime: &Handle,
    home: &Home,
    from: R,
    progress: &mut dyn FnMut(&Moved),
) -> Result<Moved> {
    let client = home.attach();
    let dirs = HashMap::from([(Vec::new(), Ino::ROOT)]);
    let caller = Caller { uid: 0, gid: 0, client };
    let mut import =
        Import { runtime, home, caller, dirs, late: Vec::new(), moved: Moved::default() };
    let done = import.all(from, progress);
    home.detach(client);
    done?;
    runtime.block_on(home.sync()).map_err(|error| ArchiveError::Home("/".to_owned(), error))?;
    Ok(import.moved)
}

/// Remembers how many zeros came last.
struct Ending<R> {
    from: R,
    zeros: usize,
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        let zeros = into[..count].iter().rev().take_while(|byte| **byte == 0).count();
        self.zeros = if zeros == count { self.zeros.saturating_add(zeros) } else { zeros };
        Ok(count)
    }
}

/// What an entry says of its inode.
#[derive(Clone, Debug, Default)]
struct Says {
    perm: u16,
    uid: u32,
    gid: u32,
    mtime: Time,
    atime: Time,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    size: Option<u64>,
    name: Option<Vec<u8>>,
}

struct Import<'a> {
    runtime: &'a Handle,
    home: &'a Home,
    caller: Caller,
    /// Directories that were made, by path.
    dirs: HashMap<Vec<u8>, Ino>,
    /// What is set of directories at the end.
    late: Vec<(Vec<u8>, Ino, Says)>,
    moved: Moved,
}

impl Import<'_> {
    fn all<R: Read>(&mut self, from: R, progress: &mut dyn FnMut(&Moved)) -> Result<()> {
        let mut archive = Archive::new(Ending { from, zeros: 0 });
        for entry in archive.entries()? {
            self.entry(entry?)?;
            self.moved.entries += 1;
            progress(&self.moved);
        }
        // What broke off between two entries looks whole but for the end mark.
        if archive.into_inner().zeros < END_BYTES {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        // From the inside to the outside is not needed: setting changes nothing above.
        for (path, ino, says) in std::mem::take(&mut self.late) {
            self.set(&path, ino, &says)?;
        }
        Ok(())
    }

    fn ask<T>(&self, path: &[u8], what: impl Future<Output = home::Result<T>>) -> Result<T> {
        let failed = |error| ArchiveError::Home(shown(path), error);
        self.runtime.block_on(what).map_err(failed)
    }

    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<()> {
        let says = says(&mut entry)?;
        let raw = says.name.clone().unwrap_or_else(|| entry.path_bytes().into_owned());
        let path = clean(&raw)?;
        let kind = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => return self.directory(path, says),
            EntryType::Link => return self.link(&entry, &path),
            EntryType::Symlink => Kind::Symlink,
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            EntryType::Fifo => Kind::Fifo,
            _ => return Err(ArchiveError::Invalid(shown(&path), "an entry of an unknown kind")),
        };
        let (parent, name) = self.place(&path)?;
        let mut node = NewNode { kind, perm: 0o600, umask: 0, rdev: 0, target: Bytes::new() };
        match kind {
            Kind::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                if target.is_empty() || target.len() > SYMLINK_BYTES_MAX {
                    return Err(ArchiveError::Invalid(shown(&path), "a link to nowhere"));
                }
                node.target = target.into();
            }
            Kind::CharDevice | Kind::BlockDevice => {
                let major = entry.header().device_major()?.unwrap_or(0);
                let minor = entry.header().device_minor()?.unwrap_or(0);
                node.rdev = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
            }
            _ => {}
        }
        self.make_way(&path, parent, &name)?;
        let made = self.home.make(self.caller.clone(), parent, name, node);
        let ino = self.ask(&path, made)?.ino;
        if kind == Kind::File {
            self.contents(&path, ino, &mut entry, says.size)?;
        }
        self.set(&path, ino, &says)?;
        self.home.forget(self.caller.client, ino, 1);
        Ok(())
    }

    /// The directory and the name of a path; directories that no entry made are made.
    fn place(&mut self, path: &[u8]) -> Result<(Ino, Name)> {
        let cut = path.iter().rposition(|byte| *byte == b'/');
        let (above, name) = match cut {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        let invalid = |_| ArchiveError::Invalid(shown(path), "no file can be called so");
        let name = Name::new(name).map_err(invalid)?;
        if above.is_empty() && name.as_bytes() == SNAPSHOTS_NAME {
            let why = "this name stands for the snapshots of a home";
            return Err(ArchiveError::Invalid(shown(path), why));
        }
        let parent = match self.dirs.get(above) {
            Some(ino) => *ino,
            None => self.make_dir(above)?,
        };
        Ok((parent, name))
    }

    fn make_dir(&mut self, path: &[u8]) -> Result<Ino> {
        if let Some(ino) = self.dirs.get(path) {
            return Ok(*ino);
        }
        let (parent, name) = self.place(path)?;
        let root = self.ask(path, self.home.getattr(Ino::ROOT))?;
        let caller = Caller { uid: root.uid, gid: root.gid, ..self.caller.clone() };
        let node =
            NewNode { kind: Kind::Dir, perm: 0o755, umask: 0, rdev: 0, target: Bytes::new() };
        self.make_way(path, parent, &name)?;
        let ino = self.ask(path, self.home.make(caller, parent, name, node))?.ino;
        self.home.forget(self.caller.client, ino, 1);
        self.dirs.insert(path.to_vec(), ino);
        Ok(ino)
    }

    fn directory(&mut self, path: Vec<u8>, says: Says) -> Result<()> {
        let ino = self.make_dir(&path)?;
        self.late.push((path, ino, says));
        Ok(())
    }

    fn link<R: Read>(&mut self, entry: &Entry<'_, R>, path: &[u8]) -> Result<()> {
        let target = clean(&entry.link_name_bytes().unwrap_or_default())?;
        let mut ino = Ino::ROOT;
        for part in target.split(|byte| *byte == b'/') {
            let invalid = |_| ArchiveError::Invalid(shown(path), "a link to an impossible name");
            let name = Name::new(part).map_err(invalid)?;
            ino = self.ask(path, self.home.lookup(self.caller.client, ino, name))?.ino;
            self.home.forget(self.caller.client, ino, 1);
        }
        let (parent, name) = self.place(path)?;
        self.make_way(path, parent, &name)?;
        self.ask(path, self.home.link(self.caller.clone(), ino, parent, name))?;
        self.home.forget(self.caller.client, ino, 1);
        Ok(())
    }

    /// A later entry of the same path replaces the earlier one, as with `tar`.
    fn make_way(&self, path: &[u8], parent: Ino, name: &Name) -> Result<()> {
        let gone = self.home.unlink(self.caller.clone(), parent, name.clone());
        match self.runtime.block_on(gone) {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound) => Ok(()),
            Err(error) => Err(ArchiveError::Home(shown(path), error)),
        }
    }

    fn contents(
        &mut self,
        path: &[u8],
        ino: Ino,
        entry: &mut impl Read,
        real_size: Option<u64>,
    ) -> Result<()> {
        let Some(size) = real_size else {
            self.copy(path, ino, entry, 0, u64::MAX)?;
            return Ok(());
        };
        let invalid = || ArchiveError::Invalid(shown(path), "a sparse file that makes no sense");
        if size > FILE_BYTES_MAX {
            return Err(invalid());
        }
        for (at, len) in read_map(entry)?.ok_or_else(invalid)? {
            if at.checked_add(len).is_none_or(|end| end > size) {
                return Err(invalid());
            }
            if self.copy(path, ino, entry, at, len)? < len {
                return Err(invalid());
            }
        }
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        self.ask(path, self.home.setattr(self.caller.clone(), ino, set))?;
        Ok(())
    }

    /// Writes up to `len` bytes at `at`; gives how many there were.
    fn copy(
        &mut self,
        path: &[u8],
        ino: Ino,
        from: &mut impl Read,
        at: u64,
        len: u64,
    ) -> Result<u64> {
        let mut done = 0;
        while done < len {
            let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(WRITE_BYTES);
            let mut buffer = BytesMut::with_capacity(want);
            buffer.resize(want, 0);
            let mut filled = 0;
            while filled < want {
                match from.read(&mut buffer[filled..])? {
                    0 => break,
                    count => filled += count,
                }
            }
            if filled == 0 {
                break;
            }
            buffer.truncate(filled);
            let mode = WriteMode { whole: true, ..WriteMode::default() };
            let write = self.home.write(self.caller.clone(), ino, at + done, buffer.freeze(), mode);
            self.ask(path, write)?;
            done += filled as u64;
            self.moved.bytes += filled as u64;
        }
        Ok(done)
    }

    fn set(&self, path: &[u8], ino: Ino, says: &Says) -> Result<()> {
        let owner = SetAttr { uid: Some(says.uid), gid: Some(says.gid), ..SetAttr::default() };
        let kind = self.ask(path, self.home.setattr(self.caller.clone(), ino, owner))?.kind;
        if kind != Kind::Symlink {
            let perm = SetAttr { perm: Some(says.perm), ..SetAttr::default() };
            self.ask(path, self.home.setattr(self.caller.clone(), ino, perm))?;
        }
        for (name, value) in &says.xattrs {
            let (name, value) = (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
            let mode = XattrMode::default();
            let set = self.home.setxattr(self.caller.clone(), ino, name, value, mode);
            self.ask(path, set)?;
        }
        let times = SetAttr {
            mtime: Some(SetTime::At(says.mtime)),
            atime: Some(SetTime::At(says.atime)),
            ..SetAttr::default()
        };
        self.ask(path, self.home.setattr(self.caller.clone(), ino, times))?;
        Ok(())
    }
}

/// What header and records of an entry say.
fn says<R: Read>(entry: &mut Entry<'_, R>) -> Result<Says> {
    let header = entry.header();
    let id = |id: u64| u32::try_from(id).unwrap_or(u32::MAX - 1);
    let sec = header.mtime().map_or(0, |sec| i64::try_from(sec).unwrap_or(0));
    let time = Time { sec, nsec: 0 };
    let mut says = Says {
        perm: (header.mode()? & 0o7777) as u16,
        uid: id(header.uid()?),
        gid: id(header.gid()?),
        mtime: time,
        atime: time,
        ..Says::default()
    };
    let mut atime = None;
    let Some(records) = entry.pax_extensions()? else { return Ok(says) };
    for record in records {
        let record = record?;
        let Ok(key) = record.key() else { continue };
        let (text, bytes) = (record.value().unwrap_or_default(), record.value_bytes());
        match key {
            "mtime" => says.mtime = pax::time_of(text).unwrap_or(says.mtime),
            "atime" => atime = pax::time_of(text),
            "uid" => says.uid = text.parse().unwrap_or(says.uid),
            "gid" => says.gid = text.parse().unwrap_or(says.gid),
            "GNU.sparse.name" => says.name = Some(bytes.to_vec()),
            "GNU.sparse.realsize" => says.size = text.parse().ok(),
            pax::ACL_ACCESS | pax::ACL_DEFAULT => {
                let name = match key {
                    pax::ACL_ACCESS => "system.posix_acl_access",
                    _ => "system.posix_acl_default",
                };
                let acl = acl_text::from_text(text);
                says.xattrs.extend(acl.map(|value| (name.as_bytes().to_vec(), value)));
            }
            key => {
                if let Some(name) = key.strip_prefix(pax::XATTR) {
                    says.xattrs.push((pax::decode_name(name), bytes.to_vec()));
                }
            }
        }
    }
    says.atime = atime.unwrap_or(says.mtime);
    Ok(says)
}

/// A path from the home's root, without `.` and slashes that say nothing.
fn clean(path: &[u8]) -> Result<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let mut clean = Vec::with_capacity(path.len());
    for part in parts {
        if part == b".." {
            return Err(ArchiveError::Invalid(shown(path), "a path that leads out"));
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(part);
    }
    Ok(clean)
}

/// The map in front of a sparse file's contents; `None` where it is none.
fn read_map(from: &mut impl Read) -> Result<Option<Vec<(u64, u64)>>> {
    let mut text = Vec::new();
    let mut numbers: Vec<u64> = Vec::new();
    let mut wanted = 1;
    while numbers.len() < wanted {
        let mut block = [0; 512];
        if text.len() as u64 > MAP_BYTES_MAX || from.read_exact(&mut block).is_err() {
            return Ok(None);
        }
        text.extend_from_slice(&block);
        while numbers.len() < wanted
            && let Some(end) = text.iter().position(|byte| *byte == b'\n')
        {
            let line: Vec<u8> = text.drain(..=end).collect();
            let number = std::str::from_utf8(&line[..end]).ok().and_then(|s| s.parse().ok());
            let Some(number) = number else { return Ok(None) };
            numbers.push(number);
            if numbers.len() == 1 {
                wanted = usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(2) + 1;
            }
        }
    }
    Ok(Some(numbers[1..].chunks(2).map(|pair| (pair[0], pair[1])).collect()))
}
