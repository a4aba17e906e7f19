//! The form of everything the backend keeps in RADOS: names, an object's description, the layout
//! of a large object, an index entry.
//!
//! ```text
//! data or meta pool     o/PATH              an object: data (or layout) and xattr "yadokari"
//!                       p/NONCE/NNNNNNNN    part of a large object, or of an upload
//! meta pool             i/POOLID/SS         shard SS of the index of that pool's objects, omap
//!                       l/POOLID            which layout the index has
//!
//! xattr                 version 1 u8, flags u8 (1: in parts), nonce 16 bytes,
//!                       modified i64 (microseconds since 1970), size u64, attributes
//! layout                version 1 u8, count u32, then per run: parts u32, bytes of each u64
//! index entry           key PATH; value: state u8, nonce 16 bytes, seconds u64,
//!                       then for state C: version u64, size u64, modified i64, flags u8
//! ```
//!
//! Numbers are little-endian.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Attributes, ObjectMeta};
use std::ffi::{CStr, CString};
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) const XATTR: &CStr = c"yadokari";
const VERSION: u8 = 1;
const IN_PARTS: u8 = 1;
/// Shards of one pool's index. 200,000 keys each, where Ceph begins to warn, make 51 million.
pub(super) const SHARDS: u8 = u8::MAX;
/// Shards that the paths below one group (two path segments) are spread over.
pub(super) const SPREAD: u8 = 8;
/// What `l/POOLID` holds.
pub(super) const LAYOUT: &[u8] = b"yadokari rados store 1: 255 shards, 8 per group\n";

pub(super) type Nonce = [u8; 16];

/// A name in RADOS; None when it holds a zero byte, which no path does.
fn name(text: String) -> CString {
    CString::new(text).expect("paths hold no control characters")
}

pub(super) fn object_name(path: &Path) -> CString {
    name(format!("o/{path}"))
}

pub(super) fn path_of_object(name: &str) -> Option<Path> {
    Path::parse(name.strip_prefix("o/")?).ok()
}

pub(super) fn part_name(nonce: &Nonce, part: u32) -> CString {
    name(format!("p/{:032x}/{part:08x}", u128::from_be_bytes(*nonce)))
}

pub(super) fn nonce_of_part(name: &str) -> Option<Nonce> {
    let (nonce, _) = name.strip_prefix("p/")?.split_once('/')?;
    Some(u128::from_str_radix(nonce, 16).ok()?.to_be_bytes())
}

pub(super) fn shard_name(pool: i64, shard: u8) -> CString {
    name(format!("i/{pool}/{shard:02x}"))
}

pub(super) fn layout_name(pool: i64) -> CString {
    name(format!("l/{pool}"))
}

/// The shard of a path: its group says where its shards begin, the path which of them.
pub(super) fn shard_of(path: &Path) -> u8 {
    let spread = blake3::hash(path.as_ref().as_bytes()).as_bytes()[0] % SPREAD;
    shard_at(group_start(group_of(path.as_ref())), spread)
}

/// The shards in which objects below a prefix can lie.
pub(super) fn shards_below(prefix: &str) -> Vec<u8> {
    // The prefix covers one group if it has both segments of a group, whole.
    if prefix.split_terminator('/').count() < 2 {
        return (0..SHARDS).collect();
    }
    let start = group_start(group_of(&format!("{}/x", prefix.trim_end_matches('/'))));
    (0..SPREAD).map(|spread| shard_at(start, spread)).collect()
}

fn shard_at(start: u8, spread: u8) -> u8 {
    ((u16::from(start) + u16::from(spread)) % u16::from(SHARDS)) as u8
}

fn group_start(group: &str) -> u8 {
    blake3::hash(group.as_bytes()).as_bytes()[0] % SHARDS
}

/// The first two segments, or all of the segments above the last one if there are fewer.
fn group_of(path: &str) -> &str {
    let above = path.rfind('/').unwrap_or(0);
    let second = path.match_indices('/').nth(1).map_or(path.len(), |(at, _)| at);
    &path[..above.min(second)]
}

/// What the extended attribute of an object says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Description {
    pub(super) nonce: Nonce,
    pub(super) in_parts: bool,
    pub(super) modified: SystemTime,
    pub(super) size: u64,
    pub(super) attributes: Attributes,
}

impl Description {
    /// None when the attributes cannot be stored.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = vec![VERSION, u8::from(self.in_parts) * IN_PARTS];
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&micros(self.modified).to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend(crate::attrs::encode(&self.attributes)?);
        Some(out)
    }

    /// None when the bytes are not of this form.
    pub(super) fn decode(bytes: &[u8]) -> Option<Description> {
        let mut rest = bytes;
        let [version, flags] = take::<2>(&mut rest)?;
        if version != VERSION {
            return None;
        }
        Some(Description {
            nonce: take(&mut rest)?,
            in_parts: flags & IN_PARTS != 0,
            modified: time(i64::from_le_bytes(take(&mut rest)?))?,
            size: u64::from_le_bytes(take(&mut rest)?),
            attributes: crate::attrs::decode(rest)?,
        })
    }

    pub(super) fn meta(&self, location: &Path, version: u64) -> ObjectMeta {
        ObjectMeta {
            location: location.clone(),
            last_modified: self.modified.into(),
            size: self.size,
            e_tag: Some(e_tag(version, self.in_parts)),
            version: None,
        }
    }
}

