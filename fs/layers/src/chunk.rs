//! Cutting and hashing of file contents, FORMAT version 1.
//!
//! A file's contents are cut at the multiples of [`CHUNK_BYTES`] of the file offset, and a chunk
//! is known by the BLAKE3 hash of its plain bytes. What always holds: where the cuts fall depends
//! on file offsets alone, never on the sizes of the writes, on time or on what is stored already.
//! So two files of equal content that were written in one go consist of equal chunks, whoever
//! wrote them: a home's file meets the same file in an image layer.
//!
//! Both homes and layers use this module and nothing else to cut and hash. Everything here is
//! pure, and none of it may change without a new format version: stored hashes rest on it.
//! Where chunks are stored, and whether compressed, is for others to say.

use std::fmt;
use std::ops::Range;

/// Version of the cutting and hashing that this module does.
pub const FORMAT_VERSION: u16 = 1;

/// Distance of the cuts, and so the largest chunk, in bytes. The kernel reads ahead by 128 KiB
/// and sends writes of up to 1 MiB: a chunk is one cold read, a write is a few chunks. Smaller
/// chunks would find little more that is equal and cost a record each.
pub const CHUNK_BYTES: u64 = 128 * 1024;

/// Bytes of a [`ChunkHash`].
pub const HASH_BYTES: usize = blake3::OUT_LEN;

/// The BLAKE3 hash of a chunk's plain content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkHash(pub [u8; HASH_BYTES]);

impl ChunkHash {
    /// The bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }
}

impl fmt::Display for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<[u8; HASH_BYTES]> for ChunkHash {
    fn from(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }
}

/// Splits the contiguous range of `len` bytes at file offset `offset` at the multiples of
/// [`CHUNK_BYTES`], in order. Gives nothing for an empty range.
///
/// # Panics
/// When the range ends beyond `u64::MAX`; no file is that long.
pub fn cut(offset: u64, len: u64) -> impl Iterator<Item = Range<u64>> + Clone {
    let end = offset.checked_add(len).expect("a range of a file ends within 64 bits");
    let mut next = offset;
    std::iter::from_fn(move || {
        if next == end {
            return None;
        }
        let cut = (next / CHUNK_BYTES + 1).saturating_mul(CHUNK_BYTES).min(end);
        Some(std::mem::replace(&mut next, cut)..cut)
    })
}

/// Hash of a chunk whose plain content is `plain`.
#[must_use]
pub fn hash(plain: &[u8]) -> ChunkHash {
    ChunkHash(*blake3::hash(plain).as_bytes())
}

/// Hash of a chunk whose plain content lies in several pieces: the same as [`hash`] of them
/// joined, without joining them.
pub fn hash_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> ChunkHash {
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(piece);
    }
    ChunkHash(*hasher.finalize().as_bytes())
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // one expected chunk is meant
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cuts(offset: u64, len: u64) -> Vec<Range<u64>> {
        cut(offset, len).collect()
    }

    #[test]
    fn an_empty_range_has_no_chunks() {
        assert!(cuts(0, 0).is_empty());
        assert!(cuts(CHUNK_BYTES, 0).is_empty());
        assert!(cuts(u64::MAX, 0).is_empty());
    }

    #[test]
    fn cuts_fall_on_multiples_of_the_file_offset() {
        assert_eq!(cuts(0, 5), [0..5]);
        assert_eq!(cuts(0, CHUNK_BYTES), [0..CHUNK_BYTES]);
        assert_eq!(
            cuts(CHUNK_BYTES - 1, CHUNK_BYTES + 2),
            [
                CHUNK_BYTES - 1..CHUNK_BYTES,
                CHUNK_BYTES..2 * CHUNK_BYTES,
                2 * CHUNK_BYTES..2 * CHUNK_BYTES + 1
            ]
        );
    }

    #[test]
    fn the_last_bytes_that_an_offset_can_name_are_cut_without_overflow() {
        assert_eq!(cuts(u64::MAX - 3, 3), [u64::MAX - 3..u64::MAX]);
    }

    #[test]
    fn format_version_1_hashes_are_blake3() {
        let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(hash(b"").to_string(), empty);
        let abc = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        assert_eq!(hash(b"abc").to_string(), abc);
        assert_eq!(format!("{:?}", hash(b"abc")), abc);
    }

    proptest! {
        #[test]
        fn chunks_cover_the_range_in_order_and_none_crosses_a_multiple(
            offset in 0..u64::from(u32::MAX),
            len in 1..20 * CHUNK_BYTES,
        ) {
            let mut at = offset;
            for chunk in cut(offset, len) {
                prop_assert_eq!(chunk.start, at);
                prop_assert!(chunk.start < chunk.end);
                prop_assert_eq!(chunk.start / CHUNK_BYTES, (chunk.end - 1) / CHUNK_BYTES);
                at = chunk.end;
            }
            prop_assert_eq!(at, offset + len);
        }

        #[test]
        fn ranges_that_meet_at_a_multiple_are_cut_as_their_union(
            first in 1..8_u64, second in 1..8_u64, tail in 0..CHUNK_BYTES,
        ) {
            let (one, two) = (first * CHUNK_BYTES, second * CHUNK_BYTES + tail);
            let parts: Vec<_> = cut(0, one).chain(cut(one, two)).collect();
            prop_assert_eq!(parts, cuts(0, one + two));
        }

        #[test]
        fn the_hash_of_pieces_is_the_hash_of_the_whole(
            content in proptest::collection::vec(any::<u8>(), 0..5000),
            piece in 1..700_usize,
        ) {
            prop_assert_eq!(hash_pieces(content.chunks(piece)), hash(&content));
        }
    }
}
