//! Manifests: pushed, deleted, and what refers to them.

use std::collections::HashSet;

use bytes::Bytes;
use yadokari_catalog::{
    Algorithm, Catalog, Digest, Hasher, ManifestLinks, NewManifest, Reference as Ref, RepoName, Tag,
};

use super::{About, Registry, explain};
use crate::oci::conditional::Expected;
use crate::oci::error::{ApiError, Code};
use crate::oci::media::Kind;
use crate::oci::referrers::{Descriptor, fallback_tag};
use crate::oci::{Manifest, Reference};

/// Hashing and parsing more than this goes to a thread of its own.
const INLINE_WORK_BYTES: usize = 128 << 10;
/// The specification lets a client expect that four MiB come whole.
const REFERRERS_BYTES_MAX: usize = 3 << 20;
/// Referrers in one answer.
const REFERRERS_MAX: usize = 1000;
/// Entries of a list that a client keeps itself.
const FALLBACK_MAX: usize = 1000;

/// What a push of a manifest came to.
#[derive(Clone, Debug)]
pub struct PushedManifest {
    /// Its digest.
    pub digest: Digest,
    /// The subject that was understood.
    pub subject: Option<Digest>,
    /// False when it was there already.
    pub created: bool,
}

/// Part of a list of referrers.
#[derive(Clone, Debug)]
pub struct ReferrersPage {
    /// In the order of their digests.
    pub items: Vec<Descriptor>,
    /// The last one's digest, when there are more behind it.
    pub next: Option<String>,
}

impl Registry {
    /// Stores a manifest under a reference and more tags.
    ///
    /// # Errors
    /// What is wrong with it; what is missing; over quota.
    pub async fn push_manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        content_type: Option<String>,
        bytes: Bytes,
        mut tags: Vec<Tag>,
    ) -> Result<PushedManifest, ApiError> {
        let (algorithm, named) = match reference {
            Reference::Tag(tag) => {
                tags.insert(0, tag.clone());
                (Algorithm::Sha256, None)
            }
            Reference::Digest(digest) => (digest.algorithm(), Some(*digest)),
            Reference::Neither(text) => return Err(not_a_reference(text)),
        };
        tags.sort();
        tags.dedup();
        let (manifest, digest) =
            read(&self.catalog, algorithm, content_type, bytes.clone()).await?;
        if let Some(named) = named
            && named != digest
        {
            let message = format!("the manifest has the digest {digest}, not {named}");
            return Err(ApiError::with(Code::DigestInvalid, message));
        }
        let subject = manifest.subject;
        let new = NewManifest {
            digest,
            media_type: manifest.media_type.clone(),
            bytes,
            links: links(manifest),
            tags,
            sparse: self.options.sparse,
        };
        let stored = self.catalog.put_manifest(repo, new).await;
        let stored = stored.map_err(|error| explain(About::Manifest, error))?;
        Ok(PushedManifest { digest, subject, created: stored.created })
    }

    /// Does a tag point where a conditional push expects it?
    ///
    /// # Errors
    /// 412 when it does not.
    pub async fn expect(
        &self,
        repo: &RepoName,
        reference: &Reference,
        expected: &Expected,
    ) -> Result<(), ApiError> {
        let reference = match reference {
            Reference::Tag(tag) => Ref::Tag(tag.clone()),
            Reference::Digest(digest) => Ref::Digest(*digest),
            Reference::Neither(_) => return Ok(()),
        };
        if *expected == Expected::Any {
            return Ok(());
        }
        let now = match self.catalog.manifest_info(repo, &reference).await {
            Ok(info) => Some(info.digest.to_string()),
            Err(error) if error.kind() == yadokari_catalog::Kind::NotFound => None,
            Err(error) => return Err(explain(About::Manifest, error)),
        };
        if expected.allows(now.as_deref()) {
            return Ok(());
        }
        Err(ApiError::with(Code::Denied, "the reference is not what the condition says")
            .status(412))
    }

    /// Deletes a tag, or a manifest with all its tags.
    ///
    /// # Errors
    /// When it is not there, or is in use.
    pub async fn delete_manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
    ) -> Result<(), ApiError> {
        let deleted = match reference {
            Reference::Tag(tag) => self.catalog.delete_tag(repo, tag).await,
            Reference::Digest(digest) => {
                self.catalog.delete_manifest(repo, digest).await.map(|_tags| ())
            }
            Reference::Neither(_) => return Err(About::Manifest.unknown()),
        };
        deleted.map_err(|error| explain(About::Manifest, error))
    }

    /// What refers to a manifest, which need not exist; behind `last` where that is given.
    ///
    /// # Errors
    /// What the store says.
    pub async fn referrers(
        &self,
        repo: &RepoName,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&str>,
    ) -> Result<ReferrersPage, ApiError> {
        let found = self.catalog.referrers(repo, subject, artifact_type).await;
        let found = found.map_err(|error| explain(About::Repository, error))?;
        let mut all: Vec<Descriptor> = found
            .into_iter()
            .map(|referrer| Descriptor {
                media_type: referrer.info.media_type.to_string(),
                digest: referrer.info.digest.to_string(),
                size: referrer.info.size,
                artifact_type: referrer.artifact_type,
                annotations: referrer.annotations,
            })
            .collect();
        let known: HashSet<String> = all.iter().map(|item| item.digest.clone()).collect();
        let listed = self.listed_by_clients(repo, subject).await?;
        all.extend(listed.into_iter().filter(|item| {
            let wanted = artifact_type.is_none_or(|t| item.artifact_type.as_deref() == Some(t));
            wanted && !known.contains(&item.digest)
        }));
        all.sort_by(|one, other| one.digest.cmp(&other.digest));
        Ok(page(all, last))
    }

    /// Referrers that a client listed under the fallback tag, as far as they are here.
    async fn listed_by_clients(
        &self,
        repo: &RepoName,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, ApiError> {
        let Ok(tag) = fallback_tag(subject).parse() else { return Ok(Vec::new()) };
        let index = match self.catalog.manifest(repo, &Ref::Tag(tag)).await {
            Ok(index) => index,
            Err(error) if error.kind() == yadokari_catalog::Kind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(explain(About::Repository, error)),
        };
        let mut listed = crate::oci::referrers::read_index(&index.bytes);
        listed.truncate(FALLBACK_MAX);
        let mut here = Vec::new();
        for mut item in listed {
            let Ok(digest) = item.digest.parse() else { continue };
            if let Ok(info) = self.catalog.manifest_info(repo, &Ref::Digest(digest)).await {
                item.size = info.size;
                item.media_type = info.media_type.to_string();
                here.push(item);
            }
        }
        Ok(here)
    }
}

