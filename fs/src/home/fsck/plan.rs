//! What a repair will do, one small change each, as the check proposes it.
//!
//! Every fix is about one record or object and is safe by itself: what depends on it (a count of
//! what it changed) is found by the next round and set then.

use crate::home::key::Key;
use crate::home::record::Counters;
use crate::home::segment::{ChunkId, SegmentId};
use crate::home::snapshot::HeldTotal;
use crate::home::types::{Ino, Kind, Name};

/// A change.
#[derive(Clone, Debug)]
pub enum Fix {
    /// Deletes a record.
    Delete(Key),
    /// Removes an entry from a bucket.
    RemoveEntry { dir: Ino, hash: u64, name: Name, slot: u8 },
    /// Moves an entry to the bucket of its name.
    MoveEntry { dir: Ino, hash: u64, name: Name, slot: u8 },
    /// Removes all entries of `dir` that lead to `ino`.
    RemoveEntriesOf { dir: Ino, ino: Ino },
    /// Sets the kind that an entry says.
    SetEntryKind { dir: Ino, hash: u64, slot: u8, kind: Kind },
    /// Gives an inode a name in lost+found.
    LinkLost(Ino),
    /// Sets numbers of an inode.
    SetInode(Ino, InodeFix),
    /// Sets the references of a chunk.
    SetChunkRefs(ChunkId, u32),
    /// Frees a chunk.
    FreeChunk(ChunkId),
    /// Sets the references of a small value.
    SetSmallRefs(u64, u32),
    /// Sets what lives in a segment.
    SetSegmentLive { id: SegmentId, bytes: u64, chunks: u32 },
    /// Sets the size of a segment's object, making the record where there is none.
    SetSegmentSize { id: SegmentId, object_bytes: u64 },
    /// Deletes an object that no record knows.
    DeleteObject(SegmentId),
    /// Sets the counters.
    SetCounters(Counters),
    /// Lists a chunk among those that only snapshots hold.
    ListHeld(ChunkId),
    /// Sets what snapshots hold in all.
    SetHeld(HeldTotal),
    /// Gives up tables that are kept for no snapshot.
    Unkeep(String),
}

/// Numbers of an inode; `None` leaves as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct InodeFix {
    /// Links.
    pub nlink: Option<u32>,
    /// Entries.
    pub entries: Option<u64>,
    /// The directory above.
    pub parent: Option<Ino>,
    /// Charged bytes of its extents.
    pub charged: Option<u64>,
    /// Extended attributes: how many, and the bytes of their values.
    pub xattrs: Option<(u32, u32)>,
}

impl Fix {
    /// True for a fix that gives space back: none of these while something cannot be read.
    #[must_use]
    pub fn frees(&self) -> bool {
        match self {
            Self::Delete(key) => {
                use crate::home::key;
                let frees = [key::EXTENT, key::SMALL, key::SNAPSHOT, key::HELD];
                key.first().is_some_and(|kind| frees.contains(kind))
            }
            Self::SetChunkRefs(..)
            | Self::Unkeep(_)
            | Self::FreeChunk(_)
            | Self::SetSmallRefs(..)
            | Self::DeleteObject(_)
            | Self::SetSegmentLive { .. } => true,
            _ => false,
        }
    }
}
