//! Writing: manifests, tags, mounts.
//!
//! The order is the same everywhere: intent in the owner's ledger, then the blob record, then the
//! repository; settling follows when it can. Whoever finds its intent voided begins anew.

use std::time::Duration;

use bytes::Bytes;
use object_store::{ObjectStore, PutMode, PutPayload};

use crate::blob::{Life, Parts, Record, part_path};
use crate::catalog::Catalog;
use crate::cell::Swapped;
use crate::digest::Digest;
use crate::directory::{Directory, DirectoryOp};
use crate::error::{CatalogError, Result, What};
use crate::hash::Hasher;
use crate::ledger::{IntentKind, Seen};
use crate::log::{Committed, Decided, Moment};
use crate::names::{RepoName, Tag, UploadId};
use crate::options::{INLINE_BYTES_MAX, MANIFEST_BYTES_MAX};
use crate::repo::{Repo, RepoOp};
use crate::settle::{Changing, Intended};
use crate::types::{BlobInfo, NewManifest, StoredManifest};

/// How often an intent may be voided, or a repository unlisted, under a push.
const RACES_MAX: u32 = 8;
/// Tags of one repository.
const TAGS_MAX: usize = 200_000;
/// Manifests of one repository.
const MANIFESTS_MAX: usize = 200_000;
/// Tags that one push sets.
const TAGS_PER_PUSH_MAX: usize = 100;
/// Longest media type, by RFC 6838.
const MEDIA_TYPE_BYTES_MAX: usize = 255;

/// What a repository said to a change.
#[derive(Debug)]
pub(crate) enum Verdict<T> {
    Done(T),
    /// The intent was finished by somebody else.
    Voided,
    /// It must be listed first.
    Unlisted,
    /// What needed no intent needs one now.
    NeedsIntent,
}

impl<T> Verdict<T> {
    fn done(self) -> Option<T> {
        match self {
            Verdict::Done(done) => Some(done),
            Verdict::Voided | Verdict::Unlisted | Verdict::NeedsIntent => None,
        }
    }
}

/// Under what protection a repository is changed.
enum Cover {
    Intent(Intended),
    /// Held until the change is made.
    Note {
        _changing: Changing,
    },
}

impl Cover {
    fn id(&self) -> Option<String> {
        match self {
            Cover::Intent(intended) => Some(intended.id.clone()),
            Cover::Note { .. } => None,
        }
    }
}

impl Catalog {
    /// Stores a manifest and points tags to it. When this returns all of it is durable.
    ///
    /// # Errors
    /// `DigestMismatch`, `BlobsMissing`, `OverQuota`, `Limit`.
    pub async fn put_manifest(
        &self,
        repo: &RepoName,
        mut manifest: NewManifest,
    ) -> Result<StoredManifest> {
        check_limits(&manifest)?;
        if manifest.links.subject.is_none() {
            manifest.links.annotations.clear();
        }
        let (this, repo) = (self.clone(), repo.clone());
        Catalog::detached(async move {
            let (expected, bytes) = (manifest.digest, manifest.bytes.clone());
            let found = hash(&this, expected, bytes).await;
            if found != expected {
                return Err(CatalogError::DigestMismatch { expected, found: Box::new(found) });
            }
            for _ in 0..RACES_MAX {
                if let Some(stored) = this.try_put_manifest(&repo, &manifest).await? {
                    this.inner.manifests.insert(manifest.digest, manifest.bytes);
                    return Ok(stored);
                }
            }
            Err(CatalogError::busy("pushing a manifest to", &repo))
        })
        .await
    }

