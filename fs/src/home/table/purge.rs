//! What compactors do, and when deleted rows leave the tables: then all of them become one run,
//! which keeps no deletions.
//!
//! A scan goes over every deletion in its range, and merging by size alone lets them lie for as
//! long as little is written: who removed 200,000 files waited a second for the first look after
//! every start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use object_store::ObjectStore;
use parking_lot::Mutex;
use slatedb::compactor::{
    Compaction, CompactionScheduler, CompactionSchedulerSupplier, CompactionSpec, CompactionStatus,
    CompactorStateView, SizeTieredCompactionSchedulerSupplier, SourceId,
};
use slatedb::config::CompactorOptions;
use slatedb::manifest::SsTableView;
use slatedb::{SstReader, VersionedManifest};

use crate::home::maps::{HashMap, HashSet};

/// Tables of less than this are not looked at.
const BYTES_MIN: u64 = 128 << 10;
/// So many deletions are worth going over all rows: a scan takes some milliseconds for them.
pub const DELETED_MIN: u64 = 8 << 10;
/// And so many rows are gone over for each at most.
const ROWS_EACH_MAX: u64 = 8;
/// So many uncompacted tables become a run together.
const FRESH_MAX: usize = 16;
/// A merge that is given up is begun so often.
const TRIES_MAX: u32 = 3;
/// A merge that nobody works at in so many looks fails again and again.
const WAITS_MAX: u32 = 40;

/// Whether tables are large enough to ask what is deleted in them.
pub fn is_worth_asking(manifest: &VersionedManifest) -> bool {
    manifest.all_sst_views().map(|view| view.sst.estimate_size()).sum::<u64>() >= BYTES_MIN
}

/// Whether of `rows` so many are deletions that those should go; `left` of them stayed the last
/// time, for somebody who reads what was there before.
#[must_use]
pub fn is_due(Counts { deleted, rows }: Counts, left: u64) -> bool {
    let fresh = deleted.saturating_sub(left);
    fresh >= DELETED_MIN && rows <= fresh.saturating_mul(ROWS_EACH_MAX)
}

/// What is in some tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Deletions.
    pub deleted: u64,
    /// Rows, deletions among them, each as often as it is there.
    pub rows: u64,
}

/// Counts of tables, which never change.
#[derive(Debug, Default)]
pub struct Counter {
    known: Mutex<HashMap<u128, Counts>>,
}

impl Counter {
    /// What is in `tables` of the database under `path`, all of which there are.
    ///
    /// # Errors
    /// What the store says.
    pub async fn count(
        &self,
        tables: impl Iterator<Item = &SsTableView>,
        path: &str,
        store: &Arc<dyn ObjectStore>,
    ) -> Result<Counts, slatedb::Error> {
        let reader = SstReader::new(path, Arc::clone(store), None, None);
        let mut known = HashMap::default();
        for view in tables {
            let name = view.sst.id.value().0;
            let before = self.known.lock().get(&name).copied();
            let counts = match before {
                Some(counts) => counts,
                None => {
                    let stats = reader.open_with_handle(view.sst.clone())?.stats().await?;
                    let counts = stats.map_or_else(Counts::default, |stats| Counts {
                        deleted: stats.num_deletes,
                        rows: stats.num_rows(),
                    });
                    self.known.lock().insert(name, counts);
                    counts
                }
            };
            known.insert(name, counts);
        }
        let all = known.values().fold(Counts::default(), |all, one| Counts {
            deleted: all.deleted + one.deleted,
            rows: all.rows + one.rows,
        });
        *self.known.lock() = known;
        Ok(all)
    }
}

/// What a compactor does.
#[derive(Clone, Debug)]
pub enum Job {
    /// What their sizes say; tells whether a merge of runs is under way.
    BySize(Arc<AtomicBool>),
    /// All uncompacted tables become runs.
    Fresh,
    /// All runs become one.
    Runs(Arc<Merge>),
}

/// The merge of all runs that there are at one moment.
#[derive(Debug, Default)]
pub struct Merge {
    old: HashSet<u128>,
    tries: AtomicU32,
    waits: AtomicU32,
    runs: AtomicBool,
    failures: AtomicU32,
}

impl Merge {
    /// Of the runs of `before`.
    #[must_use]
    pub fn of(before: &VersionedManifest) -> Arc<Self> {
        let old = runs(before).map(|view| view.id.0).collect();
        Arc::new(Self { old, ..Self::default() })
    }

