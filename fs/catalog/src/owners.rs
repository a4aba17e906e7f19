//! Owner records: users and groups, and who may have a name.

use std::collections::BTreeSet;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::names::OwnerName;
use crate::types::{Identity, Owner, Page};

impl Catalog {
    /// An owner's record, at most `head_age_max` old.
    ///
    /// # Errors
    /// What the store says.
    pub async fn owner(&self, _name: &OwnerName) -> Result<Option<Owner>> {
        todo!()
    }

    /// Makes the record of a user, or checks that it is that user's. To be called at login,
    /// with `create` only when the user is about to push: a record fills in the uid when it had
    /// none.
    ///
    /// # Errors
    /// `Clash` if the name belongs to a group, to a user of another authority, with another uid
    /// or with another login; `NotFound` without a record and without `create`.
    pub async fn claim_user(
        &self,
        _name: &OwnerName,
        _identity: &Identity,
        _create: bool,
    ) -> Result<Owner> {
        todo!()
    }

    /// Makes a group.
    ///
    /// # Errors
    /// `Exists` if the name is taken by anybody.
    pub async fn create_group(
        &self,
        _name: &OwnerName,
        _managers: BTreeSet<OwnerName>,
    ) -> Result<Owner> {
        todo!()
    }

    /// Replaces the managers of a group.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a user.
    pub async fn set_managers(
        &self,
        _name: &OwnerName,
        _managers: BTreeSet<OwnerName>,
    ) -> Result<Owner> {
        todo!()
    }

    /// An administrator's decision: the name with all it owns belongs to this user from now on.
    ///
    /// # Errors
    /// What the store says.
    pub async fn reassign(&self, _name: &OwnerName, _identity: &Identity) -> Result<Owner> {
        todo!()
    }

    /// Owners by name, behind `after`.
    ///
    /// # Errors
    /// What the store says.
    pub async fn owners(&self, _after: Option<&str>, _limit: usize) -> Result<Page<Owner>> {
        todo!()
    }

    /// Maps a login that OCI cannot say to an owner name. The record of the owner remembers it.
    ///
    /// # Errors
    /// `Exists` if the login is mapped to another name.
    pub async fn map_login(
        &self,
        _authority: &str,
        _login: &str,
        _owner: &OwnerName,
    ) -> Result<()> {
        todo!()
    }

    /// The owner name of a login: the mapped one, or else the login itself if OCI can say it.
    ///
    /// # Errors
    /// What the store says.
    pub async fn owner_of_login(
        &self,
        _authority: &str,
        _login: &str,
    ) -> Result<Option<OwnerName>> {
        todo!()
    }
}
