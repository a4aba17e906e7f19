//! Writing to a session: hashing and storing parts side by side, swapping the head behind them.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use object_store::{ObjectStore, PutMode, PutPayload};
use tokio::task::JoinHandle;

use super::session::{self, Session, Stage, session_path};
use super::{Upload, finish};
use crate::blob::part_path;
use crate::catalog::Catalog;
use crate::cell::{self, Swapped};
use crate::digest::Digest;
use crate::error::{CatalogError, Result};
use crate::hash::{HashState, Hasher};
use crate::options::INLINE_BYTES_MAX;
use crate::types::BlobInfo;

/// Parts of one upload: their names fill half of what a head may have.
const PARTS_MAX: usize = 50_000;
/// Shorter pieces are hashed where they are; handing them over would take longer.
const HASH_HERE_BYTES: usize = 16 << 10;
/// With many parts the head is long, and is swapped for several at a time.
const PARTS_PER_EXTRA_PART: usize = 256;

/// Writes to a session. Dropping it loses what was not yet durable, nothing else.
#[derive(Debug)]
pub struct UploadWriter {
    pub(super) upload: Upload,
    /// Of all bytes up to `position`; away only while it is at work.
    hasher: Option<Hasher>,
    position: u64,
    /// Bytes behind the last part that was begun.
    tail: BytesMut,
    in_flight: VecDeque<InFlight>,
    in_flight_max: usize,
    /// The session with all parts that are durable, whether its head says so yet or not.
    session: Session,
    unsaved: usize,
    next_place: u32,
}

/// A part that is being stored.
#[derive(Debug)]
struct InFlight {
    place: u32,
    random: String,
    bytes: u64,
    /// Of all bytes up to its end.
    hash: HashState,
    stored: JoinHandle<Result<()>>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.stored.abort();
    }
}

impl UploadWriter {
    pub(super) async fn begin(upload: Upload, expected: u64, in_flight_max: usize) -> Result<Self> {
        let session = upload.cell.value.clone();
        let hasher = Hasher::resume(&session.hash).ok_or_else(|| {
            CatalogError::corrupt(session_path(&upload.id), "its hash state is damaged")
        })?;
        let next_place = session.parts.list.last().map_or(0, |(place, _, _)| place + 1);
        let mut writer = UploadWriter {
            hasher: Some(hasher),
            position: session.offset,
            tail: BytesMut::from(&upload.cell.bytes[..]),
            in_flight: VecDeque::new(),
            in_flight_max,
            unsaved: 0,
            next_place,
            session,
            upload,
        };
        if expected > INLINE_BYTES_MAX as u64 {
            let whole = writer.position.saturating_add(expected);
            writer.reserve(whole, whole).await?;
        }
        Ok(writer)
    }

    fn catalog(&self) -> &Catalog {
        &self.upload.catalog
    }

