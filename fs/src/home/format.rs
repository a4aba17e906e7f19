//! Keeps `fs/FORMAT.md` true: every example there is encoded again and compared.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::key;
use super::record::*;
use super::segment::{ChunkId, Codec, Entry, SegmentBuilder, SegmentId};
use super::snapshot::{HeldTotal, Origin, Phase, SnapshotRecord, encode_held};
use super::types::{Attr, Ino, Kind, Name, Time};

const DOCUMENT: &str = include_str!("../../FORMAT.md");
const SEGMENT: SegmentId = SegmentId(1 << SegmentId::COUNTER_BITS | 2);
const CHUNK: ChunkId = ChunkId { segment: SEGMENT, number: 3 };

/// Name of an example, with the bytes of key and value.
type Examples = BTreeMap<String, (Vec<u8>, Vec<u8>)>;

/// Reads the examples of the document.
fn written() -> Examples {
    let mut examples = Examples::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```example ") else { continue };
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut into_value = false;
        for line in lines.by_ref().take_while(|line| *line != "```") {
            into_value = line.starts_with("value") || into_value;
            let hex = line.trim_start_matches("key").trim_start_matches("value");
            let bytes = hex.split_whitespace().map(|b| u8::from_str_radix(b, 16).expect("hex"));
            if into_value { value.extend(bytes) } else { key.extend(bytes) }
        }
        let twice = examples.insert(name.to_owned(), (key, value));
        assert!(twice.is_none(), "two examples {name}");
    }
    examples
}

fn attr(ino: u64, kind: Kind, perm: u16, size: u64) -> Attr {
    let time = |sec, nsec| Time { sec, nsec };
    Attr {
        ino: Ino(ino),
        kind,
        perm,
        nlink: 1,
        uid: 1000,
        gid: 100,
        rdev: 0,
        size,
        charged: 0,
        atime: time(1, 2),
        mtime: time(3, 4),
        ctime: time(5, 6),
        btime: time(7, 8),
    }
}

fn inode(attr: Attr) -> InodeRecord {
    InodeRecord {
        attr,
        parent: Ino(0),
        entries: 0,
        xattr_bytes: 0,
        xattrs: 0,
        target: Bytes::new(),
        inline: Some(InlineExtents::new()),
    }
}

fn inodes(put: &mut impl FnMut(&str, &[u8], Vec<u8>)) {
    let place = Place::Chunk { id: CHUNK, at: 0 };
    let file = InodeRecord {
        attr: Attr { charged: 10, ..attr(5, Kind::File, 0o644, 10) },
        xattr_bytes: 3,
        xattrs: 1,
        inline: Some([(0, ExtentRecord { len: 10, place })].into_iter().collect()),
        ..inode(attr(5, Kind::File, 0o644, 10))
    };
    put("file", &key::inode(Ino(5)), file.encode());
    let root = InodeRecord {
        attr: Attr { nlink: 2, ..attr(1, Kind::Dir, 0o700, 4096) },
        parent: Ino::ROOT,
        entries: 1,
        ..inode(attr(1, Kind::Dir, 0o700, 4096))
    };
    put("directory", &key::inode(Ino::ROOT), root.encode());
    let link = InodeRecord {
        target: Bytes::from_static(b"a.txt"),
        ..inode(attr(6, Kind::Symlink, 0o777, 5))
    };
    put("symlink", &key::inode(Ino(6)), link.encode());
}

fn files(put: &mut impl FnMut(&str, &[u8], Vec<u8>)) {
    let name = Name::new(b"a.txt").expect("a name");
    let hash = key::name_hash(name.as_bytes());
    let entry = EntryRecord { slot: 0, kind: Kind::File, ino: Ino(5), name };
    let bucket = encode_bucket(&[entry].into_iter().collect());
    put("bucket", &key::bucket(Ino::ROOT, hash), bucket);
    let mut extent = |name, at, len, place| {
        put(name, &key::extent(Ino(5), at), ExtentRecord { len, place }.encode());
    };
    extent("extent-chunk", 1 << 17, 1 << 17, Place::Chunk { id: CHUNK, at: 0 });
    extent("extent-small", 1 << 18, 100, Place::Small { id: 9, at: 4 });
    extent("extent-reserved", 1 << 20, 4096, Place::Reserved);
    put("xattr", &key::xattr(Ino(5), b"user.k"), [&[RECORD_VERSION][..], b"abc"].concat());
    put("orphan", &key::orphan(Ino(5)), vec![RECORD_VERSION]);
}

fn chunks(put: &mut impl FnMut(&str, &[u8], Vec<u8>)) {
    let segment =
        SegmentRecord { object_bytes: 189, live_bytes: 5, live_chunks: 1, birth: 7 }.encode();
    put("segment", &key::segment(SEGMENT), segment);
    let chunk = ChunkRecord {
        refs: 1,
        plain_bytes: 10,
        stored_bytes: 10,
        codec: Codec::Plain,
        segment: SEGMENT,
        offset: 32,
        birth: 7,
        death: 0,
        hash: [0x11; 32],
        unlisted: false,
    };
    put("chunk", &key::chunk(CHUNK), chunk.encode());
    put("hash", &key::hash(&chunk.hash), encode_chunk_id(CHUNK));
    put("unused", &key::unused(CHUNK), vec![RECORD_VERSION]);
    put("small", &key::small(9), encode_small(Ino(5), 1, b"hello"));
    let counters = Counters { next_ino: 66, next_small: 10, bytes: 13, inodes: 2 };
    put("counters", &key::counters(), counters.encode());
    snapshots(put);
    let mut builder = SegmentBuilder::new(SEGMENT);
    let entry = Entry {
        chunk: builder.next_chunk(),
        ino: Ino(5),
        offset: 0,
        txn: 7,
        codec: Codec::Plain,
        plain_len: 5,
        hash: yadokari_layers::chunk::hash(b"hello"),
    };
    builder.add(entry, Bytes::from_static(b"hello"));
    put("segment-object", &[], Bytes::from(builder.finish()).to_vec());
}

fn snapshots(put: &mut impl FnMut(&str, &[u8], Vec<u8>)) {
    let snapshot = SnapshotRecord {
        phase: Phase::Made,
        origin: Origin::Daily,
        created: Time { sec: 5, nsec: 6 },
        volume: 7,
        bytes: 8,
        inodes: 9,
        kept: uuid::Uuid::from_u128(10),
        name: "daily-1".into(),
        root: Bytes::from_static(b"root"),
    };
    put("snapshot", &key::snapshot(12), snapshot.encode());
    put("held", &key::held(9, CHUNK), encode_held());
    let held = HeldTotal { bytes: 10, chunks: 1 };
    put("held-total", &key::held_total(), held.encode());
}

#[test]
fn every_record_and_segment_is_as_the_document_draws_it() {
    let mut encoded = Examples::new();
    let mut put = |name: &str, key: &[u8], value: Vec<u8>| {
        encoded.insert(name.to_owned(), (key.to_vec(), value));
    };
    inodes(&mut put);
    files(&mut put);
    chunks(&mut put);
    let written = written();
    let names: Vec<&String> = written.keys().collect();
    assert_eq!(names, encoded.keys().collect::<Vec<_>>(), "the same examples");
    for (name, (key, value)) in &encoded {
        assert_eq!(written[name].0, *key, "key of {name}");
        assert_eq!(written[name].1, *value, "value of {name}");
    }
}
