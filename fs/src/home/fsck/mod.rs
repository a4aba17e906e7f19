//! Checking and repairing a home.
//!
//! What always holds: a check changes nothing and disturbs nobody; a repair runs only with the
//! home held for writing, and does only what cannot lose anything that is still there. Counts
//! are counted again, leaks are freed, entries to nowhere are removed after they were reported,
//! lost inodes get a name in `lost+found`. Contents are never touched: a damaged file stays
//! readable where it is whole. While some records cannot be read, nothing is freed at all.
//!
//! How: [`check`] runs passes over the records of one moment ([`source`]), keeps short [`rows`],
//! and proposes one fix ([`plan`]) per finding; [`repair`] applies the fixes and checks again,
//! until nothing is left to fix. Memory is bounded by the rows: see [`rows`].

mod check;
mod chunks;
mod extents;
mod finding;
mod inodes;
mod lost;
mod objects;
mod paths;
mod plan;
mod repair;
mod report;
mod rows;
mod snapshots;
mod source;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use serde::Serialize;

pub use finding::{Finding, Invariant, Severity};
pub use repair::repair;
pub use report::{Repaired, Report, Totals};

use self::check::Check;
use self::source::{Newest, Source};
use super::Home;
use super::error::Result;
use super::reader::JoinPath;
use super::table::TableReader;

/// Findings that a report keeps; beyond it they are counted. A repair mends as many per round.
pub const FINDINGS_MAX: usize = 10_000;
/// Paths that one finding keeps; beyond it they are counted.
pub const PATHS_MAX: usize = 20;

/// How to check.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Read every chunk and compare it with its hash.
    pub verify_data: bool,
    /// A writer has the home open: what nothing refers to (yet) is no finding.
    pub in_use: bool,
}

/// What a check is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Segments, chunks and small values.
    Chunks,
    /// Inodes, extents and attributes.
    Inodes,
    /// Directory entries.
    Names,
    /// Content hashes.
    Hashes,
    /// Objects of segments.
    Objects,
    /// Contents of chunks.
    Contents,
    /// What snapshots refer to.
    Snapshots,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chunks => "chunks",
            Self::Inodes => "inodes",
            Self::Names => "names",
            Self::Hashes => "hashes",
            Self::Objects => "objects",
            Self::Contents => "contents",
            Self::Snapshots => "snapshots",
        })
    }
}

/// How far a check is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Progress {
    /// What it is busy with.
    pub stage: Stage,
    /// Records or objects of that stage so far.
    pub done: u64,
}

/// Checks a home that is closed, or served elsewhere (then say [`Options::in_use`]), from what is
/// durable at this moment. `prefix` is the home's folder: `homes/NAME`.
///
/// # Errors
/// `Unavailable`: no tables there, the store fails, or a writer cleaned up under a check that
/// took long (try again); `Corrupt` where the tables themselves are damaged.
pub async fn check_closed(
    meta: &Arc<dyn ObjectStore>,
    data: &Arc<dyn ObjectStore>,
    prefix: &Path,
    options: Options,
    progress: &mut (dyn FnMut(Progress) + Send + Sync),
) -> Result<Report> {
    let tables = prefix.clone().join_path("tables");
    let reader = TableReader::open_still(Arc::clone(meta), tables.as_ref()).await?;
    let newest = Newest { meta: Arc::clone(meta), tables };
    let source = Source {
        view: &reader,
        latest: &newest,
        kept: &newest,
        data: &**data,
        prefix,
        epoch: reader.epoch(),
        in_use: options.in_use,
    };
    let checked = Check::new(source, options, progress).run().await;
    let closed = reader.close().await;
    let (report, _) = checked?;
    closed?;
    Ok(report)
}

impl Home {
    /// Checks the home while it is served, as it is after a sync.
    ///
    /// # Errors
    /// As [`check_closed`].
    pub async fn check(
        &self,
        options: Options,
        progress: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<Report> {
        self.sync().await?;
        let core = &self.core;
        // What an earlier daemon left behind is being cleared away since the home was opened.
        let mut searched = core.searched.subscribe();
        let wait = async {
            let _closed = searched.wait_for(|done| *done).await;
            Ok(())
        };
        core.patient(wait).await?;
        let view = core.table.view()?;
        let source = Source {
            view: &view,
            latest: &core.table,
            kept: &core.table,
            data: &*core.data,
            prefix: &core.prefix,
            epoch: core.table.epoch(),
            in_use: true,
        };
        let (report, _) = Check::new(source, options, progress).run().await?;
        Ok(report)
    }
}