    /// Bytes taken so far, durable or not, with what was there before.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    async fn reserve(&mut self, needed: u64, wanted: u64) -> Result<()> {
        if needed <= self.session.reserved {
            return Ok(());
        }
        let (owner, id) = (self.session.repo.owner(), self.upload.id.clone());
        let held = self.catalog().reserve(&owner, &id, needed, wanted).await?;
        self.session.reserved = held;
        Ok(())
    }

    /// Takes the next part: hashes it and begins to store it, waiting for earlier parts only
    /// when more than `parts_in_flight` are under way. Parts may have any length; short ones
    /// (up to [`crate::INLINE_BYTES_MAX`]) are collected before they become an object.
    ///
    /// # Errors
    /// `OverQuota`; `WrongOffset` if another writer was quicker; what the store says. After an
    /// error the writer is of no more use; the session stands where it last was durable.
    pub async fn write(&mut self, part: Bytes) -> Result<()> {
        self.write_blocks(vec![part]).await
    }

    /// The same for a part that lies in several blocks.
    ///
    /// # Errors
    /// As `write`.
    pub async fn write_blocks(&mut self, part: Vec<Bytes>) -> Result<()> {
        let mut part: PutPayload = part.into_iter().filter(|block| !block.is_empty()).collect();
        let len = part.content_length();
        if len == 0 {
            return Ok(());
        }
        self.hash(part.clone()).await?;
        self.position += len as u64;
        if self.tail.len() + len <= INLINE_BYTES_MAX {
            part.iter().for_each(|block| self.tail.extend_from_slice(block));
            return Ok(());
        }
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            part = std::iter::once(&tail).chain(&part).cloned().collect();
        }
        self.store(part).await
    }

    async fn hash(&mut self, part: PutPayload) -> Result<()> {
        let lost = || CatalogError::Invalid("a writer is of no use after an error");
        let mut hasher = self.hasher.take().ok_or_else(lost)?;
        if part.content_length() <= HASH_HERE_BYTES {
            part.iter().for_each(|block| hasher.update(block));
            self.hasher = Some(hasher);
            return Ok(());
        }
        let run = self.upload.catalog.compute(move || {
            part.iter().for_each(|block| hasher.update(block));
            hasher
        });
        let hasher = run.await.map_err(|_| CatalogError::busy("hashing", &self.upload.id))?;
        self.hasher = Some(hasher);
        Ok(())
    }

    fn hash_state(&self) -> Result<HashState> {
        let lost = CatalogError::Invalid("a writer is of no use after an error");
        self.hasher.as_ref().map(Hasher::state).ok_or(lost)
    }

    /// Begins to store a part that ends at `position`.
    async fn store(&mut self, payload: PutPayload) -> Result<()> {
        let step = self.catalog().inner.options.reserve_step_bytes;
        self.reserve(self.position, self.position.saturating_add(step)).await?;
        while self.in_flight.len() >= self.in_flight_max {
            self.land_one().await?;
        }
        if self.session.parts.list.len() + self.in_flight.len() >= PARTS_MAX {
            let limit = PARTS_MAX as u64;
            return Err(CatalogError::Limit { what: "parts of an upload", limit });
        }
        let inner = std::sync::Arc::clone(&self.catalog().inner);
        let random = inner.writer.id()[..8].to_owned();
        let place = self.next_place;
        self.next_place += 1;
        let path = part_path(&self.upload.id, place, &random);
        let bytes = payload.content_length() as u64;
        let (data, writer) = (inner.store.data.clone(), inner.writer.clone());
        let put = async move {
            let put = || async {
                let mode = PutMode::Overwrite.into();
                let put = data.put_opts(&path, payload.clone(), mode);
                match tokio::time::timeout(writer.request_time, put).await {
                    Ok(put) => put.map_err(|e| CatalogError::store("writing", &path, e)),
                    Err(_elapsed) => Err(CatalogError::busy("writing", &path)),
                }
            };
            writer.again(put).await.map(drop)
        };
        let (hash, stored) = (self.hash_state()?, tokio::spawn(put));
        self.in_flight.push_back(InFlight { place, random, bytes, hash, stored });
        self.write_down().await
    }

    /// Writes down which parts are there, while the next one is on its way.
    async fn write_down(&mut self) -> Result<()> {
        let together = 1 + self.session.parts.list.len() / PARTS_PER_EXTRA_PART;
        if self.unsaved >= together {
            let session = self.session.clone();
            self.save(session, Bytes::new()).await?;
        }
        Ok(())
    }

    /// Waits for the oldest part.
    async fn land_one(&mut self) -> Result<()> {
        let Some(mut oldest) = self.in_flight.pop_front() else {
            return Ok(());
        };
        let stored = (&mut oldest.stored).await;
        stored.map_err(|_| CatalogError::busy("writing a part of", &self.upload.id))??;
        let random = std::mem::take(&mut oldest.random);
        self.session.parts.list.push((oldest.place, random, oldest.bytes));
        self.session.offset = self.session.parts.bytes();
        self.session.hash = oldest.hash.clone();
        self.unsaved += 1;
        Ok(())
    }

    /// Swaps the head. What it says is of no worth after a loss of power, when the client begins
    /// anew or goes on from an older state; the head that is closing is another matter.
    async fn save(&mut self, mut session: Session, tail: Bytes) -> Result<()> {
        let inner = &self.upload.catalog.inner;
        session.touched_ms = self.upload.catalog.now_ms();
        let (meta, writer) = (&*inner.store.meta, &inner.writer);
        let (path, known) = (session_path(&self.upload.id), Some(&self.upload.cell));
        match cell::swap_lazily(meta, writer, &path, known, session, tail).await? {
            Swapped::Done(cell) => {
                self.upload.cell = cell;
                self.unsaved = 0;
                Ok(())
            }
            Swapped::Lost(now) => Err(session::lost(&self.upload.id, now.as_ref())),
        }
    }

    /// Makes everything durable, for others to go on.
    ///
    /// # Errors
    /// As `write`.
    pub async fn end(mut self) -> Result<Upload> {
        while !self.in_flight.is_empty() {
            self.land_one().await?;
        }
        if self.position != self.upload.cell.value.offset || self.unsaved > 0 {
            let mut session = self.session.clone();
            session.offset = self.position;
            session.hash = self.hash_state()?;
            let tail = self.tail.split().freeze();
            self.save(session, tail).await?;
        }
        Ok(self.upload)
    }

    /// `end` and [`Upload::finish`] in one, with less to write.
    ///
    /// # Errors
    /// As both.
    pub async fn finish(mut self, digest: &Digest) -> Result<BlobInfo> {
        while !self.in_flight.is_empty() {
            self.land_one().await?;
        }
        let is_whole = self.session.parts.list.is_empty();
        self.verify(digest).await?;
        if is_whole {
            return self.finish_small(digest).await;
        }
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.store(PutPayload::from(tail)).await?;
            self.land_one().await?;
        }
        let mut session = self.session.clone();
        session.touched_ms = self.catalog().now_ms();
        session.stage = Stage::Closing { digest: *digest };
        session.hash = self.hash_state()?;
        let Upload { catalog, id, cell } = self.upload;
        finish::finish(catalog, id, cell, session, *digest).await
    }

    /// Whether all bytes have the digest. One of another algorithm takes reading them again.
    async fn verify(&mut self, digest: &Digest) -> Result<()> {
        let lost = CatalogError::Invalid("a writer is of no use after an error");
        let hasher = self.hasher.clone().ok_or(lost)?;
        let found = if hasher.algorithm() == digest.algorithm() {
            hasher.finish()
        } else {
            let (parts, tail) = (&self.session.parts, self.tail.clone().freeze());
            finish::hash_again(self.catalog(), parts, tail, digest.algorithm()).await?
        };
        match found == *digest {
            true => Ok(()),
            false => {
                Err(CatalogError::DigestMismatch { expected: *digest, found: Box::new(found) })
            }
        }
    }

    /// All bytes are in the tail: they go into the record, and no part was ever written.
    async fn finish_small(self, digest: &Digest) -> Result<BlobInfo> {
        let UploadWriter { upload, tail, session, .. } = self;
        let Upload { catalog, id, .. } = upload;
        let (digest, bytes) = (*digest, tail.freeze());
        Catalog::detached(async move {
            let held = (session.reserved > 0).then(|| id.clone());
            let info = catalog.put_verified(&session.repo, digest, bytes, held).await?;
            let meta = &*catalog.inner.store.meta;
            if let Err(error) = catalog.delete(meta, &session_path(&id)).await {
                tracing::debug!(%error, %id, "an ended session stays until it expires");
            }
            catalog.inner.sessions.end(&session.repo.owner(), &id);
            Ok(info)
        })
        .await
    }
}
