//! Keys of the records of a home's database. `FORMAT.md` draws each one.
//!
//! A key is a letter for the kind of record and fixed-width big-endian numbers, so that records
//! sort by number and what is read together lies together: the entries of a directory, the
//! extents of a file, the attributes of an inode, the chunks of a segment.

use super::segment::{ChunkId, SegmentId};
use super::types::Ino;

/// A key: most have 6 to 14 bytes.
pub type Key = smallvec::SmallVec<[u8; 24]>;

/// Inode record.
pub const INODE: u8 = b'I';
/// Directory bucket: the entries of one directory whose names have one hash.
pub const BUCKET: u8 = b'D';
/// Extent of a file that has more than a few.
pub const EXTENT: u8 = b'E';
/// Extended attribute.
pub const XATTR: u8 = b'X';
/// Inode without a name that waits for its last user or for its collection.
pub const ORPHAN: u8 = b'O';
/// Segment record.
pub const SEGMENT: u8 = b'S';
/// Chunk record.
pub const CHUNK: u8 = b'C';
/// Content hash to chunk.
pub const HASH: u8 = b'H';
/// Small data that travels in the transaction.
pub const SMALL: u8 = b'W';
/// Chunk without references that waits for its last user in memory, or for its collection.
pub const UNUSED: u8 = b'Z';
/// Counters and version of the home.
pub const META: u8 = b'M';

/// Snapshot.
pub const SNAPSHOT: u8 = b'P';
/// Chunk that only snapshots refer to, by the transaction of its death.
pub const HELD: u8 = b'G';

/// Bytes of a content hash that its key holds; the record behind it holds all of them.
pub const HASH_KEY_BYTES: usize = 16;

fn with_ino(kind: u8, ino: Ino) -> Key {
    let mut key = Key::new();
    key.push(kind);
    key.extend_from_slice(&ino.0.to_be_bytes()[3..]);
    key
}

/// Key of an inode.
#[must_use]
pub fn inode(ino: Ino) -> Key {
    with_ino(INODE, ino)
}

/// Key of the bucket of `hash` (below 2^55) in `dir`.
#[must_use]
pub fn bucket(dir: Ino, hash: u64) -> Key {
    let mut key = with_ino(BUCKET, dir);
    key.extend_from_slice(&hash.to_be_bytes()[1..]);
    key
}

/// Key of the extent of `ino` that starts at byte `offset`.
#[must_use]
pub fn extent(ino: Ino, offset: u64) -> Key {
    let mut key = with_ino(EXTENT, ino);
    key.extend_from_slice(&offset.to_be_bytes());
    key
}

/// Key of an extended attribute.
#[must_use]
pub fn xattr(ino: Ino, name: &[u8]) -> Key {
    let mut key = with_ino(XATTR, ino);
    key.extend_from_slice(name);
    key
}

/// Key of an orphan.
#[must_use]
pub fn orphan(ino: Ino) -> Key {
    with_ino(ORPHAN, ino)
}

