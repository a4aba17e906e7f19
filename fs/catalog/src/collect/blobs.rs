//! Blob records: live, condemned, gone.
//!
//! A record is condemned when no ledger refers to its blob, and gone when none does at a later
//! look either. *Later* is what counts: the ledgers are read after the moment `begun_ms`, and
//! only what was condemned a whole grace before that moment goes. Whoever is about to say that a
//! blob is there writes an intent first and looks at the record then. If that intent came before
//! the ledgers were read, it was seen. If it came after, the record was read after that: it was
//! found condemned and swapped, so the swap to gone loses, or it was found gone. A record that
//! was found live then was condemned after, within the grace, and does not go.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;

use super::Round;
use crate::blob::{Life, Parts, RECORDS, Record, record_digest};
use crate::catalog::Catalog;
use crate::cell::{Cell, Swapped};
use crate::digest::{Algorithm, Digest};
use crate::error::Result;
use crate::names::UploadId;

/// Digests that are held in memory at a time; with more the round takes several passes.
const DIGESTS_MAX: u64 = 500_000;
/// Folders of an algorithm's records, by first byte.
const FOLDERS: usize = 256;

/// First half of a digest's bytes: enough to tell digests apart that nobody could make alike.
type Short = [u8; 16];

fn short(digest: &Digest) -> Short {
    let mut short = Short::default();
    short.copy_from_slice(&digest.bytes()[..16]);
    short
}

/// The uploads whose parts a record names: how many, and whose record.
pub(super) type Named = HashMap<UploadId, (usize, Digest)>;

impl Round<'_> {
    pub(super) async fn blobs(&mut self) -> Result<()> {
        let strays = match self.options.sweep {
            true => Some(self.stray_candidates().await?),
            false => None,
        };
        let mut named = Named::new();
        let owners = self.catalog.owners_on_store().await?;
        let mut all = 0;
        for owner in &owners {
            let ledger = self.catalog.ledger(owner.as_str());
            all += ledger.look(self.catalog.age_max(), |ledger| ledger.blobs()).await?;
        }
        let passes = (all / DIGESTS_MAX + 1).next_power_of_two().min(FOLDERS as u64) as usize;
        for pass in 0..passes {
            let folders = pass * FOLDERS / passes..(pass + 1) * FOLDERS / passes;
            self.pass(folders, &mut named).await?;
        }
        if let Some(strays) = strays {
            self.sweep_parts(strays, &named).await?;
            self.sweep_snapshots().await?;
        }
        Ok(())
    }

    /// Looks at the records whose digests begin with these bytes.
    async fn pass(&mut self, folders: std::ops::Range<usize>, named: &mut Named) -> Result<()> {
        let begun_ms = self.catalog.now_ms();
        let mut referred: HashSet<Short> = HashSet::new();
        for owner in self.catalog.owners_on_store().await? {
            let slot = self.catalog.ledger(owner.as_str());
            let look = |ledger: &crate::ledger::Ledger| {
                let here =
                    ledger.referred().filter(|d| folders.contains(&usize::from(d.bytes()[0])));
                referred.extend(here.map(short));
            };
            // As it is on the store now, whatever is known here.
            slot.look(Duration::ZERO, look).await?;
            self.pause().await?;
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for below in self.folders(algorithm, &folders).await? {
                let meta = &*self.catalog.inner.store.meta;
                for (path, _, _) in self.catalog.objects(meta, &below).await? {
                    let Some(digest) = record_digest(&path) else {
                        continue;
                    };
                    let is_referred = referred.contains(&short(&digest));
                    if is_referred && !self.options.sweep {
                        continue;
                    }
                    self.record(&digest, is_referred, begun_ms, named).await?;
                    self.pause().await?;
                }
            }
        }
        Ok(())
    }

    /// The folders of an algorithm's records that there are, of those wanted.
    async fn folders(
        &self,
        algorithm: Algorithm,
        wanted: &std::ops::Range<usize>,
    ) -> Result<Vec<Path>> {
        let below = Path::from_iter([RECORDS, algorithm.name()]);
        let found = self.catalog.folders(&*self.catalog.inner.store.meta, &below).await?;
        let is_wanted = |folder: &Path| {
            let number = folder.filename().and_then(|name| usize::from_str_radix(name, 16).ok());
            number.is_some_and(|number| wanted.contains(&number))
        };
        Ok(found.into_iter().filter(is_wanted).collect())
    }

    async fn record(
        &mut self,
        digest: &Digest,
        is_referred: bool,
        begun_ms: u64,
        named: &mut Named,
    ) -> Result<()> {
        let Some(cell) = self.catalog.inner.blobs.record(digest).await? else {
            return Ok(());
        };
        if let Some(parts) = cell.value.parts.as_ref().filter(|_| !cell.value.is_gone()) {
            named.insert(parts.upload.clone(), (parts.list.len(), *digest));
        }
        let next = match cell.value.life {
            Life::Live if is_referred => return Ok(()),
            Life::Live => {
                self.report.condemned += 1;
                Life::Condemned { since_ms: self.catalog.now_ms() }
            }
            Life::Condemned { .. } if is_referred => {
                self.report.revived += 1;
                Life::Live
            }
            Life::Condemned { since_ms } => {
                if since_ms.saturating_add(self.grace_ms()) > begun_ms {
                    return Ok(());
                }
                self.report.removed += 1;
                self.report.removed_bytes += cell.value.size;
                Life::Gone
            }
            Life::Gone => {
                if !self.options.dry_run {
                    self.catalog.remove_parts(digest, cell).await?;
                }
                return Ok(());
            }
        };
        if self.options.dry_run {
            return Ok(());
        }
        let record = Record { life: next, ..cell.value.clone() };
        let bytes = match next {
            Life::Gone => Bytes::new(),
            _ => cell.bytes.clone(),
        };
        let swapped = self.catalog.inner.blobs.swap(digest, Some(&cell), record, bytes).await?;
        match swapped {
            Swapped::Done(cell) if next == Life::Gone => {
                self.catalog.inner.manifests.remove(digest);
                self.catalog.remove_parts(digest, cell).await
            }
            // Somebody was quicker, and knows better.
            Swapped::Done(_) | Swapped::Lost(_) => Ok(()),
        }
    }
}

impl Catalog {
    /// Removes the parts of a record that is gone. Their names are never used again, so it does
    /// not matter what became of the record meanwhile.
    async fn remove_parts(&self, digest: &Digest, cell: Cell<Record>) -> Result<()> {
        let Some(parts) = cell.value.parts.as_ref().filter(|parts| !parts.list.is_empty()) else {
            return Ok(());
        };
        for path in parts.paths() {
            self.delete(&*self.inner.store.data, &path).await?;
        }
        let parts = Some(Parts::new(parts.upload.clone()));
        let record = Record { parts, ..cell.value.clone() };
        self.inner.blobs.swap(digest, Some(&cell), record, Bytes::new()).await?;
        Ok(())
    }
}
