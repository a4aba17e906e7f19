//! Listening, accepting, and ending: connections in numbers that are bounded, with the time
//! limits that keep slow clients from holding anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::app::App;
use super::stall::Stalled;

/// One read buffer of a connection; the headers of a request must fit as well.
const BUFFER_BYTES_MAX: usize = 128 << 10;
/// More headers than any client sends.
const HEADERS_MAX: usize = 100;
/// When accepting fails for want of descriptors, trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A TLS handshake that takes longer is an attack or a dead peer.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The registry and all that belongs to it.
    Registry,
    /// The same on loopback, where the kernel says who calls.
    LocalCallers,
    /// Metrics and health alone.
    Metrics,
}

/// The server's end: told once, heard by every connection.
#[derive(Clone, Debug)]
pub struct Ending(watch::Receiver<bool>);

impl Ending {
    /// The one who tells, and what is handed around.
    #[must_use]
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (tell, heard) = watch::channel(false);
        (tell, Self(heard))
    }

    /// Is it told already?
    #[must_use]
    pub fn is_told(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for it. A sender that is gone counts as told.
    pub async fn told(&mut self) {
        let _gone = self.0.wait_for(|told| *told).await;
    }
}

/// Accepts on one socket until the end; connections are counted in `tasks`.
pub async fn accept(
    app: Arc<App>,
    socket: TcpListener,
    role: Role,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    mut ending: Ending,
) {
    loop {
        let slot = tokio::select! {
            () = ending.told() => return,
            slot = Arc::clone(&slots).acquire_owned() => slot,
        };
        let Ok(slot) = slot else { return };
        let accepted = tokio::select! {
            () = ending.told() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let serving = serve(Arc::clone(&app), stream, peer, role, slot, ending.clone());
                tasks.spawn(serving);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    app: Arc<App>,
    stream: TcpStream,
    peer: SocketAddr,
    role: Role,
    _slot: OwnedSemaphorePermit,
    ending: Ending,
) {
    // Who is there is asked before anything else happens: later the answer may be another's.
    let Ok(local) = stream.local_addr() else { return };
    let facts = app.accepted(peer, local, role).await;
    // Small answers must not wait for a full packet; a socket that is gone says so soon enough.
    let _ = stream.set_nodelay(true);
    let gauge = app.metrics.connection();
    match app.tls(role) {
        None => connection(&app, stream, facts, ending).await,
        Some(tls) => match tokio::time::timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await {
            Ok(Ok(stream)) => connection(&app, stream, facts, ending).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS with this client"),
            Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
        },
    }
    drop(gauge);
}

async fn connection<I>(
    app: &Arc<App>,
    io: I,
    facts: Arc<super::request::Connection>,
    mut ending: Ending,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &app.config.limits;
    let peer = facts.facts.peer;
    let io = TokioIo::new(Stalled::new(io, limits.stall_time));
    let service = {
        let app = Arc::clone(app);
        hyper::service::service_fn(move |request| {
            super::dispatch::dispatch(Arc::clone(&app), Arc::clone(&facts), request)
        })
    };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers_time)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(io, service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = ending.told() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // Clients go away and send nonsense all the time: nothing for an operator to mend.
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}
