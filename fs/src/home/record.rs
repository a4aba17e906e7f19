//! Values of the records of a home's database: encoding, decoding, nothing else.
//!
//! Little-endian, fixed widths, a version byte first. A reader takes records that are longer
//! than it knows (fields are appended, never moved) and refuses a version it does not know.

use bytes::Bytes;
use smallvec::SmallVec;

use super::error::Error;
use super::segment::{ChunkId, Codec, SegmentId};
use super::types::{Attr, Ino, Kind, Name, Time};

/// Version of every record that this release writes.
pub const RECORD_VERSION: u8 = 1;
/// A file with at most this many extents keeps them in its inode record.
pub const INLINE_EXTENTS_MAX: usize = 4;

/// Where the bytes of a durable extent are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In a chunk, from byte `at` of its plain content.
    Chunk {
        /// The chunk's name.
        id: ChunkId,
        /// First byte.
        at: u32,
    },
    /// In a small value, from byte `at`.
    Small {
        /// The value's number.
        id: u64,
        /// First byte.
        at: u32,
    },
    /// Nowhere: reserved space that reads as zeros.
    Reserved,
}

/// A durable extent: `len` bytes of a file from the offset that its key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentRecord {
    /// Bytes, at least 1.
    pub len: u64,
    /// Where they are.
    pub place: Place,
}

/// The extents that an inode record holds itself.
pub type InlineExtents = SmallVec<[(u64, ExtentRecord); 1]>;

/// Everything that the inode record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InodeRecord {
    /// Attributes; `charged` is that of the data.
    pub attr: Attr,
    /// The directory above (directories only, else 0).
    pub parent: Ino,
    /// Names in the directory.
    pub entries: u64,
    /// Bytes of the values of its extended attributes.
    pub xattr_bytes: u32,
    /// How many extended attributes it has.
    pub xattrs: u32,
    /// Target of a symbolic link.
    pub target: Bytes,
    /// `None`: the extents are records of their own.
    pub inline: Option<InlineExtents>,
}

/// One entry of a directory bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRecord {
    /// Tells names of one hash apart; part of the listing's cookie.
    pub slot: u8,
    /// What it is.
    pub kind: Kind,
    /// Its inode.
    pub ino: Ino,
    /// Its name.
    pub name: Name,
}

/// The entries of one bucket, nearly always one.
pub type Bucket = SmallVec<[EntryRecord; 1]>;

/// What the home knows of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRecord {
    /// Extents that refer to it.
    pub refs: u32,
    /// Bytes of its plain content.
    pub plain_bytes: u32,
    /// Bytes in the segment.
    pub stored_bytes: u32,
    /// How they are stored.
    pub codec: Codec,
    /// The segment that holds it now (the cleaner moves chunks, their names stay).
    pub segment: SegmentId,
    /// Where in that segment.
    pub offset: u32,
    /// Transaction of its birth.
    pub birth: u64,
    /// Transaction in which its last reference went; 0 while it has some.
    pub death: u64,
    /// BLAKE3 of the plain content.
    pub hash: [u8; 32],
    /// No content hash leads to it: it is not looked for when the same content is written again.
    pub unlisted: bool,
}

/// What the home knows of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentRecord {
    /// Bytes of the whole object.
    pub object_bytes: u64,
    /// Stored bytes of the chunks that live in it.
    pub live_bytes: u64,
    /// How many of them.
    pub live_chunks: u32,
    /// Transaction of its birth.
    pub birth: u64,
}

/// Counters of the home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The next inode number.
    pub next_ino: u64,
    /// The next number of a small value.
    pub next_small: u64,
    /// Charged bytes of all inode records.
    pub bytes: u64,
    /// Inode records.
    pub inodes: u64,
}

/// Writes a record.
pub(super) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.push(RECORD_VERSION);
        Self(bytes)
    }
    pub fn u8(&mut self, v: u8) {
        self.0.push(v);
    }
    pub fn u16(&mut self, v: u16) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    pub fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    pub fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    pub fn time(&mut self, t: Time) {
        self.0.extend_from_slice(&t.sec.to_le_bytes());
        self.u32(t.nsec);
    }
    fn extent(&mut self, extent: &ExtentRecord) {
        match extent.place {
            Place::Chunk { id, at } => {
                self.u8(1);
                self.u64(extent.len);
                self.u64(id.segment.0);
                self.u32(id.number);
                self.u32(at);
            }
            Place::Small { id, at } => {
                self.u8(2);
                self.u64(extent.len);
                self.u64(id);
                self.u32(at);
            }
            Place::Reserved => {
                self.u8(3);
                self.u64(extent.len);
            }
        }
    }
}

