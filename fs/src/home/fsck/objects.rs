//! The pass over objects: what records name must be there, what is there must have a record;
//! contents must have their hashes. And whose files a damaged chunk belongs to.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use yadokari_layers::chunk::ChunkHash;

use super::check::{Check, ROWS};
use super::finding::Invariant;
use super::plan::Fix;
use super::rows::SegmentRow;
use super::source::Cursor;
use crate::home::error::{Error, Result};
use crate::home::key;
use crate::home::reader::JoinPath;
use crate::home::record::{ChunkRecord, ExtentRecord, InodeRecord, Place, SegmentRecord};
use crate::home::segment::{self, ChunkId, SEGMENT_FOLDER, SegmentId};
use crate::home::types::Ino;

/// Chunks of one segment are read together up to this many bytes.
const READ_BYTES_MAX: u64 = 16 << 20;

/// Damaged chunks, and the draft that tells of each.
pub type Hurt = BTreeMap<ChunkId, usize>;

impl Check<'_> {
    /// Compares records with objects.
    pub(super) async fn compare_objects(&mut self) -> Result<Hurt> {
        let folder = self.source.prefix.clone().join_path(SEGMENT_FOLDER);
        let failed = |error| Error::unavailable(format_args!("{folder}: {error}"));
        let mut objects: BTreeMap<SegmentId, u64> = BTreeMap::new();
        let mut listed = self.source.data.list(Some(&folder));
        while let Some(meta) = listed.try_next().await.map_err(failed)? {
            self.step(1);
            self.totals.object_bytes += meta.size;
            match meta.location.filename().and_then(SegmentId::parse) {
                Some(id) => drop(objects.insert(id, meta.size)),
                None => {
                    let detail = format!("{} bytes, not named as segments are", meta.size);
                    self.find(Invariant::ObjectUnknown, meta.location, detail, &[]);
                }
            }
        }
        drop(listed);
        let mut broken = BTreeMap::new();
        for at in 0..self.rows.segments.len() {
            let row = self.rows.segments[at];
            let size = objects.remove(&row.id);
            if let Some(draft) = self.compare_object(&row, size).await? {
                broken.insert(row.id, (draft, size.unwrap_or(0)));
            }
        }
        for (id, size) in objects {
            let on_its_way = self.source.in_use && id.epoch() >= self.source.epoch;
            if !on_its_way {
                let detail = format!("{size} bytes");
                self.find(Invariant::ObjectUnknown, id.object_name(), detail, &[]);
                self.fix(Fix::DeleteObject(id));
            }
        }
        let mut hurt = Hurt::new();
        if !broken.is_empty() {
            for chunk in &self.rows.chunks {
                if let Some((draft, size)) = broken.get(&chunk.segment)
                    && chunk.end > *size
                {
                    hurt.insert(chunk.id, *draft);
                }
            }
        }
        Ok(hurt)
    }

    /// One segment; the draft of a finding that hurts files.
    async fn compare_object(
        &mut self,
        row: &SegmentRow,
        size: Option<u64>,
    ) -> Result<Option<usize>> {
        let object = format!("segment {}", row.id);
        let size = match size {
            Some(size) => Some(size),
            None if row.found_chunks > 0 => self.look_again(row.id).await?,
            // Empty: the object goes before the record.
            None => return Ok(None),
        };
        let Some(size) = size else {
            if self.source.in_use && self.was_emptied(row.id).await? {
                return Ok(None);
            }
            let detail = format!("{} chunks of {} bytes", row.found_chunks, row.found_bytes);
            return Ok(self.find(Invariant::SegmentMissing, object, detail, &[]));
        };
        if row.end > size {
            let detail = format!("{size} bytes, its chunks end at {}", row.end);
            return Ok(self.find(Invariant::SegmentShort, object, detail, &[]));
        }
        let fix = Fix::SetSegmentSize { id: row.id, object_bytes: size };
        if !row.known {
            let detail = format!("{} chunks", row.found_chunks);
            self.find(Invariant::SegmentRecordMissing, object, detail, &[]);
            self.fix(fix);
        } else if row.object_bytes != size {
            let detail = format!("{size}, the record says {}", row.object_bytes);
            self.find(Invariant::SegmentSize, object, detail, &[]);
            self.fix(fix);
        }
        Ok(None)
    }

    /// Asks for one object: a list may be older than what it lists.
    async fn look_again(&self, id: SegmentId) -> Result<Option<u64>> {
        let path = self.source.prefix.clone().join_path(&id.object_name());
        match self.source.data.head(&path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::unavailable(format_args!("{path}: {error}"))),
        }
    }

    /// True when the cleaner moved everything out of a segment since the view was taken.
    async fn was_emptied(&self, id: SegmentId) -> Result<bool> {
        let value = self.source.latest.get(&key::segment(id)).await?;
        let record = value.and_then(|value| SegmentRecord::decode(&value).ok());
        Ok(record.is_none_or(|record| record.live_chunks == 0))
    }

    /// Reads every chunk.
    pub(super) async fn verify(&mut self, hurt: &mut Hurt) -> Result<()> {
        let mut cursor = Cursor::new(self.source.view, key::range_of_kind(key::CHUNK), ROWS);
        let mut page: Vec<(ChunkId, ChunkRecord)> = Vec::new();
        loop {
            let next = cursor.next().await?;
            if let Some((key, value)) = &next
                && let Some(id) = key::chunk_of(key)
                && let Ok(record) = ChunkRecord::decode(value)
                && !hurt.contains_key(&id)
            {
                page.push((id, record));
            }
            if page.len() < ROWS && next.is_some() {
                continue;
            }
            page.sort_by_key(|(_, r)| (r.segment, r.offset));
            for run in runs(&page) {
                self.verify_run(run, hurt).await?;
            }
            page.clear();
            if next.is_none() {
                return Ok(());
            }
        }
    }

    async fn verify_run(&mut self, run: &[(ChunkId, ChunkRecord)], hurt: &mut Hurt) -> Result<()> {
        let (first, last) = (run[0].1, run[run.len() - 1].1);
        let path = self.source.prefix.clone().join_path(&first.segment.object_name());
        let base = u64::from(first.offset);
        let range = base..u64::from(last.offset) + u64::from(last.stored_bytes);
        let bytes = match self.source.data.get_range(&path, range).await {
            Ok(bytes) => bytes,
            // Moved and gone meanwhile; the mover verified it.
            Err(object_store::Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(Error::unavailable(format_args!("{path}: {error}"))),
        };
        for (id, record) in run {
            self.step(1);
            let from = usize::try_from(u64::from(record.offset) - base).unwrap_or(usize::MAX);
            let to = from.saturating_add(record.stored_bytes as usize).min(bytes.len());
            let stored = bytes.slice(from.min(to)..to);
            let hash = ChunkHash::from(record.hash);
            match segment::unpack(record.codec, stored, record.plain_bytes, &hash) {
                Ok(_) => self.totals.verified_bytes += u64::from(record.plain_bytes),
                Err(error) => {
                    let object = format!("chunk {id} in segment {}", record.segment);
                    if let Some(draft) = self.find(Invariant::ChunkDamaged, object, error, &[]) {
                        hurt.insert(*id, draft);
                    }
                }
            }
        }
        Ok(())
    }

    /// Finds the files that refer to damaged chunks.
    pub(super) async fn blame(&mut self, hurt: &Hurt) -> Result<()> {
        if hurt.is_empty() {
            return Ok(());
        }
        let mut inodes = Cursor::new(self.source.view, key::range_of_kind(key::INODE), ROWS);
        while let Some((key, value)) = inodes.next().await? {
            let Some(ino) = key::ino_of(&key) else { continue };
            let Ok(record) = InodeRecord::decode(ino, &value) else { continue };
            for (_, extent) in record.inline.iter().flatten() {
                self.blame_extent(ino, extent, hurt);
            }
        }
        let mut extents = Cursor::new(self.source.view, key::range_of_kind(key::EXTENT), ROWS);
        while let Some((key, value)) = extents.next().await? {
            let Some(ino) = key::ino_of(&key) else { continue };
            let Ok(extent) = ExtentRecord::decode(&value) else { continue };
            self.blame_extent(ino, &extent, hurt);
        }
        Ok(())
    }

    fn blame_extent(&mut self, ino: Ino, extent: &ExtentRecord, hurt: &Hurt) {
        if let Place::Chunk { id, .. } = extent.place
            && let Some(draft) = hurt.get(&id)
        {
            self.hurt(*draft, ino);
        }
    }
}

/// Cuts sorted chunks into runs of one segment that one request reads.
fn runs(chunks: &[(ChunkId, ChunkRecord)]) -> impl Iterator<Item = &[(ChunkId, ChunkRecord)]> {
    let mut rest = chunks;
    std::iter::from_fn(move || {
        let (_, first) = rest.first()?;
        let fits = |(_, chunk): &&(ChunkId, ChunkRecord)| {
            let end = u64::from(chunk.offset) + u64::from(chunk.stored_bytes);
            chunk.segment == first.segment && end - u64::from(first.offset) <= READ_BYTES_MAX
        };
        let len = rest.iter().take_while(fits).count().max(1);
        let (run, behind) = rest.split_at(len);
        rest = behind;
        Some(run)
    })
}