/// Parses and hashes, away from the event loop when there is much of it.
async fn read(
    catalog: &Catalog,
    algorithm: Algorithm,
    content_type: Option<String>,
    bytes: Bytes,
) -> Result<(Manifest, Digest), ApiError> {
    let small = bytes.len() <= INLINE_WORK_BYTES;
    let work = move || {
        let manifest = Manifest::parse(content_type.as_deref(), &bytes)?;
        Ok((manifest, Hasher::digest(algorithm, &bytes)))
    };
    if small {
        return work();
    }
    let done = catalog.compute(work).await;
    done.unwrap_or_else(|error| Err(ApiError::new(Code::Unknown).because(error)))
}

fn links(manifest: Manifest) -> ManifestLinks {
    let mut blobs = manifest.blobs.into_iter().map(|part| part.digest);
    let config = if manifest.kind == Kind::Image { blobs.next() } else { None };
    ManifestLinks {
        config,
        layers: blobs.collect(),
        children: manifest.children.into_iter().map(|part| part.digest).collect(),
        created_ms: None,
        artifact_type: manifest.artifact_type,
        annotations: if manifest.subject.is_some() {
            manifest.annotations
        } else {
            Default::default()
        },
        subject: manifest.subject,
    }
}

/// What fits into one answer, behind `last`.
fn page(all: Vec<Descriptor>, last: Option<&str>) -> ReferrersPage {
    let mut items = Vec::new();
    let mut bytes = 0;
    let behind = all.into_iter().filter(|item| last.is_none_or(|last| item.digest.as_str() > last));
    for item in behind {
        bytes += serde_json::to_vec(&item).map_or(0, |json| json.len() + 1);
        if !items.is_empty() && (bytes > REFERRERS_BYTES_MAX || items.len() == REFERRERS_MAX) {
            let next = items.last().map(|item: &Descriptor| item.digest.clone());
            return ReferrersPage { items, next };
        }
        items.push(item);
    }
    ReferrersPage { items, next: None }
}

fn not_a_reference(text: &str) -> ApiError {
    let shown: String = text.chars().take(80).collect();
    let message = format!("`{shown}` is neither a tag nor a digest");
    ApiError::with(Code::ManifestInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(digest: String, text: usize) -> Descriptor {
        Descriptor {
            media_type: "a/b".to_owned(),
            digest,
            size: 1,
            artifact_type: None,
            annotations: [("a".to_owned(), "x".repeat(text))].into(),
        }
    }

    #[test]
    fn a_long_list_comes_in_pages_that_miss_nothing() {
        let all: Vec<_> = (0..2500).map(|n| descriptor(format!("sha256:{n:04}"), 10)).collect();
        let mut last = None;
        let mut seen = Vec::new();
        loop {
            let part = page(all.clone(), last.as_deref());
            seen.extend(part.items);
            last = part.next;
            if last.is_none() {
                break;
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn large_annotations_make_small_pages() {
        let all: Vec<_> = (0..5).map(|n| descriptor(format!("sha256:{n}"), 1 << 20)).collect();
        assert_eq!(page(all, None).items.len(), 2);
    }
}
