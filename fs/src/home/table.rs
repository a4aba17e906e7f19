//! The tables of a home: one SlateDB database, and the only module that names it.
//!
//! What always holds: batches are applied in the order of their transaction numbers, each
//! exactly once, whatever the store does meanwhile. A batch stays in memory until it is durable;
//! when SlateDB closed itself over a store's error the database is opened again at the epoch
//! that was expected, is asked for its last transaction, and gets what it misses. Being fenced
//! is final. Opening again is a task of its own: callers give up when their time is over, and an
//! opening that is left half-way has taken an epoch that the next one would not expect.
//!
//! An idle database costs nothing: it polls nothing, and compaction and collection run only
//! while there is writing, and a little longer ([`upkeep`]).

mod checkpoint;
mod clock;
mod memtables;
mod near;
mod purge;
mod recent;
mod seal;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use object_store::ObjectStore;
use parking_lot::{Mutex, RwLock};
use slatedb::config::{DbReaderOptions, ReadOptions, ScanOptions, Settings};
use slatedb::db_cache::moka::{MokaCache, MokaCacheOptions};
use slatedb::db_cache::{DbCache, SplitCache};
use slatedb::{CloseReason, Db, DbReader, DbReaderMode, DbSnapshot, WriteBatch};

use super::clock::Clock;
use super::error::{Error, ErrorKind, Result};
pub use checkpoint::checkpoints;
use clock::TableClock;
use memtables::Memtables;
use near::{NearStore, Pieces};
use recent::Recent;
use seal::SealStore;
use slatedb_common::clock::SystemClock;
use tokio::sync::Semaphore;
use upkeep::Upkeep;
use yadokari_store::error::Detail;

/// Every batch says its transaction number and its time under this key.
const TXN_KEY: &[u8] = b"Mt";
/// Memtables are written out at this size. Records are small, and take three times their bytes
/// there.
const MEMTABLE_BYTES: usize = 4 << 20;
/// What the memtables of all homes take in memory; beyond it they are written out early.
const MEMTABLES_BYTES_MAX: usize = 32 << 20;
/// A scan lets other tasks run after so many rows, of about a microsecond each.
const ROWS_AT_ONCE: usize = 512;
/// Writers wait beyond this many bytes that are not in the store.
const UNFLUSHED_BYTES_MAX: usize = 8 << 20;
/// Writers wait beyond this many uncompacted tables.
const L0_TABLES_MAX: usize = 64;
/// Manifests are asked for when there is reason to; this is the polling of an idle database.
const MANIFEST_POLL: Duration = Duration::from_secs(600);
/// First and longest pause before a database that closed itself is opened again.
const REOPEN_MIN: Duration = Duration::from_millis(50);
const REOPEN_MAX: Duration = Duration::from_secs(2);
/// A reader that looks for changes this rarely shows one moment.
const STILL: Duration = Duration::from_secs(30 * 24 * 3600);
/// Bytes that a scan reads ahead.
const SCAN_AHEAD_BYTES: usize = 256 << 10;

/// Caches of all tables of a process.
pub struct TableShared {
    cache: Arc<dyn DbCache>,
    pieces: Arc<Pieces>,
    recent: Arc<Recent>,
    memtables: Arc<Memtables>,
    clock: Arc<dyn Clock>,
    next: AtomicU64,
    purging: Arc<Semaphore>,
}

impl TableShared {
    /// Caches of `bytes` in all, and the clock that all tables follow.
    #[must_use]
    pub fn new(bytes: u64, clock: Arc<dyn Clock>) -> Self {
        let moka = |max_capacity| -> Arc<dyn DbCache> {
            let options = MokaCacheOptions { max_capacity, ..MokaCacheOptions::default() };
            Arc::new(MokaCache::new_with_opts(options))
        };
        let part = bytes / 11;
        let cache = SplitCache::new()
            .with_block_cache(Some(moka(part * 3)))
            .with_meta_cache(Some(moka(part * 3)))
            .build();
        let (pieces, recent) = (Pieces::new(part), Arc::new(Recent::new(part * 4)));
        let (cache, memtables) = (Arc::new(cache), Memtables::new(MEMTABLES_BYTES_MAX));
        let (next, purging) = (AtomicU64::new(1), Arc::new(Semaphore::new(1)));
        Self { cache, pieces, recent, memtables, clock, next, purging }
    }
}

