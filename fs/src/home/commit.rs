//! Commit: the running transaction is frozen, accounted for and written as one atomic batch.
//!
//! Reference counts of chunks and small values live here and only here: one committer, one
//! transaction after the other. A chunk is freed when nothing refers to it and nothing in
//! memory holds it and no snapshot lies between its birth and its death ([`super::snapshot`]);
//! what only a snapshot holds is listed by its death, what only memory holds as unused. A segment
//! without living chunks keeps its record until its object is gone, so that no crash forgets the
//! object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use object_store::ObjectStoreExt;

use super::core::Core;
use super::error::{Error, Result};
use super::holds::RefKey;
use super::key::{self, Key};
use super::maps::HashMap;
use super::mutants::{self, Mutant};
use super::record::{
    ChunkRecord, RECORD_VERSION, SegmentRecord, decode_chunk_id, decode_small, encode_bucket,
    encode_chunk_id, encode_small,
};
use super::segment::{ChunkId, SegmentId};
use super::snapshot::{HeldTotal, encode_held};
use super::state::State;
use super::table::Batch;
use super::transaction::Transaction;
use super::types::Ino;

/// A transaction whose inodes and names are encoded.
#[derive(Debug)]
pub struct Frozen {
    /// What is left to account for, and the records that are ready.
    pub txn: Transaction,
    /// Inodes that the database will not know any more.
    pub dead: Vec<Ino>,
}

impl State {
    /// Encodes the running transaction and starts the next. `None`: nothing to commit.
    pub fn freeze(&mut self) -> Option<Frozen> {
        for capture in self.capture_without_data() {
            capture.set_stored();
            self.complete(capture.ino);
        }
        if !self.txn.is_started() {
            return None;
        }
        let next = Transaction::new(self.txn.number + 1);
        let mut txn = std::mem::replace(&mut self.txn, next);
        let mut dead = Vec::new();
        for ino in std::mem::take(&mut txn.inodes) {
            self.freeze_inode(ino, &mut txn, &mut dead);
        }
        for (dir, hash) in std::mem::take(&mut txn.buckets) {
            self.freeze_bucket(dir, hash, &mut txn);
        }
        txn.put(key::counters(), self.counters.encode());
        Some(Frozen { txn, dead })
    }

    fn freeze_inode(&mut self, ino: Ino, txn: &mut Transaction, dead: &mut Vec<Ino>) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        if inode.dead {
            dead.push(ino);
            if let Some(saved) = inode.saved.take() {
                self.counters.bytes = self.counters.bytes.saturating_sub(saved);
                self.counters.inodes = self.counters.inodes.saturating_sub(1);
                txn.delete(key::inode(ino));
            }
            return;
        }
        let record = inode.record();
        let charged = record.charged();
        let is_new = inode.saved.is_none() && !mutants::is(Mutant::MiscountInodes);
        self.counters.inodes += u64::from(is_new);
        let before = inode.saved.replace(charged).unwrap_or(0);
        self.counters.bytes = (self.counters.bytes + charged).saturating_sub(before);
        txn.put(key::inode(ino), record.encode());
    }

    fn freeze_bucket(&mut self, dir: Ino, hash: u64, txn: &mut Transaction) {
        let Some(dir_names) = self.inodes.get_mut(&dir).and_then(|i| i.dir.as_mut()) else {
            txn.delete(key::bucket(dir, hash));
            return;
        };
        let known_to = dir_names.known_to;
        let Some(slot) = dir_names.buckets.get_mut(&hash) else { return };
        if slot.bucket.is_empty() {
            if std::mem::take(&mut slot.saved) {
                txn.delete(key::bucket(dir, hash));
            }
            if hash < known_to && dir_names.buckets.remove(&hash).is_some() {
                self.names = self.names.saturating_sub(1);
            }
        } else {
            slot.saved = true;
            txn.put(key::bucket(dir, hash), encode_bucket(&slot.bucket));
        }
    }
}

/// The committer's own memory.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Chunks and small values without references that something in memory still holds.
    watched: BTreeSet<RefKey>,
    /// Segments whose last chunk died, with the transaction that says so.
    pub empty: Vec<(SegmentId, u64)>,
}

impl Ledger {
    /// True when something that was held may be free now.
    pub fn has_watched(&self) -> bool {
        !self.watched.is_empty()
    }
}

