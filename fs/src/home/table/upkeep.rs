//! Compaction and collection of a home's tables, only while there is reason.
//!
//! The first write after a pause starts a task that compacts and collects; it ends when nothing
//! was written for a while. So two hundred open, idle homes cost no request and no CPU. Where much
//! was deleted, what is left of that goes when little is written ([`purge`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use object_store::ObjectStore;
use parking_lot::Mutex;
use slatedb::config::{
    CompactionWorkerOptions, CompactorOptions, FlushOptions, FlushType,
    GarbageCollectorDirectoryOptions, GarbageCollectorOptions,
};
use slatedb::manifest::SsTableView;
use slatedb::{CompactorBuilder, Db, GarbageCollectorBuilder, VersionedManifest};
use slatedb_common::clock::SystemClock;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Current;
use super::clock::TableClock;
use super::purge::{self, Counter, Counts, Job, Merge};

/// The task looks this often whether there is something to do.
const TICK: Duration = Duration::from_millis(250);
/// Ticks without a write after which the task ends: ten seconds.
const IDLE_TICKS: u32 = 40;
/// Uncompacted tables from which on compaction runs.
const COMPACT_FROM: usize = 8;
/// Compaction has this long at most.
const COMPACT_TICKS_MAX: u32 = 120;
/// Merges at the same time: one of runs may take long, and what is written must not wait for it.
const AT_ONCE: usize = 2;
/// Ticks with one batch of few rows at most, after which it is asked what is deleted: five seconds.
const QUIET_TICKS: u32 = 20;
const QUIET_ROWS: u64 = 256;
/// Purging has this long at most: ten minutes.
const PURGE_TICKS_MAX: u32 = 2400;
/// One that did not work waits this long.
const PURGE_PAUSE: Duration = Duration::from_secs(600);
/// A compactor keeps what it merged for a quarter of an hour.
const SUPERSEDED_FOR: Duration = Duration::from_secs(16 * 60);
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
    /// Batches that were written, their rows, and deletions since they were last written out.
    batches: AtomicU64,
    rows: AtomicU64,
    deleted: AtomicU64,
    /// Something was written, or is to end.
    nudge: Notify,
    kept: AtomicU32,
    /// Held by the collection that runs: it reads a manifest for every kept moment, and two at a
    /// time would delete the same objects.
    collecting: tokio::sync::Mutex<()>,
    /// Another one waits for its end.
    waiting: AtomicBool,
    /// One table of the process is purged at a time: it takes memory.
    purging: Arc<Semaphore>,
    counter: Counter,
    /// Deletions that the last purge left in the runs.
    left: AtomicU64,
    /// One that did not work is not tried again before.
    purges_at: Mutex<Option<Instant>>,
    /// From when on what was superseded may be collected.
    collect_at: Mutex<Option<Instant>>,
    /// That was done once since the opening.
    collected: AtomicBool,
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
            batches: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
            nudge: Notify::new(),
            kept: AtomicU32::new(0),
            collecting: tokio::sync::Mutex::new(()),
            waiting: AtomicBool::new(false),
            purging,
            counter: Counter::default(),
            left: AtomicU64::new(0),
            purges_at: Mutex::default(),
            collect_at: Mutex::default(),
            collected: AtomicBool::new(false),
        });
        let upkeep = Self { inner, task: Mutex::new(None) };
        // The writer before may have left much that is deleted, or superseded.
        if purge::is_worth_asking(&upkeep.inner.db.read().manifest()) {
            *upkeep.inner.collect_at.lock() = Some(Instant::now());
            upkeep.start();
        }
        upkeep
    }

    /// A batch of `rows` was written, `deleted` of them deletions.
    pub fn wake(&self, rows: usize, deleted: usize) {
        self.inner.batches.fetch_add(1, Ordering::Relaxed);
        self.inner.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.inner.deleted.fetch_add(deleted as u64, Ordering::Relaxed);
        self.start();
    }

    fn start(&self) {
        self.inner.nudge.notify_one();
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
        self.inner.nudge.notify_one();
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _panicked = task.await;
        }
    }
}

