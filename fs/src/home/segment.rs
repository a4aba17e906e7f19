//! Segments, FORMAT version 1: immutable objects that hold the chunks of a home's files.
//!
//! What always holds: a segment is written once, under a name that carries its writer's epoch and
//! that is never used again. A chunk keeps the name that it got at birth ([`ChunkId`]) for ever,
//! whichever segment it is moved to. The footer alone tells which chunks of which files a segment
//! holds, so that data is found again when the tables are lost. Every chunk is verified by its
//! hash when it is read.
//!
//! All numbers are little-endian. Reserved bytes are written as zero and ignored by readers. A
//! change that readers of version 1 would misread raises the version; what they may skip goes
//! into reserved bytes, behind the known part of the header (`header length`) or behind the known
//! part of an entry (`entry length`).
//!
//! ```text
//! header                       entry of the footer            trailer, last 64 bytes
//!  0  8  magic "YADOSEG\n"      0  8  chunk: segment           0  4  footer length
//!  8  2  version = 1            8  4  chunk: number            4  4  number of entries
//! 10  2  header length = 32    12  1  codec: 0 plain 1 zstd    8  2  entry length = 88
//! 12  4  reserved              13  3  reserved                10  2  version = 1
//! 16  8  segment               16  8  inode                   12  4  reserved
//! 24  8  reserved              24  8  file offset             16  8  segment
//!                              32  8  transaction             24 32  checksum
//! chunks as stored, without    40  4  where: first byte       56  8  magic "YADOFOT\n"
//! gaps, in the order of the    44  4  where: stored length
//! entries                      48  4  plain length
//!                              52  4  reserved
//!                              56 32  hash of the plain chunk
//! ```
//!
//! The order is header, chunks, entries, trailer. `where` counts from the start of the object.
//! The checksum is the BLAKE3 hash of the entries and the trailer's bytes 0 to 23.
//!
//! Cutting and hashing are [`yadokari_layers::chunk`]'s; what chunks mean to files, and which of
//! them still matter, is for the tables to say.

mod codec;
mod footer;

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use object_store::PutPayload;
use yadokari_layers::chunk::ChunkHash;

use super::types::Ino;

#[cfg(test)]
use codec::pack;
pub use codec::{Codec, Outlook, unpack};
pub use footer::{Footer, FooterError, StoredEntry, read_footer};

/// Version of the format that is written.
pub const FORMAT_VERSION: u16 = 1;

/// A segment is written when it holds this much. Large enough that twenty thousand small files
/// are dozens of requests, small enough to be one write everywhere (RADOS takes objects of up to
/// 128 MiB, but writes of at most 90 MiB), to be in the store soon, and that the copies of it on
/// its way find memory that was used before: at twice the size the daemon and a Ceph OSD take
/// at least a quarter more fresh pages for the same data.
pub const SEGMENT_BYTES_TARGET: u64 = 4 * 1024 * 1024;
/// Or so many chunks: each costs a transaction some records, and their footer memory.
pub const SEGMENT_CHUNKS_TARGET: usize = 4096;

/// Folder of the segments below that of the home.
pub const SEGMENT_FOLDER: &str = "segments";

const HEADER_MAGIC: [u8; 8] = *b"YADOSEG\n";
const HEADER_BYTES: usize = 32;

/// Stored chunks below this are joined in memory when a segment is put together. Copying them
/// costs less than handing thousands of tiny pieces to the store, which may take only some
/// thousand in one request.
const JOIN_BELOW_BYTES: usize = 4096;

/// The name of a segment: the writer's epoch in 24 bits, then a counter of 40 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u64);

impl SegmentId {
    /// Bits of the counter; the epoch is above.
    pub const COUNTER_BITS: u32 = 40;
    /// The largest epoch that has a name: sixteen million openings.
    pub const EPOCH_MAX: u64 = (1 << 24) - 1;
    /// The largest counter.
    pub const COUNTER_MAX: u64 = (1 << Self::COUNTER_BITS) - 1;

    /// The `counter`-th segment of the writer with `epoch`.
    ///
    /// # Panics
    /// When one of them is above its maximum: names would be used again.
    #[must_use]
    pub fn new(epoch: u64, counter: u64) -> Self {
        assert!(epoch <= Self::EPOCH_MAX, "the epoch {epoch} does not fit into 24 bits");
        assert!(counter <= Self::COUNTER_MAX, "the counter {counter} does not fit into 40 bits");
        Self(epoch << Self::COUNTER_BITS | counter)
    }

