//! Ending a session: its parts become a blob, without copying a byte.
//!
//! 1. The blob's *record* is read. Unless the blob is there, the session's head is swapped to
//!    *closing* behind that look. Beside it:
//! 2. *Intent* in the owner's ledger: charged or refused, in exchange for what was reserved.
//! 3. The record, in the state that was read, is swapped to one that names the parts; or the blob
//!    that is there is revived, and the parts are surplus.
//! 4. The blob is *linked* in the repository, the session cleared away.
//!
//! Whoever ends a session that expired while closing swaps its head to *ended* first and then
//! the record, to whatever it was. So either step 1 finds the session ended, or the swap of the
//! record loses and the session is looked at again, or the record names the parts and they stay.

use bytes::Bytes;
use futures::StreamExt;
use object_store::ObjectStoreExt;

use super::RACES_MAX;
use super::session::{self, Session, Stage, session_path};
use crate::blob::{Life, Parts, Record, record_path};
use crate::catalog::Catalog;
use crate::cell::{self, Cell, Swapped};
use crate::digest::{Algorithm, Digest};
use crate::error::{CatalogError, Result};
use crate::hash::Hasher;
use crate::ledger::IntentKind;
use crate::names::UploadId;
use crate::types::BlobInfo;

/// Pieces that are read for a second hash.
const PIECE_BYTES: u64 = 1 << 20;

/// What the first look at a blob's record came to.
enum Looked {
    /// The blob is there.
    There,
    /// It is not; the session is closing, and the record was in this state.
    Closing(Option<Cell<Record>>),
}

/// A session on its way to its end.
struct Closer {
    catalog: Catalog,
    id: UploadId,
    /// Its head now.
    cell: Cell<Session>,
    /// What its head becomes.
    closing: Session,
    digest: Digest,
}

/// Ends a session. `closing` is what its head becomes; `cell` what it is.
pub(super) async fn finish(
    catalog: Catalog,
    id: UploadId,
    cell: Cell<Session>,
    closing: Session,
    digest: Digest,
) -> Result<BlobInfo> {
    let mut closer = Closer { catalog, id, cell, closing, digest };
    Catalog::detached(async move {
        for _ in 0..RACES_MAX {
            if let Some(info) = closer.close().await? {
                return Ok(info);
            }
        }
        Err(CatalogError::busy("ending", session_path(&closer.id)))
    })
    .await
}

impl Closer {
    /// One try; `None` when somebody else finished the intent.
    async fn close(&mut self) -> Result<Option<BlobInfo>> {
        let (catalog, id, digest) = (self.catalog.clone(), self.id.clone(), self.digest);
        let info = BlobInfo { digest, size: self.closing.parts.bytes() };
        let before = self.cell.clone();
        let repo = self.closing.repo.clone();
        let intend = catalog.intend(IntentKind::Link, &repo, vec![(digest, info.size)], Some(&id));
        let (intended, looked) = futures::join!(intend, self.look());
        let intended = match intended {
            Ok(intended) => intended,
            Err(error) => {
                if matches!(looked, Ok(Looked::Closing(_))) {
                    self.reopen(before).await;
                }
                return Err(error);
            }
        };
        let recorded = async { self.record(looked?).await };
        let (intended, recorded) = catalog.behind(intended, recorded).await?;
        if !catalog.link(intended, info).await? {
            return Ok(None);
        }
        if let Err(error) = catalog.clear_closed(&id, &self.closing, recorded).await {
            tracing::debug!(%error, %id, "an ended session stays until it expires");
        }
        Ok(Some(info))
    }

    /// Looks whether the blob is there, and swaps the head to closing if it is not.
    async fn look(&mut self) -> Result<Looked> {
        let known = self.catalog.inner.blobs.record(&self.digest).await?;
        if known.as_ref().is_some_and(|known| !known.value.is_gone()) {
            return Ok(Looked::There);
        }
        // By these very parts once, and they are gone or going.
        let was_ours = |known: &Cell<Record>| {
            known.value.parts.as_ref().is_some_and(|parts| parts.upload == self.id)
        };
        if known.as_ref().is_some_and(was_ours) {
            return Err(session::lost(&self.id, None));
        }
        // Behind the look at the record, whether this is the first time or not.
        let (meta, writer) = (&*self.catalog.inner.store.meta, &self.catalog.inner.writer);
        let (path, closing) = (session_path(&self.id), self.closing.clone());
        match cell::swap(meta, writer, &path, Some(&self.cell), closing, Bytes::new()).await? {
            Swapped::Done(now) => self.cell = now,
            Swapped::Lost(now) => return Err(session::lost(&self.id, now.as_ref())),
        }
        Ok(Looked::Closing(known))
    }

