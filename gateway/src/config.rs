//! What a gateway can be told: where it listens, what it allows, and every limit with its reason.
//!
//! The command line fills this from its file, the environment and flags; nothing here reads any.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::tls::TlsFiles;

/// Settings of one gateway.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// The kernel says who calls, on loopback: for the listener that `up` makes, and only there.
    pub local_callers: bool,
    /// A Unix socket over which root and who runs this gateway administer it.
    pub operator_socket: Option<PathBuf>,
    /// Speak TLS on every address of the registry.
    pub tls: Option<TlsFiles>,
    /// Metrics and health alone, for a scraper that must not reach the registry.
    pub metrics_listen: Option<SocketAddr>,
    /// What clients call it, where a proxy stands in front: `https://registry.example/prefix`.
    /// Without it, Locations are relative.
    pub external_url: Option<String>,
    /// Proxies whose word about the address of their clients counts.
    pub trusted_proxies: Arc<[IpAddr]>,
    /// Accept manifests whose blobs or children are not here.
    pub sparse: bool,
    /// Bounds on everything.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            local_callers: false,
            operator_socket: None,
            tls: None,
            metrics_listen: None,
            external_url: None,
            trusted_proxies: Arc::new([]),
            sparse: false,
            limits: Limits::default(),
        }
    }
}

/// Limits. Time and memory of every client are bounded by these.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes that all transfers together hold in memory, beyond one small piece each.
    pub transfer_bytes: u64,
    /// A blob larger than this is refused; the quota is what usually counts.
    pub blob_bytes: u64,
    /// Connections at the same time; more wait in the kernel's queue.
    pub connections: usize,
    /// Requests of one caller (or one address, for those without a name) at the same time.
    pub requests_per_caller: usize,
    /// From the end of one request to the end of the next one's headers.
    pub headers_time: Duration,
    /// A body that brings no byte for so long, or a reader that takes none, is cut off.
    pub stall_time: Duration,
    /// A body must bring so many bytes per second on average, after a minute's grace.
    pub body_rate_min: u64,
    /// Requests that move no blob end within this.
    pub request_time: Duration,
    /// At shutdown, transfers that run may go on for so long.
    pub shutdown_time: Duration,
    /// What is read of a body that was refused, so that the client reads the reason.
    pub drain_bytes: u64,
    /// And for how long.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transfer_bytes: 24 << 20,
            blob_bytes: 1 << 40,
            connections: 1024,
            requests_per_caller: 256,
            headers_time: Duration::from_secs(30),
            stall_time: Duration::from_secs(60),
            body_rate_min: 1 << 10,
            request_time: Duration::from_secs(120),
            shutdown_time: Duration::from_secs(60),
            drain_bytes: 1 << 30,
            drain_time: Duration::from_secs(30),
        }
    }
}
