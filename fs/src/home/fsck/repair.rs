//! Applies the fixes that a check proposes, and checks again until there is nothing left to fix.
//!
//! One round is one batch: it becomes durable as a whole, and objects go only after it. A fix
//! reads its record again, so that several fixes of one record add up.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::check::Check;
use super::plan::{Fix, InodeFix};
use super::report::{Repaired, Report};
use super::source::Source;
use super::{Options, Progress};
use crate::home::Shared;
use crate::home::error::{Error, Result};
use crate::home::key::{self, Key};
use crate::home::reader::JoinPath;
use crate::home::record::{
    Bucket, ChunkRecord, Counters, EntryRecord, InodeRecord, SegmentRecord, decode_bucket,
    decode_chunk_id, decode_small, encode_bucket, encode_small,
};
use crate::home::segment::{ChunkId, SegmentId};
use crate::home::snapshot::encode_held;
use crate::home::table::{Batch, Table, TableOptions};
use crate::home::types::{Ino, Name};

/// Rounds after which a repair gives up: counts settle in three or four, and each takes up to
/// [`super::FINDINGS_MAX`] fixes.
const ROUNDS_MAX: u64 = 100;

/// Repairs a home. The caller holds its owner record: whoever has it open is fenced.
///
/// # Errors
/// As for opening a home and for checking it. What was repaired until then stays repaired.
pub async fn repair(
    meta: &Arc<dyn ObjectStore>,
    data: &Arc<dyn ObjectStore>,
    prefix: &Path,
    shared: &Shared,
    options: Options,
    progress: &mut (dyn FnMut(Progress) + Send + Sync),
) -> Result<Repaired> {
    let tables = prefix.clone().join_path("tables");
    let opened = TableOptions::default();
    let table = Table::open(Arc::clone(meta), tables.as_ref(), &shared.tables, opened).await?;
    let repaired = rounds(&table, &**data, prefix, options, progress).await;
    let closed = table.close().await;
    let repaired = repaired?;
    closed?;
    Ok(repaired)
}

async fn rounds(
    table: &Table,
    data: &dyn ObjectStore,
    prefix: &Path,
    options: Options,
    progress: &mut (dyn FnMut(Progress) + Send + Sync),
) -> Result<Repaired> {
    let mut repaired = Repaired::default();
    let mut txn = table.last_txn();
    loop {
        let (report, fixes) = round(table, data, prefix, options, progress).await?;
        repaired.rounds += 1;
        if repaired.rounds == 1 {
            repaired.before = report.clone();
        }
        repaired.after = report;
        txn += 1;
        let applied = apply(table, data, prefix, txn, fixes).await?;
        repaired.fixes += applied;
        if applied == 0 || repaired.rounds >= ROUNDS_MAX {
            return Ok(repaired);
        }
    }
}

async fn round(
    table: &Table,
    data: &dyn ObjectStore,
    prefix: &Path,
    options: Options,
    progress: &mut (dyn FnMut(Progress) + Send + Sync),
) -> Result<(Report, Vec<Fix>)> {
    let view = table.view()?;
    let source = Source {
        view: &view,
        latest: table,
        kept: table,
        data,
        prefix,
        epoch: table.epoch(),
        in_use: false,
    };
    Check::new(source, options, progress).run().await
}

/// Applies fixes as one batch; gives how many changed something.
async fn apply(
    table: &Table,
    data: &dyn ObjectStore,
    prefix: &Path,
    txn: u64,
    fixes: Vec<Fix>,
) -> Result<u64> {
    let mut patch = Patch { table, changes: BTreeMap::new(), lost: None };
    let mut objects = Vec::new();
    let mut applied = 0;
    for fix in fixes {
        if let Fix::DeleteObject(id) = fix {
            objects.push(id);
        } else {
            applied += u64::from(patch.apply(fix).await?);
        }
    }
    if !patch.changes.is_empty() {
        let mut batch = Batch::default();
        for (key, value) in patch.changes {
            match value {
                Some(value) => batch.put(Bytes::copy_from_slice(&key), value),
                None => batch.delete(Bytes::copy_from_slice(&key)),
            }
        }
        table.write(txn, batch).await?;
        table.flush().await?;
    }
    for id in objects {
        let path = prefix.clone().join_path(&id.object_name());
        match data.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => applied += 1,
            Err(error) => return Err(Error::unavailable(format_args!("{path}: {error}"))),
        }
    }
    Ok(applied)
}

