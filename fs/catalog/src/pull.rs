//! Reading: manifests, tags to digests, blobs.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;

use crate::blob::Record;
use crate::catalog::{Catalog, millis};
use crate::cell::Cell;
use crate::digest::Digest;
use crate::error::{CatalogError, Result, What};
use crate::ledger::Ledger;
use crate::log::{Decided, Moment};
use crate::names::{Reference, RepoName};
use crate::options::MANIFEST_BYTES_MAX;
use crate::repo::{Entry, Repo, RepoOp};
use crate::types::{BlobInfo, Caller, Manifest, ManifestInfo, Permission, ReadOptions, Referrer};

/// Repositories of one owner that it tries.
const CANDIDATES_MAX: usize = 4;
/// How often a blob may be removed and pushed again under a reader.
const RECORD_TRIES: u32 = 4;
/// Ledgers that a search for a blob looks into at most.
const LEDGERS_MAX: usize = 64;

impl Catalog {
    /// A manifest without its bytes. From memory when it can.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn manifest_info(
        &self,
        repo: &RepoName,
        reference: &Reference,
    ) -> Result<ManifestInfo> {
        let slot = self.repo(repo);
        let mut found = slot.look(self.age_max(), |state| find(state, reference)).await?;
        if found.is_err() {
            // Another instance may have it since: who is told that it is not there pushes again.
            found = slot.look(Duration::ZERO, |state| find(state, reference)).await?;
        }
        let (info, unkept_ms) = found.map_err(|what| missing(what, repo, reference))?;
        if let Some(since) = unkept_ms
            && self.is_nearly_due(since)
        {
            self.renew_manifest(repo, info.digest).await?;
        }
        Ok(info)
    }

    /// A manifest. From memory when it can; its bytes are shared, not copied.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn manifest(&self, repo: &RepoName, reference: &Reference) -> Result<Manifest> {
        let info = self.manifest_info(repo, reference).await?;
        if let Some(bytes) = self.inner.manifests.get(&info.digest) {
            return Ok(Manifest { info, bytes });
        }
        let cell = self.record_of(repo, &info.digest, What::Manifest).await?;
        let bytes = self.inner.blobs.whole(&info.digest, &cell, MANIFEST_BYTES_MAX).await?;
        self.inner.manifests.insert(info.digest, bytes.clone());
        Ok(Manifest { info, bytes })
    }

    /// The record of something that a repository holds.
    async fn record_of(
        &self,
        repo: &RepoName,
        digest: &Digest,
        what: What,
    ) -> Result<Cell<Record>> {
        for _ in 0..RECORD_TRIES {
            if let Some(cell) = self.inner.blobs.record(digest).await?
                && !cell.value.is_gone()
            {
                return Ok(cell);
            }
            // What was known of the repository may be old; or it was linked anew after the look
            // at the record.
            if !self.repo(repo).look(Duration::ZERO, |state| state.holds(digest)).await? {
                return Err(CatalogError::not_found(what, digest));
            }
        }
        Err(CatalogError::corrupt(digest, format!("{repo} has it, and it is gone")))
    }

    fn is_nearly_due(&self, unkept_since_ms: u64) -> bool {
        let options = &self.inner.options;
        let wait = millis(options.untagged_expiry).saturating_sub(millis(options.grace));
        unkept_since_ms.saturating_add(wait) <= self.now_ms()
    }

    /// Begins the time of an untagged manifest anew, because somebody was told that it is there.
    async fn renew_manifest(&self, repo: &RepoName, digest: Digest) -> Result<()> {
        let decide = move |state: &Repo, moment: Moment| {
            let entry = state.manifests.get(&digest);
            let unkept = entry.filter(|entry| entry.unkept_ms.is_some() && !entry.subject_gone);
            let u = Some(moment.now_ms);
            let mark = unkept.map(|_| RepoOp::Mark { d: digest, u, s: false });
            Ok(Decided { ops: mark.into_iter().collect(), answer: () })
        };
        self.repo(repo).change(&self.inner.writer, decide).await?;
        Ok(())
    }

    /// Manifests of a repository whose subject is `subject`, by digest; those with that
    /// artifact type alone if one is given. Empty when there are none or no such repository.
    ///
    /// # Errors
    /// What the store says.
    pub async fn referrers(
        &self,
        repo: &RepoName,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Referrer>> {
        let look = |state: &Repo| {
            let all = state.referrers_of(subject).filter_map(|digest| {
                let entry = state.manifests.get(digest)?;
                let is_wanted = artifact_type
                    .is_none_or(|wanted| entry.links.artifact_type.as_deref() == Some(wanted));
                is_wanted.then(|| Referrer {
                    info: info_of(digest, entry),
                    artifact_type: entry.links.artifact_type.clone(),
                    annotations: entry.links.annotations.clone(),
                })
            });
            all.collect()
        };
        self.repo(repo).look(self.age_max(), look).await
    }

    /// Whether a repository has a blob (or a manifest by that digest), and its length. Whoever
    /// hears that it is there can rely on it for as long as collection's grace.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn blob(&self, repo: &RepoName, digest: &Digest) -> Result<BlobInfo> {
        let look = |state: &Repo| {
            let link = state.links.get(digest);
            let is_condemned = link.is_some_and(|link| link.condemned_ms.is_some());
            state.size_of(digest).map(|size| (size, is_condemned))
        };
        let mut found = self.repo(repo).look(self.age_max(), look).await?;
        if found.is_none() {
            found = self.repo(repo).look(Duration::ZERO, look).await?;
        }
        let missing = || CatalogError::not_found(What::Blob, digest);
        let (size, is_condemned) = found.ok_or_else(missing)?;
        if is_condemned {
            let digest = *digest;
            let decide = move |state: &Repo, moment: Moment| {
                let size = state.size_of(&digest);
                let condemned = state.links.get(&digest).filter(|link| link.condemned_ms.is_some());
                let t = moment.now_ms;
                let link = condemned.map(|link| RepoOp::Link { d: digest, n: link.size, t });
                Ok(Decided { ops: link.into_iter().collect(), answer: size })
            };
            let renewed = self.repo(repo).change(&self.inner.writer, decide).await?;
            renewed.answer.ok_or_else(missing)?;
        }
        Ok(BlobInfo { digest: *digest, size })
    }

    /// Reads a blob of a repository, or a range of it (end exclusive, within its length).
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a range beyond the end.
    pub async fn read_blob(
        &self,
        repo: &RepoName,
        digest: &Digest,
        range: Option<Range<u64>>,
        options: ReadOptions,
    ) -> Result<BlobReader> {
        let size = self.repo(repo).look(self.age_max(), |state| state.size_of(digest)).await?;
        let size = size.ok_or_else(|| CatalogError::not_found(What::Blob, digest))?;
        let range = range.unwrap_or(0..size);
        if range.start > range.end || range.end > size {
            return Err(CatalogError::Invalid("a range that is not within the blob"));
        }
        let cell = self.record_of(repo, digest, What::Blob).await?;
        if cell.value.size != size {
            return Err(CatalogError::corrupt(digest, "its record has another length"));
        }
        let pieces = self.inner.blobs.stream(&cell, range.clone(), options);
        Ok(BlobReader { info: BlobInfo { digest: *digest, size }, range, pieces })
    }

    /// A repository from which this caller may mount a blob: one that it may read.
    ///
    /// # Errors
    /// What the store says.
    pub async fn find_blob(&self, caller: &Caller, digest: &Digest) -> Result<Option<RepoName>> {
        let own = caller.user.clone();
        let directory = self.directory().state(self.age_max()).await?;
        let others = directory.owners.iter().filter(|(_, entry)| !entry.is_private);
        let others = others.map(|(owner, _)| owner).filter(|owner| Some(*owner) != own.as_ref());
        let mut looked = 0;
        for owner in own.iter().chain(others) {
            let view = self.view(owner.as_str()).await?;
            let may_read = |repo: &RepoName| {
                view.permission(caller, owner.as_str(), repo.rest()) >= Permission::Read
            };
            // Spares the ledgers of those who shared nothing with this caller.
            if !view.may_concern(caller, owner.as_str()) {
                continue;
            }
            looked += 1;
            if looked > LEDGERS_MAX {
                break;
            }
            let look = |ledger: &Ledger| {
                let all = ledger.repos_about(digest).filter(may_read);
                all.take(CANDIDATES_MAX).collect::<Vec<_>>()
            };
            let candidates = self.ledger(owner.as_str()).look(self.age_max(), look).await?;
            for repo in candidates {
                if self.repo(&repo).look(self.age_max(), |state| state.holds(digest)).await? {
                    return Ok(Some(repo));
                }
            }
        }
        Ok(None)
    }
}