/// How to open a table.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    /// The writer epoch that must be the last one; else opening is fenced.
    pub expected_epoch: Option<u64>,
    /// Seed of the database's randomness.
    pub seed: Option<u64>,
}

/// A key and what it gets: a record, or `None` where it is deleted.
type Change = (Bytes, Option<Bytes>);

fn bytes_of((key, value): &Change) -> usize {
    key.len() + value.as_ref().map_or(0, Bytes::len)
}

/// Changes that become visible and durable together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<Change>,
}

impl Batch {
    /// Sets a record.
    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.changes.push((key, Some(value)));
    }

    /// Deletes a record.
    pub fn delete(&mut self, key: Bytes) {
        self.changes.push((key, None));
    }

    /// The same rows in one piece of memory: one for each would take as much again.
    fn packed(self) -> Self {
        let mut all = BytesMut::with_capacity(self.changes.iter().map(bytes_of).sum());
        for (key, value) in &self.changes {
            all.extend_from_slice(key);
            all.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        let mut all = all.freeze();
        let pack = |(key, value): Change| {
            let key = all.split_to(key.len());
            (key, value.map(|value| all.split_to(value.len())))
        };
        Self { changes: self.changes.into_iter().map(pack).collect() }
    }

    fn to_write_batch(&self, txn: u64, clock: &TableClock) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for (key, value) in &self.changes {
            match value {
                Some(value) => batch.put_bytes(key.clone(), value.clone()),
                None => batch.delete(key),
            }
        }
        let last = [txn.to_le_bytes(), clock.millis().to_le_bytes()];
        batch.put(TXN_KEY, last.concat());
        batch
    }
}

/// The database that works at this moment; another one after it closed itself.
type Current = Arc<RwLock<Arc<Db>>>;

/// The tables of one open home.
pub struct Table {
    inner: Arc<Inner>,
    last_txn: u64,
    upkeep: Upkeep,
}

struct Inner {
    path: String,
    /// For reading and writing by the database.
    store: Arc<dyn ObjectStore>,
    pieces: Arc<Pieces>,
    recent: Arc<Recent>,
    memtables: Arc<Memtables>,
    cache: Arc<dyn DbCache>,
    /// The number of these tables among those of the process.
    cache_id: u64,
    seed: Option<u64>,
    clock: Arc<TableClock>,
    db: Current,
    epoch: AtomicU64,
    /// The last transaction that the current database was given.
    applied: AtomicU64,
    /// Somebody gives the tables up.
    closing: AtomicBool,
    /// Batches that are not known to be durable.
    pending: Mutex<VecDeque<(u64, Batch)>>,
    reopening: Mutex<Option<Reopening>>,
}

/// An opening that is under way, for all who wait for it, and the means to end it.
struct Reopening {
    result: Shared<BoxFuture<'static, Result<()>>>,
    task: tokio::task::AbortHandle,
}

