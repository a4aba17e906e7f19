//! Media types of manifests that the registry takes, and what each is.

/// The OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The artifact manifest that 1.1's release candidates had; some tools still push it.
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
/// Docker's image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What a manifest is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A configuration and layers.
    Image,
    /// Other manifests.
    Index,
    /// Blobs without a configuration.
    Artifact,
}

/// What a media type is, where it is a manifest's.
#[must_use]
pub fn kind(media_type: &str) -> Option<Kind> {
    match media_type {
        OCI_MANIFEST | DOCKER_MANIFEST => Some(Kind::Image),
        OCI_INDEX | DOCKER_LIST => Some(Kind::Index),
        OCI_ARTIFACT => Some(Kind::Artifact),
        _ => None,
    }
}

/// A `Content-Type` without its parameters, in lower case.
#[must_use]
pub fn essence(content_type: &str) -> String {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// Types that say nothing about what the content is; clients send them when they do not know.
#[must_use]
pub fn says_nothing(essence: &str) -> bool {
    matches!(
        essence,
        "" | "application/json"
            | "application/octet-stream"
            | "text/plain"
            | "application/x-www-form-urlencoded"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_matter() {
        assert_eq!(essence(" Application/VND.oci.image.index.v1+JSON ; charset=utf-8"), OCI_INDEX);
        assert_eq!(kind(OCI_INDEX), Some(Kind::Index));
        assert_eq!(kind("application/vnd.docker.distribution.manifest.v1+prettyjws"), None);
    }
}
