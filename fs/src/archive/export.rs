//! From a snapshot to a stream. A snapshot does not change while it is read, so the archive
//! shows one moment.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::ops::Range;

use bytes::Bytes;
use tar::{Builder, EntryType, Header};
use tokio::runtime::Handle;

use super::pax::{self, Records};
use super::{ArchiveError, Moved, Result, acl_text, shown};
use crate::home::{self, Attr, DirEntry, ErrorKind, Ino, Kind, ReadPieces, Seek, Snapshot};

/// Bytes that one look into the snapshot reads.
const READ_BYTES: u64 = 1 << 20;
/// Entries of a directory that one look reads.
const LINES: usize = 512;
/// A block of an archive.
const BLOCK_BYTES: u64 = 512;
/// Names and targets up to this fit into the header itself.
const FIELD_BYTES: usize = 100;
/// Numbers up to this fit into the header's octal digits.
const OWNER_MAX: u32 = 0o7_777_777;
const SIZE_MAX: u64 = 0o77_777_777_777;

/// Writes everything of `snapshot` to `to`; tells `progress` now and then.
///
/// # Errors
/// `Io` where `to` takes no more; `Home` with the path of what cannot be read.
pub fn export<W: Write>(
    runtime: &Handle,
    snapshot: &Snapshot,
    to: W,
    progress: &mut dyn FnMut(&Moved),
) -> Result<Moved> {
    let out = Builder::new(to);
    let links = HashMap::new();
    let mut export = Export { runtime, snapshot, out, links, moved: Moved::default() };
    let root = export.ask(b"", snapshot.getattr(Ino::ROOT))?;
    export.entry(b"", root)?;
    // What is in a directory follows it before anything else does: `tar` sets the times of a
    // directory when it leaves it.
    let mut open = vec![Level { path: Vec::new(), dir: Ino::ROOT, cookie: 0, lines: [].into() }];
    while let Some(level) = open.last_mut() {
        let Some(line) = level.lines.pop_front() else {
            let page = snapshot.readdir(level.dir, level.cookie, true, LINES);
            let page = export.ask(&level.path, page)?;
            match page.last() {
                Some(last) => level.cookie = last.next,
                None => drop(open.pop()),
            }
            if let Some(level) = open.last_mut() {
                level.lines.extend(page.into_iter().filter(|line| line.next > 2));
            }
            continue;
        };
        let mut path = level.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&line.name);
        let attr = match line.attr {
            Some(attr) => attr,
            None => export.ask(&path, snapshot.getattr(line.ino))?,
        };
        export.entry(&path, attr)?;
        progress(&export.moved);
        if attr.kind == Kind::Dir {
            open.push(Level { path, dir: attr.ino, cookie: 0, lines: [].into() });
        }
    }
    export.out.finish()?;
    export.out.get_mut().flush()?;
    Ok(export.moved)
}

/// A directory that is being listed.
struct Level {
    path: Vec<u8>,
    dir: Ino,
    cookie: u64,
    lines: VecDeque<DirEntry>,
}

struct Export<'a, W: Write> {
    runtime: &'a Handle,
    snapshot: &'a Snapshot,
    out: Builder<W>,
    /// The first path of what has several.
    links: HashMap<Ino, Vec<u8>>,
    moved: Moved,
}

