//! What a handler knows of a request besides its body.

use std::net::SocketAddr;

use http::HeaderMap;
use http::header::HeaderName;

use super::server::Role;

/// The connection that a request came over; one for all its requests.
#[derive(Debug)]
pub struct Connection {
    /// Who is at the other end, as the kernel says.
    pub peer: SocketAddr,
    /// Our own end.
    pub local: SocketAddr,
    /// What the listener serves.
    pub role: Role,
}

/// A header as text; one that is no text counts as absent.
#[must_use]
pub fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// All values of a header that may be given several times, joined as HTTP allows.
#[must_use]
pub fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let first = values.next()?.to_owned();
    Some(values.fold(first, |all, value| all + ", " + value))
}

/// What of `Content-Length` counts: `None` for a body of unknown length.
#[must_use]
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, &http::header::CONTENT_LENGTH)?.trim().parse().ok()
}