    /// Epoch of the writer.
    #[must_use]
    pub fn epoch(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }

    /// Number among the segments of its writer.
    #[must_use]
    pub fn counter(self) -> u64 {
        self.0 & Self::COUNTER_MAX
    }

    /// Name of the object below the home's folder.
    #[must_use]
    pub fn object_name(self) -> String {
        format!("{SEGMENT_FOLDER}/{self}")
    }

    /// Reads the last part of an object's name; `None` when it is not that of a segment.
    #[must_use]
    pub fn parse(file_name: &str) -> Option<Self> {
        let (epoch, counter) = file_name.split_once('-')?;
        let id = Self::new(hex(epoch, 6)?, hex(counter, 10)?);
        (id.to_string() == file_name).then_some(id)
    }
}

/// A number of exactly `digits` hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u64> {
    (text.len() == digits).then(|| u64::from_str_radix(text, 16).ok())?
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}-{:010x}", self.epoch(), self.counter())
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a chunk: the segment that it was born in and its number there. The chunk keeps it
/// wherever it is moved.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId {
    /// The segment that the chunk was first written to.
    pub segment: SegmentId,
    /// Number among the chunks that were born there, from 0.
    pub number: u32,
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.segment, self.number)
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a segment says of one chunk, apart from where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub chunk: ChunkId,
    /// The file that it was written for.
    pub ino: Ino,
    /// Where in that file it began.
    pub offset: u64,
    /// The transaction of its birth.
    pub txn: u64,
    /// How it is stored.
    pub codec: Codec,
    /// Bytes of its content.
    pub plain_len: u32,
    /// Hash of its content.
    pub hash: ChunkHash,
}

/// Where a chunk lies in the object of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// First byte, from the start of the object.
    pub at: u32,
    /// Bytes as stored.
    pub len: u32,
}

impl Place {
    /// The bytes of the object that hold the chunk.
    #[must_use]
    pub fn range(self) -> std::ops::Range<u64> {
        u64::from(self.at)..u64::from(self.at) + u64::from(self.len)
    }
}

/// Collects chunks and puts them together as one object.
#[derive(Debug)]
pub struct SegmentBuilder {
    id: SegmentId,
    born: u32,
    stored_bytes: u64,
    entries: Vec<StoredEntry>,
    chunks: Vec<Bytes>,
}

impl SegmentBuilder {
    /// A segment without chunks.
    #[must_use]
    pub fn new(id: SegmentId) -> Self {
        Self { id, born: 0, stored_bytes: 0, entries: Vec::new(), chunks: Vec::new() }
    }

    /// A name for the next chunk that is born in this segment.
    pub fn next_chunk(&mut self) -> ChunkId {
        let number = self.born;
        self.born += 1;
        ChunkId { segment: self.id, number }
    }

    /// Adds a chunk whose content is stored as `stored`; gives where it will lie. The chunk may
    /// have been born elsewhere (then it is being moved).
    ///
    /// # Panics
    /// When the segment grows beyond 4 GiB; it is to be finished near [`SEGMENT_BYTES_TARGET`].
    pub fn add(&mut self, entry: Entry, stored: Bytes) -> Place {
        let at = HEADER_BYTES as u64 + self.stored_bytes;
        let end = at + stored.len() as u64;
        assert!(end <= u64::from(u32::MAX), "a segment of {end} bytes");
        let place = Place { at: at as u32, len: stored.len() as u32 };
        self.stored_bytes += stored.len() as u64;
        self.entries.push(StoredEntry { entry, place });
        self.chunks.push(stored);
        place
    }

    /// Bytes of the chunks as stored, without header and footer.
    #[cfg(test)]
    fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Chunks so far, in the order of their places.
    #[cfg(test)]
    fn entries(&self) -> &[StoredEntry] {
        &self.entries
    }

