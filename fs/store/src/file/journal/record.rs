//! The form of the journal's files.
//!
//! ```text
//! segment: a page, then records, each beginning at a page of 4096 bytes
//!   0  magic "YADOJNL1"   8  random key, 32 bytes   40  BLAKE3 of bytes 0..40, 16 bytes
//! record:
//!   0  magic "YADOREC1", or "YADOVOID"
//!   8  length of the name u32   12  zero u32   16  length of the object's file u64   24  zero u64
//!  32  checksum, 16 bytes of BLAKE3 with the segment's key of bytes 8..32, name and file
//!  48  name (relative to ROOT), then the object's file with its footer
//! ```
//!
//! Numbers are little-endian. The key is a new one each time the segment is begun: what an
//! earlier turn left, and what users put into their data, never has the right checksum. A page
//! that begins no record with one is skipped: its put was never acknowledged. (A void record
//! keeps lengths and checksum.) Records begin at pages, so that no write touches another's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Objects up to this size, footer included, go through the journal.
pub(in crate::file) const OBJECT_BYTES_MAX: usize = 64 << 10;
pub(super) const PAGE: u64 = 4096;
pub(super) const VOID_MAGIC: &[u8; 8] = b"YADOVOID";
pub(super) const RECORD_HEAD: usize = 48;
const SEGMENT_MAGIC: &[u8; 8] = b"YADOJNL1";
const RECORD_MAGIC: &[u8; 8] = b"YADOREC1";
const SEGMENT_HEAD: usize = 56;

/// What the checksums of one turn of a segment are keyed with.
pub(super) type Key = [u8; 32];

/// The beginning of a segment whose records have this key.
pub(super) fn segment_head(key: &Key) -> [u8; SEGMENT_HEAD] {
    let mut head = [0; SEGMENT_HEAD];
    head[..8].copy_from_slice(SEGMENT_MAGIC);
    head[8..40].copy_from_slice(key);
    let checksum = blake3::hash(&head[..40]);
    head[40..].copy_from_slice(&checksum.as_bytes()[..16]);
    head
}

/// A whole record.
pub(super) fn encode(name: &Path, content: &[&[u8]], length: usize, key: &Key) -> Vec<u8> {
    let name = name.as_os_str().as_encoded_bytes();
    let mut record = Vec::with_capacity(RECORD_HEAD + name.len() + length);
    record.extend_from_slice(RECORD_MAGIC);
    record.extend_from_slice(&u32::try_from(name.len()).expect("a path is short").to_le_bytes());
    record.extend_from_slice(&[0; 4]);
    record.extend_from_slice(&(length as u64).to_le_bytes());
    record.extend_from_slice(&[0; 24]);
    record.extend_from_slice(name);
    content.iter().for_each(|slice| record.extend_from_slice(slice));
    let checksum = checksum(key, &record);
    record[32..RECORD_HEAD].copy_from_slice(&checksum);
    record
}

fn checksum(key: &Key, record: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&record[8..32]).update(&record[RECORD_HEAD..]);
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

/// A record as it was read.
pub(super) struct Record {
    pub(super) at: u64,
    pub(super) void: bool,
    pub(super) name: PathBuf,
    pub(super) content: Vec<u8>,
}

/// The records of a segment's file that were acknowledged, or at least written whole.
pub(super) fn records(file: &File) -> io::Result<Vec<Record>> {
    let length = file.metadata()?.len();
    let mut found = Vec::new();
    let mut head = [0; SEGMENT_HEAD];
    // Shorter: its maker died before there was any record.
    if length < PAGE || file.read_exact_at(&mut head, 0).is_err() {
        return Ok(found);
    }
    let number = |at: &[u8]| u64::from_le_bytes(at.try_into().expect("eight bytes"));
    let mut key = Key::default();
    key.copy_from_slice(&head[8..40]);
    if head != segment_head(&key) {
        return Ok(found);
    }
    let mut at = PAGE;
    while at + RECORD_HEAD as u64 <= length {
        let mut head = [0; RECORD_HEAD];
        file.read_exact_at(&mut head, at)?;
        let name_bytes = u64::from(u32::from_le_bytes(head[8..12].try_into().expect("four")));
        let content_bytes = number(&head[16..24]);
        let void = &head[..8] == VOID_MAGIC;
        let known = void || &head[..8] == RECORD_MAGIC;
        let bounded = content_bytes <= OBJECT_BYTES_MAX as u64 && name_bytes <= PAGE;
        let whole = RECORD_HEAD as u64 + name_bytes + content_bytes;
        if !known || !bounded || at + whole > length {
            // A put that was cut off before its record was whole; others may lie behind it.
            at += PAGE;
            continue;
        }
        let mut record = vec![0; whole as usize];
        file.read_exact_at(&mut record, at)?;
        if checksum(&key, &record) != record[32..RECORD_HEAD] {
            at += PAGE;
            continue;
        }
        let content = record.split_off(RECORD_HEAD + name_bytes as usize);
        let name = std::str::from_utf8(&record[RECORD_HEAD..]).unwrap_or_default();
        found.push(Record { at, void, name: PathBuf::from(name), content });
        at += whole.next_multiple_of(PAGE);
    }
    Ok(found)
}
