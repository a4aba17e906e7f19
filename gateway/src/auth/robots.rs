//! Robot tokens: scoped, expiring, listed, revoked. One head per user holds that user's.

use serde::Serialize;

use super::scope::Scope;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct NewRobot {
    /// Its name, unique among its user's: it logs in as `USER+NAME`.
    pub name: String,
    /// What it may do, of what its user may.
    pub scopes: Vec<Scope>,
    /// Seconds since 1970; never without.
    pub expires: Option<u64>,
}

/// A robot, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RobotInfo {
    /// Its name.
    pub name: String,
    /// What it logs in as: `USER+NAME`.
    pub login: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Seconds since 1970.
    pub created: u64,
    /// Seconds since 1970.
    pub expires: Option<u64>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum RobotError {
    /// Wrong as asked.
    #[error("{0}")]
    Invalid(String),
    /// There is one of that name.
    #[error("there is a token `{0}` already: remove it first, or choose another name")]
    Exists(String),
    /// There is none.
    #[error("there is no token `{0}`")]
    NotFound(String),
    /// The store failed.
    #[error("tokens could not be read or written: {0}")]
    Store(String),
}

/// The robots of all users.
#[derive(Debug)]
pub struct Robots {}
