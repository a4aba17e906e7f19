//! Deleted rows leave the tables: all of them are merged into one run, which keeps no deletions.
//!
//! A scan goes over every deletion in its range, and merging by size alone lets them lie for as
//! long as little is written: who removed 200,000 files waited a second for the first look after
//! every start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Whether tables are large enough to ask what is deleted in them.
pub fn is_worth_asking(manifest: &VersionedManifest) -> bool {
    manifest.all_sst_views().map(|view| view.sst.estimate_size()).sum::<u64>() >= BYTES_MIN
}

/// Whether so much of the tables under `path` is deleted that the deletions should go.
///
/// # Errors
/// What the store says.
pub async fn is_due(
    manifest: &VersionedManifest,
    path: &str,
    store: &Arc<dyn ObjectStore>,
) -> Result<bool, slatedb::Error> {
    if !is_worth_asking(manifest) {
        return Ok(false);
    }
    let (deleted, rows) = count(manifest, path, store).await?;
    Ok(deleted >= DELETED_MIN && rows <= deleted.saturating_mul(ROWS_EACH_MAX))
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

/// Merges all tables into one run, once, and whatever comes meanwhile by its size.
pub struct PurgeSupplier;

impl CompactionSchedulerSupplier for PurgeSupplier {
    fn compaction_scheduler(
        &self,
        options: &CompactorOptions,
    ) -> Box<dyn CompactionScheduler + Send + Sync> {
        let by_size = SizeTieredCompactionSchedulerSupplier::new().compaction_scheduler(options);
        Box::new(Purge { by_size, begun: AtomicBool::new(false) })
    }
}

struct Purge {
    by_size: Box<dyn CompactionScheduler + Send + Sync>,
    begun: AtomicBool,
}

impl CompactionScheduler for Purge {
    fn propose(&self, state: &CompactorStateView) -> Vec<CompactionSpec> {
        let mut others = state.compactions().into_iter().flat_map(|all| all.recent_compactions());
        // One that an earlier compactor left is finished first: it has some of the same sources.
        if self.begun.load(Ordering::Relaxed) || others.any(|other| other.active()) {
            return self.by_size.propose(state);
        }
        self.begun.store(true, Ordering::Relaxed);
        let manifest = state.manifest();
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