/// Changes that are not written yet, over the tables.
pub struct Patch<'a> {
    table: &'a Table,
    changes: BTreeMap<Key, Option<Bytes>>,
    pub(super) lost: Option<Ino>,
}

impl Patch<'_> {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.table.get(key).await,
        }
    }

    fn put(&mut self, key: Key, value: Vec<u8>) {
        self.changes.insert(key, Some(value.into()));
    }

    fn delete(&mut self, key: Key) {
        self.changes.insert(key, None);
    }

    pub(super) async fn has(&self, key: &Key) -> Result<bool> {
        Ok(self.get(key).await?.is_some())
    }

    pub(super) async fn inode(&self, ino: Ino) -> Result<Option<InodeRecord>> {
        let value = self.get(&key::inode(ino)).await?;
        Ok(value.and_then(|value| InodeRecord::decode(ino, &value).ok()))
    }

    pub(super) fn put_inode(&mut self, record: &InodeRecord) {
        self.put(key::inode(record.attr.ino), record.encode());
    }

    pub(super) async fn bucket(&self, dir: Ino, hash: u64) -> Result<Bucket> {
        let value = self.get(&key::bucket(dir, hash)).await?;
        value.map_or(Ok(Bucket::new()), |value| decode_bucket(&value))
    }

    fn put_bucket(&mut self, dir: Ino, hash: u64, bucket: &Bucket) {
        let key = key::bucket(dir, hash);
        if bucket.is_empty() { self.delete(key) } else { self.put(key, encode_bucket(bucket)) }
    }

    /// Puts an entry where it is looked for, unless the name is there.
    pub(super) async fn put_entry(&mut self, dir: Ino, mut entry: EntryRecord) -> Result<bool> {
        let hash = key::name_hash(entry.name.as_bytes());
        let mut bucket = self.bucket(dir, hash).await?;
        let free = (0..u8::MAX).find(|n| bucket.iter().all(|e| e.slot != *n));
        let Some(slot) = free.filter(|_| bucket.iter().all(|e| e.name != entry.name)) else {
            return Ok(false);
        };
        entry.slot = slot;
        bucket.push(entry);
        self.put_bucket(dir, hash, &bucket);
        Ok(true)
    }

    pub(super) async fn counters(&self) -> Result<Option<Counters>> {
        let value = self.get(&key::counters()).await?;
        Ok(value.and_then(|value| Counters::decode(&value).ok()))
    }

    pub(super) fn put_counters(&mut self, counters: &Counters) {
        self.put(key::counters(), counters.encode());
    }

    /// Applies one fix; says whether it changed anything.
    async fn apply(&mut self, fix: Fix) -> Result<bool> {
        match fix {
            Fix::Delete(key) => self.delete(key),
            Fix::RemoveEntry { dir, hash, name, slot } => {
                return Ok(self.take_entry(dir, hash, &name, slot).await?.is_some());
            }
            Fix::MoveEntry { dir, hash, name, slot } => {
                let Some(entry) = self.take_entry(dir, hash, &name, slot).await? else {
                    return Ok(false);
                };
                self.put_entry(dir, entry).await?;
            }
            Fix::RemoveEntriesOf { dir, ino } => return self.remove_entries_of(dir, ino).await,
            Fix::SetEntryKind { dir, hash, slot, kind } => {
                let mut bucket = self.bucket(dir, hash).await?;
                bucket.iter_mut().filter(|e| e.slot == slot).for_each(|e| e.kind = kind);
                self.put_bucket(dir, hash, &bucket);
            }
            Fix::LinkLost(ino) => return self.link_lost(ino).await,
            Fix::SetInode(ino, fix) => return self.set_inode(ino, fix).await,
            Fix::SetChunkRefs(id, refs) => {
                let Some(mut record) = self.chunk(id).await? else { return Ok(false) };
                record.refs = refs;
                if refs > 0 && record.death != 0 {
                    self.delete(key::held(record.death, id));
                    record.death = 0;
                }
                self.put(key::chunk(id), record.encode());
            }
            Fix::FreeChunk(id) => return self.free_chunk(id).await,
            Fix::SetSmallRefs(id, refs) => {
                let Some(value) = self.get(&key::small(id)).await? else { return Ok(false) };
                let (ino, _, data) = decode_small(&value)?;
                self.put(key::small(id), encode_small(ino, refs, &data));
            }
            Fix::SetSegmentLive { id, bytes, chunks } => {
                let mut record = self.segment(id).await?;
                record.live_bytes = bytes;
                record.live_chunks = chunks;
                self.put(key::segment(id), record.encode());
            }
            Fix::SetSegmentSize { id, object_bytes } => {
                let record = SegmentRecord { object_bytes, ..self.segment(id).await? };
                self.put(key::segment(id), record.encode());
            }
            Fix::SetCounters(mut counters) => {
                // lost+found may have taken a number in this very round.
                if let Some(now) = self.counters().await? {
                    counters.next_ino = counters.next_ino.max(now.next_ino);
                }
                self.put_counters(&counters);
            }
            Fix::ListHeld(id) => {
                let Some(record) = self.chunk(id).await? else { return Ok(false) };
                self.put(key::held(record.death, id), encode_held());
            }
            Fix::SetHeld(held) => self.put(key::held_total(), held.encode()),
            Fix::Unkeep(name) => self.table.unkeep(&name).await?,
            Fix::DeleteObject(_) => return Ok(false),
        }
        Ok(true)
    }

    async fn chunk(&self, id: ChunkId) -> Result<Option<ChunkRecord>> {
        let value = self.get(&key::chunk(id)).await?;
        value.map(|value| ChunkRecord::decode(&value)).transpose()
    }

    async fn segment(&self, id: SegmentId) -> Result<SegmentRecord> {
        let value = self.get(&key::segment(id)).await?;
        let record = value.map(|value| SegmentRecord::decode(&value)).transpose()?;
        Ok(record.unwrap_or_default())
    }

    async fn take_entry(
        &mut self,
        dir: Ino,
        hash: u64,
        name: &Name,
        slot: u8,
    ) -> Result<Option<EntryRecord>> {
        let mut bucket = self.bucket(dir, hash).await?;
        // The last one: of two equal entries the first stays.
        let at = bucket.iter().rposition(|e| e.name == *name && e.slot == slot);
        let Some(at) = at else { return Ok(None) };
        let entry = bucket.remove(at);
        self.put_bucket(dir, hash, &bucket);
        Ok(Some(entry))
    }

    async fn remove_entries_of(&mut self, dir: Ino, ino: Ino) -> Result<bool> {
        let mut changed = false;
        let range = key::range_of(key::BUCKET, dir);
        for (key, value) in self.table.scan(range, usize::MAX).await? {
            let Some(hash) = key::bucket_hash_of(&key) else { continue };
            let hit = decode_bucket(&value).is_ok_and(|b| b.iter().any(|e| e.ino == ino));
            if hit {
                let mut bucket = self.bucket(dir, hash).await?;
                bucket.retain(|e| e.ino != ino);
                self.put_bucket(dir, hash, &bucket);
                changed = true;
            }
        }
        Ok(changed)
    }

    async fn set_inode(&mut self, ino: Ino, fix: InodeFix) -> Result<bool> {
        let Some(mut record) = self.inode(ino).await? else { return Ok(false) };
        record.attr.nlink = fix.nlink.unwrap_or(record.attr.nlink);
        record.attr.charged = fix.charged.unwrap_or(record.attr.charged);
        record.entries = fix.entries.unwrap_or(record.entries);
        record.parent = fix.parent.unwrap_or(record.parent);
        if let Some((xattrs, bytes)) = fix.xattrs {
            record.xattrs = xattrs;
            record.xattr_bytes = bytes;
        }
        self.put_inode(&record);
        Ok(true)
    }

    /// A chunk that nothing refers to goes, and its hash where that leads to it.
    async fn free_chunk(&mut self, id: ChunkId) -> Result<bool> {
        let Some(record) = self.chunk(id).await? else { return Ok(false) };
        self.delete(key::chunk(id));
        self.delete(key::unused(id));
        if record.death != 0 {
            self.delete(key::held(record.death, id));
        }
        let hash = key::hash(&record.hash);
        let named = self.get(&hash).await?;
        if named.is_some_and(|value| decode_chunk_id(&value).is_ok_and(|named| named == id)) {
            self.delete(hash);
        }
        Ok(true)
    }
}
