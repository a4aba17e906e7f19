//! Upload sessions: immutable parts and a head that is swapped after each.

use bytes::Bytes;

use crate::catalog::Catalog;
use crate::digest::Digest;
use crate::error::Result;
use crate::names::{RepoName, UploadId};
use crate::types::{BlobInfo, NewUpload};

impl Catalog {
    /// Begins an upload session.
    ///
    /// # Errors
    /// `OverQuota` if the announced size cannot fit; `Limit` for too many open sessions.
    pub async fn begin_upload(&self, _repo: &RepoName, _upload: NewUpload) -> Result<Upload> {
        todo!()
    }

    /// A session as it is now, begun here or by another instance.
    ///
    /// # Errors
    /// `NotFound` if it never was, ended, or is another repository's.
    pub async fn upload(&self, _repo: &RepoName, _id: &UploadId) -> Result<Upload> {
        todo!()
    }

    /// Stores a small blob (at most [`crate::INLINE_BYTES_MAX`]) without a session.
    ///
    /// # Errors
    /// `DigestMismatch`, `OverQuota`, `Limit`.
    pub async fn put_blob(
        &self,
        _repo: &RepoName,
        _digest: &Digest,
        _bytes: Bytes,
    ) -> Result<BlobInfo> {
        todo!()
    }
}

/// An upload session as it was when it was read. Others may have moved on since: whoever swaps
/// it next on an older state gets `WrongOffset`.
#[derive(Debug)]
pub struct Upload {
    pub(crate) catalog: Catalog,
}

impl Upload {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &UploadId {
        todo!()
    }

    /// Where it goes.
    #[must_use]
    pub fn repo(&self) -> &RepoName {
        todo!()
    }

    /// Who began it.
    #[must_use]
    pub fn who(&self) -> &str {
        todo!()
    }

    /// Bytes that are durable.
    #[must_use]
    pub fn offset(&self) -> u64 {
        todo!()
    }

    /// Goes on writing at `offset`. `expected` is how many bytes will come, if that is known:
    /// they are reserved at once. Of `parts_in_flight` parts (at least 1) one more than that may
    /// be in memory.
    ///
    /// # Errors
    /// `WrongOffset` if that is not where it stands; `OverQuota`.
    pub async fn write_at(
        self,
        _offset: u64,
        _expected: Option<u64>,
        _parts_in_flight: usize,
    ) -> Result<UploadWriter> {
        todo!()
    }

    /// Ends it: from here on the repository has the blob. A digest of another algorithm than
    /// was announced makes it read everything once more.
    ///
    /// # Errors
    /// `DigestMismatch` and `OverQuota` leave the session as it was; `WrongOffset` if somebody
    /// wrote to it meanwhile.
    pub async fn finish(self, _digest: &Digest) -> Result<BlobInfo> {
        todo!()
    }

    /// Ends it without a blob, and gives back what it reserved.
    ///
    /// # Errors
    /// What the store says; then it expires.
    pub async fn cancel(self) -> Result<()> {
        todo!()
    }
}

/// Writes to a session. Dropping it loses what was not yet durable, nothing else.
#[derive(Debug)]
pub struct UploadWriter {
    pub(crate) upload: Upload,
}

impl UploadWriter {
    /// Bytes taken so far, durable or not, with what was there before.
    #[must_use]
    pub fn position(&self) -> u64 {
        todo!()
    }

    /// Takes the next part: hashes it and begins to store it, waiting for earlier parts only
    /// when more than `parts_in_flight` are under way. Parts may have any length; short ones
    /// (up to [`crate::INLINE_BYTES_MAX`]) are collected before they become an object.
    ///
    /// # Errors
    /// `OverQuota`; `WrongOffset` if another writer was quicker; what the store says. After an
    /// error the writer is of no more use; the session stands where it last was durable.
    pub async fn write(&mut self, _part: Bytes) -> Result<()> {
        todo!()
    }

    /// Makes everything durable, for others to go on.
    ///
    /// # Errors
    /// As `write`.
    pub async fn end(self) -> Result<Upload> {
        todo!()
    }

    /// `end` and [`Upload::finish`] in one, with less to write.
    ///
    /// # Errors
    /// As both.
    pub async fn finish(self, _digest: &Digest) -> Result<BlobInfo> {
        todo!()
    }
}
