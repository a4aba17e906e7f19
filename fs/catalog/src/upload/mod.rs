//! Upload sessions: immutable parts and a head that is swapped after them.
//!
//! The head says where the upload stands: its parts, the bytes behind them that are too few for a
//! part, and the state of the hash. Any instance goes on from there; of two that do at the same
//! time, the one that swaps first wins and the other hears `WrongOffset`. Ending a session hands
//! its parts over to a blob record; `finish` has the order that makes that safe against
//! collection, which ends sessions too.

mod finish;
mod session;
mod writer;

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::catalog::{Catalog, millis};
use crate::cell::{self, Cell, Swapped};
use crate::digest::{Algorithm, Digest};
use crate::error::{CatalogError, Result, What};
use crate::hash::Hasher;
use crate::ledger::IntentKind;
use crate::names::{OwnerName, RepoName, UploadId};
use crate::options::INLINE_BYTES_MAX;
use crate::types::{BlobInfo, NewUpload};

pub(crate) use session::{SESSIONS, Session, Stage, session_at, session_path};
pub use writer::UploadWriter;

/// Longest note of who uploads.
const WHO_BYTES_MAX: usize = 256;
/// Intents that others may finish under an upload.
const RACES_MAX: u32 = 8;

/// Sessions that this instance began, by owner and when, to bound them.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    begun: Mutex<HashMap<OwnerName, HashMap<UploadId, u64>>>,
}

impl Sessions {
    fn begin(
        &self,
        owner: &OwnerName,
        id: &UploadId,
        now_ms: u64,
        expiry: u64,
        max: usize,
    ) -> bool {
        let mut begun = self.begun.lock();
        let open = begun.entry(owner.clone()).or_default();
        if open.len() >= max {
            open.retain(|_, since| since.saturating_add(expiry) > now_ms);
        }
        let has_room = open.len() < max;
        if has_room {
            open.insert(id.clone(), now_ms);
        }
        has_room
    }

    pub(crate) fn end(&self, owner: &OwnerName, id: &UploadId) {
        let mut begun = self.begun.lock();
        if let Some(open) = begun.get_mut(owner) {
            open.remove(id);
            if open.is_empty() {
                begun.remove(owner);
            }
        }
    }
}

impl Catalog {
    /// Begins an upload session.
    ///
    /// # Errors
    /// `OverQuota` if the announced size cannot fit; `Limit` for too many open sessions.
    pub async fn begin_upload(&self, repo: &RepoName, upload: NewUpload) -> Result<Upload> {
        let options = &self.inner.options;
        if upload.who.len() > WHO_BYTES_MAX {
            return Err(CatalogError::Limit {
                what: "bytes of a name",
                limit: WHO_BYTES_MAX as u64,
            });
        }
        let id = UploadId::from_bytes(options.seams.random.bytes16());
        let (owner, now_ms) = (repo.owner(), self.now_ms());
        let sessions = &self.inner.sessions;
        let expiry = millis(options.upload_expiry);
        if !sessions.begin(&owner, &id, now_ms, expiry, options.uploads_max) {
            let limit = options.uploads_max as u64;
            return Err(CatalogError::Limit { what: "open upload sessions", limit });
        }
        let begun = self.begin_session(repo, &id, upload, now_ms).await;
        if begun.is_err() {
            sessions.end(&owner, &id);
        }
        begun
    }

    async fn begin_session(
        &self,
        repo: &RepoName,
        id: &UploadId,
        upload: NewUpload,
        now_ms: u64,
    ) -> Result<Upload> {
        let algorithm = upload.algorithm.unwrap_or(Algorithm::Sha256);
        let mut session = Session::new(id, repo, upload.who, now_ms, algorithm);
        if let Some(size) = upload.size.filter(|size| *size > 0) {
            session.reserved = self.reserve(&repo.owner(), id, size, size).await?;
        }
        let (meta, writer) = (&*self.inner.store.meta, &self.inner.writer);
        let path = session_path(id);
        match cell::swap_lazily(meta, writer, &path, None, session, Bytes::new()).await? {
            Swapped::Done(cell) => Ok(Upload { catalog: self.clone(), id: id.clone(), cell }),
            Swapped::Lost(_) => Err(CatalogError::busy("beginning", path)),
        }
    }

    /// A session as it is now, begun here or by another instance.
    ///
    /// # Errors
    /// `NotFound` if it never was, ended, or is another repository's.
    pub async fn upload(&self, repo: &RepoName, id: &UploadId) -> Result<Upload> {
        let (meta, writer) = (&*self.inner.store.meta, &self.inner.writer);
        let cell: Option<Cell<Session>> = cell::read_again(meta, writer, &session_path(id)).await?;
        let is_open = |cell: &Cell<Session>| {
            let idle = self.now_ms().saturating_sub(cell.value.touched_ms);
            cell.value.repo == *repo
                && !matches!(cell.value.stage, Stage::Ended { .. })
                && idle < millis(self.inner.options.upload_expiry)
        };
        match cell {
            Some(cell) if is_open(&cell) => {
                Ok(Upload { catalog: self.clone(), id: id.clone(), cell })
            }
            _ => Err(CatalogError::not_found(What::Upload, id)),
        }
    }