    /// They are one.
    #[must_use]
    pub fn is_done(&self, now: &VersionedManifest) -> bool {
        !runs(now).any(|view| self.old.contains(&view.id.0))
    }

    /// They are one, or it does not work.
    #[must_use]
    pub fn is_over(&self, now: &VersionedManifest) -> bool {
        self.is_done(now)
            || self.tries.load(Ordering::Relaxed) > TRIES_MAX
            || self.waits.load(Ordering::Relaxed) > WAITS_MAX
            || self.failures.load(Ordering::Relaxed) >= TRIES_MAX
    }

    /// One that fails waits for a worker again.
    fn note(&self, merges: &[&Compaction]) {
        for merge in merges {
            match merge.status() {
                CompactionStatus::Running => self.runs.store(true, Ordering::Relaxed),
                CompactionStatus::Scheduled => {
                    self.waits.fetch_add(1, Ordering::Relaxed);
                    let failed = self.runs.swap(false, Ordering::Relaxed);
                    self.failures.fetch_add(u32::from(failed), Ordering::Relaxed);
                }
                _ => {}
            }
        }
    }
}

/// The tables of all runs.
pub fn runs(manifest: &VersionedManifest) -> impl Iterator<Item = &SsTableView> {
    manifest.compacted().iter().flat_map(|run| run.sst_views())
}

impl CompactionSchedulerSupplier for Job {
    fn compaction_scheduler(
        &self,
        options: &CompactorOptions,
    ) -> Box<dyn CompactionScheduler + Send + Sync> {
        let by_size = SizeTieredCompactionSchedulerSupplier::new().compaction_scheduler(options);
        Box::new(Scheduler { job: self.clone(), by_size })
    }
}

/// Two merges at a time at most: beside one of runs, which may take long, one takes what is
/// written meanwhile; writers wait where that lies too long.
struct Scheduler {
    job: Job,
    by_size: Box<dyn CompactionScheduler + Send + Sync>,
}

impl CompactionScheduler for Scheduler {
    fn propose(&self, state: &CompactorStateView) -> Vec<CompactionSpec> {
        let all = state.compactions().into_iter().flat_map(|all| all.recent_compactions());
        let (fresh, merges): (Vec<_>, Vec<_>) = all
            .filter(|compaction| compaction.active())
            .partition(|compaction| compaction.spec().has_l0_sources());
        let manifest = state.manifest();
        if let Job::Runs(merge) = &self.job {
            merge.note(&merges);
            if merges.is_empty()
                && !merge.is_over(manifest)
                && merge.tries.fetch_add(1, Ordering::Relaxed) < TRIES_MAX
            {
                return all_runs(manifest).into_iter().collect();
            }
        }
        if matches!(self.job, Job::Fresh) {
            return oldest_fresh(manifest).filter(|_| fresh.is_empty()).into_iter().collect();
        }
        let fits = |spec: &CompactionSpec| match spec.has_l0_sources() {
            true => fresh.is_empty(),
            false => fresh.is_empty() && merges.is_empty(),
        };
        let next = self.by_size.propose(state).into_iter().find(fits);
        if let Job::BySize(is_merging) = &self.job {
            let begins = next.as_ref().is_some_and(|spec| !spec.has_l0_sources());
            is_merging.store(begins || !merges.is_empty(), Ordering::Relaxed);
        }
        next.into_iter().collect()
    }

    fn validate(
        &self,
        state: &CompactorStateView,
        spec: &CompactionSpec,
    ) -> Result<(), slatedb::Error> {
        self.by_size.validate(state, spec)
    }
}

fn all_runs(manifest: &VersionedManifest) -> Option<CompactionSpec> {
    // The newest first, as they are searched.
    let runs: Vec<u32> = manifest.compacted().iter().map(|run| run.id).collect();
    let to = runs.iter().copied().min()?;
    Some(CompactionSpec::new(runs.into_iter().map(SourceId::SortedRun).collect(), to))
}

fn oldest_fresh(manifest: &VersionedManifest) -> Option<CompactionSpec> {
    let mut fresh: Vec<_> = manifest.l0().iter().map(|view| SourceId::SstView(view.id)).collect();
    let oldest = fresh.split_off(fresh.len().saturating_sub(FRESH_MAX));
    let to = manifest.compacted().iter().map(|run| run.id + 1).max().unwrap_or(0);
    (!oldest.is_empty()).then(|| CompactionSpec::new(oldest, to))
}
