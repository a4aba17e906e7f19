//! Objects that no other object names: left by crashes and lost answers.
//!
//! Parts are looked for in this order: which uploads have parts, which of those have a session,
//! and then every record. An upload without a session had handed its parts to a record before
//! its session went, so that record is seen; or it never will.

use std::collections::HashSet;

use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::Round;
use super::blobs::Named;
use crate::blob::PARTS;
use crate::error::{CatalogError, Result};
use crate::log::{SNAPSHOTS, snapshot_base, snapshot_owner};
use crate::names::UploadId;
use crate::upload::{SESSIONS, session_at};

/// The first line of a snapshot is shorter, with the seal before it.
const FIRST_BYTES: u64 = 2048;

impl Round<'_> {
    /// Uploads that have parts and no session.
    pub(super) async fn stray_candidates(&self) -> Result<HashSet<UploadId>> {
        let store = &self.catalog.inner.store;
        let found = self.catalog.folders(&*store.data, &Path::from(PARTS)).await?;
        let ids = found.iter().filter_map(|folder| folder.filename());
        let mut ids: HashSet<UploadId> = ids.filter_map(|id| id.parse().ok()).collect();
        let sessions = self.catalog.objects(&*store.meta, &Path::from(SESSIONS)).await?;
        for session in sessions.iter().filter_map(|(path, _, _)| session_at(path)) {
            ids.remove(&session);
        }
        Ok(ids)
    }

    /// Removes parts that no record names and that are older than the grace.
    pub(super) async fn sweep_parts(
        &mut self,
        candidates: HashSet<UploadId>,
        named: &Named,
    ) -> Result<()> {
        let data = &*self.catalog.inner.store.data;
        for id in candidates {
            let parts = self.catalog.objects(data, &Path::from_iter([PARTS, id.as_str()])).await?;
            let mut kept: HashSet<Path> = HashSet::new();
            if let Some((count, digest)) = named.get(&id) {
                if parts.len() <= *count {
                    continue;
                }
                let record = self.catalog.inner.blobs.record(digest).await?;
                let Some(list) = record.and_then(|cell| cell.value.parts) else {
                    continue;
                };
                kept.extend(list.paths());
            }
            for (path, written_ms, _) in parts {
                let is_old = written_ms.saturating_add(self.grace_ms()) <= self.catalog.now_ms();
                if kept.contains(&path) || !is_old {
                    continue;
                }
                self.report.strays += 1;
                if !self.options.dry_run {
                    self.catalog.delete(data, &path).await?;
                }
            }
            self.pause().await?;
        }
        Ok(())
    }

    /// Removes snapshots whose head names another one, and that are older than the grace.
    pub(super) async fn sweep_snapshots(&mut self) -> Result<()> {
        let meta = &*self.catalog.inner.store.meta;
        for (path, written_ms, size) in self.catalog.objects(meta, &Path::from(SNAPSHOTS)).await? {
            if written_ms.saturating_add(self.grace_ms()) > self.catalog.now_ms() {
                continue;
            }
            let first = match meta.get_range(&path, 0..size.min(FIRST_BYTES)).await {
                Ok(first) => first,
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(CatalogError::store("reading", &path, error)),
            };
            let Some(owner) = snapshot_owner(&first) else {
                continue;
            };
            let base = snapshot_base(meta, &owner).await?;
            if base.as_deref() != path.filename() {
                self.report.strays += 1;
                if !self.options.dry_run {
                    self.catalog.delete(meta, &path).await?;
                }
            }
            self.pause().await?;
        }
        Ok(())
    }
}
