//! Reading manifests: what they are made of, and nothing else.
//!
//! One lenient shape reads images, indexes and artifact manifests of OCI and Docker, as their
//! fields do not overlap; unknown fields are kept in the bytes and ignored here. A document that
//! is two things at once (layers and manifests) is refused, since clients would disagree about
//! what it is (CVE-2021-41190).

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, MediaType};
use serde::Deserialize;
use yadokari_catalog::{Digest, DigestError};

use super::error::{ApiError, Code};
use super::media::{self, Kind};

/// Larger manifests are refused with 413; the specification asks for 4 MiB at least.
pub const MANIFEST_BYTES_MAX: usize = 8 << 20;
/// Nothing real comes near; more would be work for nothing.
pub const DESCRIPTORS_MAX: usize = 20_000;

/// A manifest as the registry sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it is made of.
    pub kind: Kind,
    /// As it is served.
    pub media_type: String,
    /// Configuration and layers, without those that lie elsewhere (`urls`).
    pub blobs: Vec<Part>,
    /// Manifests of an index.
    pub children: Vec<Part>,
    /// The manifest that this one is about.
    pub subject: Option<Digest>,
    /// What referrers are filtered by: its own type, else for an image its configuration's.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A part of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub digest: Digest,
    pub size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u32>,
    media_type: Option<String>,
    artifact_type: Option<MediaType>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
    /// Schema 1 only; a document that has both would mean two things.
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// Reads a manifest that came with this `Content-Type`.
    ///
    /// # Errors
    /// `MANIFEST_INVALID` with what is wrong; `UNSUPPORTED` for digests that cannot be verified.
    pub fn parse(content_type: Option<&str>, bytes: &[u8]) -> Result<Self, ApiError> {
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| invalid(format!("the manifest cannot be read: {error}")))?;
        let media_type = media_type(content_type, &document)?;
        let Some(kind) = media::kind(&media_type) else {
            return Err(invalid(format!("manifests of the type {media_type} are not supported")));
        };
        document.check(kind)?;
        Self::of(kind, media_type, document)
    }

    fn of(kind: Kind, media_type: String, document: Document) -> Result<Self, ApiError> {
        let own_type = document.artifact_type.map(|kind| kind.to_string());
        let own_type = own_type.filter(|text| !text.is_empty());
        let (mut blobs, mut children) = (Vec::new(), Vec::new());
        let mut artifact_type = own_type;
        match kind {
            Kind::Image => {
                let config = document.config.ok_or_else(|| invalid("`config` is missing"))?;
                artifact_type = artifact_type.or_else(|| Some(config.media_type().to_string()));
                blobs.push(part(&config)?);
                blobs.extend(distributable(document.layers.unwrap_or_default())?);
            }
            Kind::Index => {
                for child in document.manifests.unwrap_or_default() {
                    children.push(part(&child)?);
                }
            }
            Kind::Artifact => blobs.extend(distributable(document.blobs.unwrap_or_default())?),
        }
        if blobs.len() + children.len() > DESCRIPTORS_MAX {
            return Err(invalid(format!("more than {DESCRIPTORS_MAX} descriptors")));
        }
        let subject = document.subject.map(|subject| part(&subject)).transpose()?;
        Ok(Self {
            kind,
            media_type,
            blobs,
            children,
            subject: subject.map(|subject| subject.digest),
            artifact_type: artifact_type.filter(|text| !text.is_empty()),
            annotations: document.annotations.unwrap_or_default(),
        })
    }
}

impl Document {
    fn check(&self, kind: Kind) -> Result<(), ApiError> {
        // The artifact manifest has no version.
        if kind != Kind::Artifact && self.schema_version != Some(2) {
            return Err(invalid("`schemaVersion` must be 2"));
        }
        let foreign = match kind {
            Kind::Image => self.manifests.is_some() || self.blobs.is_some(),
            Kind::Index => self.config.is_some() || self.layers.is_some() || self.blobs.is_some(),
            Kind::Artifact => {
                self.config.is_some() || self.layers.is_some() || self.manifests.is_some()
            }
        };
        if foreign || self.fs_layers.is_some() {
            return Err(invalid("the manifest has fields of another kind of manifest"));
        }
        Ok(())
    }
}

/// What it is: as the header says, where it says something; else as the document says; else by
/// its shape. Header and document may not disagree.
fn media_type(content_type: Option<&str>, document: &Document) -> Result<String, ApiError> {
    let said = content_type.map(media::essence).filter(|essence| !media::says_nothing(essence));
    let own = document.media_type.as_deref().filter(|own| !own.is_empty());
    match (said, own) {
        (Some(said), Some(own)) if said != own => {
            Err(invalid(format!("Content-Type is {said}, but the manifest's mediaType is {own}")))
        }
        (Some(said), _) => Ok(said),
        (None, Some(own)) => Ok(own.to_owned()),
        (None, None) if document.manifests.is_some() => Ok(media::OCI_INDEX.to_owned()),
        (None, None) => Ok(media::OCI_MANIFEST.to_owned()),
    }
}

/// Layers that are to be here; those with `urls` may lie elsewhere.
fn distributable(descriptors: Vec<Descriptor>) -> Result<Vec<Part>, ApiError> {
    let elsewhere =
        |descriptor: &Descriptor| descriptor.urls().as_ref().is_some_and(|urls| !urls.is_empty());
    descriptors.iter().filter(|descriptor| !elsewhere(descriptor)).map(part).collect()
}

fn part(descriptor: &Descriptor) -> Result<Part, ApiError> {
    let digest = descriptor.digest().as_ref().parse().map_err(|error: DigestError| {
        invalid(format!("digest {}: {error}", descriptor.digest()))
    })?;
    Ok(Part { digest, size: descriptor.size() })
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::with(Code::ManifestInvalid, message)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