/// Reads a record.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], what: &'static str) -> Result<Self, Error> {
        let mut reader = Self { rest: bytes, what };
        match reader.u8()? {
            RECORD_VERSION => Ok(reader),
            version => Err(Error::corrupt(format_args!(
                "{what}: version {version}, this release reads {RECORD_VERSION}"
            ))),
        }
    }
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let Some((head, rest)) = self.rest.split_at_checked(n) else {
            return Err(Error::corrupt(format_args!("{}: cut short", self.what)));
        };
        self.rest = rest;
        Ok(head)
    }
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        Ok(self.bytes(N)?.try_into().expect("bytes gave N"))
    }
    pub fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }
    /// A field that records of an older release do not have.
    pub fn u8_or(&mut self, absent: u8) -> Result<u8, Error> {
        if self.rest.is_empty() { Ok(absent) } else { self.u8() }
    }
    pub fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub fn time(&mut self) -> Result<Time, Error> {
        Ok(Time { sec: i64::from_le_bytes(self.array()?), nsec: self.u32()? })
    }
    pub fn kind(&mut self) -> Result<Kind, Error> {
        let value = self.u8()?;
        Kind::from_u8(value).ok_or_else(|| self.bad(format_args!("kind {value}")))
    }
    pub fn bad(&self, why: impl std::fmt::Display) -> Error {
        Error::corrupt(format_args!("{}: {why}", self.what))
    }
    fn extent(&mut self) -> Result<ExtentRecord, Error> {
        let kind = self.u8()?;
        let len = self.u64()?;
        let place = match kind {
            1 => Place::Chunk {
                id: ChunkId { segment: SegmentId(self.u64()?), number: self.u32()? },
                at: self.u32()?,
            },
            2 => Place::Small { id: self.u64()?, at: self.u32()? },
            3 => Place::Reserved,
            _ => return Err(self.bad(format_args!("extent of kind {kind}"))),
        };
        Ok(ExtentRecord { len, place })
    }
}

impl InodeRecord {
    /// The bytes of the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(160 + self.target.len());
        let a = &self.attr;
        w.u8(a.kind as u8);
        w.u16(a.perm);
        w.u32(a.nlink);
        w.u32(a.uid);
        w.u32(a.gid);
        w.u32(a.rdev);
        w.u64(a.size);
        w.u64(a.charged);
        w.time(a.atime);
        w.time(a.mtime);
        w.time(a.ctime);
        w.time(a.btime);
        w.u64(self.parent.0);
        w.u64(self.entries);
        w.u32(self.xattr_bytes);
        w.u32(self.xattrs);
        w.u16(u16::try_from(self.target.len()).expect("targets have at most 4095 bytes"));
        w.0.extend_from_slice(&self.target);
        match &self.inline {
            None => w.u8(u8::MAX),
            Some(list) => {
                w.u8(u8::try_from(list.len()).expect("a handful of inline extents"));
                for (offset, extent) in list {
                    w.u64(*offset);
                    w.extent(extent);
                }
            }
        }
        w.0
    }

    /// Reads the record of inode `ino`.
    ///
    /// # Errors
    /// `Corrupt` for anything that `encode` does not write.
    pub fn decode(ino: Ino, bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::new(bytes, "inode record")?;
        let kind = r.kind()?;
        let attr = Attr {
            ino,
            kind,
            perm: r.u16()?,
            nlink: r.u32()?,
            uid: r.u32()?,
            gid: r.u32()?,
            rdev: r.u32()?,
            size: r.u64()?,
            charged: r.u64()?,
            atime: r.time()?,
            mtime: r.time()?,
            ctime: r.time()?,
            btime: r.time()?,
        };
        let (parent, entries) = (Ino(r.u64()?), r.u64()?);
        let (xattr_bytes, xattrs) = (r.u32()?, r.u32()?);
        let target_len = r.u16()?;
        let target = Bytes::copy_from_slice(r.bytes(usize::from(target_len))?);
        let inline = match r.u8()? {
            u8::MAX => None,
            count => {
                let mut list = InlineExtents::new();
                for _ in 0..count {
                    list.push((r.u64()?, r.extent()?));
                }
                Some(list)
            }
        };
        Ok(Self { attr, parent, entries, xattr_bytes, xattrs, target, inline })
    }

    /// What the quota counts for this inode.
    #[must_use]
    pub fn charged(&self) -> u64 {
        self.attr.charged + u64::from(self.xattr_bytes)
    }
}

impl ExtentRecord {
    /// The bytes of the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(26);
        w.extent(self);
        w.0
    }

    /// Reads a record.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        Reader::new(bytes, "extent record")?.extent()
    }
}

/// The bytes of a bucket.
#[must_use]
pub fn encode_bucket(bucket: &Bucket) -> Vec<u8> {
    let mut w =
        Writer::new(16 + bucket.iter().map(|e| 11 + e.name.as_bytes().len()).sum::<usize>());
    w.u8(u8::try_from(bucket.len()).expect("slots are a byte"));
    for entry in bucket {
        w.u8(entry.slot);
        w.u8(entry.kind as u8);
        w.u64(entry.ino.0);
        w.u8(u8::try_from(entry.name.as_bytes().len()).expect("names have at most 255 bytes"));
        w.0.extend_from_slice(entry.name.as_bytes());
    }
    w.0
}

