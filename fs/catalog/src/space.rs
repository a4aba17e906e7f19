//! Quotas, usage and the change counter: what is asked of an owner's ledger.

use crate::catalog::Catalog;
use crate::error::Result;
use crate::ledger::{Ledger, LedgerOp};
use crate::log::{Decided, Moment};
use crate::names::{OwnerName, UploadId};
use crate::settle::{check_room, limit};
use crate::types::{Changes, Quota, Usage};

impl Catalog {
    fn usage_of(&self, ledger: &Ledger) -> Usage {
        Usage {
            used: ledger.used_bytes(),
            reserved: ledger.reserved_bytes(),
            blobs: ledger.blobs(),
            quota: ledger.quota,
            limit: self.limit_of(ledger.quota),
        }
    }

    /// What an owner uses, exact when it was read, at most `head_age_max` ago.
    ///
    /// # Errors
    /// What the store says.
    pub async fn usage(&self, owner: &OwnerName) -> Result<Usage> {
        let ledger = self.ledger(owner.as_str());
        ledger.look(self.age_max(), |ledger| self.usage_of(ledger)).await
    }

    /// Sets an owner's quota. One below what is used refuses everything new.
    ///
    /// # Errors
    /// What the store says.
    pub async fn set_quota(&self, owner: &OwnerName, quota: Quota) -> Result<Usage> {
        let decide = move |ledger: &Ledger, _: Moment| {
            let ops = match ledger.quota == quota {
                true => Vec::new(),
                false => vec![LedgerOp::Quota { q: quota }],
            };
            Ok(Decided { ops, answer: () })
        };
        self.ledger(owner.as_str()).change(&self.inner.writer, decide).await?;
        self.usage(owner).await
    }

    /// The change counter of an owner, at most `head_age_max` old.
    ///
    /// # Errors
    /// What the store says.
    pub async fn changes(&self, owner: &OwnerName) -> Result<Changes> {
        let look =
            |ledger: &Ledger| Changes { counter: ledger.counter, open: !ledger.open.is_empty() };
        self.ledger(owner.as_str()).look(self.age_max(), look).await
    }

    /// Holds bytes for an upload, at least `needed` of them in all and `wanted` if they fit.
    /// Gives how many it holds then; where there is no limit nothing is written down.
    pub(crate) async fn reserve(
        &self,
        owner: &OwnerName,
        upload: &UploadId,
        needed: u64,
        wanted: u64,
    ) -> Result<u64> {
        let (name, u) = (owner.clone(), upload.clone());
        let default = self.inner.options.default_quota;
        let ledger = self.ledger(owner.as_str());
        let is_limited = |ledger: &Ledger| limit(ledger.quota, default).is_some();
        if !ledger.look(self.age_max(), is_limited).await? {
            // Should there be a limit before it ends, its end is charged or refused as a whole.
            return Ok(wanted.max(needed));
        }
        let decide = move |ledger: &Ledger, moment: Moment| {
            let held = ledger.reserved_by(&u);
            if held >= needed {
                return Ok(Decided { ops: Vec::new(), answer: held });
            }
            let limit = limit(ledger.quota, default);
            let fits = |bytes| check_room(ledger, &name, limit, held, bytes);
            let n = match fits(wanted.max(needed)) {
                Ok(()) => wanted.max(needed),
                Err(_) => fits(needed).map(|()| needed)?,
            };
            let op = LedgerOp::Reserve { u: u.clone(), n, t: moment.now_ms };
            Ok(Decided { ops: vec![op], answer: n })
        };
        Ok(ledger.change(&self.inner.writer, decide).await?.answer)
    }

    /// Gives back what an upload holds.
    pub(crate) async fn release(&self, owner: &OwnerName, upload: &UploadId) -> Result<()> {
        let u = upload.clone();
        let decide = move |ledger: &Ledger, moment: Moment| {
            let ops = match ledger.reserved.contains_key(&u) {
                true => vec![LedgerOp::Reserve { u: u.clone(), n: 0, t: moment.now_ms }],
                false => Vec::new(),
            };
            Ok(Decided { ops, answer: () })
        };
        self.ledger(owner.as_str()).change(&self.inner.writer, decide).await?;
        Ok(())
    }
}
