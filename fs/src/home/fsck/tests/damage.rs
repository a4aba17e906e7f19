//! Every kind of damage is found under its name, with the file that it hurts, and mended where
//! that is safe.

use super::*;
use crate::home::extent::WINDOW_BYTES;
use crate::home::record::{
    Counters, EntryRecord, ExtentRecord, Place, SegmentRecord, decode_small, encode_chunk_id,
    encode_small,
};
use Invariant as I;

/// Checks that `kind` is found, hurting `path` if given, that it is mended, and that nothing is
/// left then.
async fn found_and_mended(bed: &Bed, kind: Invariant, path: Option<&str>) -> Repaired {
    let report = bed.check(false).await;
    let found = paths(&report, kind);
    if let Some(path) = path {
        assert!(found.iter().any(|p| p == path), "{kind:?}: {found:?} in:\n{report}");
    }
    let repaired = bed.repair().await;
    assert!(repaired.after.clean, "{kind:?}:\n{repaired}");
    let report = bed.check(true).await;
    assert!(report.clean, "{kind:?}:\n{report}");
    // What was mended opens and closes, and stays clean.
    bed.open().await.close().await.expect("closes");
    let report = bed.check(true).await;
    assert!(report.clean, "{kind:?}:\n{report}");
    repaired
}

