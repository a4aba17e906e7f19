//! Passes over segments, chunks, small values and hashes, and what they must add up to.

use super::check::{Check, LONG_ROWS, ROWS};
use super::finding::Invariant;
use super::plan::Fix;
use super::rows::{ChunkRow, SegmentRow, SmallRow};
use super::source::Cursor;
use crate::home::error::{Error, Result};
use crate::home::key;
use crate::home::record::{ChunkRecord, SegmentRecord, decode_chunk_id, decode_small};
use crate::home::segment::SegmentId;
use crate::home::types::Ino;

/// The first bytes of a hash, to compare with those of a hash record's key.
fn first_bytes(hash: &[u8]) -> u64 {
    let mut first = [0; 8];
    let len = hash.len().min(8);
    first[..len].copy_from_slice(&hash[..len]);
    u64::from_be_bytes(first)
}

impl Check<'_> {
    fn bad_key(&mut self, key: &[u8]) {
        let error = Error::corrupt("a key of a length that its kind does not have");
        self.unreadable(format_args!("key {key:02x?}"), &error, &[]);
    }

    pub(super) async fn read_segments(&mut self) -> Result<()> {
        let range = key::range_of_kind(key::SEGMENT);
        let mut cursor = Cursor::new(self.source.view, range, ROWS);
        while let Some((key, value)) = cursor.next().await? {
            self.step(1);
            let Some(id) = key::number_of(&key).filter(|_| key.len() == 9).map(SegmentId) else {
                self.bad_key(&key);
                continue;
            };
            self.totals.segments += 1;
            let mut row = SegmentRow::unknown(id);
            match SegmentRecord::decode(&value) {
                Ok(record) => {
                    row.known = true;
                    row.object_bytes = record.object_bytes;
                    row.live_bytes = record.live_bytes;
                    row.live_chunks = record.live_chunks;
                }
                Err(error) => self.unreadable(format_args!("segment {id}"), &error, &[]),
            }
            self.rows.segments.push(row);
        }
        Ok(())
    }

    pub(super) async fn read_chunks(&mut self) -> Result<()> {
        let range = key::range_of_kind(key::CHUNK);
        let mut cursor = Cursor::new(self.source.view, range, ROWS);
        while let Some((key, value)) = cursor.next().await? {
            self.step(1);
            let Some(id) = key::chunk_of(&key).filter(|_| key.len() == 13) else {
                self.bad_key(&key);
                continue;
            };
            let record = match ChunkRecord::decode(&value) {
                Ok(record) => record,
                Err(error) => {
                    self.unreadable(format_args!("chunk {id}"), &error, &[]);
                    continue;
                }
            };
            self.totals.chunks += 1;
            self.totals.live_bytes += u64::from(record.stored_bytes);
            let end = u64::from(record.offset) + u64::from(record.stored_bytes);
            let held = record.refs == 0
                && record.death != 0
                && self.snapshots.hold(record.birth, record.death);
            if held {
                self.snapshots.held.bytes += u64::from(record.stored_bytes);
                self.snapshots.held.chunks += 1;
            }
            self.rows.chunks.push(ChunkRow {
                id,
                segment: record.segment,
                hash: first_bytes(&record.hash),
                end,
                plain_bytes: record.plain_bytes,
                refs: record.refs,
                found: 0,
                held,
                listed: false,
            });
            let segment = self.rows.segment(record.segment);
            segment.found_bytes += u64::from(record.stored_bytes);
            segment.found_chunks += 1;
            segment.end = segment.end.max(end);
        }
        Ok(())
    }

    /// Notes of chunks without references.
    pub(super) async fn read_unused(&mut self) -> Result<()> {
        let range = key::range_of_kind(key::UNUSED);
        let mut cursor = Cursor::new(self.source.view, range, ROWS);
        while let Some((key, _)) = cursor.next().await? {
            self.step(1);
            let Some(id) = key::chunk_of(&key).filter(|_| key.len() == 13) else {
                self.bad_key(&key);
                continue;
            };
            let detail = match self.rows.chunk_at(id).map(|at| self.rows.chunks[at].refs) {
                Some(0) => continue,
                Some(refs) => format!("it has {refs} references"),
                None => "it is missing".to_owned(),
            };
            self.find(Invariant::UnusedNowhere, format_args!("chunk {id}"), detail, &[]);
            self.fix(Fix::Delete(key::Key::from_slice(&key)));
        }
        Ok(())
    }

    pub(super) async fn read_smalls(&mut self) -> Result<()> {
        let range = key::range_of_kind(key::SMALL);
        let mut cursor = Cursor::new(self.source.view, range, LONG_ROWS);
        while let Some((key, value)) = cursor.next().await? {
            self.step(1);
            let Some(id) = key::number_of(&key).filter(|_| key.len() == 9) else {
                self.bad_key(&key);
                continue;
            };
            self.totals.smalls += 1;
            self.recount.next_small = self.recount.next_small.max(id + 1);
            match decode_small(&value) {
                Ok((_, refs, data)) => {
                    let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
                    self.rows.smalls.push(SmallRow { id, bytes, refs, found: 0 });
                }
                Err(error) => self.unreadable(format_args!("small value {id}"), &error, &[]),
            }
        }
        Ok(())
    }

    pub(super) async fn read_hashes(&mut self) -> Result<()> {
        let range = key::range_of_kind(key::HASH);
        let mut cursor = Cursor::new(self.source.view, range, ROWS);
        while let Some((key, value)) = cursor.next().await? {
            self.step(1);
            let object = format_args!("hash {:02x?}", &key[1..]).to_string();
            let id = match decode_chunk_id(&value) {
                Ok(id) => id,
                Err(error) => {
                    self.unreadable(object, &error, &[]);
                    continue;
                }
            };
            let detail = match self.rows.chunk_at(id).map(|at| self.rows.chunks[at]) {
                Some(chunk) if chunk.hash == first_bytes(&key[1..]) => continue,
                Some(_) => format!("chunk {id} has another content"),
                None => format!("there is no chunk {id}"),
            };
            self.find(Invariant::HashNowhere, object, detail, &[]);
            self.fix(Fix::Delete(key::Key::from_slice(&key)));
        }
        Ok(())
    }

    /// References and segments, against what was counted.
    pub(super) fn compare_chunks(&mut self) {
        // What cannot be read may refer to more, and a writer may hold what nothing refers to.
        let keep = self.doubtful || self.source.in_use;
        for at in 0..self.rows.chunks.len() {
            let ChunkRow { id, refs, found, held, .. } = self.rows.chunks[at];
            let object = format_args!("chunk {id}").to_string();
            if refs != found && !(self.doubtful && refs > found) {
                let detail = format_args!("{refs}, should be {found}").to_string();
                self.find(Invariant::ChunkReferences, object, detail, &[]);
                self.fix(Fix::SetChunkRefs(id, found));
            } else if refs == 0 && !held && !keep {
                self.find(Invariant::ChunkUnused, object, "", &[]);
                self.fix(Fix::FreeChunk(id));
            }
        }
        for at in 0..self.rows.smalls.len() {
            let SmallRow { id, refs, found, .. } = self.rows.smalls[at];
            let object = format_args!("small value {id}").to_string();
            if refs != found && !(self.doubtful && refs > found) {
                let detail = format_args!("{refs}, should be {found}").to_string();
                self.find(Invariant::SmallReferences, object, detail, &[]);
                self.fix(Fix::SetSmallRefs(id, found));
            } else if refs == 0 && !keep {
                self.find(Invariant::SmallUnused, object, "", &[]);
                self.fix(Fix::Delete(key::small(id)));
            }
        }
        for at in 0..self.rows.segments.len() {
            let row = self.rows.segments[at];
            let same = row.live_bytes == row.found_bytes && row.live_chunks == row.found_chunks;
            if row.known && !same && !self.doubtful {
                let detail = format!(
                    "{} bytes in {} chunks, should be {} in {}",
                    row.live_bytes, row.live_chunks, row.found_bytes, row.found_chunks
                );
                self.find(Invariant::SegmentLive, format_args!("segment {}", row.id), detail, &[]);
                let (bytes, chunks) = (row.found_bytes, row.found_chunks);
                self.fix(Fix::SetSegmentLive { id: row.id, bytes, chunks });
            }
        }
    }

    /// Notes that the files of `inos` are hurt by what `draft` says.
    pub(super) fn hurt(&mut self, draft: usize, ino: Ino) {
        let draft = &mut self.drafts[draft];
        if draft.inos.last() == Some(&ino) {
            return;
        }
        if draft.inos.len() < super::PATHS_MAX {
            draft.inos.push(ino);
        } else {
            draft.more += 1;
        }
    }
}
