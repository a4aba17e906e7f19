//! Writing: manifests, tags, mounts.

use crate::catalog::Catalog;
use crate::digest::Digest;
use crate::error::Result;
use crate::names::{RepoName, Tag};
use crate::types::{BlobInfo, NewManifest, StoredManifest};

impl Catalog {
    /// Stores a manifest and points tags to it. When this returns all of it is durable.
    ///
    /// # Errors
    /// `DigestMismatch`, `BlobsMissing`, `OverQuota`, `Limit`.
    pub async fn put_manifest(
        &self,
        _repo: &RepoName,
        _manifest: NewManifest,
    ) -> Result<StoredManifest> {
        todo!()
    }

    /// Points a tag to a manifest that is there.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn tag(&self, _repo: &RepoName, _tag: &Tag, _digest: &Digest) -> Result<()> {
        todo!()
    }

    /// Links a blob of `from` in `to`, without an upload. The caller may read `from`.
    ///
    /// # Errors
    /// `NotFound` when `from` does not have it: upload it. `OverQuota`.
    pub async fn mount(
        &self,
        _to: &RepoName,
        _from: &RepoName,
        _digest: &Digest,
    ) -> Result<BlobInfo> {
        todo!()
    }
}
