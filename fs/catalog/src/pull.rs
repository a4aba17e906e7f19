//! Reading: manifests, tags to digests, blobs.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;

use crate::catalog::Catalog;
use crate::digest::Digest;
use crate::error::Result;
use crate::names::{Reference, RepoName};
use crate::types::{BlobInfo, Caller, Manifest, ManifestInfo, ReadOptions, Referrer};

impl Catalog {
    /// A manifest without its bytes. From memory when it can.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn manifest_info(
        &self,
        _repo: &RepoName,
        _reference: &Reference,
    ) -> Result<ManifestInfo> {
        todo!()
    }

    /// A manifest. From memory when it can; its bytes are shared, not copied.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn manifest(&self, _repo: &RepoName, _reference: &Reference) -> Result<Manifest> {
        todo!()
    }

    /// Manifests of a repository whose subject is `subject`, by digest; those with that
    /// artifact type alone if one is given. Empty when there are none or no such repository.
    ///
    /// # Errors
    /// What the store says.
    pub async fn referrers(
        &self,
        _repo: &RepoName,
        _subject: &Digest,
        _artifact_type: Option<&str>,
    ) -> Result<Vec<Referrer>> {
        todo!()
    }

    /// Whether a repository has a blob (or a manifest by that digest), and its length. Whoever
    /// hears that it is there can rely on it for as long as collection's grace.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn blob(&self, _repo: &RepoName, _digest: &Digest) -> Result<BlobInfo> {
        todo!()
    }

    /// Reads a blob of a repository, or a range of it (end exclusive, within its length).
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a range beyond the end.
    pub async fn read_blob(
        &self,
        _repo: &RepoName,
        _digest: &Digest,
        _range: Option<Range<u64>>,
        _options: ReadOptions,
    ) -> Result<BlobReader> {
        todo!()
    }

    /// A repository from which this caller may mount a blob: one that it may read.
    ///
    /// # Errors
    /// What the store says.
    pub async fn find_blob(&self, _caller: &Caller, _digest: &Digest) -> Result<Option<RepoName>> {
        todo!()
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