impl<W: Write> Export<'_, W> {
    fn ask<T>(&self, path: &[u8], what: impl Future<Output = home::Result<T>>) -> Result<T> {
        let failed = |error| ArchiveError::Home(shown(path), error);
        self.runtime.block_on(what).map_err(failed)
    }

    fn entry(&mut self, path: &[u8], attr: Attr) -> Result<()> {
        if attr.kind == Kind::Socket {
            self.moved.skipped += 1;
            return Ok(());
        }
        self.moved.entries += 1;
        let name = match attr.kind {
            Kind::Dir if path.is_empty() => b"./".to_vec(),
            Kind::Dir => [path, b"/"].concat(),
            _ => path.to_vec(),
        };
        let mut header = header_of(&attr);
        let mut records = Records::new();
        if attr.nlink > 1 && attr.kind != Kind::Dir {
            if let Some(first) = self.links.get(&attr.ino) {
                header.set_entry_type(EntryType::Link);
                let first = first.clone();
                set_link(&mut header, &mut records, &first);
                return self.put(&mut header, records, &name, io::empty());
            }
            self.links.insert(attr.ino, path.to_vec());
        }
        self.attributes(path, &attr, &mut records)?;
        match attr.kind {
            Kind::File => self.file(path, &attr, header, records),
            Kind::Symlink => {
                let target = self.ask(path, self.snapshot.readlink(attr.ino))?;
                set_link(&mut header, &mut records, &target);
                self.put(&mut header, records, &name, io::empty())
            }
            _ => self.put(&mut header, records, &name, io::empty()),
        }
    }

    /// Times, owners beyond the header's digits, extended attributes and ACLs.
    fn attributes(&self, path: &[u8], attr: &Attr, records: &mut Records) -> Result<()> {
        for (key, time) in [("mtime", attr.mtime), ("atime", attr.atime)] {
            records.push((key.to_owned(), pax::time_text(time).into_bytes()));
        }
        for (key, id) in [("uid", attr.uid), ("gid", attr.gid)] {
            if id > OWNER_MAX {
                records.push((key.to_owned(), id.to_string().into_bytes()));
            }
        }
        let names = self.ask(path, self.snapshot.listxattr(attr.ino))?;
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let value = self.ask(path, self.snapshot.getxattr(attr.ino, name))?;
            let acl = match name {
                b"system.posix_acl_access" => Some(pax::ACL_ACCESS),
                b"system.posix_acl_default" => Some(pax::ACL_DEFAULT),
                _ => None,
            };
            records.push(match acl.zip(acl_text::to_text(&value)) {
                Some((key, text)) => (key.to_owned(), text.into_bytes()),
                None => (format!("{}{}", pax::XATTR, pax::encode_name(name)), value.to_vec()),
            });
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &[u8],
        attr: &Attr,
        mut header: Header,
        mut records: Records,
    ) -> Result<()> {
        let parts = self.data_parts(path, attr)?;
        let bytes: u64 = parts.iter().map(|(_, len)| len).sum();
        self.moved.bytes += bytes;
        let mut name = path.to_vec();
        let mut map = Vec::new();
        if bytes < attr.size {
            map = pax::sparse_map(&parts, attr.size);
            for (key, value) in [("major", "1"), ("minor", "0")] {
                records.push((format!("GNU.sparse.{key}"), value.into()));
            }
            records.push(("GNU.sparse.name".to_owned(), path.to_vec()));
            records.push(("GNU.sparse.realsize".to_owned(), attr.size.to_string().into_bytes()));
            // Who does not know sparse files finds the parts under another name.
            let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
            name = [&path[..at], b"GNUSparseFile.0/", &path[at..]].concat();
        }
        let size = map.len() as u64 + bytes;
        header.set_size(size);
        if size > SIZE_MAX {
            records.push(("size".to_owned(), size.to_string().into_bytes()));
        }
        let contents = Contents {
            runtime: self.runtime.clone(),
            snapshot: self.snapshot.clone(),
            ino: attr.ino,
            parts: parts.into_iter().map(|(at, len)| at..at + len).collect(),
            ready: VecDeque::from([Bytes::from(map)]),
        };
        self.put(&mut header, records, &name, contents)
    }

    /// Where a file has data: offset and length, in whole blocks. Some read the parts of a sparse
    /// file block by block, others one behind the other: both agree on whole blocks.
    fn data_parts(&self, path: &[u8], attr: &Attr) -> Result<Vec<(u64, u64)>> {
        let mut parts: Vec<(u64, u64)> = Vec::new();
        let mut at = 0;
        while at < attr.size {
            let found = self.runtime.block_on(self.snapshot.seek(attr.ino, at, Seek::Data));
            let start = match found {
                Ok(start) => start,
                Err(error) if matches!(error.kind(), ErrorKind::NoData) => break,
                Err(error) => return Err(ArchiveError::Home(shown(path), error)),
            };
            at = self.ask(path, self.snapshot.seek(attr.ino, start, Seek::Hole))?;
            let from = start / BLOCK_BYTES * BLOCK_BYTES;
            let to = at.next_multiple_of(BLOCK_BYTES).min(attr.size);
            match parts.last_mut() {
                Some((last, len)) if *last + *len >= from => *len = to - *last,
                _ => parts.push((from, to - from)),
            }
        }
        Ok(parts)
    }

    fn put(
        &mut self,
        header: &mut Header,
        mut records: Records,
        name: &[u8],
        contents: impl Read,
    ) -> Result<()> {
        if name.len() > FIELD_BYTES || !name.is_ascii() {
            records.push(("path".to_owned(), name.to_vec()));
        }
        let field = &mut header.as_old_mut().name;
        let len = name.len().min(field.len());
        field[..len].copy_from_slice(&name[..len]);
        header.set_cksum();
        if !records.is_empty() {
            let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
            self.out.append_pax_extensions(records)?;
        }
        self.out.append(header, contents)?;
        Ok(())
    }
}

