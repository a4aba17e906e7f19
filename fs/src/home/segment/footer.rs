//! The footer of a segment: written by the builder, read by rescue and by the cleaner.
//!
//! What always holds: a footer that is accepted was written by us for this very object, whole
//! (its checksum covers every entry), and its entries lie between header and footer, in order and
//! without gaps. The bytes are drawn in the header of [`super`].

use bytes::{Buf, BufMut, BytesMut};
use yadokari_layers::chunk::HASH_BYTES;

use super::{ChunkId, Codec, Entry, FORMAT_VERSION, HEADER_BYTES, Place, SegmentId};
use crate::home::types::Ino;

const MAGIC: [u8; 8] = *b"YADOFOT\n";
const ENTRY_BYTES: usize = 88;
const TRAILER_BYTES: usize = 64;
/// The checksum covers the trailer up to here.
const CHECKED_BYTES: usize = 24;

/// How much of the end of an object to read first: enough for the footer of a segment of 128 KiB
/// chunks, or of some seven hundred small files.
pub(super) const TAIL_BYTES_GUESS: u64 = 64 * 1024;

/// A chunk in a segment and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// What it is.
    pub entry: Entry,
    /// Where it is.
    pub place: Place,
}

/// What the end of a segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The segment by its own account.
    pub segment: SegmentId,
    /// Its chunks in the order of their places.
    pub entries: Vec<StoredEntry>,
}

/// Why there is no footer (yet).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    /// Read the last `tail_bytes` of the object and try again.
    #[error("the footer needs the last {tail_bytes} bytes")]
    NeedMore {
        /// Bytes from the end of the object.
        tail_bytes: u64,
    },
    /// The object is not a whole segment, or one that a newer version wrote.
    #[error("{0}")]
    Corrupt(&'static str),
}

/// Appends entries and trailer to `out`.
pub(super) fn write(segment: SegmentId, entries: &[StoredEntry], out: &mut BytesMut) {
    let start = out.len();
    out.reserve(entries.len() * ENTRY_BYTES + TRAILER_BYTES);
    for StoredEntry { entry, place } in entries {
        out.put_u64_le(entry.chunk.segment.0);
        out.put_u32_le(entry.chunk.number);
        out.put_u8(entry.codec as u8);
        out.put_bytes(0, 3);
        out.put_u64_le(entry.ino.0);
        out.put_u64_le(entry.offset);
        out.put_u64_le(entry.txn);
        out.put_u32_le(place.at);
        out.put_u32_le(place.len);
        out.put_u32_le(entry.plain_len);
        out.put_u32_le(0);
        out.put_slice(entry.hash.as_bytes());
    }
    let count = u32::try_from(entries.len()).expect("a segment has less than 4 GiB of chunks");
    let footer_len = u32::try_from(out.len() - start).expect("and as many bytes of entries");
    out.put_u32_le(footer_len);
    out.put_u32_le(count);
    out.put_u16_le(ENTRY_BYTES as u16);
    out.put_u16_le(FORMAT_VERSION);
    out.put_u32_le(0);
    out.put_u64_le(segment.0);
    let checksum = blake3::hash(&out[start..]);
    out.put_slice(checksum.as_bytes());
    out.put_slice(&MAGIC);
}

/// Reads the footer of an object of `object_len` bytes from `tail`, the last bytes of it.
///
/// # Errors
/// `NeedMore` when the footer is longer than `tail`; `Corrupt` when there is none.
pub fn read_footer(object_len: u64, tail: &[u8]) -> Result<Footer, FooterError> {
    use FooterError::{Corrupt, NeedMore};
    if object_len < (HEADER_BYTES + TRAILER_BYTES) as u64 {
        return Err(Corrupt("the object is too short for a segment"));
    }
    let Some((before, trailer)) = tail.split_last_chunk::<TRAILER_BYTES>() else {
        return Err(NeedMore { tail_bytes: TAIL_BYTES_GUESS.min(object_len) });
    };
    if trailer[CHECKED_BYTES + HASH_BYTES..] != MAGIC {
        return Err(Corrupt("the object does not end as a segment does"));
    }
    let mut fields = &trailer[..];
    let footer_len = fields.get_u32_le();
    let count = fields.get_u32_le() as usize;
    let entry_len = usize::from(fields.get_u16_le());
    let version = fields.get_u16_le();
    let _reserved = fields.get_u32_le();
    let segment = SegmentId(fields.get_u64_le());
    if version != FORMAT_VERSION {
        return Err(Corrupt("the segment has a version that this program does not know"));
    }
    let data_end = object_len.checked_sub(TRAILER_BYTES as u64 + u64::from(footer_len));
    let Some(data_end) = data_end.filter(|end| *end >= HEADER_BYTES as u64) else {
        return Err(Corrupt("the footer of the segment is longer than the object"));
    };
    if entry_len < ENTRY_BYTES || count.checked_mul(entry_len) != Some(footer_len as usize) {
        return Err(Corrupt("the length of the segment's footer contradicts itself"));
    }
    let Some(start) = before.len().checked_sub(footer_len as usize) else {
        return Err(NeedMore { tail_bytes: object_len - data_end });
    };
    let checked = &tail[start..tail.len() - TRAILER_BYTES + CHECKED_BYTES];
    if blake3::hash(checked).as_bytes()[..] != trailer[CHECKED_BYTES..][..HASH_BYTES] {
        return Err(Corrupt("the segment's footer does not have its checksum"));
    }
    let entries = before[start..]
        .chunks_exact(entry_len)
        .map(|bytes| read_entry(bytes).ok_or(Corrupt("a chunk with an unknown codec")))
        .collect::<Result<Vec<_>, _>>()?;
    if !lie_without_gaps(&entries, data_end) {
        return Err(Corrupt("the segment's chunks do not lie where they should"));
    }
    Ok(Footer { segment, entries })
}