    /// The object's contents. Chunks are taken over as they are, tiny ones joined.
    #[must_use]
    pub fn finish(self) -> PutPayload {
        let mut pieces = Vec::with_capacity(self.chunks.len() + 2);
        let mut run = BytesMut::from(header(self.id).as_slice());
        for chunk in self.chunks {
            if chunk.len() < JOIN_BELOW_BYTES {
                run.put_slice(&chunk);
                continue;
            }
            if !run.is_empty() {
                pieces.push(run.split().freeze());
            }
            pieces.push(chunk);
        }
        footer::write(self.id, &self.entries, &mut run);
        pieces.push(run.freeze());
        pieces.into_iter().collect()
    }
}

fn header(id: SegmentId) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let mut at = &mut header[..];
    at.put_slice(&HEADER_MAGIC);
    at.put_u16_le(FORMAT_VERSION);
    at.put_u16_le(HEADER_BYTES as u16);
    at.put_u32_le(0);
    at.put_u64_le(id.0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use yadokari_layers::chunk;

    fn entry(chunk: ChunkId, plain: &[u8], codec: Codec) -> Entry {
        Entry {
            chunk,
            ino: Ino(7),
            offset: 4096,
            txn: 11,
            codec,
            plain_len: plain.len() as u32,
            hash: chunk::hash(plain),
        }
    }

    #[test]
    fn the_name_of_a_segment_says_epoch_and_counter_and_reads_back() {
        let id = SegmentId::new(0x1a, 0xbeef);
        assert_eq!(id.object_name(), "segments/00001a-000000beef");
        assert_eq!(SegmentId::parse("00001a-000000beef"), Some(id));
        assert_eq!((id.epoch(), id.counter()), (0x1a, 0xbeef));
        let last = SegmentId::new(SegmentId::EPOCH_MAX, SegmentId::COUNTER_MAX);
        assert_eq!(last.0, u64::MAX);
        assert_eq!(SegmentId::parse(&last.to_string()), Some(last));
    }

    #[test]
    fn other_names_are_not_taken_for_segments() {
        for name in ["", "-", "00001a-000000bee", "00001A-000000beef", "+0001a-000000beef", "é"] {
            assert_eq!(SegmentId::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_header_of_version_1_is_as_drawn() {
        let payload = SegmentBuilder::new(SegmentId::new(1, 2)).finish();
        let bytes = Bytes::from(payload);
        assert_eq!(&bytes[..8], b"YADOSEG\n");
        assert_eq!(&bytes[8..16], [1, 0, 32, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[16..24], [2, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(bytes.len(), 32 + 64);
    }

    #[test]
    fn large_chunks_are_not_copied_and_tiny_ones_are_joined() {
        let mut builder = SegmentBuilder::new(SegmentId::new(1, 2));
        let large = Bytes::from(vec![9_u8; 100_000]);
        for stored in [&b"a"[..], &b"b"[..]] {
            let id = builder.next_chunk();
            builder.add(entry(id, stored, Codec::Plain), Bytes::copy_from_slice(stored));
        }
        let id = builder.next_chunk();
        assert_eq!(id.number, 2);
        let place = builder.add(entry(id, &large, Codec::Plain), large.clone());
        assert_eq!(place, Place { at: 34, len: 100_000 });
        assert_eq!(builder.stored_bytes(), 100_002);
        let payload = builder.finish();
        let pieces: Vec<&Bytes> = payload.iter().collect();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
    }

    proptest! {
        #[test]
        fn what_was_added_is_found_by_the_footer_and_reads_back(
            chunks in proptest::collection::vec(
                proptest::collection::vec(0..3_u8, 0..20_000), 0..12),
        ) {
            let mut builder = SegmentBuilder::new(SegmentId::new(3, 4));
            for plain in &chunks {
                let (codec, stored) = pack(plain.clone().into());
                let id = builder.next_chunk();
                builder.add(entry(id, plain, codec), stored);
            }
            let entries = builder.entries().to_vec();
            let object = Bytes::from(builder.finish());
            let footer = read_footer(object.len() as u64, &object).expect("footer");
            prop_assert_eq!(footer.segment, SegmentId::new(3, 4));
            prop_assert_eq!(&footer.entries, &entries);
            for (plain, StoredEntry { entry, place }) in chunks.iter().zip(&entries) {
                let range = place.range();
                let stored = object.slice(range.start as usize..range.end as usize);
                let read = unpack(entry.codec, stored, entry.plain_len, &entry.hash).expect("read");
                prop_assert_eq!(&read[..], &plain[..]);
            }
        }
    }
}
