//! What a handler knows of a request besides its body.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;

use super::server::Role;
use crate::auth::ConnectionFacts;

/// The connection that a request came over; one for all its requests.
#[derive(Debug)]
pub struct Connection {
    /// Both ends, and what the kernel says of the other one.
    pub facts: ConnectionFacts,
    /// What the listener serves.
    pub role: Role,
    /// Whose word about their clients counts.
    pub proxies: Arc<[IpAddr]>,
}

impl Connection {
    /// The address of the client: the peer, or whom a trusted proxy names.
    #[must_use]
    pub fn client(&self, headers: &HeaderMap) -> IpAddr {
        const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
        let mut client = self.facts.peer.ip().to_canonical();
        if !self.proxies.contains(&client) {
            return client;
        }
        // From the last to the first: each trusted proxy vouches for the one before it.
        let all = headers.get_all(FORWARDED_FOR).iter().rev();
        for word in all.filter_map(|v| v.to_str().ok()).flat_map(|text| text.rsplit(',')) {
            let Ok(named) = word.trim().parse::<IpAddr>() else { break };
            client = named.to_canonical();
            if !self.proxies.contains(&client) {
                break;
            }
        }
        client
    }
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