/// Changes of one commit to chunks and segments.
#[derive(Default)]
struct Accounts {
    chunks: BTreeMap<ChunkId, Option<ChunkRecord>>,
    segments: HashMap<SegmentId, SegmentRecord>,
    batch: BTreeMap<Key, Option<Bytes>>,
    /// What snapshots hold, where that changes.
    held: Option<HeldTotal>,
}

impl Core {
    /// Commits what runs, up to the database's memory. Gives the number of the transaction.
    ///
    /// # Errors
    /// `Fenced`, or what the tables say after their own retries.
    pub async fn commit(&self, ledger: &mut Ledger) -> Result<Option<u64>> {
        self.carry().await.inspect_err(|_| self.open_gate())?;
        let (frozen, free_ino) = {
            let mut state = self.state.lock();
            if ledger.has_watched() {
                state.txn.start();
            }
            let frozen = state.freeze();
            state.gate_closed = false;
            (frozen, state.counters.next_ino)
        };
        self.gate.notify_waiters();
        let Some(Frozen { mut txn, dead }) = frozen else { return Ok(None) };
        let number = txn.number;
        let accounts = self.account(&mut txn, ledger).await?;
        let mut batch = Batch::default();
        let records = std::mem::take(&mut txn.records);
        for (key, value) in records.into_iter().chain(accounts) {
            match value {
                Some(value) => batch.put(Bytes::copy_from_slice(&key), value),
                None => batch.delete(Bytes::copy_from_slice(&key)),
            }
        }
        self.table.write(number, batch).await?;
        self.free_ino[0].store(free_ino, Ordering::Release);
        self.written(number, &dead, &txn);
        Ok(Some(number))
    }

    /// Writes the data that renames carry, with further ones waiting meanwhile.
    async fn carry(&self) -> Result<()> {
        let carried = {
            let mut state = self.state.lock();
            state.gate_closed = true;
            std::mem::take(&mut state.txn.carried)
        };
        let mut captures = Vec::new();
        for ino in carried {
            captures.extend(self.capture_for_sync(ino));
        }
        self.carrying.store(!captures.is_empty(), Ordering::Release);
        for capture in captures {
            if mutants::is(Mutant::LoseRenameWait) {
                break;
            }
            if let Err(error) = self.unless_failed(capture.wait_done()).await {
                self.carrying.store(false, Ordering::Release);
                return Err(error);
            }
        }
        self.carrying.store(false, Ordering::Release);
        Ok(())
    }

    fn open_gate(&self) {
        self.state.lock().gate_closed = false;
        self.gate.notify_waiters();
    }

    fn written(&self, number: u64, dead: &[Ino], txn: &Transaction) {
        let mut state = self.state.lock();
        state.written = number;
        for ino in dead {
            state.drop_inode(*ino);
            state.evictions += 1;
        }
        for id in txn.smalls.keys() {
            state.unwritten.remove(id);
        }
        drop(state);
        self.holds.forget_doomed();
        self.reader.forget_births(txn.births.iter().map(|b| b.id));
    }

    async fn account(
        &self,
        txn: &mut Transaction,
        ledger: &mut Ledger,
    ) -> Result<BTreeMap<Key, Option<Bytes>>> {
        let mut accounts = Accounts::default();
        for new in &txn.segments {
            let record = SegmentRecord {
                object_bytes: new.object_bytes,
                birth: txn.number,
                ..SegmentRecord::default()
            };
            accounts.segments.insert(new.id, record);
        }
        for birth in &txn.births {
            let record = ChunkRecord { birth: txn.number, ..birth.record };
            accounts.chunks.insert(birth.id, Some(record));
            let segment = accounts.segments.entry(record.segment).or_default();
            segment.live_bytes += u64::from(record.stored_bytes);
            segment.live_chunks += 1;
            if !record.unlisted {
                let id = encode_chunk_id(birth.id);
                accounts.batch.insert(key::hash(&record.hash), Some(id.into()));
            }
            txn.refs.entry(RefKey::Chunk(birth.id)).or_insert(0);
        }
        for id in txn.smalls.keys() {
            txn.refs.entry(RefKey::Small(*id)).or_insert(0);
        }
        self.count_refs(txn, ledger, &mut accounts).await?;
        self.move_chunks(txn, &mut accounts).await?;
        self.close_accounts(txn.number, ledger, accounts).await
    }

