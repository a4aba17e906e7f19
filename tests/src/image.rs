//! Images made of random bytes, and pushing them request by request.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use yadokari_catalog::{Algorithm, Hasher};

use crate::gateway::password;
use crate::http::{Answer, Request};

/// The media type of an image.
pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A user of a gateway, who asks it things.
#[derive(Debug, Clone)]
pub struct Client {
    at: SocketAddr,
    user: Option<String>,
}

/// Content and its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The content.
    pub bytes: Vec<u8>,
    /// `sha256:…`.
    pub digest: String,
}

impl Blob {
    /// Some content.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let digest = Hasher::digest(Algorithm::Sha256, &bytes).to_string();
        Self { bytes, digest }
    }

    /// Random content, the same for the same seed.
    #[must_use]
    pub fn random(len: usize, seed: u64) -> Self {
        let mut bytes = vec![0u8; len];
        rand::rngs::StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
        Self::new(bytes)
    }

    /// Its SHA-512 digest.
    #[must_use]
    pub fn sha512(&self) -> String {
        Hasher::digest(Algorithm::Sha512, &self.bytes).to_string()
    }

    /// Its descriptor.
    #[must_use]
    pub fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// An image manifest of a configuration and layers.
#[must_use]
pub fn manifest(config: &Blob, layers: &[Blob]) -> Value {
    let layers: Vec<Value> = layers.iter().map(|layer| layer.descriptor(LAYER)).collect();
    json!({
        "schemaVersion": 2, "mediaType": IMAGE,
        "config": config.descriptor(CONFIG), "layers": layers,
    })
}

impl Client {
    /// Somebody whom the registry knows.
    #[must_use]
    pub fn new(at: SocketAddr, user: &str) -> Self {
        Self { at, user: Some(user.to_owned()) }
    }

    /// Nobody in particular.
    #[must_use]
    pub fn anonymous(at: SocketAddr) -> Self {
        Self { at, user: None }
    }

    /// The same user at another gateway.
    #[must_use]
    pub fn at(&self, at: SocketAddr) -> Self {
        Self { at, user: self.user.clone() }
    }

    /// A request below `/v2/`, or of a Location.
    #[must_use]
    pub fn request(&self, method: &str, path: &str) -> Request {
        let target = match path.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]).to_owned(),
            None if path.starts_with('/') => path.to_owned(),
            None => format!("/v2/{path}"),
        };
        let request = Request::new(method, target);
        match &self.user {
            Some(user) => request.basic(user, &password(user)),
            None => request,
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn send(&self, request: &Request) -> Result<Answer> {
        request.send(self.at)
    }

    /// GET.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.send(&self.request("GET", path))
    }

    /// HEAD.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn head(&self, path: &str) -> Result<Answer> {
        self.send(&self.request("HEAD", path))
    }

    /// DELETE.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.send(&self.request("DELETE", path))
    }

    /// Begins an upload; where it goes on.
    ///
    /// # Errors
    /// Any answer but 202.
    pub fn begin(&self, repo: &str) -> Result<String> {
        let begun = self.send(&self.request("POST", &format!("{repo}/blobs/uploads/")))?.is(202)?;
        Ok(begun.needs("Location")?.to_owned())
    }

    /// Pushes a blob with POST and PUT.
    ///
    /// # Errors
    /// Any answer but 202 and 201.
    pub fn push_blob(&self, repo: &str, blob: &Blob) -> Result<()> {
        self.try_push_blob(repo, blob)?.is(201)?;
        Ok(())
    }

    /// The same; gives the answer to the PUT, or to the POST if that was refused.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn try_push_blob(&self, repo: &str, blob: &Blob) -> Result<Answer> {
        let begun = self.send(&self.request("POST", &format!("{repo}/blobs/uploads/")))?;
        if begun.status != 202 {
            return Ok(begun);
        }
        let target = with_query(begun.needs("Location")?, &format!("digest={}", blob.digest));
        self.send(&self.request("PUT", &target).body(blob.bytes.clone()))
    }

    /// Puts a manifest under a reference.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn put_manifest(&self, repo: &str, reference: &str, manifest: &Value) -> Result<Answer> {
        let kind = manifest["mediaType"].as_str().unwrap_or(IMAGE).to_owned();
        let request = self.request("PUT", &format!("{repo}/manifests/{reference}"));
        self.send(&request.header("Content-Type", kind).body(manifest.to_string()))
    }

    /// Pushes a whole image of random layers; its manifest's blob.
    ///
    /// # Errors
    /// Any refusal.
    pub fn push_image(&self, repo: &str, tag: &str, layers: usize, seed: u64) -> Result<Blob> {
        let config = Blob::random(700, seed);
        let layers: Vec<Blob> =
            (0..layers).map(|n| Blob::random(100_000, seed * 1000 + n as u64 + 1)).collect();
        for blob in layers.iter().chain([&config]) {
            self.push_blob(repo, blob)?;
        }
        let manifest = manifest(&config, &layers);
        self.put_manifest(repo, tag, &manifest)?.is(201)?;
        Ok(Blob::new(manifest.to_string()))
    }

    /// Pulls an image whole and checks every digest.
    ///
    /// # Errors
    /// When anything is missing or not what its digest says.
    pub fn pull_image(&self, repo: &str, reference: &str) -> Result<Blob> {
        let answer = self.get(&format!("{repo}/manifests/{reference}"))?.is(200)?;
        let manifest = Blob::new(answer.body.clone());
        anyhow::ensure!(answer.needs("Docker-Content-Digest")? == manifest.digest);
        let value = answer.json()?;
        let layers = value["layers"].as_array().context("layers")?;
        for part in layers.iter().chain([&value["config"]]) {
            let digest = part["digest"].as_str().context("a digest")?;
            let body = self.get(&format!("{repo}/blobs/{digest}"))?.is(200)?.body;
            anyhow::ensure!(Blob::new(body).digest == digest, "{digest} is something else");
        }
        Ok(manifest)
    }

    /// Tags of a repository.
    ///
    /// # Errors
    /// Any answer but 200.
    pub fn tags(&self, repo: &str) -> Result<Vec<String>> {
        let list = self.get(&format!("{repo}/tags/list"))?.is(200)?.json()?;
        Ok(serde_json::from_value(list["tags"].clone())?)
    }
}

/// A Location with one more parameter.
#[must_use]
pub fn with_query(location: &str, parameter: &str) -> String {
    let sign = if location.contains('?') { '&' } else { '?' };
    format!("{location}{sign}{parameter}")
}
