//! The check itself: the order of its passes, and what they share.
//!
//! Chunks, segments and small values are read first, so that extents can be counted against
//! them; then inodes with their extents and attributes, in one pass as they sort alike; then
//! names; then what all of that must add up to; objects last, so that what the records name
//! had to be there before it is looked for.

use std::collections::BTreeMap;

use super::finding::{Finding, Invariant};
use super::plan::Fix;
use super::report::{Report, Totals};
use super::rows::Rows;
use super::snapshots::Snapshots;
use super::source::{Cursor, Source};
use super::{FINDINGS_MAX, Options, PATHS_MAX, Progress, Stage, paths};
use crate::home::error::{Error, Result};
use crate::home::key;
use crate::home::record::Counters;
use crate::home::types::Ino;

/// Rows of a page where records are short.
pub const ROWS: usize = 4096;
/// Rows of a page where records may be long.
pub const LONG_ROWS: usize = 256;
/// Records between two calls of the caller's progress function.
const PROGRESS_RECORDS: u64 = 4096;

/// A finding whose files are not named yet.
#[derive(Debug)]
pub struct Draft {
    pub kind: Invariant,
    pub object: String,
    pub detail: String,
    pub inos: Vec<Ino>,
    /// Paths in snapshots.
    pub kept: Vec<String>,
    pub more: u64,
}

/// A running check.
pub struct Check<'a> {
    pub source: Source<'a>,
    pub options: Options,
    pub rows: Rows,
    pub snapshots: Snapshots,
    pub totals: Totals,
    /// As they should be.
    pub recount: Counters,
    /// As they are.
    pub counters: Option<Counters>,
    pub drafts: Vec<Draft>,
    pub fixes: Vec<Fix>,
    pub doubtful: bool,
    counts: BTreeMap<Invariant, u64>,
    progress: &'a mut (dyn FnMut(Progress) + Send + Sync),
    stage: Stage,
    done: u64,
}

impl<'a> Check<'a> {
    pub fn new(
        source: Source<'a>,
        options: Options,
        progress: &'a mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Self {
        Self {
            source,
            options,
            rows: Rows::default(),
            snapshots: Snapshots::default(),
            totals: Totals::default(),
            recount: Counters::default(),
            counters: None,
            drafts: Vec::new(),
            fixes: Vec::new(),
            doubtful: false,
            counts: BTreeMap::new(),
            progress,
            stage: Stage::Chunks,
            done: 0,
        }
    }

    /// Runs all passes.
    ///
    /// # Errors
    /// What the tables or the store say; findings are no errors.
    pub async fn run(mut self) -> Result<(Report, Vec<Fix>)> {
        self.enter(Stage::Chunks);
        if self.source.view.scan(vec![0]..vec![u8::MAX], 1).await?.is_empty() {
            // Whoever made it did not live to its first commit; the next one makes the root.
            return self.close().await;
        }
        self.read_counters().await?;
        self.read_unknown().await?;
        self.read_snapshots().await?;
        self.read_segments().await?;
        self.read_chunks().await?;
        self.read_unused().await?;
        self.read_held().await?;
        self.read_smalls().await?;
        self.enter(Stage::Inodes);
        self.read_inodes().await?;
        self.enter(Stage::Names);
        self.read_names().await?;
        self.compare_names();
        self.enter(Stage::Hashes);
        self.read_hashes().await?;
        self.compare_chunks();
        self.compare_counters();
        self.enter(Stage::Objects);
        let mut hurt = self.compare_objects().await?;
        if self.options.verify_data {
            self.enter(Stage::Contents);
            self.verify(&mut hurt).await?;
        }
        self.blame(&hurt).await?;
        self.enter(Stage::Snapshots);
        self.walk_snapshots(&hurt).await?;
        self.close().await
    }

