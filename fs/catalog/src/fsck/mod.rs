//! Comparing ledgers, links, records and parts with each other.
//!
//! Repositories are what counts: from their states it follows what ledgers must say, which
//! records must be live, and which repositories the directory must list. Ledgers and directory
//! can be put right; a blob that is gone can not, and is named with the repository that lacks it.

mod blobs;
mod links;

use std::collections::HashMap;

use crate::catalog::Catalog;
use crate::digest::Digest;
use crate::error::Result;
use crate::names::RepoName;

/// What a report has room for.
const FINDINGS_MAX: usize = 10_000;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which object.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// Whether somebody may lose or have lost data by it.
    pub serious: bool,
    /// Whether it was put right.
    pub repaired: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// Owners looked at.
    pub owners: u64,
    /// Repositories looked at.
    pub repositories: u64,
    /// Blob records looked at.
    pub blobs: u64,
    /// What is wrong, at most 10,000.
    pub findings: Vec<Finding>,
}

/// A check under way.
struct Check<'a> {
    catalog: &'a Catalog,
    repair: bool,
    report: FsckReport,
    /// Every digest that some repository holds: its length, and one that does.
    held: HashMap<Digest, (u64, RepoName)>,
}

impl Check<'_> {
    fn find(&mut self, object: impl ToString, problem: impl ToString, serious: bool) {
        self.note(object, problem, serious, false);
    }

    fn note(
        &mut self,
        object: impl ToString,
        problem: impl ToString,
        serious: bool,
        repaired: bool,
    ) {
        if self.report.findings.len() < FINDINGS_MAX {
            let (object, problem) = (object.to_string(), problem.to_string());
            self.report.findings.push(Finding { object, problem, serious, repaired });
        }
    }
}

impl Catalog {
    /// Recounts everything. On a catalogue at work, what is under way may show as a finding
    /// that is gone at the next check. `repair` puts ledgers and the directory right; `deep`
    /// reads every blob and verifies its digest.
    ///
    /// # Errors
    /// What the store says.
    pub async fn fsck(&self, repair: bool, deep: bool) -> Result<FsckReport> {
        self.flush().await?;
        let report = FsckReport::default();
        let mut check = Check { catalog: self, repair, report, held: HashMap::new() };
        check.links().await?;
        check.blobs(deep).await?;
        Ok(check.report)
    }
}
