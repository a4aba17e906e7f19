//! Who collects, so that not every instance does the same work. Nothing depends on it being
//! true.

use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::cell::{self, Cell, Next};
use crate::error::Result;

/// A claim that was not renewed is nobody's after this.
const CLAIM_MS: u64 = 3600 * 1000;

/// The head `collection`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Collection {
    instance: String,
    /// Claimed until then; 0 when nobody is at it.
    until_ms: u64,
    /// When the last round ended.
    done_ms: u64,
}

/// A claim of this instance.
#[derive(Debug)]
pub(super) struct Claim {
    id: String,
    renewed_ms: u64,
}

fn path() -> Path {
    Path::from("collection")
}

impl Catalog {
    pub(super) async fn claim_collection(&self, interval_ms: u64) -> Result<Option<Claim>> {
        let id = self.inner.writer.id();
        let now_ms = self.now_ms();
        let claimed = |known: Option<&Cell<Collection>>| {
            let done_ms = known.map_or(0, |cell| cell.value.done_ms);
            let until_ms = known.map_or(0, |cell| cell.value.until_ms);
            if done_ms.saturating_add(interval_ms) > now_ms || until_ms > now_ms {
                return Ok((Next::Keep, false));
            }
            let until_ms = now_ms + CLAIM_MS;
            let next = Collection { instance: id.clone(), until_ms, done_ms };
            Ok((Next::Swap(next, Bytes::new()), true))
        };
        let (meta, writer) = (&*self.inner.store.meta, &self.inner.writer);
        let is_mine = cell::update(meta, writer, &path(), claimed).await?.0;
        Ok(is_mine.then_some(Claim { id, renewed_ms: now_ms }))
    }

    pub(super) async fn renew_claim(&self, claim: &mut Claim) -> Result<()> {
        let now_ms = self.now_ms();
        if now_ms < claim.renewed_ms.saturating_add(CLAIM_MS / 4) {
            return Ok(());
        }
        claim.renewed_ms = now_ms;
        self.set_claim(claim, |known| Collection { until_ms: now_ms + CLAIM_MS, ..known }).await
    }

    pub(super) async fn end_claim(&self, claim: &Claim) -> Result<()> {
        let now_ms = self.now_ms();
        self.set_claim(claim, |known| Collection { until_ms: 0, done_ms: now_ms, ..known }).await
    }

    async fn set_claim(&self, claim: &Claim, set: impl Fn(Collection) -> Collection) -> Result<()> {
        let decide = |known: Option<&Cell<Collection>>| {
            let mine = known.filter(|cell| cell.value.instance == claim.id);
            let next = mine.map(|cell| Next::Swap(set(cell.value.clone()), Bytes::new()));
            Ok((next.unwrap_or(Next::Keep), ()))
        };
        let (meta, writer) = (&*self.inner.store.meta, &self.inner.writer);
        cell::update(meta, writer, &path(), decide).await?;
        Ok(())
    }
}
