//! Blob records and their transitions.

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use yadokari_store::Store;

use super::parts::Parts;
use crate::cell::{self, Cell, Next, Swapped};
use crate::digest::{Algorithm, Digest};
use crate::error::Result;
use crate::log::Writer;

/// All records.
pub(crate) const RECORDS: &str = "blobs";

/// Whether a blob is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Life {
    Live,
    /// Since then; nothing referred to it.
    Condemned {
        since_ms: u64,
    },
    /// Its parts, if it names any, are being removed. Their upload stays named: it cannot be
    /// ended a second time.
    Gone,
}

/// What is known of a blob. The bytes of a small one follow the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) life: Life,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parts: Option<Parts>,
}

impl Record {
    pub(crate) fn is_gone(&self) -> bool {
        self.life == Life::Gone
    }
}

pub(crate) fn record_path(digest: &Digest) -> Path {
    let hex = digest.hex();
    Path::from_iter([RECORDS, digest.algorithm().name(), &hex[..2], &hex])
}

/// The digest whose record lies at a path.
pub(crate) fn record_digest(path: &Path) -> Option<Digest> {
    let mut parts = path.parts();
    let (root, algorithm) = (parts.next()?, parts.next()?);
    let hex = parts.nth(1)?;
    let algorithm = Algorithm::from_name(algorithm.as_ref())?;
    let digest = format!("{}:{}", algorithm.name(), hex.as_ref()).parse().ok()?;
    (root.as_ref() == RECORDS && record_path(&digest) == *path).then_some(digest)
}

/// The blobs of a store.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    pub(crate) data: Arc<dyn ObjectStore>,
    pub(crate) meta: Arc<dyn ObjectStore>,
    pub(crate) writer: Writer,
}

impl Blobs {
    pub(crate) fn new(store: &Store, writer: Writer) -> Self {
        Blobs { data: Arc::clone(&store.data), meta: Arc::clone(&store.meta), writer }
    }

    pub(crate) async fn record(&self, digest: &Digest) -> Result<Option<Cell<Record>>> {
        cell::read_again(&*self.meta, &self.writer, &record_path(digest)).await
    }

    pub(crate) async fn swap(
        &self,
        digest: &Digest,
        known: Option<&Cell<Record>>,
        record: Record,
        bytes: Bytes,
    ) -> Result<Swapped<Record>> {
        let path = record_path(digest);
        cell::swap(&*self.meta, &self.writer, &path, known, record, bytes).await
    }

    /// Makes sure that a blob stays: its length, or None if it is gone or never was. Behind an
    /// intent.
    pub(crate) async fn revive(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.revived(digest).await?.map(|cell| cell.value.size))
    }

    /// The same, and its record then.
    pub(crate) async fn revived(&self, digest: &Digest) -> Result<Option<Cell<Record>>> {
        let path = record_path(digest);
        let decide = |known: Option<&Cell<Record>>| {
            Ok(match known {
                None => (Next::Keep, false),
                Some(cell) => match cell.value.life {
                    Life::Gone => (Next::Keep, false),
                    Life::Live => (Next::Keep, true),
                    Life::Condemned { .. } => {
                        let live = Record { life: Life::Live, ..cell.value.clone() };
                        (Next::Swap(live, cell.bytes.clone()), true)
                    }
                },
            })
        };
        let (is_live, now) = cell::update(&*self.meta, &self.writer, &path, decide).await?;
        Ok(now.filter(|_| is_live))
    }

    /// Makes sure that a small blob is there. Behind an intent, its digest verified.
    pub(crate) async fn ensure_inline(&self, digest: &Digest, bytes: &Bytes) -> Result<()> {
        let path = record_path(digest);
        let live = Record { life: Life::Live, size: bytes.len() as u64, parts: None };
        let decide = |known: Option<&Cell<Record>>| {
            let next = match known {
                Some(cell) if cell.value.life == Life::Live => Next::Keep,
                Some(cell) if !cell.value.is_gone() => {
                    let revived = Record { life: Life::Live, ..cell.value.clone() };
                    Next::Swap(revived, cell.bytes.clone())
                }
                // Parts of one that is gone are found by the sweep.
                _ => Next::Swap(live.clone(), bytes.clone()),
            };
            Ok((next, ()))
        };
        cell::update(&*self.meta, &self.writer, &path, decide).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_by_its_path() {
        let digest = crate::hash::Hasher::digest(Algorithm::Sha512, b"x");
        assert_eq!(record_digest(&record_path(&digest)), Some(digest));
        for path in ["blobs", "blobs/sha256/00/zz", "blobs/sha256/00/x/y", "parts/a/b/c"] {
            assert_eq!(record_digest(&Path::from(path)), None);
        }
    }
}
