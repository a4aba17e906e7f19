//! A gateway from start to end: its listeners, its background work, its shutdown.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::app::App;
use super::server::{self, Ending, Role};
use crate::auth::Authenticator;
use crate::config::Config;
use crate::registry::{Registry, RegistryOptions};
use crate::tls::{Tls, TlsError};
use yadokari_catalog::Catalog;

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be had.
    #[error("listening on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// No address at all.
    #[error("there is no address to listen on")]
    NoAddress,
}

/// A gateway that serves. It ends with [`Gateway::shutdown`].
#[derive(Debug)]
pub struct Gateway {
    app: Arc<App>,
    /// Where it really listens, the first one first.
    addresses: Vec<SocketAddr>,
    tell: watch::Sender<bool>,
    accepting: Vec<JoinHandle<()>>,
    tasks: TaskTracker,
    tending: JoinHandle<()>,
}

impl Gateway {
    /// Listens and serves from now on.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub async fn start(
        config: Config,
        catalog: Catalog,
        auth: Arc<Authenticator>,
    ) -> Result<Self, StartError> {
        let tls = config.tls.clone().map(Tls::load).transpose()?;
        let mut sockets = Vec::new();
        for address in &config.listen {
            let local = config.local_callers && address.ip().is_loopback();
            let role = if local { Role::LocalCallers } else { Role::Registry };
            sockets.push((listen(*address).await?, role));
        }
        if sockets.is_empty() {
            return Err(StartError::NoAddress);
        }
        if let Some(address) = config.metrics_listen {
            sockets.push((listen(address).await?, Role::Metrics));
        }
        let addresses = sockets.iter().filter_map(|(socket, _)| socket.local_addr().ok()).collect();
        let (tell, ending) = Ending::new();
        let slots = Arc::new(Semaphore::new(config.limits.connections));
        let registry = Registry::new(catalog.clone(), RegistryOptions { sparse: config.sparse });
        let app = App::new(config, registry, auth, ending.clone(), Router::new(), tls);
        let tasks = TaskTracker::new();
        let accepting = sockets.into_iter().map(|(socket, role)| {
            let (app, slots, tasks) = (Arc::clone(&app), Arc::clone(&slots), tasks.clone());
            tokio::spawn(server::accept(app, socket, role, slots, tasks, ending.clone()))
        });
        let accepting = accepting.collect();
        let tending = tokio::spawn(async move { catalog.tend().await });
        Ok(Self { app, addresses, tell, accepting, tasks, tending })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes no more connections, lets running transfers end for as long as the limits say, and
    /// settles what is owed to the store.
    pub async fn shutdown(self) {
        let _nobody_listens = self.tell.send(true);
        for task in self.accepting {
            let _ended = task.await;
        }
        self.tasks.close();
        let patience = self.app.config.limits.shutdown_time;
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "transfers were cut off at the end");
        }
        self.tending.abort();
        if let Err(error) = self.app.registry.catalog.flush().await {
            tracing::warn!(%error, "what is left to settle others will");
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}
