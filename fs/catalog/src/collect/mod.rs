//! Collection: removing what nothing refers to, while everybody works.
//!
//! A round looks at sessions, ledgers, repositories, blob records and, if asked, at everything
//! else that lies around. It takes no lock. What makes that safe is said where it is done:
//! `sessions` and `upload::finish` for parts, `ledgers` for intents, `blobs` for records. Any
//! number of rounds may run at the same time; a claim only spares the work.

mod blobs;
mod claim;
mod ledgers;
mod repos;
mod sessions;
mod strays;

use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::catalog::{Catalog, millis};
use crate::error::{CatalogError, Result};
use crate::names::OwnerName;

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

/// One round.
struct Round<'a> {
    catalog: &'a Catalog,
    options: &'a CollectOptions,
    report: CollectReport,
    claim: Option<claim::Claim>,
}

impl Catalog {
    /// One round of collection. What one round condemns a later one removes, after the grace.
    /// Any number may run at the same time, here and elsewhere.
    ///
    /// # Errors
    /// What the store says. What was done until then stays done; a ledger that cannot be read
    /// ends it, for nobody knows what that one refers to.
    pub async fn collect(&self, options: &CollectOptions) -> Result<CollectReport> {
        self.round(options, None).await
    }

    /// The same, unless some instance did it within `interval`, or is at it.
    ///
    /// # Errors
    /// As [`Catalog::collect`].
    pub async fn collect_if_due(
        &self,
        options: &CollectOptions,
        interval: Duration,
    ) -> Result<CollectReport> {
        let Some(claim) = self.claim_collection(millis(interval)).await? else {
            return Ok(CollectReport { elsewhere: true, ..CollectReport::default() });
        };
        self.round(options, Some(claim)).await
    }

    async fn round(
        &self,
        options: &CollectOptions,
        claim: Option<claim::Claim>,
    ) -> Result<CollectReport> {
        let mut round = Round { catalog: self, options, report: CollectReport::default(), claim };
        round.sessions().await?;
        round.ledgers().await?;
        round.entries().await?;
        round.repos().await?;
        // What the repositories let go is unreferred to from here on.
        self.flush().await?;
        round.blobs().await?;
        if let Some(claim) = &round.claim
            && !options.dry_run
        {
            self.end_claim(claim).await?;
        }
        let report = round.report;
        tracing::debug!(?report, "a round of collection is over");
        Ok(report)
    }

    /// Owners with anything on the store, by name.
    pub(crate) async fn owners_on_store(&self) -> Result<Vec<OwnerName>> {
        let found = self.folders(&*self.inner.store.meta, &Path::from("owners")).await?;
        let names = found.iter().filter_map(|folder| folder.filename());
        let mut names: Vec<OwnerName> = names.filter_map(|name| name.parse().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// What lies directly below a prefix and has objects below itself.
    pub(crate) async fn folders(&self, store: &dyn ObjectStore, below: &Path) -> Result<Vec<Path>> {
        let list = || async {
            let found = store.list_with_delimiter(Some(below)).await;
            found.map_err(|e| CatalogError::store("listing", below, e))
        };
        Ok(self.inner.writer.again(list).await?.common_prefixes)
    }

    /// Every object below a prefix, each with when it was written, in milliseconds since 1970.
    pub(crate) async fn objects(
        &self,
        store: &dyn ObjectStore,
        below: &Path,
    ) -> Result<Vec<(Path, u64, u64)>> {
        let list = || async {
            let mut found = store.list(Some(below));
            let mut all = Vec::new();
            let failed = |e| CatalogError::store("listing", below, e);
            while let Some(meta) = found.try_next().await.map_err(failed)? {
                let written = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0);
                all.push((meta.location, written, meta.size));
            }
            Ok(all)
        };
        self.inner.writer.again(list).await
    }
}

impl Round<'_> {
    /// Between two looks: lets others work, and keeps the claim alive.
    async fn pause(&mut self) -> Result<()> {
        if !self.options.pace.is_zero() {
            tokio::time::sleep(self.options.pace).await;
        }
        if let Some(claim) = &mut self.claim {
            self.catalog.renew_claim(claim).await?;
        }
        Ok(())
    }

    fn grace_ms(&self) -> u64 {
        millis(self.catalog.inner.options.grace)
    }
}
