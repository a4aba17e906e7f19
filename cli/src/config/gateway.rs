//! The keys of the section `gateway`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::keys::not_zero;
use crate::size::{NO_LIMIT, parse_bytes, parse_count, parse_duration};

/// What its keys begin with.
pub const SECTION: &str = "gateway.";
/// Where Docker's registry listens too, so that people find it.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5000);

/// Settings of the registry gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Where it listens; empty is no gateway, `None` that nobody said.
    pub listen: Option<Vec<SocketAddr>>,
    /// Where metrics and health are, beside the registry.
    pub metrics_listen: Option<SocketAddr>,
    /// Certificates for TLS, and their key; both or none.
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// What clients call it behind a proxy.
    pub external_url: Option<String>,
    /// Whose word about addresses counts.
    pub trusted_proxies: Arc<[IpAddr]>,
    /// Take manifests whose blobs are not here.
    pub sparse: bool,
    /// Bytes of images per owner; `None` is no limit.
    pub quota: Option<u64>,
    /// Memory of all transfers.
    pub transfer_memory: u64,
    /// Memory of heads and manifests.
    pub cache_memory: u64,
    /// Largest blob.
    pub blob_max: u64,
    /// Connections at the same time.
    pub connections_max: usize,
    /// Requests of one caller at the same time.
    pub requests_max: usize,
    /// A client that sends or takes nothing is cut off after this.
    pub stall_time: Duration,
    /// Transfers may go on for so long at the end.
    pub shutdown_time: Duration,
    /// An upload that nobody goes on with ends after this.
    pub upload_expiry: Duration,
    /// A manifest that nothing keeps goes after this.
    pub untagged_expiry: Duration,
    /// From finding an unused blob to removing it.
    pub collect_grace: Duration,
    /// How often unused blobs are looked for; `None` never.
    pub collect_interval: Option<Duration>,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            listen: None,
            metrics_listen: None,
            tls_certificate: None,
            tls_key: None,
            external_url: None,
            trusted_proxies: Arc::new([]),
            sparse: false,
            quota: None,
            transfer_memory: 24 << 20,
            cache_memory: 40 << 20,
            blob_max: 1 << 40,
            connections_max: 1024,
            requests_max: 256,
            stall_time: Duration::from_secs(60),
            shutdown_time: Duration::from_secs(60),
            upload_expiry: 24 * HOUR,
            untagged_expiry: 14 * 24 * HOUR,
            collect_grace: 48 * HOUR,
            collect_interval: Some(HOUR),
        }
    }
}

impl GatewaySettings {
    /// Where it is to listen, and whether somebody chose that.
    pub fn addresses(&self) -> (Vec<SocketAddr>, bool) {
        match &self.listen {
            Some(listen) => (listen.clone(), true),
            None => (vec![LISTEN_DEFAULT], false),
        }
    }

    /// Sets one key from its text.
    ///
    /// # Errors
    /// What is wrong with the value.
    ///
    /// # Panics
    /// When `key` is not one of the section.
    pub fn apply(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key.strip_prefix(SECTION).unwrap_or(key) {
            "listen" => self.listen = Some(parse_listen(value)?),
            "metrics_listen" => self.metrics_listen = parse_listen(value)?.into_iter().next(),
            "tls_certificate" => self.tls_certificate = Some(parse_path(value)?),
            "tls_key" => self.tls_key = Some(parse_path(value)?),
            "external_url" => self.external_url = Some(parse_url(value)?),
            "trusted_proxies" => self.trusted_proxies = parse_addresses(value)?,
            "sparse" => {
                self.sparse =
                    bool::from_str(value).map_err(|_| "write true or false".to_owned())?;
            }
            "quota" => {
                let bytes = not_zero(parse_bytes(value)?)?;
                self.quota = (bytes != NO_LIMIT).then_some(bytes);
            }
            "transfer_memory" => self.transfer_memory = not_zero(parse_bytes(value)?)?,
            "cache_memory" => self.cache_memory = not_zero(parse_bytes(value)?)?,
            "blob_max" => self.blob_max = not_zero(parse_bytes(value)?)?,
            "connections_max" => self.connections_max = parse_number(value)?,
            "requests_max" => self.requests_max = parse_number(value)?,
            "stall_time" => self.stall_time = parse_time(value)?,
            "shutdown_time" => self.shutdown_time = parse_duration(value)?,
            "upload_expiry" => self.upload_expiry = parse_time(value)?,
            "untagged_expiry" => self.untagged_expiry = parse_time(value)?,
            "collect_grace" => self.collect_grace = parse_duration(value)?,
            "collect_interval" => {
                self.collect_interval =
                    if value == "none" { None } else { Some(parse_time(value)?) };
            }
            unknown => unreachable!("`{unknown}` is not in KEYS"),
        }
        Ok(())
    }
}

/// Reads `127.0.0.1:5000`, several of them separated by commas, or `none`.
///
/// # Errors
/// What is right instead.
pub fn parse_listen(text: &str) -> Result<Vec<SocketAddr>, String> {
    const HELP: &str = "write ADDRESS:PORT, as 127.0.0.1:5000 or [::1]:5000; or none";
    if text.trim() == "none" {
        return Ok(Vec::new());
    }
    let read = |word: &str| word.trim().parse().map_err(|_| HELP.to_owned());
    text.split(',').map(read).collect()
}

fn parse_addresses(text: &str) -> Result<Arc<[IpAddr]>, String> {
    if text.trim().is_empty() {
        return Ok(Arc::new([]));
    }
    let read = |word: &str| {
        let address: IpAddr = word.trim().parse().map_err(|_| "write IP addresses".to_owned())?;
        Ok(address.to_canonical())
    };
    text.split(',').map(read).collect()
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("the path is empty".to_owned()) } else { Ok(text.into()) }
}

fn parse_url(text: &str) -> Result<String, String> {
    const HELP: &str = "write https://HOST[:PORT][/PATH]";
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |b: u8| b.is_ascii_graphic() && !b"?#\"<>\\".contains(&b);
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(plain) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(HELP.to_owned()),
    }
}

fn parse_number(text: &str) -> Result<usize, String> {
    let number = not_zero(parse_count(text)?)?;
    // What a semaphore can count.
    const MOST: u64 = 1 << 30;
    usize::try_from(number.min(MOST)).map_err(|_| "too large".to_owned())
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;

    #[test]
    fn addresses_are_read_one_or_several_or_none() {
        assert_eq!(parse_listen("none"), Ok(vec![]));
        assert_eq!(parse_listen("127.0.0.1:5000, [::1]:5000").map(|a| a.len()), Ok(2));
        assert!(parse_listen("localhost").is_err());
        assert_eq!(GatewaySettings::default().addresses(), (vec![LISTEN_DEFAULT], false));
    }

    #[test]
    fn every_key_of_the_section_is_known_here() {
        for key in KEYS.iter().filter(|key| key.starts_with(SECTION)) {
            let mut settings = GatewaySettings::default();
            // Known, whether or not this is a value for it.
            let _known = settings.apply(key, "1");
        }
    }

    #[test]
    fn an_external_url_is_a_url_without_tricks() {
        assert_eq!(parse_url("https://r.example/p/"), Ok("https://r.example/p".to_owned()));
        for bad in ["r.example", "ftp://r", "https://", "https://a b", "https://a\"b", "http:///x"]
        {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }
}