impl Table {
    /// Opens the tables under `path` for writing, or makes them; the writer before is fenced.
    ///
    /// # Errors
    /// `Fenced` when another writer came in between, `Unavailable`, `Corrupt`.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        path: &str,
        shared: &TableShared,
        options: TableOptions,
    ) -> Result<Self> {
        let sealed = SealStore::over(store);
        let store = NearStore::over(Arc::clone(&sealed), Arc::clone(&shared.pieces));
        let cache_id = shared.next.fetch_add(1, Ordering::Relaxed);
        let cache = Arc::clone(&shared.cache);
        let clock = Arc::new(TableClock::new(Arc::clone(&shared.clock)));
        let db =
            build(&store, path, &cache, cache_id, options.expected_epoch, options.seed, &clock)
                .await
                .map_err(|error| explain(path, &error))?;
        let last_txn = read_txn(&db, &clock).await.map_err(|error| explain(path, &error))?;
        let epoch = db.manifest().writer_epoch();
        let db: Current = Arc::new(RwLock::new(Arc::new(db)));
        let upkeep = Upkeep::new(
            path,
            // What compacts reads all of its tables, once.
            sealed,
            Arc::clone(&db),
            Arc::clone(&clock),
            options.seed,
            Arc::clone(&shared.purging),
        );
        let inner = Inner {
            path: path.to_owned(),
            store,
            pieces: Arc::clone(&shared.pieces),
            recent: Arc::clone(&shared.recent),
            memtables: Arc::clone(&shared.memtables),
            cache,
            cache_id,
            seed: options.seed,
            clock,
            db,
            epoch: epoch.into(),
            applied: last_txn.into(),
            closing: AtomicBool::new(false),
            pending: Mutex::new(VecDeque::new()),
            reopening: Mutex::new(None),
        };
        Ok(Self { inner: Arc::new(inner), last_txn, upkeep })
    }

    /// The epoch of this writer: higher than that of any before it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.inner.epoch.load(Ordering::Relaxed)
    }

    /// The last transaction that the tables had when they were opened, 0 for none.
    #[must_use]
    pub fn last_txn(&self) -> u64 {
        self.last_txn
    }

    /// A record. Ready at the first poll when memory has the answer.
    ///
    /// # Errors
    /// `Fenced`, `Corrupt`, `Unavailable`.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        if let Some(value) = self.inner.recent.get(self.inner.cache_id, key) {
            return Ok(value);
        }
        loop {
            let db = self.inner.db();
            match db.get_with_options(key, &ReadOptions::default()).await {
                Ok(value) => return Ok(value),
                Err(error) => self.inner.recover(&db, &error).await?,
            }
        }
    }

    /// Records in the order of their keys, at most `rows_max`.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub async fn scan(
        &self,
        range: Range<Vec<u8>>,
        rows_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        if range.is_empty() || rows_max == 0 {
            return Ok(Vec::new());
        }
        loop {
            let db = self.inner.db();
            match scan(&db, range.clone(), rows_max).await {
                Ok(rows) => return Ok(rows),
                Err(error) => self.inner.recover(&db, &error).await?,
            }
        }
    }

    /// Applies a batch: visible to reads at once, durable with the next [`Table::flush`]. Batches
    /// come one after the other, in the order of their transactions.
    ///
    /// # Errors
    /// `Fenced`. Anything else is tried again until it works.
    pub async fn write(&self, txn: u64, batch: Batch) -> Result<()> {
        let batch = batch.packed();
        let write_batch = batch.to_write_batch(txn, &self.inner.clock);
        let (recent, id) = (&self.inner.recent, self.inner.cache_id);
        let rows = batch.changes.clone();
        recent.remove(id, &rows);
        // Under one lock: opening again takes what is pending, or this sees the new database.
        let db = {
            let mut pending = self.inner.pending.lock();
            pending.push_back((txn, batch));
            self.inner.db()
        };
        let deleted = rows.iter().filter(|(_, value)| value.is_none()).count();
        self.upkeep.wake(rows.len(), deleted);
        match db.write(write_batch).await {
            Ok(_handle) => {
                self.inner.applied.fetch_max(txn, Ordering::AcqRel);
            }
            // Opening again applies what is pending, this batch included.
            Err(error) => self.inner.recover(&db, &error).await?,
        }
        recent.put(id, &rows);
        self.inner.memtables.note(&self.inner, &rows);
        Ok(())
    }

    /// Waits until everything that was written before is durable.
    ///
    /// # Errors
    /// `Fenced`. Anything else is tried again until it works.
    pub async fn flush(&self) -> Result<()> {
        // What is pending beyond this may be on its way to the database.
        let written = self.inner.applied.load(Ordering::Acquire);
        loop {
            let db = self.inner.db();
            match db.flush().await {
                Ok(()) => break,
                Err(error) => self.inner.recover(&db, &error).await?,
            }
        }
        self.inner.pending.lock().retain(|(txn, _)| *txn > written);
        Ok(())
    }

    /// The records as they are at this moment, whatever is written later.
    ///
    /// # Errors
    /// `Closed`, `Fenced`, or `Unavailable` while the tables are being opened again.
    pub fn view(&self) -> Result<TableView> {
        let snapshot =
            self.inner.db().snapshot().map_err(|error| explain(&self.inner.path, &error))?;
        Ok(TableView { path: self.inner.path.clone(), snapshot })
    }

    /// Gives the tables up. What was not flushed may be lost.
    ///
    /// # Errors
    /// What SlateDB says.
    pub async fn close(&self) -> Result<()> {
        self.inner.closing.store(true, Ordering::Release);
        self.upkeep.stop().await;
        if let Some(reopening) = self.inner.reopening.lock().as_ref() {
            reopening.task.abort();
        }
        let closed = self.inner.db().close().await;
        self.inner.memtables.forget(self.inner.cache_id);
        closed.map_err(|error| explain(&self.inner.path, &error))
    }
}

