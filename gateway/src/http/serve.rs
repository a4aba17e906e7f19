//! A gateway from start to end: its listeners, its background work, its shutdown.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};
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
    _operators: Option<SocketFile>,
}

/// The administration socket in the file system; taken away when dropped.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
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
        let mut accepting: Vec<JoinHandle<()>> = accepting.collect();
        let mut operators = None;
        if let Some((socket, kept)) = app.config.operator_socket.as_deref().and_then(open_socket) {
            operators = Some(kept);
            let (app, slots, tasks) = (Arc::clone(&app), Arc::clone(&slots), tasks.clone());
            let accept = server::accept_operators(app, socket, slots, tasks, ending);
            accepting.push(tokio::spawn(accept));
        }
        let tending = tokio::spawn(async move { catalog.tend().await });
        Ok(Self { app, addresses, tell, accepting, tasks, tending, _operators: operators })
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

/// Listens for those who run the registry. Without it everything works but administration from
/// this machine, so what goes wrong is a warning.
fn open_socket(path: &Path) -> Option<(UnixListener, SocketFile)> {
    let open = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(path)?;
        let file = SocketFile(path.to_owned());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok((socket, file))
    };
    open()
        .inspect_err(|error| {
            let path = path.display();
            tracing::warn!(%path, %error, "administrators have no local socket");
        })
        .ok()
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}
