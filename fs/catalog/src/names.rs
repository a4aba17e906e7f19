//! Names that the registry knows: owners, repositories, tags, sessions.
//!
//! The only way to one of these types is its parser, which holds the text to the grammar of the
//! OCI distribution specification. So no path, case or encoding trick gets past this file.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestError};

/// Longest name of a repository, as Docker and most clients have it.
pub const REPOSITORY_BYTES_MAX: usize = 255;
/// Longest tag, by the specification.
pub const TAG_BYTES_MAX: usize = 128;

/// Why a text is no such name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Against the grammar.
    #[error("not a valid {0}")]
    Malformed(&'static str),
    /// Longer than allowed.
    #[error("a {0} of more than {1} bytes")]
    TooLong(&'static str, usize),
    /// A reference that is a digest which cannot be used.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A whole repository name: `owner` or `owner/path`. The first component is its owner.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoName(Arc<str>);
text_type!(RepoName);

/// A user or group that owns repositories: one component of a repository name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerName(Arc<str>);
text_type!(OwnerName);

/// A tag.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);
text_type!(Tag);

/// An upload session's name: 128 random bits in hex, which nobody can guess.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(Arc<str>);
text_type!(UploadId);

impl RepoName {
    /// Who owns it: the first component.
    #[must_use]
    pub fn owner(&self) -> OwnerName {
        OwnerName(self.owner_str().into())
    }

    /// Its owner's name, borrowed.
    #[must_use]
    pub fn owner_str(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(owner, _)| owner)
    }

    /// What follows the owner; empty for a name of one component.
    #[must_use]
    pub fn rest(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, rest)| rest)
    }

    /// The repository of an owner by what follows the owner's name, which may be empty.
    ///
    /// # Errors
    /// When that makes no valid name.
    pub fn of(owner: &OwnerName, rest: &str) -> Result<Self, NameError> {
        if rest.is_empty() {
            return owner.as_str().parse();
        }
        format!("{owner}/{rest}").parse()
    }
}

impl UploadId {
    /// From random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        UploadId(format!("{:032x}", u128::from_be_bytes(bytes)).into())
    }
}

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By a name that can move.
    Tag(Tag),
    /// By content.
    Digest(Digest),
}

impl FromStr for RepoName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        const WHAT: &str = "repository name";
        if text.len() > REPOSITORY_BYTES_MAX {
            return Err(NameError::TooLong(WHAT, REPOSITORY_BYTES_MAX));
        }
        if !text.split('/').all(is_component) {
            return Err(NameError::Malformed(WHAT));
        }
        Ok(RepoName(text.into()))
    }
}

impl FromStr for OwnerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        const WHAT: &str = "owner name";
        if text.len() > REPOSITORY_BYTES_MAX {
            return Err(NameError::TooLong(WHAT, REPOSITORY_BYTES_MAX));
        }
        if !is_component(text) {
            return Err(NameError::Malformed(WHAT));
        }
        Ok(OwnerName(text.into()))
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        const WHAT: &str = "tag";
        if text.len() > TAG_BYTES_MAX {
            return Err(NameError::TooLong(WHAT, TAG_BYTES_MAX));
        }
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let mut bytes = text.bytes();
        let begins = bytes.next().is_some_and(is_word);
        if !begins || !bytes.all(|b| is_word(b) || matches!(b, b'.' | b'-')) {
            return Err(NameError::Malformed(WHAT));
        }
        Ok(Tag(text.into()))
    }
}

impl FromStr for UploadId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_hex) {
            return Err(NameError::Malformed("upload session"));
        }
        Ok(UploadId(text.into()))
    }
}

impl FromStr for Reference {
    type Err = NameError;

    /// A colon, which no tag has, makes it a digest.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.contains(':') {
            return Ok(Reference::Digest(text.parse()?));
        }
        Ok(Reference::Tag(text.parse()?))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => fmt::Display::fmt(tag, f),
            Reference::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, of the specification.
fn is_component(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !is_plain(*first) || !is_plain(*last) {
        return false;
    }
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    separators.filter(|s| !s.is_empty()).all(is_separator)
}

fn is_separator(text: &str) -> bool {
    matches!(text, "." | "_" | "__") || text.bytes().all(|b| b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_repositories_is_the_specifications() {
        for good in ["a", "alice/app", "a/b/c", "a.b", "a_b", "a__b", "a-b", "a---b", "0/1-2_3.4"] {
            assert!(good.parse::<RepoName>().is_ok(), "{good}");
        }
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "a/B", ".", "..", "a/..", "../a", "a/./b", "-a",
            "a-", "a..b", "a___b", "a._b", "a.-b", "_a", "a b", "a\0", "a\n", "a%2fb", "a\\b", "ä",
            "a:b", "a@b", "a+b",
        ] {
            assert!(bad.parse::<RepoName>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(255).parse::<RepoName>().is_ok());
        assert!("a".repeat(256).parse::<RepoName>().is_err());
    }

    #[test]
    fn a_repository_belongs_to_its_first_component() {
        let deep: RepoName = "alice/app/part".parse().expect("a name");
        assert_eq!(deep.owner().as_str(), "alice");
        assert_eq!(deep.rest(), "app/part");
        assert_eq!(RepoName::of(&deep.owner(), deep.rest()), Ok(deep));
        let flat: RepoName = "alpine".parse().expect("a name");
        assert_eq!((flat.owner().as_str(), flat.rest()), ("alpine", ""));
        assert_eq!(RepoName::of(&flat.owner(), ""), Ok(flat));
    }

    #[test]
    fn the_grammar_of_tags_is_the_specifications() {
        for good in ["latest", "_", "V1.0-rc_2", "0", &"x".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a:b", "a b", "ü", "a\0", "a+b", &"x".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_reference_is_a_tag_or_a_digest() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(matches!(digest.parse(), Ok(Reference::Digest(_))));
        assert!(matches!("v1".parse(), Ok(Reference::Tag(_))));
        assert_eq!("md5:aa".parse::<Reference>(), Err(NameError::Digest(DigestError::Unsupported)));
        assert!("sha256:aa".parse::<Reference>().is_err());
    }

    #[test]
    fn a_session_is_32_hex_digits() {
        let id = UploadId::from_bytes([7; 16]);
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        for bad in ["", "..", "0", &"g".repeat(32), &"A".repeat(32), &"0".repeat(33)] {
            assert!(bad.parse::<UploadId>().is_err(), "{bad:?}");
        }
    }
}