impl Inner {
    fn db(&self) -> Arc<Db> {
        Arc::clone(&self.db.read())
    }

    /// After an error of `failed`: waits for a database that works, or gives what is final.
    async fn recover(self: &Arc<Self>, failed: &Arc<Db>, error: &slatedb::Error) -> Result<()> {
        let result = {
            let mut reopening = self.reopening.lock();
            if !Arc::ptr_eq(failed, &self.db()) {
                return Ok(());
            }
            // While one is under way an error says little: it fences the one that failed.
            if reopening.is_none() {
                self.check_final(error)?;
                tracing::warn!(tables = %self.path, %error, "the tables closed themselves");
            }
            reopening.get_or_insert_with(|| self.start_reopening()).result.clone()
        };
        result.await
    }

    /// What no opening again mends. A database that failed may say of itself that it was closed
    /// in order; only we know whether it was.
    fn check_final(&self, error: &slatedb::Error) -> Result<()> {
        match error.kind() {
            slatedb::ErrorKind::Closed(CloseReason::Clean) if !self.is_closing() => Ok(()),
            slatedb::ErrorKind::Closed(CloseReason::Fenced | CloseReason::Clean) => {
                Err(explain(&self.path, error))
            }
            _ => match explain(&self.path, error) {
                damage @ Error(ErrorKind::Corrupt(_)) => {
                    // It may have come about on the way: the next one asks the store.
                    self.pieces.clear();
                    Err(damage)
                }
                _ => Ok(()),
            },
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn start_reopening(self: &Arc<Self>) -> Reopening {
        let inner = Arc::clone(self);
        let task = tokio::spawn(async move {
            let result = inner.reopen_until_it_works().await;
            if result.is_err() {
                *inner.reopening.lock() = None;
            }
            result
        });
        let abort = task.abort_handle();
        let result = task.map(|ended| match ended {
            Ok(result) => result,
            // Closing ends the task.
            Err(_aborted) => Err(ErrorKind::Closed.into()),
        });
        Reopening { result: result.boxed().shared(), task: abort }
    }

    async fn reopen_until_it_works(&self) -> Result<()> {
        let mut pause = REOPEN_MIN;
        loop {
            match self.reopen().await {
                Err(Error(ErrorKind::Unavailable(why))) => {
                    tracing::debug!(tables = %self.path, %why, "opening again failed");
                }
                Err(Error(ErrorKind::Closed)) if !self.is_closing() => {}
                ended => return ended,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(REOPEN_MAX);
        }
    }

    async fn reopen(&self) -> Result<()> {
        let failed = |error| explain(&self.path, &error);
        let expected = Some(self.epoch.load(Ordering::Relaxed));
        let (cache, id) = (&self.cache, self.cache_id);
        let db = build(&self.store, &self.path, cache, id, expected, self.seed, &self.clock)
            .await
            .map_err(failed)?;
        // The epoch is taken from here on, whatever fails.
        self.epoch.store(db.manifest().writer_epoch(), Ordering::Relaxed);
        let mut applied = read_txn(&db, &self.clock).await.map_err(failed)?;
        let db = Arc::new(db);
        loop {
            let missing: Vec<_> = {
                let pending = self.pending.lock();
                let missing: Vec<_> =
                    pending.iter().filter(|(txn, _)| *txn > applied).cloned().collect();
                if missing.is_empty() {
                    self.applied.store(applied, Ordering::Release);
                    // Under one lock: who meets an error of the new database starts anew.
                    let mut reopening = self.reopening.lock();
                    *self.db.write() = Arc::clone(&db);
                    *reopening = None;
                    return Ok(());
                }
                missing
            };
            for (txn, batch) in missing {
                db.write(batch.to_write_batch(txn, &self.clock)).await.map_err(failed)?;
                applied = txn;
            }
        }
    }
}

async fn build(
    store: &Arc<dyn ObjectStore>,
    path: &str,
    cache: &Arc<dyn DbCache>,
    cache_id: u64,
    expected_epoch: Option<u64>,
    seed: Option<u64>,
    clock: &Arc<TableClock>,
) -> std::result::Result<Db, slatedb::Error> {
    let settings = Settings {
        flush_interval: None,
        manifest_poll_interval: MANIFEST_POLL,
        l0_sst_size_bytes: MEMTABLE_BYTES,
        max_unflushed_bytes: UNFLUSHED_BYTES_MAX,
        l0_max_ssts: L0_TABLES_MAX,
        l0_max_ssts_per_key: L0_TABLES_MAX,
        compactor_options: None,
        garbage_collector_options: None,
        object_store_max_retries: None,
        ..Settings::default()
    };
    let mut builder = Db::builder(path, Arc::clone(store))
        .with_settings(settings)
        .with_db_cache(Arc::clone(cache), cache_id)
        .with_system_clock(Arc::clone(clock) as Arc<dyn SystemClock>);
    if let Some(epoch) = expected_epoch {
        builder = builder.with_expected_epoch(epoch);
    }
    if let Some(seed) = seed {
        builder = builder.with_seed(seed);
    }
    builder.build().await
}

async fn read_txn(db: &Db, clock: &TableClock) -> std::result::Result<u64, slatedb::Error> {
    let value = db.get(TXN_KEY).await?.unwrap_or_default();
    let Some((txn, rest)) = value.split_first_chunk() else { return Ok(0) };
    let manifest = db.manifest();
    let tables = manifest.l0().iter().map(|view| view.sst.id.value());
    let tables = tables.chain(manifest.last_compacted_l0_sst_view_id());
    let newest = tables.map(|id| id.timestamp_ms()).max().unwrap_or(0);
    let batch = rest.first_chunk().map_or(0, |millis| i64::from_le_bytes(*millis));
    let newest = i64::try_from(newest).unwrap_or(0).max(manifest.last_l0_clock_tick());
    clock.go_on_from(newest.max(batch));
    Ok(u64::from_le_bytes(*txn))
}

async fn scan(
    db: &Db,
    range: Range<Vec<u8>>,
    rows_max: usize,
) -> std::result::Result<Vec<(Bytes, Bytes)>, slatedb::Error> {
    let mut found = db.scan_with_options(range, &scan_options(rows_max)).await?;
    let mut rows = Vec::new();
    while rows.len() < rows_max
        && let Some(row) = found.next().await?
    {
        rows.push((row.key, row.value));
        // Blocks that are in memory are read without a pause, and others have this thread too.
        if rows.len() % ROWS_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(rows)
}

fn scan_options(rows_max: usize) -> ScanOptions {
    ScanOptions {
        read_ahead_bytes: if rows_max > 64 { SCAN_AHEAD_BYTES } else { 1 },
        cache_blocks: true,
        ..ScanOptions::default()
    }
}

fn explain(path: &str, error: &slatedb::Error) -> Error {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(damage @ Detail::Corrupt { .. }) = inner.downcast_ref() {
            return Error::corrupt(format_args!("tables {path}: {damage}"));
        }
        source = inner.source();
    }
    match error.kind() {
        slatedb::ErrorKind::Closed(CloseReason::Fenced) => ErrorKind::Fenced.into(),
        slatedb::ErrorKind::Closed(CloseReason::Clean) => ErrorKind::Closed.into(),
        slatedb::ErrorKind::Data => Error::corrupt(format_args!("tables {path}: {error}")),
        _ => Error::unavailable(format_args!("tables {path}: {error}")),
    }
}

/// The records of one moment.
pub struct TableView {
    path: String,
    snapshot: Arc<DbSnapshot>,
}

impl TableView {
    /// A record.
    ///
    /// # Errors
    /// `Closed` when the tables had to be opened again since; `Unavailable`, `Corrupt`.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.snapshot.get(key).await.map_err(|error| explain(&self.path, &error))
    }

    /// Records in the order of their keys, at most `rows_max`.
    ///
    /// # Errors
    /// As [`TableView::get`].
    pub async fn scan(
        &self,
        range: Range<Vec<u8>>,
        rows_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        if range.is_empty() || rows_max == 0 {
            return Ok(Vec::new());
        }
        let failed = |error| explain(&self.path, &error);
        // What a check reads once shall not drive out what the home reads often.
        let options = ScanOptions { cache_blocks: false, ..scan_options(rows_max) };
        let mut found = self.snapshot.scan_with_options(range, &options).await.map_err(failed)?;
        let mut rows = Vec::new();
        while rows.len() < rows_max
            && let Some(row) = found.next().await.map_err(failed)?
        {
            rows.push((row.key, row.value));
        }
        Ok(rows)
    }
}

/// Reads tables that somebody else may be writing; disturbs nobody.
pub struct TableReader {
    path: String,
    reader: DbReader,
}

impl TableReader {
    /// Opens the tables under `path` as they are now, what was just made durable included.
    ///
    /// # Errors
    /// `Unavailable`, also where there are no tables; `Corrupt`.
    pub async fn open(store: Arc<dyn ObjectStore>, path: &str) -> Result<Self> {
        Self::open_with(store, path, DbReaderOptions::default()).await
    }

    /// Opens the tables under `path` as they are now, and goes on showing just that.
    ///
    /// # Errors
    /// As [`TableReader::open`]. Reading may fail as `Unavailable` once a writer has compacted
    /// and collected what was shown, a minute later at the earliest.
    pub async fn open_still(store: Arc<dyn ObjectStore>, path: &str) -> Result<Self> {
        let options =
            DbReaderOptions { manifest_poll_interval: STILL, ..DbReaderOptions::default() };
        Self::open_with(store, path, options).await
    }

    /// The epoch of the last writer.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.reader.manifest().writer_epoch()
    }

    async fn open_with(
        store: Arc<dyn ObjectStore>,
        path: &str,
        options: DbReaderOptions,
    ) -> Result<Self> {
        let reader = DbReader::builder(path, SealStore::over(store))
            .with_options(options)
            .with_reader_mode(DbReaderMode::FollowLatest)
            .with_db_cache_disabled()
            .build()
            .await
            .map_err(|error| explain(path, &error))?;
        Ok(Self { path: path.to_owned(), reader })
    }

    /// A record.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.reader.get(key).await.map_err(|error| explain(&self.path, &error))
    }

    /// Records in the order of their keys, at most `rows_max`.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn scan(
        &self,
        range: Range<Vec<u8>>,
        rows_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        if range.is_empty() || rows_max == 0 {
            return Ok(Vec::new());
        }
        let failed = |error| explain(&self.path, &error);
        let mut found = self.reader.scan(range).await.map_err(failed)?;
        let mut rows = Vec::new();
        while rows.len() < rows_max
            && let Some(row) = found.next().await.map_err(failed)?
        {
            rows.push((row.key, row.value));
        }
        Ok(rows)
    }

    /// Gives the reader up.
    ///
    /// # Errors
    /// What SlateDB says.
    pub async fn close(&self) -> Result<()> {
        self.reader.close().await.map_err(|error| explain(&self.path, &error))
    }
}
