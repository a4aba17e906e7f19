//! Deleted rows leave the tables: all of them are merged into one run, which keeps no deletions.
//!
//! A scan goes over every deletion in its range, and merging by size alone lets them lie for as
//! long as little is written: who removed 200,000 files waited a second for the first look after
//! every start.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use object_store::ObjectStore;
use slatedb::compactor::{
    CompactionScheduler, CompactionSchedulerSupplier, CompactionSpec, CompactorStateView,
    SizeTieredCompactionSchedulerSupplier, SourceId,
};
use slatedb::config::CompactorOptions;
use slatedb::{SstReader, VersionedManifest};

/// Tables of less than this are not looked at.
const BYTES_MIN: u64 = 128 << 10;
/// So many deletions are worth going over all rows: a scan takes some milliseconds for them.
const DELETED_MIN: u64 = 8 << 10;
/// And so many rows are gone over for each at most.
const ROWS_EACH_MAX: u64 = 8;

/// A merge that fails is tried so often.
const TRIES_MAX: u32 = 3;

/// Whether tables are large enough to ask what is deleted in them.
pub fn is_worth_asking(manifest: &VersionedManifest) -> bool {
    manifest.all_sst_views().map(|view| view.sst.estimate_size()).sum::<u64>() >= BYTES_MIN
}

/// Whether of `rows` so many are deletions that those should go; `left` of them stayed the last
/// time, for somebody who reads what was there before.
#[must_use]
pub fn is_due(deleted: u64, rows: u64, left: u64) -> bool {
    let fresh = deleted.saturating_sub(left);
    fresh >= DELETED_MIN && rows <= fresh.saturating_mul(ROWS_EACH_MAX)
}

/// Deletions and all rows of the tables, as often as they are there.
///
/// # Errors
/// What the store says.
pub async fn count(
    manifest: &VersionedManifest,
    path: &str,
    store: &Arc<dyn ObjectStore>,
) -> Result<(u64, u64), slatedb::Error> {
    let reader = SstReader::new(path, Arc::clone(store), None, None);
    let (mut deleted, mut rows) = (0, 0);
    for view in manifest.all_sst_views() {
        let file = reader.open_with_handle(view.sst.clone())?;
        if let Some(stats) = file.stats().await? {
            deleted += stats.num_deletes;
            rows += stats.num_rows();
        }
    }
    Ok((deleted, rows))
}

/// Merges all tables into one run, and whatever comes meanwhile by its size.
pub struct Purge {
    is_done: Box<dyn Fn(&VersionedManifest) -> bool + Send + Sync>,
    tries: AtomicU32,
}

impl Purge {
    /// Merges the tables that there are, `before` it.
    #[must_use]
    pub fn of(before: &VersionedManifest) -> Arc<Self> {
        let old: HashSet<_> = before.all_sst_views().map(|view| view.id).collect();
        let is_done =
            move |now: &VersionedManifest| !now.all_sst_views().any(|view| old.contains(&view.id));
        Arc::new(Self { is_done: Box::new(is_done), tries: AtomicU32::new(0) })
    }

    /// They are merged, or it was tried often enough.
    #[must_use]
    pub fn is_over(&self, now: &VersionedManifest) -> bool {
        (self.is_done)(now) || self.tries.load(Ordering::Relaxed) > TRIES_MAX
    }
}

/// What SlateDB makes its scheduler with.
pub struct PurgeSupplier(pub Arc<Purge>);

impl CompactionSchedulerSupplier for PurgeSupplier {
    fn compaction_scheduler(
        &self,
        options: &CompactorOptions,
    ) -> Box<dyn CompactionScheduler + Send + Sync> {
        let by_size = SizeTieredCompactionSchedulerSupplier::new().compaction_scheduler(options);
        Box::new(Scheduler { purge: Arc::clone(&self.0), by_size })
    }
}

struct Scheduler {
    purge: Arc<Purge>,
    by_size: Box<dyn CompactionScheduler + Send + Sync>,
}

impl CompactionScheduler for Scheduler {
    fn propose(&self, state: &CompactorStateView) -> Vec<CompactionSpec> {
        let manifest = state.manifest();
        let mut all = state.compactions().into_iter().flat_map(|all| all.recent_compactions());
        // One that an earlier compactor left is finished first: it has some of the same sources.
        let is_busy = all.any(|compaction| compaction.active());
        if is_busy
            || self.purge.is_over(manifest)
            || self.purge.tries.fetch_add(1, Ordering::Relaxed) >= TRIES_MAX
        {
            return self.by_size.propose(state);
        }
        // The newest first, as they are searched.
        let fresh = manifest.l0().iter().map(|view| SourceId::SstView(view.id));
        let runs = manifest.compacted().iter().map(|run| SourceId::SortedRun(run.id));
        let to = manifest.compacted().iter().map(|run| run.id).min().unwrap_or(0);
        vec![CompactionSpec::new(fresh.chain(runs).collect(), to)]
    }

    fn validate(
        &self,
        state: &CompactorStateView,
        spec: &CompactionSpec,
    ) -> Result<(), slatedb::Error> {
        self.by_size.validate(state, spec)
    }
}
