//! Who knows users: htpasswd, LDAP and PAM behind one trait.

mod htpasswd;
mod ldap;
mod pam;

pub use htpasswd::{Htpasswd, waste_time};
pub use ldap::Directory;
pub use pam::Pam;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::IpAddr;

use async_trait::async_trait;

use super::secret::Secret;

/// Somebody whom an authority knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The name as the authority writes it, whatever was typed.
    pub login: String,
    /// The numeric id, where there is one.
    pub uid: Option<u32>,
    /// Groups by the authority's names.
    pub groups: BTreeSet<String>,
    /// Changes when the password does, where that can be seen. Says nothing about it.
    pub fingerprint: String,
}

/// What an authority says about a name and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It knows no such user: others may be asked.
    Unknown,
    /// It knows the user, and the password is wrong or the account is locked.
    Wrong,
    /// It is that user.
    Right(Account),
}

/// It did not answer, or not in time. The text is for operators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{authority}: {why}")]
pub struct Outage {
    /// Which authority.
    pub authority: &'static str,
    /// What happened.
    pub why: String,
}

/// Knows users and their passwords. Calls may block for as long as the authority's timeout;
/// bounding how many run at a time is the caller's business.
#[async_trait]
pub trait Authority: Debug + Send + Sync {
    /// `htpasswd`, `ldap` or `pam`.
    fn kind(&self) -> &'static str;

    /// Authorities of one realm know the same people, so they may share names.
    fn realm(&self) -> &str;

    /// Is it that user?
    async fn verify(&self, login: &str, password: &Secret, from: IpAddr)
    -> Result<Verdict, Outage>;

    /// The user, if they still may log in; asked when a refresh token is used.
    async fn account(&self, login: &str) -> Result<Option<Account>, Outage>;
}
