//! Compaction and collection of a home's tables, only while there is reason.
//!
//! The first write after a pause starts a task that compacts and collects; it ends when nothing
//! was written for a while. So two hundred open, idle homes cost no request and no CPU. Where much
//! was deleted, what is left of that goes when little is written ([`purge`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use parking_lot::Mutex;
use slatedb::compactor::{CompactionSchedulerSupplier, SizeTieredCompactionSchedulerSupplier};
use slatedb::config::{
    CompactionWorkerOptions, CompactorOptions, GarbageCollectorDirectoryOptions,
    GarbageCollectorOptions,
};
use slatedb::{CompactorBuilder, Db, GarbageCollectorBuilder, VersionedManifest};
use slatedb_common::clock::SystemClock;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::Current;
use super::clock::TableClock;
use super::purge::{self, Purge, PurgeSupplier};

/// The task looks this often whether there is something to do.
const TICK: Duration = Duration::from_millis(250);
/// Ticks without a write after which the task ends: ten seconds.
const IDLE_TICKS: u32 = 40;
/// Uncompacted tables from which on compaction runs.
const COMPACT_FROM: usize = 8;
/// Compaction has this long at most.
const COMPACT_TICKS_MAX: u32 = 120;
/// Ticks with one batch at most, after which it is asked what is deleted: five seconds.
const QUIET_TICKS: u32 = 20;
/// Purging has this long at most: ten minutes.
const PURGE_TICKS_MAX: u32 = 2400;
/// Ticks between two collections: half a minute.
const COLLECT_TICKS: u32 = 120;
/// Kept moments that double the time between two collections: each reads a manifest for all.
const COLLECT_KEPT: u32 = 16;
/// What was superseded stays this long, for readers that are on their way.
const MIN_AGE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Upkeep {
    inner: Arc<Inner>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    path: String,
    store: Arc<dyn ObjectStore>,
    db: Current,
    clock: Arc<TableClock>,
    /// What names and pauses are drawn from, where they are to be the same in every run.
    seed: Option<u64>,
    rounds: AtomicU64,
    running: AtomicBool,
    stopped: AtomicBool,
    writes: AtomicU64,
    kept: AtomicU32,
    /// Held by the collection that runs: it reads a manifest for every kept moment, and two at a
    /// time would delete the same objects.
    collecting: tokio::sync::Mutex<()>,
    /// Another one waits for its end.
    waiting: AtomicBool,
    /// One table of the process is purged at a time: it takes memory.
    purging: Arc<Semaphore>,
    /// Deletions that the last purge left.
    left: AtomicU64,
}

/// The one collection that waits.
struct Waiting<'a>(&'a AtomicBool);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upkeep").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Upkeep {
    pub fn new(
        path: &str,
        store: Arc<dyn ObjectStore>,
        db: Current,
        clock: Arc<TableClock>,
        seed: Option<u64>,
        purging: Arc<Semaphore>,
    ) -> Self {
        let inner = Arc::new(Inner {
            path: path.to_owned(),
            store,
            db,
            clock,
            seed,
            rounds: AtomicU64::new(0),
            running: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            kept: AtomicU32::new(0),
            collecting: tokio::sync::Mutex::new(()),
            waiting: AtomicBool::new(false),
            purging,
            left: AtomicU64::new(0),
        });
        let upkeep = Self { inner, task: Mutex::new(None) };
        // The writer before may have left much that is deleted.
        if purge::is_worth_asking(&upkeep.inner.db.read().manifest()) {
            upkeep.start();
        }
        upkeep
    }

    /// Something was written.
    pub fn wake(&self) {
        self.inner.writes.fetch_add(1, Ordering::Relaxed);
        self.start();
    }

    fn start(&self) {
        if !self.inner.running.swap(true, Ordering::AcqRel) {
            let inner = Arc::clone(&self.inner);
            *self.task.lock() = Some(tokio::spawn(async move { inner.run().await }));
        }
    }

    /// So many moments are kept.
    pub fn note_kept(&self, count: usize) {
        self.inner.kept.store(u32::try_from(count).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Collects now.
    pub async fn collect(&self) {
        self.inner.collect().await;
    }

    /// Whether the task runs.
    #[cfg(test)]
    pub fn is_running(&self) -> bool {
        self.inner.running.load(Ordering::Acquire)
    }

    /// Ends the task.
    pub async fn stop(&self) {
        self.inner.stopped.store(true, Ordering::Release);
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _panicked = task.await;
        }
    }
}

impl Inner {
    async fn run(&self) {
        let mut seen = self.writes.load(Ordering::Relaxed);
        let (mut idle, mut quiet, mut ticks) = (0, 0, 0);
        while idle < IDLE_TICKS && !self.stopped.load(Ordering::Acquire) {
            tokio::time::sleep(TICK).await;
            let writes = self.writes.load(Ordering::Relaxed);
            idle = if writes == seen { idle + 1 } else { 0 };
            quiet = if writes <= seen + 1 { quiet + 1 } else { 0 };
            seen = writes;
            ticks += 1;
            // Asked for at each tick: it is another one after it closed itself.
            let db = Arc::clone(&self.db.read());
            if db.manifest().l0().len() >= COMPACT_FROM {
                self.compact(&db).await;
                (idle, quiet) = (0, 0);
            }
            if quiet == QUIET_TICKS {
                (idle, quiet) = (if self.purge(&db).await { idle } else { 0 }, 0);
            }
            let kept = self.kept.load(Ordering::Relaxed) / COLLECT_KEPT;
            if ticks % COLLECT_TICKS.saturating_mul(kept.saturating_add(1)) == 0 {
                self.collect().await;
            }
        }
        self.running.store(false, Ordering::Release);
    }