impl Inner {
    async fn run(&self) {
        loop {
            let seen = self.work().await;
            self.running.store(false, Ordering::Release);
            // Who wrote just before that started no other task.
            let ends = self.stopped.load(Ordering::Acquire) || self.written() == seen;
            if ends || self.running.swap(true, Ordering::AcqRel) {
                break;
            }
        }
    }

    /// Compacts, purges and collects until nothing was written for a while. Gives what was written
    /// by then.
    async fn work(&self) -> (u64, u64) {
        let mut seen = self.written();
        let (mut idle, mut quiet, mut ticks) = (0, 0, 0);
        while !self.stopped.load(Ordering::Acquire) {
            if idle >= IDLE_TICKS && !self.rest().await {
                break;
            }
            tokio::time::sleep(TICK).await;
            let (batches, rows) = self.written();
            idle = if batches == seen.0 { idle + 1 } else { 0 };
            let is_little = batches <= seen.0 + 1 && rows <= seen.1 + QUIET_ROWS;
            quiet = if is_little { quiet + 1 } else { 0 };
            seen = (batches, rows);
            ticks += 1;
            // Asked for at each tick: it is another one after it closed itself.
            let db = Arc::clone(&self.db.read());
            if db.manifest().l0().len() >= COMPACT_FROM {
                self.compact(&db).await;
                (idle, quiet) = (0, 0);
            }
            let is_quiet = quiet == QUIET_TICKS;
            if is_quiet {
                (idle, quiet) = (if self.purge(&db).await { idle } else { 0 }, 0);
            }
            let kept = self.kept.load(Ordering::Relaxed) / COLLECT_KEPT;
            let in_turn = ticks % COLLECT_TICKS.saturating_mul(kept.saturating_add(1)) == 0;
            if in_turn || (is_quiet && self.collects_in() == Some(Duration::ZERO)) {
                self.collect().await;
            }
        }
        seen
    }

    /// Batches and rows that were ever written.
    fn written(&self) -> (u64, u64) {
        (self.batches.load(Ordering::Relaxed), self.rows.load(Ordering::Relaxed))
    }

    /// Nothing is written: waits until what was merged may be collected, and collects it. True
    /// when something was written meanwhile; false when there is nothing to wait for any more.
    async fn rest(&self) -> bool {
        let Some(wait) = self.collects_in() else { return false };
        tokio::select! {
            biased;
            () = tokio::time::sleep(wait) => {
                self.collect().await;
                false
            }
            () = self.nudge.notified() => true,
        }
    }

