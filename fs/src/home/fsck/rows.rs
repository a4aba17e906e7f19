//! What a check remembers: one short row per inode, chunk, segment and small value, in the order
//! of their keys, found by bisection.
//!
//! 56 bytes per inode and 56 per chunk: a million files with a chunk each are 112 MB, and every
//! further 10 GB of unshared data in whole chunks 5 MB. Names, extents and attributes pass by and
//! are not kept.

use crate::home::segment::{ChunkId, SegmentId};
use crate::home::types::{Ino, Kind};

/// An inode.
#[derive(Clone, Copy, Debug, Default)]
pub struct InodeRow {
    /// Its number.
    pub ino: u64,
    /// The directory above, by its record.
    pub parent: u64,
    /// The directory that has an entry for it; 0: none.
    pub seen_in: u64,
    /// Entries, by its record.
    pub entries: u64,
    /// Links, by its record.
    pub nlink: u32,
    /// Entries for it.
    pub links: u32,
    /// Entries in it.
    pub found: u32,
    /// Directories in it.
    pub subdirs: u32,
    /// What it is; `None`: its record cannot be read.
    pub kind: Option<Kind>,
    /// Among the orphans.
    pub orphan: bool,
    /// How far the search for circles has come here.
    pub mark: Mark,
}

/// The search for circles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// Not seen.
    #[default]
    Unseen,
    /// On the way that is being followed.
    OnTheWay,
    /// Leads somewhere.
    Done,
}

impl InodeRow {
    /// A directory?
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == Some(Kind::Dir)
    }

    /// Neither named nor waiting for its collection.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.links == 0 && !self.orphan && self.ino != Ino::ROOT.0
    }
}

/// A chunk.
#[derive(Clone, Copy, Debug)]
pub struct ChunkRow {
    /// Its name.
    pub id: ChunkId,
    /// The segment that it is in.
    pub segment: SegmentId,
    /// The first bytes of its hash.
    pub hash: u64,
    /// Where it ends in its segment.
    pub end: u64,
    /// Bytes of its content.
    pub plain_bytes: u32,
    /// References, by its record.
    pub refs: u32,
    /// Extents that refer to it.
    pub found: u32,
    /// Only snapshots refer to it.
    pub held: bool,
    /// It is listed as such.
    pub listed: bool,
}

/// A segment.
#[derive(Clone, Copy, Debug)]
pub struct SegmentRow {
    /// Its name.
    pub id: SegmentId,
    /// It has a record.
    pub known: bool,
    /// By its record.
    pub object_bytes: u64,
    /// By its record.
    pub live_bytes: u64,
    /// By its record.
    pub live_chunks: u32,
    /// Bytes of chunks in it.
    pub found_bytes: u64,
    /// Chunks in it.
    pub found_chunks: u32,
    /// Where the last of them ends.
    pub end: u64,
}

impl SegmentRow {
    /// A segment that only its chunks tell of.
    #[must_use]
    pub fn unknown(id: SegmentId) -> Self {
        Self {
            id,
            known: false,
            object_bytes: 0,
            live_bytes: 0,
            live_chunks: 0,
            found_bytes: 0,
            found_chunks: 0,
            end: 0,
        }
    }
}

/// A small value.
#[derive(Clone, Copy, Debug)]
pub struct SmallRow {
    /// Its number.
    pub id: u64,
    /// Its bytes.
    pub bytes: u32,
    /// References, by its record.
    pub refs: u32,
    /// Extents that refer to it.
    pub found: u32,
}

/// All rows of a home.
#[derive(Debug, Default)]
pub struct Rows {
    /// By number.
    pub inodes: Vec<InodeRow>,
    /// By name.
    pub chunks: Vec<ChunkRow>,
    /// By name.
    pub segments: Vec<SegmentRow>,
    /// By number.
    pub smalls: Vec<SmallRow>,
}

impl Rows {
    /// Where an inode is among the rows.
    #[must_use]
    pub fn inode_at(&self, ino: u64) -> Option<usize> {
        self.inodes.binary_search_by_key(&ino, |row| row.ino).ok()
    }

    /// An inode.
    #[must_use]
    pub fn inode(&mut self, ino: u64) -> Option<&mut InodeRow> {
        self.inode_at(ino).map(|at| &mut self.inodes[at])
    }

    /// Where a chunk is among the rows.
    #[must_use]
    pub fn chunk_at(&self, id: ChunkId) -> Option<usize> {
        self.chunks.binary_search_by_key(&id, |row| row.id).ok()
    }

    /// A small value.
    #[must_use]
    pub fn small(&mut self, id: u64) -> Option<&mut SmallRow> {
        let at = self.smalls.binary_search_by_key(&id, |row| row.id).ok()?;
        Some(&mut self.smalls[at])
    }

    /// A segment; one without a record is added.
    pub fn segment(&mut self, id: SegmentId) -> &mut SegmentRow {
        let at = match self.segments.binary_search_by_key(&id, |row| row.id) {
            Ok(at) => at,
            Err(at) => {
                self.segments.insert(at, SegmentRow::unknown(id));
                at
            }
        };
        &mut self.segments[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_as_short_as_the_header_says() {
        assert!(size_of::<InodeRow>() <= 56);
        assert!(size_of::<ChunkRow>() <= 56);
    }
}
