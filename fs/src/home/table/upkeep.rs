//! Compaction and collection of a home's tables, only while there is reason.
//!
//! The first write after a pause starts a task that compacts and collects; it ends when nothing
//! was written for a while. So two hundred open, idle homes cost no request and no CPU.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use object_store::ObjectStore;
use parking_lot::Mutex;
use slatedb::config::{
    CompactionWorkerOptions, CompactorOptions, GarbageCollectorDirectoryOptions,
    GarbageCollectorOptions,
};
use slatedb::{CompactorBuilder, Db, GarbageCollectorBuilder};
use slatedb_common::clock::SystemClock;
use tokio::task::JoinHandle;

use super::Current;
use super::clock::TableClock;

/// The task looks this often whether there is something to do.
const TICK: Duration = Duration::from_millis(250);
/// Ticks without a write after which the task ends: ten seconds.
const IDLE_TICKS: u32 = 40;
/// Uncompacted tables from which on compaction runs.
const COMPACT_FROM: usize = 8;
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
        });
        Self { inner, task: Mutex::new(None) }
    }

    /// Something was written.
    pub fn wake(&self) {
        self.inner.writes.fetch_add(1, Ordering::Relaxed);
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
        let (mut idle, mut ticks) = (0, 0);
        while idle < IDLE_TICKS && !self.stopped.load(Ordering::Acquire) {
            tokio::time::sleep(TICK).await;
            let writes = self.writes.load(Ordering::Relaxed);
            idle = if writes == seen { idle + 1 } else { 0 };
            seen = writes;
            ticks += 1;
            // Asked for at each tick: it is another one after it closed itself.
            let db = Arc::clone(&self.db.read());
            if db.manifest().l0().len() >= COMPACT_FROM {
                self.compact(&db).await;
                idle = 0;
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
        const ROUNDS_MAX: u32 = 120;
        let options = CompactorOptions {
            poll_interval: TICK,
            max_concurrent_compactions: 1,
            scheduler_options: HashMap::new(),
            worker: Some(CompactionWorkerOptions {
                max_concurrent_compactions: 1,
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
            .with_options(options);
        if let Some(seed) = self.next_seed() {
            builder = builder.with_seed(seed);
        }
        let compactor = Arc::new(builder.build());
        let running = Arc::clone(&compactor);
        let mut task = tokio::spawn(async move { running.run().await });
        for _ in 0..ROUNDS_MAX {
            tokio::time::sleep(TICK).await;
            let refreshed = db.refresh_manifest().await;
            let done = db.manifest().l0().len() < COMPACT_FROM / 2;
            if done
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