    async fn count_refs(
        &self,
        txn: &mut Transaction,
        ledger: &mut Ledger,
        accounts: &mut Accounts,
    ) -> Result<()> {
        let mut refs: BTreeMap<RefKey, i64> = std::mem::take(&mut txn.refs).into_iter().collect();
        for id in txn.smalls.keys() {
            refs.entry(RefKey::Small(*id)).or_insert(0);
        }
        // What nothing in this commit refers to any more may be free now.
        let watched: Vec<RefKey> = ledger.watched.iter().copied().collect();
        for key in watched {
            if refs.contains_key(&key) || !self.holds.is_held(key) {
                refs.entry(key).or_insert(0);
                ledger.watched.remove(&key);
                if let RefKey::Chunk(id) = key {
                    accounts.batch.insert(key::unused(id), None);
                }
            }
        }
        txn.pieces.clear();
        for (refkey, delta) in refs {
            match refkey {
                RefKey::Chunk(id) => {
                    self.count_chunk(id, delta, txn.number, ledger, accounts).await?
                }
                RefKey::Small(id) => self.count_small(id, delta, txn, ledger, accounts).await?,
            }
        }
        Ok(())
    }

    async fn count_chunk(
        &self,
        id: ChunkId,
        delta: i64,
        number: u64,
        ledger: &mut Ledger,
        accounts: &mut Accounts,
    ) -> Result<()> {
        let Some(mut record) = self.chunk_account(id, accounts).await? else {
            if delta != 0 {
                tracing::error!(home = %self.name, ?id, delta, "a reference to a chunk without a record");
            }
            return Ok(());
        };
        let refs = i64::from(record.refs) + delta;
        record.refs = u32::try_from(refs.max(0)).unwrap_or(u32::MAX);
        if refs < 0 {
            tracing::error!(home = %self.name, ?id, refs, "a chunk with fewer than no references");
        }
        // A death that is recorded is one that is listed: a snapshot held the chunk then.
        let listed = record.death;
        let held = record.refs == 0
            && !mutants::is(Mutant::FreeKeptChunk)
            && self.snapshots.hold(record.birth, if listed == 0 { number } else { listed });
        if record.refs > 0 || held || !self.holds.doom(RefKey::Chunk(id)) {
            record.death = match (held, listed) {
                (false, _) => 0,
                (true, 0) => number,
                (true, listed) => listed,
            };
            if record.refs == 0 && !held {
                ledger.watched.insert(RefKey::Chunk(id));
                if !mutants::is(Mutant::ForgetUnused) {
                    // No crash forgets it either.
                    accounts.batch.insert(key::unused(id), Some(vec![RECORD_VERSION].into()));
                }
            }
            self.list_held(id, listed, &record, accounts);
            accounts.chunks.insert(id, Some(record));
            return Ok(());
        }
        self.list_held(id, listed, &ChunkRecord { death: 0, ..record }, accounts);
        accounts.chunks.insert(id, None);
        if !record.unlisted {
            self.forget_hash(id, &record, accounts).await?;
        }
        let segment = self.segment_account(record.segment, accounts).await?;
        segment.live_bytes = segment.live_bytes.saturating_sub(u64::from(record.stored_bytes));
        segment.live_chunks = segment.live_chunks.saturating_sub(1);
        self.reader.forget_chunk(id);
        Ok(())
    }

    /// A chunk goes: its content's hash leads to it no more, if it did.
    async fn forget_hash(
        &self,
        id: ChunkId,
        record: &ChunkRecord,
        accounts: &mut Accounts,
    ) -> Result<()> {
        let hash_key = key::hash(&record.hash);
        let named = match accounts.batch.get(&hash_key) {
            Some(value) => value.clone(),
            None => self.table.get(&hash_key).await?,
        };
        if named.is_some_and(|value| decode_chunk_id(&value).is_ok_and(|named| named == id)) {
            accounts.batch.insert(hash_key, None);
        }
        Ok(())
    }

    /// Lists a chunk among those that only snapshots hold, or no more.
    fn list_held(&self, id: ChunkId, listed: u64, now: &ChunkRecord, accounts: &mut Accounts) {
        if listed == now.death {
            return;
        }
        let mut held = accounts.held.unwrap_or_else(|| self.snapshots.held());
        let bytes = u64::from(now.stored_bytes);
        if listed != 0 {
            accounts.batch.insert(key::held(listed, id), None);
            held.bytes = held.bytes.saturating_sub(bytes);
            held.chunks = held.chunks.saturating_sub(1);
        }
        if now.death != 0 && !mutants::is(Mutant::ForgetHeld) {
            accounts.batch.insert(key::held(now.death, id), Some(encode_held().into()));
            held.bytes += bytes;
            held.chunks += 1;
        }
        accounts.held = Some(held);
    }

