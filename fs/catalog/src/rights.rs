//! Rights: one object per owner, and what they mean for a caller.

use std::sync::Arc;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::names::{OwnerName, RepoName};
use crate::types::{Caller, Permission, Rights};

impl Catalog {
    /// What an owner has shared, at most `head_age_max` old.
    ///
    /// # Errors
    /// What the store says.
    pub async fn rights(&self, _owner: &OwnerName) -> Result<Arc<Rights>> {
        todo!()
    }

    /// Changes what an owner shares. `change` may run several times, on ever newer rights.
    ///
    /// # Errors
    /// What `change` says; what the store says.
    pub async fn change_rights(
        &self,
        _owner: &OwnerName,
        _change: impl FnMut(&mut Rights) -> Result<()> + Send,
    ) -> Result<Arc<Rights>> {
        todo!()
    }

    /// What a caller may do with a repository, which need not exist. Nobody gets more than
    /// `None` below a name without an owner record, except that user and administrators.
    /// Answers from memory when it can.
    ///
    /// # Errors
    /// What the store says: then nobody may do anything.
    pub async fn permission(&self, _caller: &Caller, _repo: &RepoName) -> Result<Permission> {
        todo!()
    }
}
