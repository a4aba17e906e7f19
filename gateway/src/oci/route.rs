//! The one route `/v2/{*rest}`: a path is decoded once, then held to the grammar of the
//! specification.
//!
//! Whatever does not match has no meaning here: no `..`, no upper case, no second decoding, no
//! empty component. The last components decide what a path is, so that a repository may be called
//! `a/manifests/b` or `tags/list`.

use percent_encoding::percent_decode_str;
use yadokari_catalog::{Digest, DigestError, NameError, RepoName, Tag};

use super::error::{ApiError, Code};

/// Longer paths are refused before they are looked at: a name, a digest and the words between.
pub const PATH_BYTES_MAX: usize = 2048;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`: is this a registry, and who am I?
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/_oci/ext/discover`
    Extensions,
    /// `/v2/NAME/tags/list`
    Tags(RepoName),
    /// `/v2/NAME/manifests/REFERENCE`
    Manifest(RepoName, Reference),
    /// `/v2/NAME/blobs/DIGEST`
    Blob(RepoName, Digest),
    /// `/v2/NAME/blobs/uploads/`
    Uploads(RepoName),
    /// `/v2/NAME/blobs/uploads/SESSION`; what a session's name looks like its keeper decides.
    Upload(RepoName, String),
    /// `/v2/NAME/referrers/DIGEST`
    Referrers(RepoName, Digest),
}

/// What stands behind `manifests/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
    /// Neither: nothing can be there, and nothing can be put there.
    Neither(String),
}

impl Reference {
    /// Anything with a colon means a digest, anything else a tag.
    ///
    /// # Errors
    /// `DIGEST_INVALID` for a digest of the wrong form or of an algorithm that is not known.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        if text.contains(':') {
            return Ok(Self::Digest(digest(text)?));
        }
        Ok(text.parse().map_or_else(|_| Self::Neither(text.to_owned()), Self::Tag))
    }
}

/// Reads what follows `/v2/`, as it came over the wire.
///
/// # Errors
/// `NAME_INVALID`, `DIGEST_INVALID`; `NAME_UNKNOWN` for a path of no meaning.
pub fn parse(rest: &str) -> Result<Route, ApiError> {
    if rest.len() > PATH_BYTES_MAX {
        return Err(ApiError::with(Code::NameInvalid, "the path is too long").status(414));
    }
    let decoded = percent_decode_str(rest).decode_utf8();
    let path = decoded.map_err(|_| ApiError::with(Code::NameInvalid, "the path is no UTF-8"))?;
    match path.as_ref() {
        "" => return Ok(Route::Base),
        "_catalog" => return Ok(Route::Catalog),
        "_oci/ext/discover" => return Ok(Route::Extensions),
        _ => {}
    }
    let unknown = || ApiError::with(Code::NameUnknown, "no such path in this API");
    let (before, last) = path.rsplit_once('/').ok_or_else(unknown)?;
    let (name, word) = before.rsplit_once('/').ok_or_else(unknown)?;
    // `blobs/uploads` without the slash behind it means the same.
    if word == "blobs" && last == "uploads" {
        return Ok(Route::Uploads(repository(name)?));
    }
    match word {
        "uploads" => {
            let name = name.strip_suffix("/blobs").ok_or_else(unknown)?;
            let name = repository(name)?;
            Ok(if last.is_empty() {
                Route::Uploads(name)
            } else {
                Route::Upload(name, last.into())
            })
        }
        "tags" if last == "list" => Ok(Route::Tags(repository(name)?)),
        "manifests" => Ok(Route::Manifest(repository(name)?, Reference::parse(last)?)),
        "blobs" => Ok(Route::Blob(repository(name)?, digest(last)?)),
        "referrers" => Ok(Route::Referrers(repository(name)?, digest(last)?)),
        _ => Err(unknown()),
    }
}

/// A repository's name, or why it is none.
///
/// # Errors
/// `NAME_INVALID`.
pub fn repository(text: &str) -> Result<RepoName, ApiError> {
    text.parse().map_err(|error: NameError| ApiError::with(Code::NameInvalid, error.to_string()))
}

/// A digest, or why it is none.
///
/// # Errors
/// `DIGEST_INVALID`.
pub fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse()
        .map_err(|error: DigestError| ApiError::with(Code::DigestInvalid, error.to_string()))
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