    /// Makes the blob live, behind the intent: true if by these parts, false if it was there.
    async fn record(&mut self, looked: Looked) -> Result<bool> {
        let mut looked = looked;
        loop {
            let (blobs, parts) = (&self.catalog.inner.blobs, &self.closing.parts);
            match looked {
                Looked::There => {
                    if let Some(there) = blobs.revived(&self.digest).await? {
                        if there.value.size != parts.bytes() {
                            let path = record_path(&self.digest);
                            return Err(CatalogError::corrupt(path, "it has another length"));
                        }
                        return Ok(there.value.parts.as_ref() == Some(parts));
                    }
                }
                Looked::Closing(known) => {
                    let (size, parts) = (parts.bytes(), Some(parts.clone()));
                    let live = Record { life: Life::Live, size, parts };
                    let swap = blobs.swap(&self.digest, known.as_ref(), live, Bytes::new());
                    if let Swapped::Done(_) = swap.await? {
                        return Ok(true);
                    }
                }
            }
            looked = self.look().await?;
        }
    }

    /// The intent was refused: the session is as it was, if nobody touched it meanwhile.
    async fn reopen(&mut self, before: Cell<Session>) {
        if before.value.stage != Stage::Open {
            return;
        }
        let (meta, writer) = (&*self.catalog.inner.store.meta, &self.catalog.inner.writer);
        let (path, id) = (session_path(&self.id), &self.id);
        let known = Some(&self.cell);
        if let Err(error) = cell::swap(meta, writer, &path, known, before.value, before.bytes).await
        {
            tracing::debug!(%error, %id, "a session whose end was refused stays closing");
        }
    }
}

impl Catalog {
    /// Clears away a session whose blob is linked, by whoever ended it. `has_parts` says that the
    /// blob's record has its parts.
    async fn clear_closed(&self, id: &UploadId, session: &Session, has_parts: bool) -> Result<()> {
        let meta = &*self.inner.store.meta;
        if !has_parts {
            // The parts are nobody's; they are removed before the head that names them.
            for path in session.parts.paths() {
                self.delete(&*self.inner.store.data, &path).await?;
            }
        }
        self.delete(meta, &session_path(id)).await?;
        self.inner.sessions.end(&session.repo.owner(), id);
        Ok(())
    }

    /// Ends a session that expired, or that somebody began to end. False if it is gone or moved
    /// on.
    pub(crate) async fn end_session(&self, id: &UploadId, cell: Cell<Session>) -> Result<bool> {
        let (meta, writer) = (&*self.inner.store.meta, &self.inner.writer);
        let closing = match &cell.value.stage {
            Stage::Closing { digest } => Some(*digest),
            Stage::Ended { closing } => *closing,
            Stage::Open => None,
        };
        let ended = Session { stage: Stage::Ended { closing }, ..cell.value.clone() };
        let path = session_path(id);
        let swapped = cell::swap(meta, writer, &path, Some(&cell), ended, cell.bytes.clone());
        let Swapped::Done(cell) = swapped.await? else {
            return Ok(false);
        };
        let kept = match closing {
            Some(digest) => self.forestall(id, &digest).await?,
            None => None,
        };
        self.clear_session(id, &cell.value, kept.as_ref()).await?;
        Ok(true)
    }

    /// Makes sure that nobody can swap a record any more who read it before: the parts of this
    /// session that it names then, if any, are its for good.
    async fn forestall(&self, id: &UploadId, digest: &Digest) -> Result<Option<Parts>> {
        let decide = |known: Option<&Cell<Record>>| {
            let Some(cell) = known else {
                let gone = Record { life: Life::Gone, size: 0, parts: None };
                return Ok((cell::Next::Swap(gone, Bytes::new()), None));
            };
            match cell.value.parts.as_ref().filter(|parts| parts.upload == *id) {
                Some(parts) => Ok((cell::Next::Keep, Some(parts.clone()))),
                None => Ok((cell::Next::Swap(cell.value.clone(), cell.bytes.clone()), None)),
            }
        };
        let (meta, writer) = (&*self.inner.store.meta, &self.inner.writer);
        Ok(cell::update(meta, writer, &record_path(digest), decide).await?.0)
    }
}

/// Hashes what a session has with another algorithm.
pub(super) async fn hash_again(
    catalog: &Catalog,
    parts: &Parts,
    tail: Bytes,
    algorithm: Algorithm,
) -> Result<Digest> {
    let data = &catalog.inner.store.data;
    let mut hasher = Hasher::new(algorithm);
    let paths: Vec<_> = parts.paths().zip(parts.list.iter().map(|part| part.2)).collect();
    for (path, bytes) in paths {
        let starts = (0..bytes).step_by(PIECE_BYTES as usize);
        let ranges: Vec<_> = starts.map(|at| at..bytes.min(at + PIECE_BYTES)).collect();
        let reads = ranges.into_iter().map(|range| {
            let path = path.clone();
            async move {
                let read = data.get_range(&path, range).await;
                read.map_err(|e| CatalogError::store("reading", &path, e))
            }
        });
        let mut reads = futures::stream::iter(reads).buffered(2);
        while let Some(piece) = reads.next().await {
            let piece = piece?;
            let run = catalog.compute(move || {
                hasher.update(&piece);
                hasher
            });
            hasher = run.await.map_err(|_| CatalogError::busy("hashing", &path))?;
        }
    }
    hasher.update(&tail);
    Ok(hasher.finish())
}
