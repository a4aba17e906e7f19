//! Local callers: whom the kernel says to be at the other end of a loopback connection.
//!
//! Two questions, both answered with no whenever there is doubt:
//!
//! * *Whose is the other end?* ([`diag`]) asked right after accept, by the exact addresses and
//!   ports of the connection. Only an established socket with an inode counts, since the kernel
//!   answers user 0 for sockets that nobody holds any more. Root's connections are looked at once
//!   more ([`server`]): a process that itself serves TCP is a proxy, not root.
//! * *Does this request come from that user's own program?* ([`headers`]) A browser, or anything
//!   that passes requests on, makes it anonymous.
//!
//! Containers that reach the host's loopback through slirp4netns or pasta count as the user who
//! runs them, since it is that user's process which connects.

mod diag;
mod headers;
mod server;

use std::net::SocketAddr;

pub use diag::{Diag, Owner};
pub use headers::counts_as_local;

use super::facts::KernelIdentity;

/// Asks the kernel.
#[derive(Debug, Default)]
pub struct LocalCallers {
    diag: Diag,
}

impl LocalCallers {
    /// Whose the other end of a connection is. To be called right after accept; it takes
    /// microseconds, except for root.
    pub async fn ask(&self, peer: SocketAddr, local: SocketAddr) -> KernelIdentity {
        if !peer.ip().to_canonical().is_loopback() || !local.ip().to_canonical().is_loopback() {
            return KernelIdentity::Unknown;
        }
        let owner = match self.diag.owner(peer, local) {
            Ok(Some(owner)) => owner,
            Ok(None) => return KernelIdentity::Unknown,
            Err(error) => {
                tracing::warn!(%error, "the kernel does not say who calls: local callers must log in");
                return KernelIdentity::Unknown;
            }
        };
        if owner.uid == 0 {
            let inode = owner.inode;
            let client = tokio::task::spawn_blocking(move || server::is_plain_client(inode)).await;
            if !client.unwrap_or(false) {
                return KernelIdentity::Unknown;
            }
        }
        KernelIdentity::Owner(owner.uid)
    }
}