    /// None: begin anew.
    async fn try_put_manifest(
        &self,
        repo: &RepoName,
        manifest: &NewManifest,
    ) -> Result<Option<StoredManifest>> {
        let slot = self.repo(repo);
        // Refuse early what would be refused later, before anything is written.
        if !manifest.sparse {
            let missing = |state: &Repo| missing_blobs(state, manifest);
            if !slot.look(self.age_max(), missing).await?.is_empty() {
                let missing = slot.look(Duration::ZERO, missing).await?;
                blobs_missing(repo, missing)?;
            }
        }
        let look = |state: &Repo| (state.manifests.contains_key(&manifest.digest), state.listed);
        let (is_there, listed) = slot.look(self.age_max(), look).await?;
        let digests = vec![(manifest.digest, manifest.bytes.len() as u64)];
        let list = async {
            match listed {
                Some(_) => Ok(None),
                None => self.list(repo).await.map(Some),
            }
        };
        let (cover, listed) = if is_there {
            let cover = Cover::Note { _changing: self.noted_change(&repo.owner()).await? };
            (cover, list.await?)
        } else {
            let intended = self.intend(IntentKind::Link, repo, digests.clone(), None).await?;
            let bytes = async {
                self.ensure_bytes(&manifest.digest, &manifest.bytes).await?;
                list.await
            };
            let (intended, listed) = self.behind(intended, bytes).await?;
            (Cover::Intent(intended), listed)
        };
        let done = self.store_manifest(repo, manifest, cover.id(), listed).await;
        let cover = match cover {
            Cover::Intent(intended) => intended,
            Cover::Note { .. } => return Ok(done?.answer.done()),
        };
        match done {
            Ok(Committed { answer: Verdict::Done(stored), seq }) => {
                self.settle(cover, Catalog::seen(&digests, true, seq)).await;
                Ok(Some(stored))
            }
            Ok(_) => {
                self.abandon(cover).await;
                Ok(None)
            }
            // Nobody knows: others finish it.
            Err(error @ CatalogError::Unavailable { .. }) => Err(error),
            Err(error) => {
                self.observe(cover).await;
                Err(error)
            }
        }
    }

    async fn store_manifest(
        &self,
        repo: &RepoName,
        manifest: &NewManifest,
        intent: Option<String>,
        list: Option<u64>,
    ) -> Result<Committed<Verdict<StoredManifest>>> {
        let (repo_name, manifest) = (repo.clone(), manifest.clone());
        let decide = move |state: &Repo, moment: Moment| {
            let refused = |verdict| Ok(Decided { ops: Vec::new(), answer: verdict });
            if intent.as_ref().is_some_and(|id| state.voided.contains_key(id)) {
                return refused(Verdict::Voided);
            }
            let entry = state.manifests.get(&manifest.digest);
            if entry.is_none() && intent.is_none() {
                return refused(Verdict::NeedsIntent);
            }
            if !manifest.sparse {
                blobs_missing(&repo_name, missing_blobs(state, &manifest))?;
            }
            check_room(state, &manifest)?;
            let mut ops = Vec::new();
            match (state.listed, list) {
                (Some(_), _) => {}
                (None, Some(g)) if g > state.unlisted => ops.push(RepoOp::List { g }),
                (None, _) => return refused(Verdict::Unlisted),
            }
            let t = moment.now_ms;
            let d = manifest.digest;
            match entry {
                None => ops.push(RepoOp::Manifest {
                    d,
                    n: manifest.bytes.len() as u64,
                    m: manifest.media_type.clone(),
                    t,
                    l: Box::new(manifest.links.clone()),
                }),
                Some(entry) if entry.unkept_ms.is_some() => {
                    ops.push(RepoOp::Mark { d, u: Some(t), s: entry.subject_gone });
                }
                Some(_) => {}
            }
            let points_elsewhere = |tag: &&Tag| state.tags.get(*tag).is_none_or(|(to, _)| *to != d);
            let tags: Vec<Tag> = manifest.tags.iter().filter(points_elsewhere).cloned().collect();
            ops.extend(tags.iter().map(|g| RepoOp::Tag { g: g.clone(), d, t }));
            let stored = StoredManifest { created: entry.is_none(), tags };
            Ok(Decided { ops, answer: Verdict::Done(stored) })
        };
        self.repo(repo).change(&self.inner.writer, decide).await
    }