fn header_of(attr: &Attr) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(match attr.kind {
        Kind::File | Kind::Socket => EntryType::Regular,
        Kind::Dir => EntryType::Directory,
        Kind::Symlink => EntryType::Symlink,
        Kind::Fifo => EntryType::Fifo,
        Kind::CharDevice => EntryType::Char,
        Kind::BlockDevice => EntryType::Block,
    });
    header.set_mode(u32::from(attr.perm));
    header.set_uid(u64::from(attr.uid.min(OWNER_MAX)));
    header.set_gid(u64::from(attr.gid.min(OWNER_MAX)));
    header.set_mtime(u64::try_from(attr.mtime.sec).unwrap_or(0).min(SIZE_MAX));
    header.set_size(0);
    if matches!(attr.kind, Kind::CharDevice | Kind::BlockDevice)
        && let Some(fields) = header.as_ustar_mut()
    {
        fields.set_device_major((attr.rdev >> 8) & 0xfff);
        fields.set_device_minor((attr.rdev & 0xff) | ((attr.rdev >> 12) & 0xf_ff00));
    }
    header
}

fn set_link(header: &mut Header, records: &mut Records, target: &[u8]) {
    if target.len() > FIELD_BYTES || !target.is_ascii() {
        records.push(("linkpath".to_owned(), target.to_vec()));
    }
    let field = &mut header.as_old_mut().linkname;
    let len = target.len().min(field.len());
    field[..len].copy_from_slice(&target[..len]);
}

/// What an entry's bytes are: first what is ready, then parts of a file.
struct Contents {
    runtime: Handle,
    snapshot: Snapshot,
    ino: Ino,
    parts: VecDeque<Range<u64>>,
    ready: VecDeque<Bytes>,
}

impl Read for Contents {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.ready.front_mut() {
                Some(bytes) if bytes.is_empty() => drop(self.ready.pop_front()),
                Some(bytes) => {
                    let len = bytes.len().min(into.len());
                    into[..len].copy_from_slice(&bytes.split_to(len));
                    return Ok(len);
                }
                None => {
                    let Some(part) = self.parts.front_mut() else { return Ok(0) };
                    if part.is_empty() {
                        self.parts.pop_front();
                        continue;
                    }
                    let len = READ_BYTES.min(part.end - part.start);
                    let len = u32::try_from(len).expect("a MiB at most");
                    let read = self.snapshot.read(self.ino, part.start, len);
                    let pieces: ReadPieces =
                        self.runtime.block_on(read).map_err(io::Error::other)?;
                    let got: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
                    if got == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    part.start += got;
                    self.ready.extend(pieces);
                }
            }
        }
    }
}
