//! Deleting: intent, repository, settle, so that what is freed is freed when this returns.

use std::collections::HashSet;
use std::time::Duration;

use crate::catalog::Catalog;
use crate::digest::Digest;
use crate::directory::{Directory, DirectoryOp};
use crate::error::{CatalogError, Result, What};
use crate::ledger::{IntentKind, Seen};
use crate::log::{Decided, Moment};
use crate::names::{RepoName, Tag};
use crate::repo::{Repo, RepoOp};

/// Digests of one intent.
pub(crate) const INTENT_DIGESTS_MAX: usize = 500;

/// What a removal came to.
pub(crate) struct Removed<T> {
    pub(crate) answer: T,
    pub(crate) seen: Vec<(Digest, bool)>,
}

type Decision<T> = Result<Decided<RepoOp, Removed<T>>>;

impl Catalog {
    /// Removes a tag; its manifest stays for a while.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_tag(&self, repo: &RepoName, tag: &Tag) -> Result<()> {
        let name = format!("{repo}:{tag}");
        let has = |state: &Repo| state.tags.contains_key(tag);
        if !self.repo(repo).look(Duration::ZERO, has).await? {
            return Err(CatalogError::not_found(What::Tag, name));
        }
        let _changing = self.noted_change(&repo.owner()).await?;
        let g = tag.clone();
        let decide = move |state: &Repo, moment: Moment| {
            if !state.tags.contains_key(&g) {
                return Err(CatalogError::not_found(What::Tag, &name));
            }
            let ops = vec![RepoOp::Untag { g: g.clone(), t: moment.now_ms }];
            Ok(Decided { ops, answer: () })
        };
        self.repo(repo).change(&self.inner.writer, decide).await?;
        Ok(())
    }

    /// Removes a manifest and the tags that point to it; gives those tags.
    ///
    /// # Errors
    /// `NotFound`; `InUse` if an index there names it.
    pub async fn delete_manifest(&self, repo: &RepoName, digest: &Digest) -> Result<Vec<Tag>> {
        let d = *digest;
        let check = move |state: &Repo| {
            if !state.manifests.contains_key(&d) {
                return Err(CatalogError::not_found(What::Manifest, d));
            }
            match state.parent_of(&d) {
                Some(by) => Err(CatalogError::InUse { digest: d, by: Box::new(by) }),
                None => Ok(()),
            }
        };
        let decide = move |state: &Repo, moment: Moment| {
            check(state)?;
            let tags: Vec<Tag> = state.tags_of(&d).cloned().collect();
            let ops = vec![RepoOp::Drop { d, t: moment.now_ms }];
            let seen = vec![(d, state.links.contains_key(&d))];
            Ok(Decided { ops, answer: Removed { answer: tags, seen } })
        };
        self.remove(repo, vec![d], check, decide).await
    }

    /// Removes a blob from a repository.
    ///
    /// # Errors
    /// `NotFound`; `InUse` if a manifest there names it.
    pub async fn delete_blob(&self, repo: &RepoName, digest: &Digest) -> Result<()> {
        let d = *digest;
        let check = move |state: &Repo| {
            if !state.links.contains_key(&d) {
                return Err(CatalogError::not_found(What::Blob, d));
            }
            match state.user_of(&d) {
                Some(by) => Err(CatalogError::InUse { digest: d, by: Box::new(by) }),
                None => Ok(()),
            }
        };
        let decide = move |state: &Repo, _: Moment| {
            check(state)?;
            let ops = vec![RepoOp::Unlink { d }];
            let seen = vec![(d, state.manifests.contains_key(&d))];
            Ok(Decided { ops, answer: Removed { answer: (), seen } })
        };
        self.remove(repo, vec![d], check, decide).await
    }

    /// Removes everything from a repository.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_repository(&self, repo: &RepoName) -> Result<()> {
        let mut was_there = false;
        loop {
            let (state, _) = self.repo(repo).state_now().await?;
            // Manifests first: blobs are in use until then.
            let mut digests: Vec<Digest> = state.manifests.keys().copied().collect();
            if digests.is_empty() {
                digests = state.links.keys().copied().collect();
            }
            digests.truncate(INTENT_DIGESTS_MAX);
            if digests.is_empty() {
                break;
            }
            was_there = true;
            let all: HashSet<Digest> = digests.iter().copied().collect();
            let decide = move |state: &Repo, moment: Moment| {
                let mut ops = Vec::new();
                let mut seen = Vec::new();
                for d in &all {
                    if state.manifests.contains_key(d) {
                        ops.push(RepoOp::Drop { d: *d, t: moment.now_ms });
                    }
                    // Not what a manifest uses that was pushed meanwhile: that goes first.
                    let is_used = state.user_of(d).is_some();
                    if state.links.contains_key(d) && !is_used {
                        ops.push(RepoOp::Unlink { d: *d });
                    }
                    seen.push((*d, state.links.contains_key(d) && is_used));
                }
                Ok(Decided { ops, answer: Removed { answer: (), seen } })
            };
            self.remove(repo, digests, |_| Ok(()), decide).await?;
        }
        match was_there {
            true => Ok(()),
            false => Err(CatalogError::not_found(What::Repository, repo)),
        }
    }

    /// Takes digests out of a repository. `check` refuses before anything is written.
    pub(crate) async fn remove<T: Send + 'static>(
        &self,
        repo: &RepoName,
        digests: Vec<Digest>,
        check: impl Fn(&Repo) -> Result<()> + Send + 'static,
        mut decide: impl FnMut(&Repo, Moment) -> Decision<T> + Send + 'static,
    ) -> Result<T> {
        let (this, repo) = (self.clone(), repo.clone());
        Catalog::detached(async move {
            let slot = this.repo(&repo);
            let sizes = move |state: &Repo| {
                check(state)?;
                let sized = digests.iter().filter_map(|d| Some((*d, state.size_of(d)?)));
                Ok::<_, CatalogError>(sized.collect::<Vec<_>>())
            };
            let digests = slot.look(Duration::ZERO, sizes).await??;
            let intended = this.intend(IntentKind::Unlink, &repo, digests, None).await?;
            let id = intended.id.clone();
            let of = repo.clone();
            let decide = move |state: &Repo, moment: Moment| {
                if state.voided.contains_key(&id) {
                    return Err(CatalogError::busy("removing from", &of));
                }
                decide(state, moment)
            };
            let removed = match slot.change(&this.inner.writer, decide).await {
                Ok(removed) => removed,
                Err(error) => {
                    if !matches!(error, CatalogError::Unavailable { .. }) {
                        this.observe(intended).await;
                    }
                    return Err(error);
                }
            };
            let Removed { answer, seen } = removed.answer;
            let seq = removed.seq;
            let seen = seen.into_iter().map(|(d, here)| Seen { d, here, seq }).collect();
            this.settle(intended, seen).await;
            // It is removed already; what comes now may also be done by others later.
            if let Err(error) = this.flush_owner(&repo.owner()).await {
                tracing::debug!(%error, %repo, "settling a removal waits");
            }
            if let Err(error) = this.unlist_if_empty(&repo).await {
                tracing::debug!(%error, %repo, "unlisting waits");
            }
            Ok(answer)
        })
        .await
    }

    /// Takes a repository without manifests out of the directory. A push that comes in between
    /// finds its entry's number outdated and lists it again.
    pub(crate) async fn unlist_if_empty(&self, repo: &RepoName) -> Result<bool> {
        let slot = self.repo(repo);
        let is_full = |state: &Repo| !state.manifests.is_empty();
        if slot.look(self.age_max(), is_full).await? {
            return Ok(false);
        }
        let entry = |directory: &Directory| directory.repos.get(repo).copied();
        let Some(g) = self.directory().look(Duration::ZERO, entry).await? else {
            return Ok(false);
        };
        let decide = move |state: &Repo, _: Moment| {
            let is_empty = state.manifests.is_empty();
            let is_done = state.listed.is_none() && state.unlisted >= g;
            let op = RepoOp::Unlist { g: g.max(state.listed.unwrap_or(0)) };
            let ops = (is_empty && !is_done).then_some(op).into_iter().collect();
            Ok(Decided { ops, answer: is_empty })
        };
        if !slot.change(&self.inner.writer, decide).await?.answer {
            return Ok(false);
        }
        let r = repo.clone();
        let decide = move |directory: &Directory, _: Moment| {
            let is_same = directory.repos.get(&r) == Some(&g);
            let op = DirectoryOp::Unlist { r: r.clone(), g };
            let ops = is_same.then_some(op).into_iter().collect();
            Ok(Decided { ops, answer: is_same })
        };
        Ok(self.directory().change(&self.inner.writer, decide).await?.answer)
    }
}