    /// Says that the next pass begins.
    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.done = 0;
        (self.progress)(Progress { stage, done: 0 });
    }

    /// Says that some more were looked at.
    pub fn step(&mut self, more: u64) {
        let before = self.done;
        self.done += more;
        if before / PROGRESS_RECORDS != self.done / PROGRESS_RECORDS {
            (self.progress)(Progress { stage: self.stage, done: self.done });
        }
    }

    /// Notes a finding; gives its place among the drafts when it is kept.
    pub fn find(
        &mut self,
        kind: Invariant,
        object: impl std::fmt::Display,
        detail: impl std::fmt::Display,
        inos: &[Ino],
    ) -> Option<usize> {
        *self.counts.entry(kind).or_insert(0) += 1;
        if self.drafts.len() >= FINDINGS_MAX {
            return None;
        }
        self.drafts.push(Draft {
            kind,
            object: object.to_string(),
            detail: detail.to_string(),
            inos: inos.to_vec(),
            kept: Vec::new(),
            more: 0,
        });
        Some(self.drafts.len() - 1)
    }

    /// Proposes a fix. What does not fit comes in the next round.
    pub fn fix(&mut self, fix: Fix) {
        if self.fixes.len() < FINDINGS_MAX {
            self.fixes.push(fix);
        }
    }

    /// A record that cannot be read: what it refers to is unknown.
    pub fn unreadable(&mut self, object: impl std::fmt::Display, error: &Error, inos: &[Ino]) {
        self.doubtful = true;
        self.find(Invariant::RecordUnreadable, object, error, inos);
    }

    async fn read_counters(&mut self) -> Result<()> {
        match self.source.view.get(&key::counters()).await? {
            None => {
                let missing = Error::corrupt("the record is missing");
                self.unreadable("counters", &missing, &[]);
            }
            Some(value) => match Counters::decode(&value) {
                Ok(counters) => self.counters = Some(counters),
                Err(error) => self.unreadable("counters", &error, &[]),
            },
        }
        Ok(())
    }

    /// Keys of kinds that this release does not know.
    async fn read_unknown(&mut self) -> Result<()> {
        let mut known = [
            key::BUCKET,
            key::CHUNK,
            key::EXTENT,
            key::HASH,
            key::HELD,
            key::INODE,
            key::META,
            key::ORPHAN,
            key::SEGMENT,
            key::SMALL,
            key::UNUSED,
            key::SNAPSHOT,
            key::XATTR,
        ];
        known.sort_unstable();
        let mut from = 0;
        for kind in known.into_iter().chain([u8::MAX]) {
            let mut rows = Cursor::new(self.source.view, vec![from]..vec![kind], LONG_ROWS);
            while let Some((found, _)) = rows.next().await? {
                let unknown = Error::corrupt("a kind of record that this release does not know");
                self.unreadable(format_args!("key {:02x?}", &found[..]), &unknown, &[]);
            }
            from = kind.saturating_add(1);
        }
        Ok(())
    }

    fn compare_counters(&mut self) {
        let Some(is) = self.counters else { return };
        let should = Counters {
            next_ino: is.next_ino.max(self.recount.next_ino),
            next_small: is.next_small.max(self.recount.next_small),
            ..self.recount
        };
        let differences = [
            (Invariant::CounterBytes, is.bytes, should.bytes),
            (Invariant::CounterInodes, is.inodes, should.inodes),
            (Invariant::CounterNextInode, is.next_ino, should.next_ino),
            (Invariant::CounterNextSmall, is.next_small, should.next_small),
        ];
        for (kind, is, should) in differences {
            // What cannot be read is not counted, but may be there.
            let unsure = self.doubtful && is > should;
            if is != should && !unsure {
                self.find(kind, "counters", format_args!("{is}, should be {should}"), &[]);
            }
        }
        if is != should && !self.doubtful {
            self.fix(Fix::SetCounters(should));
        }
    }

    async fn close(self) -> Result<(Report, Vec<Fix>)> {
        let named = self.drafts.iter().flat_map(|d| d.inos.iter().copied().take(PATHS_MAX));
        let paths = paths::name_all(self.source.view, &self.rows, named).await?;
        let mut findings: Vec<Finding> = Vec::with_capacity(self.drafts.len());
        for draft in self.drafts {
            let shown = draft.inos.len().min(PATHS_MAX);
            findings.push(Finding {
                kind: draft.kind,
                severity: draft.kind.severity(),
                object: draft.object,
                detail: draft.detail,
                paths: {
                    let live = draft.inos[..shown].iter().map(|ino| paths.of(*ino));
                    live.chain(draft.kept).collect()
                },
                more_paths: draft.more + (draft.inos.len() - shown) as u64,
                repair: draft.kind.repair(),
            });
        }
        findings.sort_by_key(|finding| finding.severity);
        let all: u64 = self.counts.values().sum();
        let report = Report {
            clean: all == 0,
            totals: self.totals,
            more_findings: all - findings.len() as u64,
            counts: self.counts,
            findings,
            doubtful: self.doubtful,
        };
        let doubtful = self.doubtful;
        let fixes = self.fixes.into_iter().filter(|fix| !(doubtful && fix.frees())).collect();
        Ok((report, fixes))
    }
}
