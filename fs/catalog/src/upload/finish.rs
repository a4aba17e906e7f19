//! Ending a session: its parts become a blob, without copying a byte.
//!
//! 1. *Intent* in the owner's ledger: charged or refused, in exchange for what was reserved.
//! 2. The blob's *record* is read. If the blob is there it is revived and the parts are surplus.
//! 3. Otherwise the session's head is swapped to *closing*, and then the record, in the state
//!    that was read before, to one that names the parts.
//! 4. The blob is *linked* in the repository, the session cleared away.
//!
//! Whoever ends a session that expired while closing swaps its head to *ended* first and then
//! the record, to whatever it was. So either step 3 finds the session ended, or its swap of the
//! record loses and it looks at the session again, or the record names the parts and they stay.

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

/// Ends a session. `closing` is what its head becomes; `cell` what it is.
pub(super) async fn finish(
    catalog: Catalog,
    id: UploadId,
    cell: Cell<Session>,
    closing: Session,
    digest: Digest,
) -> Result<BlobInfo> {
    Catalog::detached(async move {
        let info = BlobInfo { digest, size: closing.parts.bytes() };
        let mut cell = cell;
        for _ in 0..RACES_MAX {
            let digests = vec![(digest, info.size)];
            let intended =
                catalog.intend(IntentKind::Link, &closing.repo, digests, Some(&id)).await?;
            let record = record(&catalog, &id, &mut cell, &closing, &digest);
            let (intended, recorded) = catalog.behind(intended, record).await?;
            if catalog.link(intended, info).await? {
                if let Err(error) = catalog.clear_closed(&id, &closing, recorded).await {
                    tracing::debug!(%error, %id, "an ended session stays until it expires");
                }
                return Ok(info);
            }
        }
        Err(CatalogError::busy("ending", session_path(&id)))
    })
    .await
}

/// Makes the blob live: true if by these parts, false if it was there already.
async fn record(
    catalog: &Catalog,
    id: &UploadId,
    cell: &mut Cell<Session>,
    closing: &Session,
    digest: &Digest,
) -> Result<bool> {
    let blobs = &catalog.inner.blobs;
    let (meta, writer) = (&*catalog.inner.store.meta, &catalog.inner.writer);
    let path = session_path(id);
    loop {
        let known = blobs.record(digest).await?;
        if let Some(there) = known.as_ref().filter(|known| !known.value.is_gone()) {
            if there.value.size != closing.parts.bytes() {
                return Err(CatalogError::corrupt(record_path(digest), "it has another length"));
            }
            let is_ours = there.value.parts.as_ref() == Some(&closing.parts);
            if blobs.revive(digest).await?.is_some() {
                return Ok(is_ours);
            }
            continue;
        }
        // By these very parts once, and they are gone or going.
        let was_ours = |known: &Cell<Record>| {
            known.value.parts.as_ref().is_some_and(|parts| parts.upload == *id)
        };
        if known.as_ref().is_some_and(was_ours) {
            return Err(session::lost(id, None));
        }
        // Behind the look at the record, whether this is the first time or not.
        match cell::swap(meta, writer, &path, Some(cell), closing.clone(), Bytes::new()).await? {
            Swapped::Done(now) => *cell = now,
            Swapped::Lost(now) => return Err(session::lost(id, now.as_ref())),
        }
        let size = closing.parts.bytes();
        let live = Record { life: Life::Live, size, parts: Some(closing.parts.clone()) };
        if let Swapped::Done(_) = blobs.swap(digest, known.as_ref(), live, Bytes::new()).await? {
            return Ok(true);
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
