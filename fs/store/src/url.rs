//! Store URLs: the one parser for what a person writes to name a store.
//!
//! ```text
//! rados://[client@]pool[/namespace]?conf=…&meta_pool=…&mon_host=…&keyring=…&timeout=10s
//! file:///absolute/path
//! s3://bucket[/prefix]?region=…&endpoint=…
//! memory:
//! ```
//!
//! Parsing touches nothing: whether a pool exists is found out when the store is opened. Display
//! gives a URL that parses to the same value, in one canonical form.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

mod query;
use query::{Query, encode};

/// Ceph's own default user; left out when a URL is shown.
const RADOS_CLIENT_DEFAULT: &str = "admin";
/// Long enough for an election of monitors, short enough for a person who waits.
pub const RADOS_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Where a store lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    Rados(RadosUrl),
    File(PathBuf),
    S3(S3Url),
    Memory,
}

/// `rados://[client@]pool[/namespace]?…`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RadosUrl {
    /// The Ceph user without `client.` in front.
    pub client: String,
    /// Holds segments and blobs; may be erasure-coded.
    pub pool: String,
    /// RADOS namespace in both pools; empty is the default one.
    pub namespace: String,
    /// Holds log, tables, heads and indexes; replicated. `pool` when absent.
    pub meta_pool: Option<String>,
    /// ceph.conf to read. librados' search path when absent.
    pub conf: Option<PathBuf>,
    pub keyring: Option<PathBuf>,
    pub mon_host: Option<String>,
    /// Limit for reaching the cluster.
    pub timeout: Duration,
}

/// `s3://bucket[/prefix]?…`; credentials come from the environment, never from a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Url {
    pub bucket: String,
    pub prefix: String,
    pub region: Option<String>,
    pub endpoint: Option<String>,
}

/// What is wrong with which part of a URL, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("store URL `{url}`: {part}: {problem}; {remedy}")]
pub struct UrlError {
    pub url: String,
    /// `scheme`, `path`, `pool`, `parameter conf`, …
    pub part: String,
    pub problem: String,
    pub remedy: String,
}

const SCHEMES: [&str; 4] = ["rados", "file", "s3", "memory"];

impl FromStr for StoreUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let err = |part: &str, problem: String, remedy: String| UrlError {
            url: text.to_owned(),
            part: part.to_owned(),
            problem,
            remedy,
        };
        let Some((scheme, rest)) = text.split_once(':') else {
            let remedy = if text.starts_with('/') {
                format!("for a directory write `file://{text}`")
            } else {
                "write rados://POOL, file:///PATH, s3://BUCKET or memory:".to_owned()
            };
            return Err(err("scheme", "is missing".to_owned(), remedy));
        };
        if !SCHEMES.contains(&scheme) {
            let remedy = match query::nearest(scheme, &SCHEMES) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known are {}", SCHEMES.join(", ")),
            };
            return Err(err("scheme", format!("`{scheme}` is not known"), remedy));
        }
        let rest = match (scheme, rest.strip_prefix("//")) {
            (_, Some(rest)) => rest,
            ("memory", None) => rest,
            _ => {
                let remedy = format!("write `{scheme}://…`");
                return Err(err("scheme", "`//` is missing behind it".to_owned(), remedy));
            }
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        if place.contains('#') || query.contains('#') {
            let remedy = "write %23 for a `#` in a name".to_owned();
            return Err(err("fragment", "has no meaning here".to_owned(), remedy));
        }
        let mut parts = Parts { url: text, query: Query::parse(text, query)? };
        match scheme {
            "rados" => parts.rados(place),
            "file" => parts.file(place),
            "s3" => parts.s3(place),
            _ => parts.memory(place),
        }
    }
}

/// A URL that is being taken apart: the whole text for messages, the parameters not yet used.
struct Parts<'a> {
    url: &'a str,
    query: Query,
}