    /// How long until what was superseded may be collected; `None` where nothing was.
    fn collects_in(&self) -> Option<Duration> {
        let at = (*self.collect_at.lock())?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    /// Compacts until few uncompacted tables are left, or for a while.
    async fn compact(&self, db: &Db) {
        let is_merging = Arc::new(AtomicBool::new(true));
        let done = |manifest: &VersionedManifest| {
            manifest.l0().len() < COMPACT_FROM / 2 && !is_merging.load(Ordering::Relaxed)
        };
        self.compact_until(db, Job::BySize(Arc::clone(&is_merging)), COMPACT_TICKS_MAX, done).await;
    }

    /// Lets go what is deleted, where that is much. False: it is not this table's turn.
    async fn purge(&self, db: &Db) -> bool {
        if self.purges_at.lock().is_some_and(|at| Instant::now() < at) {
            return true;
        }
        if self.deleted.load(Ordering::Relaxed) >= purge::DELETED_MIN {
            self.deleted.store(0, Ordering::Relaxed);
            // Only tables say what is deleted in them.
            let options = FlushOptions { flush_type: FlushType::MemTable };
            tokio::select! {
                biased;
                flushed = db.flush_with_options(options) => if let Err(error) = flushed {
                    tracing::debug!(tables = %self.path, %error, "the memtable stays");
                },
                () = self.stopping() => return true,
            }
        }
        let manifest = db.manifest();
        if !purge::is_worth_asking(&manifest) {
            return true;
        }
        let Some(counts) = self.count(manifest.all_sst_views()).await else {
            self.pause_purging();
            return true;
        };
        let left = self.left.fetch_min(counts.deleted, Ordering::Relaxed).min(counts.deleted);
        if !purge::is_due(counts, left) {
            return true;
        }
        let Ok(_turn) = self.purging.try_acquire() else { return false };
        let started = Instant::now();
        let done = |manifest: &VersionedManifest| manifest.l0().is_empty();
        self.compact_until(db, Job::Fresh, COMPACT_TICKS_MAX, done).await;
        let manifest = db.manifest();
        let mut after = match done(&manifest) {
            true => self.count(purge::runs(&manifest)).await,
            false => None,
        };
        // Where there were no runs it is done already.
        if after.is_some_and(|after| purge::is_due(after, left)) {
            let merge = Merge::of(&manifest);
            let over = |manifest: &VersionedManifest| merge.is_over(manifest);
            self.compact_until(db, Job::Runs(Arc::clone(&merge)), PURGE_TICKS_MAX, over).await;
            let manifest = db.manifest();
            after = match merge.is_done(&manifest) {
                true => self.count(purge::runs(&manifest)).await,
                false => None,
            };
        }
        match after {
            Some(after) => self.left.store(after.deleted, Ordering::Relaxed),
            None => self.pause_purging(),
        }
        let (tables, took) = (&self.path, started.elapsed());
        tracing::debug!(%tables, before = ?counts, ?after, ?took, "let go what is deleted");
        true
    }

    fn pause_purging(&self) {
        *self.purges_at.lock() = Some(Instant::now() + PURGE_PAUSE);
    }

    async fn count(&self, tables: impl Iterator<Item = &SsTableView>) -> Option<Counts> {
        let counted = self.counter.count(tables, &self.path, &self.store);
        let counted = tokio::select! {
            biased;
            counted = counted => counted,
            () = self.stopping() => return None,
        };
        let unsaid = |error: &slatedb::Error| {
            tracing::debug!(tables = %self.path, %error, "nobody says what is deleted");
        };
        counted.inspect_err(unsaid).ok()
    }

    async fn stopping(&self) {
        while !self.stopped.load(Ordering::Acquire) {
            tokio::time::sleep(TICK).await;
        }
    }

    async fn compact_until(
        &self,
        db: &Db,
        job: Job,
        ticks_max: u32,
        is_done: impl Fn(&VersionedManifest) -> bool,
    ) {
        let options = CompactorOptions {
            poll_interval: TICK,
            max_concurrent_compactions: AT_ONCE,
            scheduler_options: HashMap::new(),
            worker: Some(CompactionWorkerOptions {
                max_concurrent_compactions: AT_ONCE,
                compactions_poll_interval: TICK,
                // Of every table that is merged so much is in memory, and all of what is written.
                max_sst_size: 16 << 20,
                max_subcompactions: 1,
                // One that is cut short goes on from there.
                heartbeat_interval: Duration::from_secs(2),
                max_fetch_tasks: 2,
                bytes_to_fetch: 256 << 10,
                ..CompactionWorkerOptions::default()
            }),
            ..CompactorOptions::default()
        };
        let mut builder = CompactorBuilder::new(self.path.as_str(), Arc::clone(&self.store))
            .with_system_clock(self.clock())
            .with_scheduler_supplier(Arc::new(job))
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
        *self.collect_at.lock() = Some(Instant::now() + SUPERSEDED_FOR);
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
        let collector = builder.build();
        tokio::select! {
            biased;
            () = collector.run_gc_once() => {}
            () = self.stopping() => {}
        }
        let mut collect_at = self.collect_at.lock();
        if collect_at.is_some_and(|at| at <= Instant::now()) {
            // What was merged just before the home was opened is too young the first time.
            let again = !self.collected.swap(true, Ordering::Relaxed);
            *collect_at = again.then(|| Instant::now() + SUPERSEDED_FOR);
        }
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
