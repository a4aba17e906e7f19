//! The report of a check: totals and findings, for scripts (serde) and for people (`Display`).

use std::collections::BTreeMap;

use serde::Serialize;

use super::finding::{Finding, Invariant, Severity};

/// What the home consists of. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Inode records.
    pub inodes: u64,
    /// Directories among them.
    pub directories: u64,
    /// Inodes without a name that wait for their collection.
    pub orphans: u64,
    /// Directory entries.
    pub entries: u64,
    /// Extents.
    pub extents: u64,
    /// Extended attributes.
    pub xattrs: u64,
    /// Chunks.
    pub chunks: u64,
    /// Small values.
    pub smalls: u64,
    /// Segments.
    pub segments: u64,
    /// What the quota charges: bytes of extents and values of attributes.
    pub charged_bytes: u64,
    /// Living chunks as stored.
    pub live_bytes: u64,
    /// Objects of segments.
    pub object_bytes: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Chunks as stored that only snapshots hold, part of `live_bytes`.
    pub held_bytes: u64,
    /// Contents that were read and had their hash.
    pub verified_bytes: u64,
}

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// True when nothing was found.
    pub clean: bool,
    /// What there is.
    pub totals: Totals,
    /// How often each invariant did not hold.
    pub counts: BTreeMap<Invariant, u64>,
    /// The findings, worst first; at most [`super::FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// So many more than in `findings`.
    pub more_findings: u64,
    /// Some records cannot be read, so what seems unused may be used: nothing is freed.
    pub doubtful: bool,
}

impl Report {
    /// How many findings have this severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> u64 {
        self.counts.iter().filter(|(kind, _)| kind.severity() == severity).map(|(_, n)| n).sum()
    }

    /// True when no file is hurt.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.count(Severity::Damage) == 0
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        if self.more_findings > 0 {
            writeln!(f, "and {} more findings", self.more_findings)?;
        }
        let t = &self.totals;
        writeln!(
            f,
            "{} inodes ({} directories, {} orphans), {} entries, {} extents, {} chunks in {} \
             segments, {} small values",
            t.inodes,
            t.directories,
            t.orphans,
            t.entries,
            t.extents,
            t.chunks,
            t.segments,
            t.smalls
        )?;
        writeln!(
            f,
            "{} bytes charged, {} bytes live in {} bytes of objects, {} bytes verified",
            t.charged_bytes, t.live_bytes, t.object_bytes, t.verified_bytes
        )?;
        if t.snapshots > 0 {
            let (snapshots, bytes) = (t.snapshots, t.held_bytes);
            writeln!(f, "{snapshots} snapshots, which alone hold {bytes} bytes")?;
        }
        if self.clean {
            return write!(f, "clean");
        }
        write!(
            f,
            "{} damaged, {} leaks, {} wrong counts",
            self.count(Severity::Damage),
            self.count(Severity::Leak),
            self.count(Severity::Count)
        )
    }
}

/// What a repair did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Repaired {
    /// What was found first.
    pub before: Report,
    /// Changes of records and objects.
    pub fixes: u64,
    /// Checks that it took.
    pub rounds: u64,
    /// What is left.
    pub after: Report,
}

impl std::fmt::Display for Repaired {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.before)?;
        writeln!(f, "{} changes in {} rounds; now:", self.fixes, self.rounds)?;
        write!(f, "{}", self.after)
    }
}
