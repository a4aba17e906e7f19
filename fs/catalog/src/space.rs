//! Quotas, usage and the change counter: what is asked of an owner's ledger.

use crate::catalog::Catalog;
use crate::error::Result;
use crate::names::OwnerName;
use crate::types::{Changes, Quota, Usage};

impl Catalog {
    /// What an owner uses, exact when it was read, at most `head_age_max` ago.
    ///
    /// # Errors
    /// What the store says.
    pub async fn usage(&self, _owner: &OwnerName) -> Result<Usage> {
        todo!()
    }

    /// Sets an owner's quota. One below what is used refuses everything new.
    ///
    /// # Errors
    /// What the store says.
    pub async fn set_quota(&self, _owner: &OwnerName, _quota: Quota) -> Result<Usage> {
        todo!()
    }

    /// The change counter of an owner, at most `head_age_max` old.
    ///
    /// # Errors
    /// What the store says.
    pub async fn changes(&self, _owner: &OwnerName) -> Result<Changes> {
        todo!()
    }
}
