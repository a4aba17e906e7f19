//! Collection: removing what nothing refers to, while everybody works.

use std::time::Duration;

use crate::catalog::Catalog;
use crate::error::Result;

/// How a collection runs.
#[derive(Clone, Debug)]
pub struct CollectOptions {
    /// Change nothing, report what would be done.
    pub dry_run: bool,
    /// A pause after each repository, ledger or record that is looked at.
    pub pace: Duration,
    /// Look for parts and snapshots that no object names, too: reads every record.
    pub sweep: bool,
}

impl Default for CollectOptions {
    fn default() -> Self {
        CollectOptions { dry_run: false, pace: Duration::from_millis(2), sweep: true }
    }
}

/// What a collection did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Sessions that expired.
    pub uploads: u64,
    /// Manifests that nothing kept for too long.
    pub manifests: u64,
    /// Blobs unlinked from repositories whose manifests do not use them.
    pub unlinked: u64,
    /// Intents of others that were finished.
    pub intents: u64,
    /// Records that nothing refers to and that now wait.
    pub condemned: u64,
    /// Records that were found in use again.
    pub revived: u64,
    /// Blobs that are gone.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Objects that no other object named.
    pub strays: u64,
    /// Whether another instance is at it, so that nothing was done here.
    pub elsewhere: bool,
}

impl Catalog {
    /// One round of collection. What one round condemns a later one removes, after the grace.
    /// Any number may run at the same time, here and elsewhere.
    ///
    /// # Errors
    /// What the store says. What was done until then stays done; a ledger that cannot be read
    /// ends it, for nobody knows what that one refers to.
    pub async fn collect(&self, _options: &CollectOptions) -> Result<CollectReport> {
        todo!()
    }

    /// The same, unless some instance did it within `interval`, or is at it.
    ///
    /// # Errors
    /// As [`Catalog::collect`].
    pub async fn collect_if_due(
        &self,
        _options: &CollectOptions,
        _interval: Duration,
    ) -> Result<CollectReport> {
        todo!()
    }
}
