//! Who calls: authentication of every request, tokens, robots, local callers.
//!
//! [`Authenticator::who`] turns the facts of a request into a [`Caller`]; everything else here
//! serves that. The rules, in their order:
//!
//! 1. Authorization that is sent wins; when it is wrong the answer is 401, whoever else the
//!    caller might be. Basic is a user's password or a robot's token, Bearer is a token of
//!    `/token` or a robot's token.
//! 2. Without it, on the listener for local callers only, the kernel says who owns the other end
//!    of the connection ([`local`]); every doubt makes the caller anonymous.
//! 3. Everybody else is anonymous.
//!
//! A request with credentials that were seen within the last minute costs one keyed hash and one
//! look into a table: no password hash, no store, no directory. So an outage of LDAP touches new
//! logins alone. What is in the store (`auth/`): the keys that sign tokens, a record per user that
//! says which authority the name belongs to, and the robots of each user. Any instance knows all.
//!
//! Left to others: what a caller may do (the catalogue), HTTP itself, TLS.

mod accounts;
mod authenticator;
pub mod authority;
mod caller;
mod config;
mod endpoint;
mod facts;
mod keys;
pub mod local;
mod login;
mod people;
mod refusal;
mod remember;
mod robots;
mod scope;
mod secret;
mod shelf;
mod slow;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod token;

pub use authenticator::{AuthError, Authenticator};
pub use caller::{Caller, Ceiling, Proof, Robot, User, Who};
pub use config::{AuthConfig, ConfigError, HtpasswdConfig, LdapConfig, LocalConfig, PamConfig};
pub use endpoint::TOKEN_FORM_BYTES_MAX;
pub use facts::{ConnectionFacts, KernelIdentity, RequestFacts};
pub use refusal::{Challenge, ChallengeError, Refusal};
pub use robots::{NewRobot, RobotError, RobotInfo, Robots};
pub use scope::{Action, Scope, ScopeError, Target};
pub use secret::Secret;