    /// Puts a repository into the directory; gives its entry's number.
    pub(crate) async fn list(&self, repo: &RepoName) -> Result<u64> {
        let r = repo.clone();
        let decide = move |_: &Directory, moment: Moment| {
            let g = moment.seq + 1;
            Ok(Decided { ops: vec![DirectoryOp::List { r: r.clone(), g }], answer: g })
        };
        Ok(self.directory().change(&self.inner.writer, decide).await?.answer)
    }

    /// Makes sure that bytes whose digest was verified are on the store. Behind an intent.
    async fn ensure_bytes(&self, digest: &Digest, bytes: &Bytes) -> Result<()> {
        let blobs = &self.inner.blobs;
        if bytes.len() <= INLINE_BYTES_MAX {
            return blobs.ensure_inline(digest, bytes).await;
        }
        if blobs.revive(digest).await?.is_some() {
            return Ok(());
        }
        let upload = UploadId::from_bytes(self.inner.options.seams.random.bytes16());
        let mut parts = Parts::new(upload);
        let list = vec![(0, "0".repeat(8), bytes.len() as u64)];
        parts.list = list;
        let path = part_path(&parts.upload, 0, &parts.list[0].1);
        let put = || async {
            let payload = PutPayload::from(bytes.clone());
            let put = blobs.data.put_opts(&path, payload, PutMode::Overwrite.into()).await;
            put.map_err(|e| CatalogError::store("writing", &path, e))
        };
        self.inner.writer.again(put).await?;
        let size = bytes.len() as u64;
        loop {
            let known = blobs.record(digest).await?;
            if known.as_ref().is_some_and(|cell| !cell.value.is_gone())
                && blobs.revive(digest).await?.is_some()
            {
                // The part is found by the sweep.
                return Ok(());
            }
            let record = Record { life: Life::Live, size, parts: Some(parts.clone()) };
            let swapped = blobs.swap(digest, known.as_ref(), record, Bytes::new()).await?;
            if let Swapped::Done(_) = swapped {
                return Ok(());
            }
        }
    }

    /// Points a tag to a manifest that is there.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn tag(&self, repo: &RepoName, tag: &Tag, digest: &Digest) -> Result<()> {
        let _changing = self.noted_change(&repo.owner()).await?;
        let (g, d) = (tag.clone(), *digest);
        let decide = move |state: &Repo, moment: Moment| {
            if !state.manifests.contains_key(&d) {
                return Err(CatalogError::not_found(What::Manifest, d));
            }
            if state.tags.len() >= TAGS_MAX && !state.tags.contains_key(&g) {
                return Err(CatalogError::Limit { what: "tags", limit: TAGS_MAX as u64 });
            }
            let is_so = state.tags.get(&g).is_some_and(|(to, _)| *to == d);
            let op = RepoOp::Tag { g: g.clone(), d, t: moment.now_ms };
            let ops = (!is_so).then_some(op).into_iter().collect();
            Ok(Decided { ops, answer: () })
        };
        self.repo(repo).change(&self.inner.writer, decide).await?;
        Ok(())
    }

    /// Links a blob of `from` in `to`, without an upload. The caller may read `from`.
    ///
    /// # Errors
    /// `NotFound` when `from` does not have it: upload it. `OverQuota`.
    pub async fn mount(&self, to: &RepoName, from: &RepoName, digest: &Digest) -> Result<BlobInfo> {
        let (this, to, from, digest) = (self.clone(), to.clone(), from.clone(), *digest);
        Catalog::detached(async move {
            let missing = || CatalogError::not_found(What::Blob, digest);
            let size_of = |state: &Repo| state.size_of(&digest);
            let source = this.repo(&from);
            let size = match source.look(this.age_max(), size_of).await? {
                Some(size) => Some(size),
                None => source.look(Duration::ZERO, size_of).await?,
            };
            let info = BlobInfo { digest, size: size.ok_or_else(missing)? };
            for _ in 0..RACES_MAX {
                let digests = vec![(digest, info.size)];
                let intended = this.intend(IntentKind::Link, &to, digests, None).await?;
                let revived = this.inner.blobs.revive(&digest);
                let revive = async { revived.await?.ok_or_else(missing) };
                let (intended, _) = this.behind(intended, revive).await?;
                if this.link(intended, info).await? {
                    return Ok(info);
                }
            }
            Err(CatalogError::busy("mounting to", &to))
        })
        .await
    }

    /// Links a blob that is on the store, behind its intent. False: begin anew.
    pub(crate) async fn link(&self, intended: Intended, info: BlobInfo) -> Result<bool> {
        let BlobInfo { digest: d, size: n } = info;
        let id = intended.id.clone();
        let decide = move |state: &Repo, moment: Moment| {
            if state.voided.contains_key(&id) {
                return Ok(Decided { ops: Vec::new(), answer: false });
            }
            let is_linked = state.links.get(&d).is_some_and(|link| link.condemned_ms.is_none());
            let op = RepoOp::Link { d, n, t: moment.now_ms };
            let ops = (!is_linked).then_some(op).into_iter().collect();
            Ok(Decided { ops, answer: true })
        };
        let repo = self.repo(&intended.repo);
        let linked = repo.change(&self.inner.writer, decide).await?;
        if linked.answer {
            let seen = Seen { d, here: true, seq: linked.seq };
            self.settle(intended, vec![seen]).await;
        }
        Ok(linked.answer)
    }
}

