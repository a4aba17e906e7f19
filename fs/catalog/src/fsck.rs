//! Comparing ledgers, links, records and parts with each other.

use crate::catalog::Catalog;
use crate::error::Result;

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

impl Catalog {
    /// Recounts everything. On a catalogue at work, what is under way may show as a finding
    /// that is gone at the next check. `repair` puts ledgers right; `deep` reads every blob and
    /// verifies its digest.
    ///
    /// # Errors
    /// What the store says.
    pub async fn fsck(&self, _repair: bool, _deep: bool) -> Result<FsckReport> {
        todo!()
    }
}