    async fn chunk_account(&self, id: ChunkId, accounts: &Accounts) -> Result<Option<ChunkRecord>> {
        if let Some(record) = accounts.chunks.get(&id) {
            return Ok(*record);
        }
        let value = self.table.get(&key::chunk(id)).await?;
        value.map(|value| ChunkRecord::decode(&value)).transpose()
    }

    async fn segment_account<'a>(
        &self,
        id: SegmentId,
        accounts: &'a mut Accounts,
    ) -> Result<&'a mut SegmentRecord> {
        if let std::collections::hash_map::Entry::Vacant(vacant) = accounts.segments.entry(id) {
            vacant.insert(self.segment_record(id).await?.unwrap_or_default());
        }
        Ok(accounts.segments.get_mut(&id).expect("inserted above"))
    }

    async fn count_small(
        &self,
        id: u64,
        delta: i64,
        txn: &Transaction,
        ledger: &mut Ledger,
        accounts: &mut Accounts,
    ) -> Result<()> {
        let (ino, before, data) = match txn.smalls.get(&id) {
            Some((ino, data)) => (*ino, 0, data.clone()),
            None => match self.table.get(&key::small(id)).await? {
                Some(value) => decode_small(&value)?,
                None => return Ok(()),
            },
        };
        let refs = i64::from(before) + delta;
        let count = u32::try_from(refs.max(0)).unwrap_or(u32::MAX);
        let value = if count > 0 {
            Some(encode_small(ino, count, &data).into())
        } else if !self.holds.doom(RefKey::Small(id)) {
            ledger.watched.insert(RefKey::Small(id));
            Some(encode_small(ino, 0, &data).into())
        } else {
            let mut state = self.state.lock();
            state.small_bytes = state.small_bytes.saturating_sub(data.len() as u64);
            drop(state);
            None
        };
        accounts.batch.insert(key::small(id), value);
        Ok(())
    }

    /// Chunks that the cleaner wrote again elsewhere, unless they died or moved meanwhile.
    async fn move_chunks(&self, txn: &Transaction, accounts: &mut Accounts) -> Result<()> {
        for moved in &txn.moved {
            let Some(mut record) = self.chunk_account(moved.id, accounts).await? else { continue };
            if record.segment != moved.from {
                continue;
            }
            record.segment = moved.to;
            record.offset = moved.offset;
            accounts.chunks.insert(moved.id, Some(record));
            let bytes = u64::from(record.stored_bytes);
            let old = self.segment_account(moved.from, accounts).await?;
            old.live_bytes = old.live_bytes.saturating_sub(bytes);
            old.live_chunks = old.live_chunks.saturating_sub(1);
            let new = self.segment_account(moved.to, accounts).await?;
            new.live_bytes += bytes;
            new.live_chunks += 1;
            self.reader.forget_chunk(moved.id);
        }
        Ok(())
    }

    async fn close_accounts(
        &self,
        number: u64,
        ledger: &mut Ledger,
        accounts: Accounts,
    ) -> Result<BTreeMap<Key, Option<Bytes>>> {
        let Accounts { chunks, segments, mut batch, held } = accounts;
        if let Some(held) = held {
            self.snapshots.set_held(held);
            batch.insert(key::held_total(), Some(held.encode().into()));
        }
        for (id, record) in chunks {
            batch.insert(key::chunk(id), record.map(|r| r.encode().into()));
        }
        for (id, record) in segments {
            self.candidates.note(id, &record);
            if record.live_chunks == 0 && mutants::is(Mutant::DeleteSegmentEarly) {
                let _gone = self.data.delete(&self.path(&id.object_name())).await;
            }
            if record.live_chunks == 0 {
                ledger.empty.push((id, number));
            }
            batch.insert(key::segment(id), Some(record.encode().into()));
        }
        Ok(batch)
    }

    /// Says that nothing is acknowledged any more.
    pub fn fail(&self, error: &Error) {
        let mut state = self.state.lock();
        if state.failed.is_none() {
            tracing::error!(home = %self.name, %error, "the home acknowledges nothing any more");
            state.failed = Some(error.clone());
        }
        drop(state);
        self.durable.send_modify(|durable| durable.failed = Some(error.clone()));
        self.wake.notify_one();
    }
}
