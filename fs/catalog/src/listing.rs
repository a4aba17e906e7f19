//! Lists: tags, repositories, manifests. All from what is known in memory, brought up to date
//! with one question to the store.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::digest::Digest;
use crate::error::{CatalogError, Result, What};
use crate::ledger::Ledger;
use crate::names::{OwnerName, RepoName, Tag};
use crate::owners::View;
use crate::pull::info_of;
use crate::repo::Repo;
use crate::types::{Caller, ManifestDetails, Page, Permission, RepoSummary};

fn behind(after: Option<&str>) -> (Bound<&str>, Bound<&str>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

/// The first `limit` of some items.
fn page<T>(mut items: impl Iterator<Item = T>, limit: usize) -> Page<T> {
    let taken: Vec<T> = items.by_ref().take(limit).collect();
    Page { items: taken, more: items.next().is_some() }
}

impl Catalog {
    async fn existing(&self, repo: &RepoName) -> Result<Arc<Repo>> {
        let state = self.repo(repo).state(self.age_max()).await?;
        match state.exists() {
            true => Ok(state),
            false => Err(CatalogError::not_found(What::Repository, repo)),
        }
    }

    /// Tags of a repository in byte order, behind `after`.
    ///
    /// # Errors
    /// `NotFound` for a repository that holds nothing.
    pub async fn tags(
        &self,
        repo: &RepoName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Tag>> {
        let state = self.existing(repo).await?;
        let tags = state.tags.range::<str, _>(behind(after)).map(|(tag, _)| tag.clone());
        Ok(page(tags, limit))
    }

    /// Repositories with manifests that a caller may read, by name, behind `after`.
    ///
    /// # Errors
    /// What the store says.
    pub async fn repositories(
        &self,
        caller: &Caller,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<RepoName>> {
        let directory = self.directory().state(self.age_max()).await?;
        let mut views: HashMap<&str, Option<Arc<View>>> = HashMap::new();
        let mut items = Vec::new();
        for repo in directory.repos.range::<str, _>(behind(after)).map(|(repo, _)| repo) {
            let owner = repo.owner_str();
            if !views.contains_key(owner) {
                let entry = directory.owners.get(owner);
                let is_own = caller.user.as_ref().is_some_and(|user| user.as_str() == owner);
                let is_private =
                    entry.is_none_or(|entry| entry.is_private && entry.open.is_empty());
                let view = match is_private && !is_own && !caller.admin {
                    true => None,
                    false => Some(self.view(owner).await?),
                };
                views.insert(owner, view);
            }
            let view = views.get(owner).and_then(Option::as_ref);
            let may_read =
                |view: &Arc<View>| view.permission(caller, owner, repo.rest()) >= Permission::Read;
            if !view.is_some_and(may_read) {
                continue;
            }
            if items.len() == limit {
                return Ok(Page { items, more: true });
            }
            items.push(repo.clone());
        }
        Ok(Page { items, more: false })
    }

    /// All repositories of an owner that hold anything, blobs of unfinished pushes included.
    ///
    /// # Errors
    /// What the store says.
    pub async fn repositories_of(&self, owner: &OwnerName) -> Result<Vec<RepoName>> {
        let look = |ledger: &Ledger| {
            let linked = ledger.links().map(|(repo, _, _)| repo.clone());
            let intents = ledger.intents.values().map(|intent| intent.repo.clone());
            linked.chain(intents).collect::<BTreeSet<_>>()
        };
        let repos = self.ledger(owner.as_str()).look(self.age_max(), look).await?;
        Ok(repos.into_iter().collect())
    }

    /// What a repository holds.
    ///
    /// # Errors
    /// `NotFound` for one that holds nothing.
    pub async fn repository(&self, repo: &RepoName) -> Result<RepoSummary> {
        let state = self.existing(repo).await?;
        let pushed = state.manifests.values().map(|entry| entry.pushed_ms);
        let tagged = state.tags.values().map(|(_, tagged_ms)| *tagged_ms);
        Ok(RepoSummary {
            repo: repo.clone(),
            tags: state.tags.len() as u64,
            manifests: state.manifests.len() as u64,
            untagged: state.manifests.values().filter(|e| e.unkept_ms.is_some()).count() as u64,
            blobs: state.links.len() as u64,
            bytes: state.held().map(|(_, size)| size).sum(),
            pushed_ms: pushed.chain(tagged).max().unwrap_or(0),
        })
    }

    /// Manifests of a repository by digest, behind `after`.
    ///
    /// # Errors
    /// `NotFound` for a repository that holds nothing.
    pub async fn manifests(
        &self,
        repo: &RepoName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<ManifestDetails>> {
        let state = self.existing(repo).await?;
        let after: Bound<Digest> = match after.map(str::parse) {
            None => Bound::Unbounded,
            Some(Ok(after)) => Bound::Excluded(after),
            Some(Err(_)) => return Err(CatalogError::Invalid("a page begins at a digest")),
        };
        let all = state.manifests.range((after, Bound::Unbounded)).map(|(digest, entry)| {
            let blobs: BTreeSet<_> = entry.links.config.iter().chain(&entry.links.layers).collect();
            let bytes: u64 = blobs.into_iter().filter_map(|blob| state.size_of(blob)).sum();
            ManifestDetails {
                info: info_of(digest, entry),
                links: entry.links.as_ref().clone(),
                tags: state.tags_of(digest).cloned().collect(),
                image_bytes: entry.size + bytes,
                unkept_since_ms: entry.unkept_ms,
            }
        });
        Ok(page(all, limit))
    }
}