/// An ETag is the object's version in RADOS, which `Update` asserts; `p` says that it has parts,
/// which whoever replaces it must remove.
pub(super) fn e_tag(version: u64, in_parts: bool) -> String {
    format!("{version:x}{}", if in_parts { "-p" } else { "" })
}

pub(super) fn parse_e_tag(tag: &str) -> Option<(u64, bool)> {
    let (version, in_parts) = match tag.strip_suffix("-p") {
        Some(version) => (version, true),
        None => (tag, false),
    };
    Some((u64::from_str_radix(version, 16).ok()?, in_parts))
}

/// How the data of a large object lies in its parts: runs of parts of one length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Layout {
    runs: Vec<(u32, u64)>,
}

/// A piece of one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) part: u32,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Layout {
    pub(super) fn push(&mut self, bytes: u64) {
        match self.runs.last_mut() {
            Some((parts, each)) if *each == bytes => *parts += 1,
            _ => self.runs.push((1, bytes)),
        }
    }

    pub(super) fn parts(&self) -> u32 {
        self.runs.iter().map(|(parts, _)| parts).sum()
    }

    pub(super) fn size(&self) -> u64 {
        self.runs.iter().map(|(parts, bytes)| u64::from(*parts) * bytes).sum()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&(self.runs.len() as u32).to_le_bytes());
        for (parts, bytes) in &self.runs {
            out.extend_from_slice(&parts.to_le_bytes());
            out.extend_from_slice(&bytes.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Layout> {
        let mut rest = bytes;
        if take::<1>(&mut rest)? != [VERSION] {
            return None;
        }
        let count = u32::from_le_bytes(take(&mut rest)?);
        let mut runs = Vec::new();
        for _ in 0..count {
            runs.push((u32::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?)));
        }
        rest.is_empty().then_some(Layout { runs })
    }

    /// The pieces of parts that make up a range, in order, each at most `max` long.
    pub(super) fn pieces(&self, range: Range<u64>, max: u64) -> Vec<Piece> {
        let (mut pieces, mut part, mut start) = (Vec::new(), 0, 0);
        for (parts, bytes) in &self.runs {
            for _ in 0..*parts {
                let end = start + bytes;
                let mut at = range.start.max(start);
                while at < range.end.min(end) {
                    let length = (range.end.min(end) - at).min(max);
                    pieces.push(Piece { part, offset: at - start, length });
                    at += length;
                }
                (part, start) = (part + 1, end);
            }
        }
        pieces
    }
}

/// The state of an index entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// A put is under way or its writer has not come back: ask the object.
    Pending,
    /// A delete is under way: ask the object.
    Deleting,
    /// The object is there, as the entry says.
    Confirmed { version: u64, size: u64, modified: SystemTime, in_parts: bool },
}

/// An index entry. Its nonce is the object's (or the deleter's own), so no two writers ever
/// write the same value, and a compare with a value read before is a compare with its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) state: State,
    pub(super) nonce: Nonce,
    pub(super) written: SystemTime,
}

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let state = match self.state {
            State::Pending => b'P',
            State::Deleting => b'D',
            State::Confirmed { .. } => b'C',
        };
        let mut out = vec![state];
        out.extend_from_slice(&self.nonce);
        let seconds = self.written.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        out.extend_from_slice(&seconds.to_le_bytes());
        if let State::Confirmed { version, size, modified, in_parts } = self.state {
            out.extend_from_slice(&version.to_le_bytes());
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(&micros(modified).to_le_bytes());
            out.push(u8::from(in_parts) * IN_PARTS);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Entry> {
        let mut rest = bytes;
        let [state] = take::<1>(&mut rest)?;
        let nonce = take(&mut rest)?;
        let seconds = u64::from_le_bytes(take(&mut rest)?);
        let written = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        let state = match state {
            b'P' => State::Pending,
            b'D' => State::Deleting,
            b'C' => State::Confirmed {
                version: u64::from_le_bytes(take(&mut rest)?),
                size: u64::from_le_bytes(take(&mut rest)?),
                modified: time(i64::from_le_bytes(take(&mut rest)?))?,
                in_parts: take::<1>(&mut rest)? == [IN_PARTS],
            },
            _ => return None,
        };
        rest.is_empty().then_some(Entry { state, nonce, written })
    }
}

/// Whole microseconds, so that a time survives being written down.
pub(super) fn whole_micros(at: SystemTime) -> SystemTime {
    time(micros(at)).unwrap_or(at)
}

fn micros(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn time(micros: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_micros(u64::try_from(micros).ok()?))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

/// The bytes of a layout read as an object's data.
pub(super) fn decode_layout(data: &Bytes) -> Option<Layout> {
    Layout::decode(data)
}

#[cfg(test)]
mod tests;
