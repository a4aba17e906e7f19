//! From errors of the catalogue to errors of the specification: one exhaustive match.

use std::time::Duration;

use yadokari_catalog::{CatalogError, What};

use crate::oci::{ApiError, Code};

/// A store that failed is rarely back sooner.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What a request was about: decides which code "not there" has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Manifest,
    Blob,
    Upload,
    Repository,
}

impl About {
    /// What is said of something that is not there, or that the caller must not know of.
    #[must_use]
    pub fn unknown(self) -> ApiError {
        ApiError::new(match self {
            Self::Manifest => Code::ManifestUnknown,
            Self::Blob => Code::BlobUnknown,
            Self::Upload => Code::BlobUploadUnknown,
            Self::Repository => Code::NameUnknown,
        })
    }
}

/// The error that a client gets; the catalogue's own words stay with the operator.
#[must_use]
pub fn explain(about: About, error: CatalogError) -> ApiError {
    let answer = match &error {
        CatalogError::NotFound { what, .. } => not_found(about, *what),
        CatalogError::BlobsMissing { missing, .. } => {
            const SHOWN: usize = 10;
            let shown: Vec<String> = missing.iter().take(SHOWN).map(ToString::to_string).collect();
            let more = missing.len().saturating_sub(SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let message = format!("blobs are not in this repository: {}{more}", shown.join(", "));
            // 404 reads as if the repository were missing; the suites take 400 and 404.
            ApiError::with(Code::ManifestBlobUnknown, message)
        }
        CatalogError::WrongOffset { offset, .. } => ApiError::with(
            Code::BlobUploadInvalid,
            format!("the upload goes on at offset {offset}"),
        )
        .status(416),
        CatalogError::DigestMismatch { expected, found } => ApiError::with(
            Code::DigestInvalid,
            format!("the content has the digest {found}, not {expected}"),
        ),
        CatalogError::OverQuota { owner, used, reserved, limit, requested } => ApiError::with(
            Code::Denied,
            over_quota(owner.as_str(), *used, *reserved, *limit, *requested),
        ),
        CatalogError::InUse { digest, by } => {
            ApiError::with(Code::Denied, format!("{digest} is used by {by}; delete that first"))
                .status(405)
        }
        CatalogError::Clash { owner, .. } => ApiError::with(
            Code::Denied,
            format!("the name {owner} belongs to somebody else; an administrator decides"),
        ),
        CatalogError::Exists { name } => {
            ApiError::with(Code::Denied, format!("{name} exists already")).status(409)
        }
        CatalogError::Limit { what: "open upload sessions", limit } => ApiError::with(
            Code::TooManyRequests,
            format!("more than {limit} uploads of one owner are open"),
        )
        .retry_after(RETRY_AFTER),
        CatalogError::Limit { what, limit } => {
            ApiError::with(Code::SizeInvalid, format!("{what}: at most {limit}")).status(413)
        }
        CatalogError::Invalid(why) => ApiError::with(invalid(about), *why),
        CatalogError::NoSpace { .. } => {
            ApiError::with(Code::Denied, "the registry's store is full").status(507)
        }
        CatalogError::Unavailable { .. } => {
            ApiError::new(Code::Unavailable).retry_after(RETRY_AFTER)
        }
        CatalogError::Corrupt { .. } => ApiError::new(Code::Unknown),
    };
    answer.because(error)
}

fn not_found(about: About, what: What) -> ApiError {
    match what {
        What::Manifest | What::Tag => About::Manifest.unknown(),
        What::Blob => About::Blob.unknown(),
        What::Upload => About::Upload.unknown(),
        What::Owner | What::Repository => about.unknown(),
    }
}

fn invalid(about: About) -> Code {
    match about {
        About::Manifest => Code::ManifestInvalid,
        About::Blob => Code::DigestInvalid,
        About::Upload => Code::BlobUploadInvalid,
        About::Repository => Code::NameInvalid,
    }
}

fn over_quota(owner: &str, used: u64, reserved: u64, limit: u64, requested: u64) -> String {
    let reserved = match reserved {
        0 => String::new(),
        bytes => format!(" and {} reserved for uploads", size(bytes)),
    };
    format!(
        "over quota: {owner} uses {}{reserved} of {}; this needs {} more",
        size(used),
        size(limit),
        size(requested)
    )
}

/// Bytes as people read them, and exactly.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => {
            format!("{}.{} {name} ({bytes} bytes)", bytes / unit, bytes % unit * 10 / unit)
        }
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_quota_names_used_and_limit() {
        let error = CatalogError::OverQuota {
            owner: "ada".parse().unwrap(),
            used: 3 << 20,
            reserved: 0,
            limit: 4 << 20,
            requested: 2 << 20,
        };
        let answer = explain(About::Blob, error);
        assert_eq!((answer.code, answer.status), (Code::Denied, 403));
        assert!(answer.message.contains("3.0 MiB (3145728 bytes)"), "{}", answer.message);
        assert!(answer.message.contains("4.0 MiB (4194304 bytes)"), "{}", answer.message);
    }

    #[test]
    fn the_stores_words_stay_with_the_operator() {
        let error = CatalogError::Unavailable {
            operation: "reading",
            object: "registry/secret/path".to_owned(),
            source: None,
        };
        let answer = explain(About::Manifest, error);
        assert_eq!(answer.status, 503);
        assert!(!answer.body().contains("secret"));
        assert!(answer.cause_text().unwrap().contains("registry/secret/path"));
    }
}