/// Entries begin behind the header, follow each other and end where the footer begins.
fn lie_without_gaps(entries: &[StoredEntry], data_end: u64) -> bool {
    let mut next = HEADER_BYTES as u64;
    let follow = entries.iter().all(|stored| {
        let range = stored.place.range();
        std::mem::replace(&mut next, range.end) == range.start
    });
    follow && next == data_end
}

/// Reads an entry of at least [`ENTRY_BYTES`] bytes; `None` when its codec is unknown.
fn read_entry(mut bytes: &[u8]) -> Option<StoredEntry> {
    let chunk = ChunkId { segment: SegmentId(bytes.get_u64_le()), number: bytes.get_u32_le() };
    let codec = Codec::from_u8(bytes.get_u8());
    bytes.advance(3);
    let ino = Ino(bytes.get_u64_le());
    let offset = bytes.get_u64_le();
    let txn = bytes.get_u64_le();
    let place = Place { at: bytes.get_u32_le(), len: bytes.get_u32_le() };
    let plain_len = bytes.get_u32_le();
    bytes.advance(4);
    let mut hash = [0; HASH_BYTES];
    bytes.copy_to_slice(&mut hash);
    let hash = hash.into();
    Some(StoredEntry {
        entry: Entry { chunk, ino, offset, txn, codec: codec?, plain_len, hash },
        place,
    })
}

#[cfg(test)]
mod tests {
    use super::super::SegmentBuilder;
    use super::*;
    use bytes::Bytes;
    use yadokari_layers::chunk;

    fn segment(chunks: u32) -> Bytes {
        let mut builder = SegmentBuilder::new(SegmentId::new(5, 6));
        for n in 0..chunks {
            let plain = Bytes::from(vec![n as u8; 10 + n as usize]);
            let entry = Entry {
                chunk: builder.next_chunk(),
                ino: Ino(u64::from(n) + 1),
                offset: u64::from(n) * 100,
                txn: 77,
                codec: Codec::Plain,
                plain_len: plain.len() as u32,
                hash: chunk::hash(&plain),
            };
            builder.add(entry, plain);
        }
        builder.finish().into()
    }

    #[test]
    fn a_short_tail_asks_for_exactly_what_it_needs() {
        let object = segment(1000);
        let len = object.len() as u64;
        assert_eq!(
            read_footer(len, &object[object.len() - 10..]),
            Err(FooterError::NeedMore { tail_bytes: TAIL_BYTES_GUESS })
        );
        let tail = &object[object.len() - TAIL_BYTES_GUESS as usize..];
        let Err(FooterError::NeedMore { tail_bytes }) = read_footer(len, tail) else {
            panic!("a thousand entries do not fit into the guess");
        };
        assert_eq!(tail_bytes, 1000 * ENTRY_BYTES as u64 + TRAILER_BYTES as u64);
        let footer = read_footer(len, &object[object.len() - tail_bytes as usize..]).expect("all");
        assert_eq!(footer.entries.len(), 1000);
        assert_eq!(footer.entries[999].entry.ino, Ino(1000));
    }

    #[test]
    fn any_changed_byte_of_entries_or_trailer_is_found() {
        let object = segment(3);
        let len = object.len() as u64;
        let data_end = object.len() - TRAILER_BYTES - 3 * ENTRY_BYTES;
        for at in data_end..object.len() {
            let mut bad = object.to_vec();
            bad[at] ^= 1;
            assert!(
                matches!(read_footer(len, &bad), Err(FooterError::Corrupt(_))),
                "byte {at} of {len}"
            );
        }
    }

    #[test]
    fn truncated_and_extended_objects_are_corrupt() {
        let object = segment(3);
        for len in 0..object.len() {
            let cut = &object[..len];
            assert!(matches!(read_footer(len as u64, cut), Err(FooterError::Corrupt(_))), "{len}");
        }
        let mut longer = vec![0; 8];
        longer.extend_from_slice(&object);
        let read = read_footer(longer.len() as u64, &longer);
        assert!(matches!(read, Err(FooterError::Corrupt(_))));
    }

    #[test]
    fn longer_entries_of_a_later_minor_change_are_read() {
        let object = segment(2);
        let data_end = object.len() - TRAILER_BYTES - 2 * ENTRY_BYTES;
        let mut grown = object[..data_end].to_vec();
        for entry in object[data_end..][..2 * ENTRY_BYTES].chunks(ENTRY_BYTES) {
            grown.extend_from_slice(entry);
            grown.extend_from_slice(b"new part");
        }
        let footer_len = (2 * (ENTRY_BYTES + 8)) as u32;
        grown.extend_from_slice(&footer_len.to_le_bytes());
        grown.extend_from_slice(&2_u32.to_le_bytes());
        grown.extend_from_slice(&(ENTRY_BYTES as u16 + 8).to_le_bytes());
        grown.extend_from_slice(&object[object.len() - TRAILER_BYTES + 10..][..14]);
        let checksum = blake3::hash(&grown[data_end..]);
        grown.extend_from_slice(checksum.as_bytes());
        grown.extend_from_slice(&MAGIC);
        let read = read_footer(grown.len() as u64, &grown).expect("readable");
        assert_eq!(Ok(read), read_footer(object.len() as u64, &object));
    }
}