/// Reads a bucket.
///
/// # Errors
/// `Corrupt`.
pub fn decode_bucket(bytes: &[u8]) -> Result<Bucket, Error> {
    let mut r = Reader::new(bytes, "directory bucket")?;
    let mut bucket = Bucket::new();
    for _ in 0..r.u8()? {
        let slot = r.u8()?;
        let kind = r.kind()?;
        let ino = Ino(r.u64()?);
        let len = r.u8()?;
        let name = Name::new(r.bytes(usize::from(len))?).map_err(|_| r.bad("a name"))?;
        bucket.push(EntryRecord { slot, kind, ino, name });
    }
    Ok(bucket)
}

impl ChunkRecord {
    /// The bytes of the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(80);
        w.u8(self.codec as u8);
        w.u32(self.refs);
        w.u32(self.plain_bytes);
        w.u32(self.stored_bytes);
        w.u64(self.segment.0);
        w.u32(self.offset);
        w.u64(self.birth);
        w.u64(self.death);
        w.0.extend_from_slice(&self.hash);
        w.u8(u8::from(self.unlisted));
        w.0
    }

    /// Reads a record.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::new(bytes, "chunk record")?;
        let codec = r.u8()?;
        let codec = Codec::from_u8(codec).ok_or_else(|| r.bad(format_args!("codec {codec}")))?;
        Ok(Self {
            codec,
            refs: r.u32()?,
            plain_bytes: r.u32()?,
            stored_bytes: r.u32()?,
            segment: SegmentId(r.u64()?),
            offset: r.u32()?,
            birth: r.u64()?,
            death: r.u64()?,
            hash: r.array()?,
            unlisted: r.u8_or(0)? & 1 != 0,
        })
    }
}

impl SegmentRecord {
    /// The bytes of the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(32);
        w.u64(self.object_bytes);
        w.u64(self.live_bytes);
        w.u32(self.live_chunks);
        w.u64(self.birth);
        w.0
    }

    /// Reads a record.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::new(bytes, "segment record")?;
        Ok(Self {
            object_bytes: r.u64()?,
            live_bytes: r.u64()?,
            live_chunks: r.u32()?,
            birth: r.u64()?,
        })
    }
}

impl Counters {
    /// The bytes of the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(40);
        w.u64(self.next_ino);
        w.u64(self.next_small);
        w.u64(self.bytes);
        w.u64(self.inodes);
        w.0
    }

    /// Reads a record.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::new(bytes, "counters")?;
        Ok(Self { next_ino: r.u64()?, next_small: r.u64()?, bytes: r.u64()?, inodes: r.u64()? })
    }
}

/// The bytes of a hash record: the chunk that holds this content.
#[must_use]
pub fn encode_chunk_id(id: ChunkId) -> Vec<u8> {
    let mut w = Writer::new(13);
    w.u64(id.segment.0);
    w.u32(id.number);
    w.0
}

/// Reads a hash record.
///
/// # Errors
/// `Corrupt`.
pub fn decode_chunk_id(bytes: &[u8]) -> Result<ChunkId, Error> {
    let mut r = Reader::new(bytes, "hash record")?;
    Ok(ChunkId { segment: SegmentId(r.u64()?), number: r.u32()? })
}

/// The bytes of a small value: the file that it was written for, references and contents.
#[must_use]
pub fn encode_small(ino: Ino, refs: u32, data: &[u8]) -> Vec<u8> {
    let mut w = Writer::new(13 + data.len());
    w.u64(ino.0);
    w.u32(refs);
    w.0.extend_from_slice(data);
    w.0
}

/// Reads a small value.
///
/// # Errors
/// `Corrupt`.
pub fn decode_small(bytes: &Bytes) -> Result<(Ino, u32, Bytes), Error> {
    let mut r = Reader::new(bytes, "small value")?;
    let (ino, refs) = (Ino(r.u64()?), r.u32()?);
    Ok((ino, refs, bytes.slice(bytes.len() - r.rest.len()..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_record_of_an_older_release_is_listed() {
        let record = ChunkRecord {
            refs: 1,
            plain_bytes: 10,
            stored_bytes: 10,
            codec: Codec::Plain,
            segment: SegmentId::new(1, 2),
            offset: 32,
            birth: 7,
            death: 0,
            hash: [1; 32],
            unlisted: true,
        };
        let bytes = record.encode();
        assert_eq!(ChunkRecord::decode(&bytes).expect("decodes"), record);
        let older = ChunkRecord::decode(&bytes[..bytes.len() - 1]).expect("decodes");
        assert_eq!(older, ChunkRecord { unlisted: false, ..record });
    }
}