    /// Stores a small blob (at most [`crate::INLINE_BYTES_MAX`]) without a session.
    ///
    /// # Errors
    /// `DigestMismatch`, `OverQuota`, `Limit`.
    pub async fn put_blob(
        &self,
        repo: &RepoName,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<BlobInfo> {
        if bytes.len() > INLINE_BYTES_MAX {
            let limit = INLINE_BYTES_MAX as u64;
            return Err(CatalogError::Limit { what: "bytes of a small blob", limit });
        }
        let found = Hasher::digest(digest.algorithm(), &bytes);
        if found != *digest {
            return Err(CatalogError::DigestMismatch { expected: *digest, found: Box::new(found) });
        }
        self.put_verified(repo, *digest, bytes, None).await
    }

    /// The same for bytes whose digest was verified, with what an upload reserved.
    async fn put_verified(
        &self,
        repo: &RepoName,
        digest: Digest,
        bytes: Bytes,
        upload: Option<UploadId>,
    ) -> Result<BlobInfo> {
        let (this, repo) = (self.clone(), repo.clone());
        Catalog::detached(async move {
            let info = BlobInfo { digest, size: bytes.len() as u64 };
            for _ in 0..RACES_MAX {
                let digests = vec![(digest, info.size)];
                let intended =
                    this.intend(IntentKind::Link, &repo, digests, upload.as_ref()).await?;
                let ensure = this.inner.blobs.ensure_inline(&digest, &bytes);
                let (intended, ()) = this.behind(intended, ensure).await?;
                if this.link(intended, info).await? {
                    return Ok(info);
                }
            }
            Err(CatalogError::busy("pushing a blob to", &repo))
        })
        .await
    }
}

/// An upload session as it was when it was read. Others may have moved on since: whoever swaps
/// it next on an older state gets `WrongOffset`.
#[derive(Debug)]
pub struct Upload {
    pub(crate) catalog: Catalog,
    id: UploadId,
    /// Its head, with the bytes that are too few for a part.
    cell: Cell<Session>,
}

impl Upload {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &UploadId {
        &self.id
    }

    /// Where it goes.
    #[must_use]
    pub fn repo(&self) -> &RepoName {
        &self.cell.value.repo
    }

    /// Who began it.
    #[must_use]
    pub fn who(&self) -> &str {
        &self.cell.value.who
    }

    /// Bytes that are durable.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.cell.value.offset
    }

    /// Goes on writing at `offset`. `expected` is how many bytes will come, if that is known:
    /// they are reserved at once. Of `parts_in_flight` parts (at least 1) one more than that may
    /// be in memory.
    ///
    /// # Errors
    /// `WrongOffset` if that is not where it stands; `OverQuota`.
    pub async fn write_at(
        self,
        offset: u64,
        expected: Option<u64>,
        parts_in_flight: usize,
    ) -> Result<UploadWriter> {
        if matches!(self.cell.value.stage, Stage::Closing { .. }) {
            return Err(CatalogError::not_found(What::Upload, &self.id));
        }
        if offset != self.offset() {
            return Err(self.wrong_offset(self.offset()));
        }
        UploadWriter::begin(self, expected.unwrap_or(0), parts_in_flight.max(1)).await
    }

    /// Ends it: from here on the repository has the blob. A digest of another algorithm than
    /// was announced makes it read everything once more.
    ///
    /// # Errors
    /// `DigestMismatch` and `OverQuota` leave the session as it was; `WrongOffset` if somebody
    /// wrote to it meanwhile.
    pub async fn finish(self, digest: &Digest) -> Result<BlobInfo> {
        if let Stage::Closing { digest: closing } = &self.cell.value.stage
            && closing != digest
        {
            return Err(CatalogError::not_found(What::Upload, &self.id));
        }
        UploadWriter::begin(self, 0, 1).await?.finish(digest).await
    }

    /// Ends it without a blob, and gives back what it reserved.
    ///
    /// # Errors
    /// What the store says; then it expires.
    pub async fn cancel(self) -> Result<()> {
        let Upload { catalog, id, cell } = self;
        if matches!(cell.value.stage, Stage::Closing { .. }) {
            return Err(CatalogError::not_found(What::Upload, &id));
        }
        Catalog::detached(async move {
            let stage = Stage::Ended { closing: None };
            let ended = Session { stage, ..cell.value.clone() };
            let (meta, writer) = (&*catalog.inner.store.meta, &catalog.inner.writer);
            let path = session_path(&id);
            match cell::swap(meta, writer, &path, Some(&cell), ended, Bytes::new()).await? {
                Swapped::Done(cell) => catalog.clear_session(&id, &cell.value, None).await,
                Swapped::Lost(now) => Err(session::lost(&id, now.as_ref())),
            }
        })
        .await
    }

    fn wrong_offset(&self, offset: u64) -> CatalogError {
        CatalogError::WrongOffset { session: self.id.to_string(), offset }
    }
}
