//! What is known of a request when it is asked who makes it.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Version};

use super::scope::Scope;

/// Facts of a connection that hold for all its requests; made right after accept.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    /// The other end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// It speaks TLS.
    pub tls: bool,
    /// What the kernel says of the other end; see [`super::local::LocalCallers::ask`].
    pub kernel: KernelIdentity,
}

/// What the kernel was asked about the owner of a connection's other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelIdentity {
    /// Nothing: this is no listener for local callers.
    NotAsked,
    /// It could not say, or said something that does not count.
    Unknown,
    /// The other end is an established connection of this user.
    Owner(u32),
}

/// What [`super::Authenticator::who`] looks at.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The connection.
    pub connection: &'a ConnectionFacts,
    /// Whose failures are counted: the peer, or what a trusted proxy says.
    pub client: IpAddr,
    /// HTTP/1.0 comes from proxies and probes, never from a registry client.
    pub version: Version,
    /// The authority of an absolute request URI (HTTP/2), which stands for `Host`.
    pub authority: Option<&'a str>,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// What the request needs, for the challenge that may be the answer.
    pub needs: &'a [Scope],
}