async fn lost_names(bed: &Bed) -> Vec<String> {
    let home = bed.open().await;
    let client = home.attach();
    let lost = home.lookup(client, Ino::ROOT, name("lost+found")).await.expect("there");
    let page = home.readdir(lost.ino, 0, true, 100).await.expect("lists");
    home.close().await.expect("closes");
    page.iter().skip(2).map(|e| String::from_utf8_lossy(&e.name).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_and_inodes_that_miss_each_other_are_mended() {
    let bed = Bed::build().await;
    let mut edit = bed.edit().await;
    edit.delete(&key::inode(bed.ino("a.txt")));
    edit.done().await;
    let report = bed.check(false).await;
    assert_eq!(paths(&report, I::EntryNowhere), ["/docs", "/docs"]);
    assert!(report.to_string().contains("\"hard\""), "{report}");
    found_and_mended(&bed, I::EntryNowhere, Some("/docs")).await;

    let bed = Bed::build().await;
    let mut edit = bed.edit().await;
    edit.delete(&key::bucket(bed.ino("sub"), key::name_hash(b"deep")));
    edit.done().await;
    let deep = bed.ino("deep");
    found_and_mended(&bed, I::InodeLost, Some(&deep.to_string())).await;
    assert_eq!(lost_names(&bed).await, [deep.to_string()]);

    let bed = Bed::build().await;
    let mut edit = bed.edit().await;
    edit.delete(&key::inode(bed.ino("deep")));
    edit.done().await;
    found_and_mended(&bed, I::EntryWithoutDirectory, None).await;
    assert_eq!(lost_names(&bed).await, [bed.ino("x").to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_counts_of_inodes_are_counted_again() {
    type Change = fn(&mut InodeRecord);
    let cases: [(&str, &str, Invariant, Change); 6] = [
        ("a.txt", "/docs/a.txt", I::LinkCount, |r| r.attr.nlink = 7),
        ("docs", "/docs", I::LinkCount, |r| r.attr.nlink = 3),
        ("docs", "/docs", I::EntryCount, |r| r.entries = 99),
        ("deep", "/sub/deep", I::ParentWrong, |r| r.parent = Ino::ROOT),
        ("big.bin", "/docs/big.bin", I::ChargedBytes, |r| r.attr.charged = 1),
        ("x", "/sub/deep/x", I::XattrCount, |r| r.xattr_bytes = 5),
    ];
    for (file, path, kind, change) in cases {
        let bed = Bed::build().await;
        let mut edit = bed.edit().await;
        edit.inode(bed.ino(file), change).await;
        edit.done().await;
        // Either of the two names will do.
        let path = (file != "a.txt").then_some(path);
        found_and_mended(&bed, kind, path).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_wrong_places_are_mended() {
    let bed = Bed::build().await;
    let (docs, many) = (bed.ino("docs"), bed.ino("many"));
    let entry = EntryRecord { slot: 0, kind: Kind::File, ino: many, name: name("many") };
    let mut edit = bed.edit().await;
    edit.delete(&key::bucket(docs, key::name_hash(b"many")));
    edit.put(&key::bucket(docs, 12345), encode_bucket(&[entry.clone()].into_iter().collect()));
    edit.done().await;
    found_and_mended(&bed, I::EntryMisplaced, Some("/docs/many")).await;

    let bed = Bed::build().await;
    let mut edit = bed.edit().await;
    edit.put(&key::bucket(docs, 12345), encode_bucket(&[entry.clone()].into_iter().collect()));
    edit.done().await;
    found_and_mended(&bed, I::EntryTwice, None).await;

    let bed = Bed::build().await;
    let mut edit = bed.edit().await;
    edit.bucket(docs, "many", |b| b[0].kind = Kind::Fifo).await;
    edit.done().await;
    found_and_mended(&bed, I::EntryKind, Some("/docs/many")).await;

    let bed = Bed::build().await;
    let mut edit = bed.edit().await;
    edit.bucket(docs, "many", |b| b.push(EntryRecord { name: name("twin"), ..entry.clone() }))
        .await;
    edit.done().await;
    found_and_mended(&bed, I::EntryMisplaced, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_in_circles_and_with_two_names_are_mended() {
    let bed = Bed::build().await;
    let (sub, deep) = (bed.ino("sub"), bed.ino("deep"));
    let mut edit = bed.edit().await;
    edit.delete(&key::bucket(Ino::ROOT, key::name_hash(b"sub")));
    let entry = EntryRecord { slot: 0, kind: Kind::Dir, ino: sub, name: name("up") };
    edit.bucket(deep, "up", |b| b.push(entry)).await;
    edit.done().await;
    found_and_mended(&bed, I::DirectoryCircle, None).await;
    assert_eq!(lost_names(&bed).await.len(), 1);

    let bed = Bed::build().await;
    let entry = EntryRecord { slot: 0, kind: Kind::Dir, ino: deep, name: name("again") };
    let mut edit = bed.edit().await;
    edit.bucket(bed.ino("docs"), "again", |b| b.push(entry)).await;
    edit.done().await;
    found_and_mended(&bed, I::DirectoryTwice, None).await;
    let home = bed.open().await;
    let client = home.attach();
    home.lookup(client, sub, name("deep")).await.expect("stays where it knows it is");
    home.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphan_records_that_lie_are_removed_before_a_home_acts_on_them() {
    let bed = Bed::build().await;
    let mut edit = bed.edit().await;
    edit.put(&key::orphan(bed.ino("many")), vec![1]);
    edit.put(&key::orphan(Ino(999_999)), vec![1]);
    edit.done().await;
    let report = bed.check(false).await;
    assert_eq!(paths(&report, I::OrphanNowhere), [""; 0]);
    found_and_mended(&bed, I::OrphanNamed, Some("/docs/many")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extents_that_are_wrong_are_found_and_left_as_they_are() {
    let cases = [
        (I::ExtentOverlap, 4000, 100, Place::Reserved),
        (I::ExtentWindow, WINDOW_BYTES - 10, 20, Place::Reserved),
        (I::ExtentLimit, i64::MAX as u64 - 5, 20, Place::Reserved),
        (I::ExtentNowhere, 100_000, 10, Place::Small { id: 4711, at: 0 }),
        (I::ExtentNowhere, 100_000, 10, missing_chunk()),
        (I::ExtentBehindEnd, 60 << 20, 10, missing_chunk()),
    ];
    for (kind, offset, len, place) in cases {
        let bed = Bed::build().await;
        let many = bed.ino("many");
        let mut edit = bed.edit().await;
        edit.put(&key::extent(many, offset), ExtentRecord { len, place }.encode());
        edit.done().await;
        let report = bed.check(false).await;
        assert!(paths(&report, kind).contains(&"/docs/many".to_owned()), "{report}");
        let repaired = bed.repair().await;
        assert_eq!(paths(&repaired.after, kind), ["/docs/many"], "{repaired}");
        assert_eq!(repaired.after.count(super::super::Severity::Count), 0, "{repaired}");
    }
    let bed = Bed::build().await;
    let mut edit = bed.edit().await;
    let (id, record) = edit.chunk(|r| r.plain_bytes == 5000).await;
    edit.put(&key::chunk(id), ChunkRecord { plain_bytes: 4999, ..record }.encode());
    edit.done().await;
    assert_eq!(paths(&bed.check(false).await, I::ExtentPastSource), ["/docs/many"]);
}

fn missing_chunk() -> Place {
    Place::Chunk { id: ChunkId { segment: SegmentId::new(1, 1000), number: 3 }, at: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_inodes_that_are_gone_are_freed() {
    let bed = Bed::build().await;
    let gone = Ino(500);
    let extent = ExtentRecord { len: 10, place: Place::Reserved }.encode();
    let mut edit = bed.edit().await;
    edit.put(&key::extent(gone, 0), extent.clone());
    edit.put(&key::extent(bed.ino("a.txt"), 0), extent);
    edit.put(&key::xattr(gone, b"user.x"), vec![1, 2]);
    edit.done().await;
    let report = bed.check(false).await;
    paths(&report, I::ExtentInlineAndKeyed);
    paths(&report, I::XattrWithoutInode);
    found_and_mended(&bed, I::ExtentWithoutFile, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_smalls_hashes_and_segments_are_counted_again() {
    let bed = Bed::build().await;
    let mut edit = bed.edit().await;
    let (id, record) = edit.chunk(|_| true).await;
    edit.put(&key::chunk(id), ChunkRecord { refs: 9, ..record }.encode());
    let smalls = edit.rows(key::SMALL).await;
    let (small, value) = smalls.first().cloned().expect("a small value");
    let (ino, _, data) = decode_small(&value).expect("decodes");
    edit.put(&small, encode_small(ino, 5, &data));
    edit.put(&key::small(900), encode_small(ino, 0, b"nobody's"));
    edit.put(&key::hash(&[7; 32]), encode_chunk_id(id));
    let (segment, value) = edit.rows(key::SEGMENT).await[0].clone();
    let record = SegmentRecord::decode(&value).expect("decodes");
    let wrong = SegmentRecord { live_chunks: 1, object_bytes: 5, ..record };
    edit.put(&segment, wrong.encode());
    let counters = edit.get(&key::counters()).await.expect("there");
    let counters = Counters::decode(&counters).expect("decodes");
    let wrong = Counters { next_ino: 3, next_small: 1, bytes: 1, inodes: 1 };
    edit.put(&key::counters(), wrong.encode());
    edit.done().await;
    let report = bed.check(false).await;
    for kind in [
        I::ChunkReferences,
        I::SmallReferences,
        I::SmallUnused,
        I::HashNowhere,
        I::SegmentLive,
        I::SegmentSize,
        I::CounterBytes,
        I::CounterInodes,
        I::CounterNextInode,
        I::CounterNextSmall,
    ] {
        paths(&report, kind);
    }
    assert!(report.is_whole(), "no file is hurt: {report}");
    found_and_mended(&bed, I::ChunkReferences, None).await;
    let edit = bed.edit().await;
    let mended = edit.get(&key::counters()).await.expect("there");
    let mended = Counters::decode(&mended).expect("decodes");
    assert_eq!((mended.bytes, mended.inodes), (counters.bytes, counters.inodes));
    edit.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_nothing_refers_to_and_objects_without_records_are_freed() {
    let bed = Bed::build().await;
    let mut edit = bed.edit().await;
    let (id, record) = edit.chunk(|_| true).await;
    let unused = ChunkId { number: 5000, ..id };
    edit.put(&key::chunk(unused), ChunkRecord { refs: 0, hash: [3; 32], ..record }.encode());
    edit.put(&key::hash(&[3; 32]), encode_chunk_id(unused));
    edit.done().await;
    let leaked = Path::from("homes/alice/segments").join("000001-0000009999");
    bed.data.put(&leaked, Bytes::from_static(b"leaked").into()).await.expect("puts");
    let report = bed.check(false).await;
    paths(&report, I::ObjectUnknown);
    found_and_mended(&bed, I::ChunkUnused, None).await;
    assert!(bed.data.head(&leaked).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_without_record_gets_one() {
    let bed = Bed::build().await;
    let mut edit = bed.edit().await;
    let (segment, _) = edit.rows(key::SEGMENT).await[0].clone();
    edit.delete(&segment);
    edit.done().await;
    found_and_mended(&bed, I::SegmentRecordMissing, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_are_missing_short_or_flipped_name_the_files_that_they_hurt() {
    let bed = Bed::build().await;
    for object in bed.objects().await {
        let bed = Bed::build().await;
        bed.data.delete(&object).await.expect("deletes");
        let report = bed.check(false).await;
        let hurt = paths(&report, I::SegmentMissing);
        assert!(!hurt.is_empty() && hurt.iter().all(|path| path.starts_with('/')), "{report}");
        // What is damaged stays as it is.
        let repaired = bed.repair().await;
        assert_eq!(paths(&repaired.after, I::SegmentMissing), hurt);
        assert_eq!(repaired.fixes, 0, "{repaired}");

        let bed = Bed::build().await;
        bed.overwrite(&object, |bytes| bytes.truncate(20)).await;
        assert_eq!(paths(&bed.check(false).await, I::SegmentShort), hurt);
    }
    let bed = Bed::build().await;
    let edit = bed.edit().await;
    let (id, record) = edit.chunk(|r| r.plain_bytes == 5000).await;
    edit.done().await;
    let objects = bed.objects().await;
    let object = objects.iter().find(|o| segment_of(o) == record.segment).expect("there");
    bed.overwrite(object, |bytes| bytes[record.offset as usize + 100] ^= 1).await;
    assert!(bed.check(false).await.clean, "{id}: only reading the contents shows it");
    assert_eq!(paths(&bed.check(true).await, I::ChunkDamaged), ["/docs/many"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_record_cannot_be_read_nothing_is_freed() {
    let bed = Bed::build().await;
    let mut edit = bed.edit().await;
    edit.put(&key::inode(bed.ino("big.bin")), vec![9, 9, 9]);
    edit.put(b"Qunknown", vec![1]);
    edit.done().await;
    let leaked = Path::from("homes/alice/segments").join("000001-0000009999");
    bed.data.put(&leaked, Bytes::from_static(b"leaked").into()).await.expect("puts");
    let chunks = bed.edit().await;
    let before = chunks.rows(key::CHUNK).await;
    chunks.done().await;
    let repaired = bed.repair().await;
    assert_eq!(paths(&repaired.after, I::RecordUnreadable), ["/docs/big.bin"]);
    assert!(repaired.after.doubtful);
    assert!(bed.data.head(&leaked).await.is_ok());
    let chunks = bed.edit().await;
    assert_eq!(chunks.rows(key::CHUNK).await, before);
    chunks.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_is_read_by_scripts_and_by_people() {
    let bed = Bed::build().await;
    let mut edit = bed.edit().await;
    edit.inode(bed.ino("many"), |r| r.attr.nlink = 4).await;
    edit.done().await;
    let report = bed.check(false).await;
    let json = serde_json::to_value(&report).expect("serialises");
    assert_eq!(json["clean"], false);
    assert_eq!(json["counts"]["link_count"], 1);
    assert_eq!(json["findings"][0]["kind"], "link_count");
    assert_eq!(json["findings"][0]["severity"], "count");
    assert_eq!(json["findings"][0]["paths"][0], "/docs/many");
    assert!(json["totals"]["charged_bytes"].as_u64().is_some_and(|bytes| bytes > 1_000_000));
    let text = report.to_string();
    assert!(text.contains("/docs/many") && text.contains("1 wrong counts"), "{text}");
}
