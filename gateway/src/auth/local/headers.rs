//! Signs in a request that it was not made by a program of the user at the other end.
//!
//! Proxies and browsers add headers of their own, and pages that a browser shows may name any
//! host they like. One such sign is enough. The list is long on purpose: a registry client sends
//! none of these.

use http::{HeaderMap, Version, header};

use crate::auth::facts::RequestFacts;

/// Headers of proxies and browsers, whole names.
const NAMES: [&str; 19] = [
    "forwarded",
    "via",
    "max-forwards",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-proxyuser-ip",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-remote-user",
    "remote-user",
    "origin",
    "referer",
    "cookie",
    "dnt",
    "upgrade-insecure-requests",
    "access-control-request-method",
];
/// And beginnings of names.
const PREFIXES: [&str; 7] =
    ["x-forwarded", "x-original-", "x-envoy-", "x-appengine-", "x-azure-", "proxy-", "sec-"];

/// Whether a request may count as its connection's owner's own.
#[must_use]
pub fn counts_as_local(facts: &RequestFacts<'_>) -> bool {
    let spoken = facts.version != Version::HTTP_09 && facts.version != Version::HTTP_10;
    spoken && !is_passed_on(facts.headers) && names_us(facts)
}

fn is_passed_on(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    })
}

/// The host that the client asked for must be the address and port it is connected to.
fn names_us(facts: &RequestFacts<'_>) -> bool {
    let mut hosts = facts.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next(), facts.authority) {
        (Some(host), None, None) => host.to_str().unwrap_or_default(),
        (None, None, Some(authority)) => authority,
        (Some(host), None, Some(authority)) if host.as_bytes() == authority.as_bytes() => authority,
        _ => return false,
    };
    let local = facts.connection.local;
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, Some(if facts.connection.tls { 443 } else { 80 })),
    };
    if port != Some(local.port()) {
        return false;
    }
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse() == Ok(local.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::facts::{ConnectionFacts, KernelIdentity};
    use http::HeaderValue;

    fn local(headers: &[(&'static str, &str)], version: Version, authority: Option<&str>) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let connection = ConnectionFacts {
            peer: "127.0.0.1:40000".parse().unwrap(),
            local: "127.0.0.1:5000".parse().unwrap(),
            tls: false,
            kernel: KernelIdentity::Owner(1000),
        };
        let facts = RequestFacts {
            connection: &connection,
            client: connection.peer.ip(),
            version,
            authority,
            headers: &map,
            needs: &[],
        };
        counts_as_local(&facts)
    }

    const US: (&str, &str) = ("host", "127.0.0.1:5000");

    #[test]
    fn a_registry_client_counts() {
        let podman = [US, ("user-agent", "containers/5.24"), ("accept-encoding", "gzip")];
        assert!(local(&podman, Version::HTTP_11, None));
        assert!(local(&[("host", "LocalHost:5000")], Version::HTTP_11, None));
        assert!(local(&[], Version::HTTP_2, Some("127.0.0.1:5000")));
    }

    #[test]
    fn proxies_and_browsers_do_not() {
        for name in [
            "Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Real-IP",
            "Via",
            "Origin",
            "Sec-Fetch-Site",
            "Sec-Fetch-Mode",
            "Sec-CH-UA",
            "Cookie",
            "Referer",
            "Proxy-Connection",
        ] {
            let name: &'static str = name.to_ascii_lowercase().leak();
            assert!(!local(&[US, (name, "")], Version::HTTP_11, None), "{name}");
        }
        assert!(!local(&[US], Version::HTTP_10, None), "HTTP/1.0");
    }

    #[test]
    fn a_foreign_host_does_not() {
        for host in [
            "",
            "evil.example:5000",
            "127.0.0.1",
            "127.0.0.1:5001",
            "127.0.0.2:5000",
            "[::1]:5000",
            "127.0.0.1:5000:5000",
            "127.0.0.1.evil:5000",
            "localhost.evil:5000",
            "localhost:",
        ] {
            assert!(!local(&[("host", host)], Version::HTTP_11, None), "{host}");
        }
        assert!(!local(&[], Version::HTTP_11, None), "none");
        assert!(!local(&[US, US], Version::HTTP_11, None), "two");
        assert!(!local(&[US], Version::HTTP_11, Some("evil:5000")), "another in the URI");
    }
}
