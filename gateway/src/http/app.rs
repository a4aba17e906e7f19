//! What all connections of one gateway share.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio_rustls::TlsAcceptor;

use super::admission::Admission;
use super::budget::Budget;
use super::metrics::Metrics;
use super::request::Connection;
use super::server::{Ending, Role};
use crate::auth::Authenticator;
use crate::config::Config;
use crate::registry::Registry;
use crate::tls::Tls;

/// One gateway.
pub struct App {
    pub config: Config,
    pub registry: Registry,
    pub auth: Arc<Authenticator>,
    pub metrics: Metrics,
    /// Bytes that transfers may hold.
    pub budget: Budget,
    pub admission: Arc<Admission>,
    /// Told when the gateway ends.
    pub ending: Ending,
    /// Everything besides `/v2`.
    pub router: Router,
    /// `external_url` without a slash at its end.
    pub external_base: Option<String>,
    /// Certificate and key.
    pub tls: Option<Tls>,
}

impl App {
    /// With nothing running yet.
    #[must_use]
    pub fn new(
        config: Config,
        registry: Registry,
        auth: Arc<Authenticator>,
        ending: Ending,
        router: Router,
        tls: Option<Tls>,
    ) -> Arc<Self> {
        let base = config.external_url.as_deref().map(|url| url.trim_end_matches('/').to_owned());
        Arc::new(Self {
            metrics: Metrics::new(),
            budget: Budget::new(config.limits.transfer_bytes),
            admission: Admission::new(config.limits.requests_per_caller),
            external_base: base,
            config,
            registry,
            auth,
            ending,
            router,
            tls,
        })
    }

    /// TLS, where a listener speaks it.
    #[must_use]
    pub fn tls(&self, role: Role) -> Option<&TlsAcceptor> {
        match role {
            Role::Registry | Role::LocalCallers => self.tls.as_ref().map(Tls::acceptor),
            Role::Metrics => None,
        }
    }

    /// Facts of a connection, asked before anything else happens to it.
    pub async fn accepted(
        &self,
        peer: SocketAddr,
        local: SocketAddr,
        role: Role,
    ) -> Arc<Connection> {
        let tls = self.tls(role).is_some();
        let facts = self.auth.accepted(peer, local, tls, role == Role::LocalCallers).await;
        Arc::new(Connection { facts, role, proxies: self.config.trusted_proxies.clone() })
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}