    /// Compacts until few uncompacted tables are left, or for a while.
    async fn compact(&self, db: &Db) {
        let by_size = Arc::new(SizeTieredCompactionSchedulerSupplier::new());
        let done = |manifest: &VersionedManifest| manifest.l0().len() < COMPACT_FROM / 2;
        self.compact_until(db, by_size, 1, COMPACT_TICKS_MAX, done).await;
    }

    /// Lets go what is deleted, where that is much. False: it is not this table's turn.
    async fn purge(&self, db: &Db) -> bool {
        let Ok(_turn) = self.purging.try_acquire() else { return false };
        let before = db.manifest();
        if !purge::is_worth_asking(&before) {
            return true;
        }
        let Some((deleted, rows)) = self.count(&before).await else { return true };
        if !purge::is_due(deleted, rows, self.left.load(Ordering::Relaxed)) {
            return true;
        }
        let purge = Purge::of(&before);
        let started = Instant::now();
        // What is written meanwhile is compacted beside it.
        let scheduler = Arc::new(PurgeSupplier(Arc::clone(&purge)));
        let over = |manifest: &VersionedManifest| purge.is_over(manifest);
        self.compact_until(db, scheduler, 2, PURGE_TICKS_MAX, over).await;
        let (left, _) = self.count(&db.manifest()).await.unwrap_or((deleted, rows));
        self.left.store(left, Ordering::Relaxed);
        let (tables, took) = (&self.path, started.elapsed());
        tracing::debug!(%tables, deleted, rows, left, ?took, "purged what is deleted");
        true
    }

    /// Deletions and all rows.
    async fn count(&self, manifest: &VersionedManifest) -> Option<(u64, u64)> {
        let counted = purge::count(manifest, &self.path, &self.store).await;
        counted
            .inspect_err(
                |error| tracing::debug!(tables = %self.path, %error, "nobody counts what is deleted"),
            )
            .ok()
    }

    async fn compact_until(
        &self,
        db: &Db,
        scheduler: Arc<dyn CompactionSchedulerSupplier>,
        at_once: usize,
        ticks_max: u32,
        is_done: impl Fn(&VersionedManifest) -> bool,
    ) {
        let options = CompactorOptions {
            poll_interval: TICK,
            max_concurrent_compactions: at_once,
            scheduler_options: HashMap::new(),
            worker: Some(CompactionWorkerOptions {
                max_concurrent_compactions: at_once,
                compactions_poll_interval: TICK,
                // Of every table that is merged so much is in memory, and all of what is written.
                max_sst_size: 16 << 20,
                max_fetch_tasks: 2,
                bytes_to_fetch: 256 << 10,
                ..CompactionWorkerOptions::default()
            }),
            ..CompactorOptions::default()
        };
        let mut builder = CompactorBuilder::new(self.path.as_str(), Arc::clone(&self.store))
            .with_system_clock(self.clock())
            .with_scheduler_supplier(scheduler)
            .with_options(options);
        if let Some(seed) = self.next_seed() {
            builder = builder.with_seed(seed);
        }
        let compactor = Arc::new(builder.build());
        let running = Arc::clone(&compactor);
        let mut task = tokio::spawn(async move { running.run().await });
        for _ in 0..ticks_max {
            tokio::time::sleep(TICK).await;
            let refreshed = db.refresh_manifest().await;
            if is_done(&db.manifest())
                || refreshed.is_err()
                || task.is_finished()
                || self.stopped.load(Ordering::Acquire)
            {
                break;
            }
        }
        let ended = loop {
            if let Err(error) = compactor.stop().await {
                tracing::debug!(tables = %self.path, %error, "compaction ended badly");
            }
            // One that was still starting did not hear it.
            if let Ok(ended) = tokio::time::timeout(TICK, &mut task).await {
                break ended;
            }
        };
        match ended {
            Ok(Err(error)) => tracing::debug!(tables = %self.path, %error, "compaction failed"),
            _ => drop(db.refresh_manifest().await),
        }
    }

    /// Collects once, after the collection that runs. Where one waits already, that one does it.
    async fn collect(&self) {
        if self.waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let waiting = Waiting(&self.waiting);
        let _turn = self.collecting.lock().await;
        drop(waiting);
        let each = GarbageCollectorDirectoryOptions {
            interval: None,
            min_age: MIN_AGE,
            ..GarbageCollectorDirectoryOptions::default()
        };
        let options = GarbageCollectorOptions {
            manifest_options: Some(each),
            wal_options: Some(each),
            compacted_options: Some(each),
            compactions_options: Some(each),
            ..GarbageCollectorOptions::default()
        };
        let mut builder = GarbageCollectorBuilder::new(self.path.as_str(), Arc::clone(&self.store))
            .with_system_clock(self.clock())
            .with_options(options);
        if let Some(seed) = self.next_seed() {
            builder = builder.with_seed(seed);
        }
        builder.build().run_gc_once().await;
    }

    fn clock(&self) -> Arc<dyn SystemClock> {
        Arc::clone(&self.clock) as Arc<dyn SystemClock>
    }

    fn next_seed(&self) -> Option<u64> {
        let round = self.rounds.fetch_add(1, Ordering::Relaxed);
        // Names must differ between rounds, and from those of the writer itself.
        Some(self.seed?.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(round + 1))
    }
}