impl Parts<'_> {
    fn err(&self, part: &str, problem: impl Into<String>, remedy: impl Into<String>) -> UrlError {
        UrlError {
            url: self.url.to_owned(),
            part: part.to_owned(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    fn name(&self, part: &str, raw: &str) -> Result<String, UrlError> {
        query::decode(raw).ok_or_else(|| {
            self.err(
                part,
                format!("`{raw}` has a broken % escape"),
                "write two hexadecimal digits behind each %, of UTF-8 text",
            )
        })
    }

    fn rados(&mut self, place: &str) -> Result<StoreUrl, UrlError> {
        let (client, place) = match place.split_once('@') {
            Some((client, place)) => (self.name("client", client)?, place),
            None => (RADOS_CLIENT_DEFAULT.to_owned(), place),
        };
        let client = client.strip_prefix("client.").unwrap_or(&client).to_owned();
        if client.is_empty() || client.contains(':') {
            let remedy = "write rados://USER@POOL, with a Ceph user's name and no password; \
                          the key comes from a keyring";
            return Err(self.err("client", format!("`{client}` is no Ceph user"), remedy));
        }
        let (pool, namespace) = place.split_once('/').unwrap_or((place, ""));
        let namespace = namespace.strip_suffix('/').unwrap_or(namespace);
        if pool.is_empty() {
            return Err(self.err("pool", "is missing", "write rados://POOL"));
        }
        if namespace.contains('/') {
            let remedy = "write one namespace behind the pool: rados://POOL/NAMESPACE";
            return Err(self.err("namespace", format!("`{namespace}` has more parts"), remedy));
        }
        let pool = self.name("pool", pool)?;
        let namespace = self.name("namespace", namespace)?;
        let meta_pool = self.query.take("meta_pool").filter(|meta| *meta != pool);
        let timeout = match self.query.take("timeout") {
            None => RADOS_TIMEOUT_DEFAULT,
            Some(text) => query::duration(&text).ok_or_else(|| {
                self.err(
                    "parameter timeout",
                    format!("`{text}` is no time from 1s to 10m"),
                    "write seconds or minutes, as in timeout=10s or timeout=2m",
                )
            })?,
        };
        let url = RadosUrl {
            client,
            pool,
            namespace,
            meta_pool,
            conf: self.absolute("conf")?,
            keyring: self.absolute("keyring")?,
            mon_host: self.query.take("mon_host"),
            timeout,
        };
        self.finish(&["conf", "meta_pool", "mon_host", "keyring", "timeout"])?;
        Ok(StoreUrl::Rados(url))
    }

    fn file(&mut self, place: &str) -> Result<StoreUrl, UrlError> {
        if !place.starts_with('/') {
            let (host, path) = place.split_once('/').unwrap_or((place, ""));
            let remedy = if host == "localhost" {
                format!("write file:///{path}")
            } else {
                format!("write three slashes and an absolute path: file:///{place}")
            };
            return Err(self.err("path", "is not absolute", remedy));
        }
        let path = PathBuf::from(self.name("path", place)?);
        self.finish(&[])?;
        Ok(StoreUrl::File(path))
    }

    fn s3(&mut self, place: &str) -> Result<StoreUrl, UrlError> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.contains('@') {
            let remedy = "put keys into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
            return Err(self.err("bucket", "a URL must not hold credentials", remedy));
        }
        if bucket.is_empty() {
            return Err(self.err("bucket", "is missing", "write s3://BUCKET[/PREFIX]"));
        }
        let url = S3Url {
            bucket: self.name("bucket", bucket)?,
            prefix: self.name("prefix", prefix.trim_matches('/'))?,
            region: self.query.take("region"),
            endpoint: self.query.take("endpoint"),
        };
        self.finish(&["region", "endpoint"])?;
        Ok(StoreUrl::S3(url))
    }

    fn memory(&mut self, place: &str) -> Result<StoreUrl, UrlError> {
        if !place.is_empty() {
            let problem = format!("`{place}` names a place, but memory has none");
            return Err(self.err("path", problem, "write `memory:`"));
        }
        self.finish(&[])?;
        Ok(StoreUrl::Memory)
    }

    fn absolute(&mut self, key: &str) -> Result<Option<PathBuf>, UrlError> {
        match self.query.take(key) {
            Some(path) if !Path::new(&path).is_absolute() => Err(self.err(
                &format!("parameter {key}"),
                format!("`{path}` is not absolute"),
                "write the whole path of the file, from /",
            )),
            path => Ok(path.map(PathBuf::from)),
        }
    }

    /// What was not taken is not known; the message names the nearest parameter that is.
    fn finish(&self, known: &[&str]) -> Result<(), UrlError> {
        let Some(key) = self.query.left() else {
            return Ok(());
        };
        let remedy = match query::nearest(key, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "this kind of store takes none".to_owned(),
            None => format!("known are {}", known.join(", ")),
        };
        Err(self.err(&format!("parameter {key}"), "is not known", remedy))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut query: Vec<(&str, String)> = Vec::new();
        match self {
            StoreUrl::Memory => f.write_str("memory:")?,
            StoreUrl::File(path) => write!(f, "file://{}", encode(&path.to_string_lossy()))?,
            StoreUrl::S3(s3) => {
                write!(f, "s3://{}", encode(&s3.bucket))?;
                if !s3.prefix.is_empty() {
                    write!(f, "/{}", encode(&s3.prefix))?;
                }
                query.extend(s3.region.clone().map(|v| ("region", v)));
                query.extend(s3.endpoint.clone().map(|v| ("endpoint", v)));
            }
            StoreUrl::Rados(rados) => {
                f.write_str("rados://")?;
                if rados.client != RADOS_CLIENT_DEFAULT {
                    write!(f, "{}@", query::encode_name(&rados.client))?;
                }
                f.write_str(&query::encode_name(&rados.pool))?;
                if !rados.namespace.is_empty() {
                    write!(f, "/{}", query::encode_name(&rados.namespace))?;
                }
                let path = |p: &PathBuf| p.to_string_lossy().into_owned();
                query.extend(rados.conf.as_ref().map(|v| ("conf", path(v))));
                query.extend(rados.meta_pool.clone().map(|v| ("meta_pool", v)));
                query.extend(rados.mon_host.clone().map(|v| ("mon_host", v)));
                query.extend(rados.keyring.as_ref().map(|v| ("keyring", path(v))));
                if rados.timeout != RADOS_TIMEOUT_DEFAULT {
                    query.push(("timeout", format!("{}s", rados.timeout.as_secs())));
                }
            }
        }
        for (i, (key, value)) in query.iter().enumerate() {
            write!(f, "{}{key}={}", if i == 0 { '?' } else { '&' }, encode(value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
