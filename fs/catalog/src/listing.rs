//! Lists: tags, repositories, manifests.

use crate::catalog::Catalog;
use crate::error::Result;
use crate::names::{OwnerName, RepoName, Tag};
use crate::types::{Caller, ManifestDetails, Page, RepoSummary};

impl Catalog {
    /// Tags of a repository in byte order, behind `after`.
    ///
    /// # Errors
    /// `NotFound` for a repository that holds nothing.
    pub async fn tags(
        &self,
        _repo: &RepoName,
        _after: Option<&str>,
        _limit: usize,
    ) -> Result<Page<Tag>> {
        todo!()
    }

    /// Repositories with manifests that a caller may read, by name, behind `after`.
    ///
    /// # Errors
    /// What the store says.
    pub async fn repositories(
        &self,
        _caller: &Caller,
        _after: Option<&str>,
        _limit: usize,
    ) -> Result<Page<RepoName>> {
        todo!()
    }

    /// All repositories of an owner that hold anything, blobs of unfinished pushes included.
    ///
    /// # Errors
    /// What the store says.
    pub async fn repositories_of(&self, _owner: &OwnerName) -> Result<Vec<RepoName>> {
        todo!()
    }

    /// What a repository holds.
    ///
    /// # Errors
    /// `NotFound` for one that holds nothing.
    pub async fn repository(&self, _repo: &RepoName) -> Result<RepoSummary> {
        todo!()
    }

    /// Manifests of a repository by digest, behind `after`.
    ///
    /// # Errors
    /// `NotFound` for a repository that holds nothing.
    pub async fn manifests(
        &self,
        _repo: &RepoName,
        _after: Option<&str>,
        _limit: usize,
    ) -> Result<Page<ManifestDetails>> {
        todo!()
    }
}
