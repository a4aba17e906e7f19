//! Deleting.

use crate::catalog::Catalog;
use crate::digest::Digest;
use crate::error::Result;
use crate::names::{RepoName, Tag};

impl Catalog {
    /// Removes a tag; its manifest stays for a while.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_tag(&self, _repo: &RepoName, _tag: &Tag) -> Result<()> {
        todo!()
    }

    /// Removes a manifest and the tags that point to it; gives those tags.
    ///
    /// # Errors
    /// `NotFound`; `InUse` if an index there names it.
    pub async fn delete_manifest(&self, _repo: &RepoName, _digest: &Digest) -> Result<Vec<Tag>> {
        todo!()
    }

    /// Removes a blob from a repository.
    ///
    /// # Errors
    /// `NotFound`; `InUse` if a manifest there names it.
    pub async fn delete_blob(&self, _repo: &RepoName, _digest: &Digest) -> Result<()> {
        todo!()
    }

    /// Removes everything from a repository.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_repository(&self, _repo: &RepoName) -> Result<()> {
        todo!()
    }
}