pub(crate) fn info_of(digest: &Digest, entry: &Entry) -> ManifestInfo {
    ManifestInfo {
        digest: *digest,
        media_type: std::sync::Arc::clone(&entry.media_type),
        size: entry.size,
        pushed_ms: entry.pushed_ms,
    }
}

/// A manifest and since when nothing keeps it, or what is missing.
fn find(
    state: &Repo,
    reference: &Reference,
) -> std::result::Result<(ManifestInfo, Option<u64>), What> {
    let digest = match reference {
        Reference::Digest(digest) => Some(digest),
        Reference::Tag(tag) => state.tags.get(tag).map(|(digest, _)| digest),
    };
    let found = digest.and_then(|digest| Some((digest, state.manifests.get(digest)?)));
    match found {
        Some((digest, entry)) => {
            let unkept = entry.unkept_ms.filter(|_| !entry.subject_gone);
            Ok((info_of(digest, entry), unkept))
        }
        None if state.exists() => Err(What::Manifest),
        None => Err(What::Repository),
    }
}

fn missing(what: What, repo: &RepoName, reference: &Reference) -> CatalogError {
    match what {
        What::Repository => CatalogError::not_found(what, repo),
        _ => CatalogError::not_found(what, format!("{repo} {reference}")),
    }
}

/// The bytes of a blob, piece by piece: exactly as many as were asked for, or an error. Reads
/// nothing more once it is dropped.
pub struct BlobReader {
    pub(crate) info: BlobInfo,
    pub(crate) range: Range<u64>,
    pub(crate) pieces: futures::stream::BoxStream<'static, Result<Bytes>>,
}

impl BlobReader {
    /// Digest and whole length of the blob.
    #[must_use]
    pub fn info(&self) -> BlobInfo {
        self.info
    }

    /// What is being read.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobReader({:?}, {:?})", self.info, self.range)
    }
}

impl Stream for BlobReader {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.as_mut().poll_next(context)
    }
}