fn check_limits(manifest: &NewManifest) -> Result<()> {
    let limit = |what, limit: usize| Err(CatalogError::Limit { what, limit: limit as u64 });
    if manifest.bytes.len() > MANIFEST_BYTES_MAX {
        return limit("bytes of a manifest", MANIFEST_BYTES_MAX);
    }
    if manifest.media_type.len() > MEDIA_TYPE_BYTES_MAX {
        return limit("bytes of a media type", MEDIA_TYPE_BYTES_MAX);
    }
    if manifest.tags.len() > TAGS_PER_PUSH_MAX {
        return limit("tags of one push", TAGS_PER_PUSH_MAX);
    }
    Ok(())
}

fn check_room(state: &Repo, manifest: &NewManifest) -> Result<()> {
    if state.tags.len() + manifest.tags.len() > TAGS_MAX {
        return Err(CatalogError::Limit { what: "tags", limit: TAGS_MAX as u64 });
    }
    if state.manifests.len() >= MANIFESTS_MAX && !state.manifests.contains_key(&manifest.digest) {
        return Err(CatalogError::Limit { what: "manifests", limit: MANIFESTS_MAX as u64 });
    }
    Ok(())
}

fn missing_blobs(state: &Repo, manifest: &NewManifest) -> Vec<Digest> {
    let links = &manifest.links;
    let mut missing: Vec<Digest> = links
        .config
        .iter()
        .chain(&links.layers)
        .filter(|digest| !state.holds(digest))
        .copied()
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

fn blobs_missing(repo: &RepoName, missing: Vec<Digest>) -> Result<()> {
    match missing.is_empty() {
        true => Ok(()),
        false => Err(CatalogError::BlobsMissing { repo: repo.clone(), missing }),
    }
}

/// The digest of some bytes, off the async threads when there are many.
async fn hash(catalog: &Catalog, expected: Digest, bytes: Bytes) -> Digest {
    let algorithm = expected.algorithm();
    if bytes.len() <= INLINE_BYTES_MAX {
        return Hasher::digest(algorithm, &bytes);
    }
    let run = catalog.compute(move || Hasher::digest(algorithm, &bytes));
    run.await.expect("hashing does not panic")
}