/// Key of a segment.
#[must_use]
pub fn segment(id: SegmentId) -> Key {
    let mut key = Key::new();
    key.push(SEGMENT);
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// Key of a chunk.
#[must_use]
pub fn chunk(id: ChunkId) -> Key {
    let mut key = Key::new();
    key.push(CHUNK);
    key.extend_from_slice(&id.segment.0.to_be_bytes());
    key.extend_from_slice(&id.number.to_be_bytes());
    key
}

/// Key of the note that a chunk has no references.
#[must_use]
pub fn unused(id: ChunkId) -> Key {
    let mut key = chunk(id);
    key[0] = UNUSED;
    key
}

/// Key of a content hash.
#[must_use]
pub fn hash(hash: &[u8; 32]) -> Key {
    let mut key = Key::new();
    key.push(HASH);
    key.extend_from_slice(&hash[..HASH_KEY_BYTES]);
    key
}

/// Key of a small value.
#[must_use]
pub fn small(id: u64) -> Key {
    let mut key = Key::new();
    key.push(SMALL);
    key.extend_from_slice(&id.to_be_bytes());
    key
}

/// Key of the counters.
#[must_use]
pub fn counters() -> Key {
    Key::from_slice(b"Mc")
}

/// Key of what snapshots hold in all.
#[must_use]
pub fn held_total() -> Key {
    Key::from_slice(b"Ms")
}

/// Key of the snapshot that shows the home as transaction `txn` left it.
#[must_use]
pub fn snapshot(txn: u64) -> Key {
    let mut key = Key::new();
    key.push(SNAPSHOT);
    key.extend_from_slice(&txn.to_be_bytes());
    key
}

/// Key of a chunk that died in transaction `death` and that a snapshot holds.
#[must_use]
pub fn held(death: u64, id: ChunkId) -> Key {
    let mut key = Key::new();
    key.push(HELD);
    key.extend_from_slice(&death.to_be_bytes());
    key.extend_from_slice(&id.segment.0.to_be_bytes());
    key.extend_from_slice(&id.number.to_be_bytes());
    key
}

/// Reads the death and the chunk of a held chunk's key.
#[must_use]
pub fn held_of(key: &[u8]) -> Option<(u64, ChunkId)> {
    let death = u64::from_be_bytes(key.get(1..9)?.try_into().ok()?);
    let segment = u64::from_be_bytes(key.get(9..17)?.try_into().ok()?);
    let number = u32::from_be_bytes(key.get(17..21)?.try_into().ok()?);
    (key.len() == 21).then_some((death, ChunkId { segment: SegmentId(segment), number }))
}

/// The first key of a kind for an inode, and the first behind all of them.
#[must_use]
pub fn range_of(kind: u8, ino: Ino) -> std::ops::Range<Vec<u8>> {
    with_ino(kind, ino).to_vec()..with_ino(kind, Ino(ino.0 + 1)).to_vec()
}

/// The range of a whole kind.
#[must_use]
pub fn range_of_kind(kind: u8) -> std::ops::Range<Vec<u8>> {
    vec![kind]..vec![kind + 1]
}

/// Reads the inode number behind the kind's letter.
#[must_use]
pub fn ino_of(key: &[u8]) -> Option<Ino> {
    let bytes: [u8; 5] = key.get(1..6)?.try_into().ok()?;
    let mut wide = [0; 8];
    wide[3..].copy_from_slice(&bytes);
    Some(Ino(u64::from_be_bytes(wide)))
}

/// Reads the hash of a bucket's key.
#[must_use]
pub fn bucket_hash_of(key: &[u8]) -> Option<u64> {
    let bytes: [u8; 7] = key.get(6..13)?.try_into().ok()?;
    let mut wide = [0; 8];
    wide[1..].copy_from_slice(&bytes);
    Some(u64::from_be_bytes(wide))
}

/// Reads the offset of an extent's key.
#[must_use]
pub fn extent_offset_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(6..14)?.try_into().ok()?))
}

/// Reads the chunk's name from its key.
#[must_use]
pub fn chunk_of(key: &[u8]) -> Option<ChunkId> {
    let segment = u64::from_be_bytes(key.get(1..9)?.try_into().ok()?);
    let number = u32::from_be_bytes(key.get(9..13)?.try_into().ok()?);
    Some(ChunkId { segment: SegmentId(segment), number })
}

/// Reads the number of a segment or of a small value from its key.
#[must_use]
pub fn number_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?))
}

/// Bits of a name's hash: a listing's cookie is the hash, eight bits of slot, and stays positive.
pub const NAME_HASH_BITS: u32 = 55;

/// The hash of a name, 1 to 2^55-1, from BLAKE3: nobody fills a bucket on purpose.
#[must_use]
pub fn name_hash(name: &[u8]) -> u64 {
    let digest = blake3::hash(name);
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    (u64::from_le_bytes(first) >> (64 - NAME_HASH_BITS)).max(1)
}
