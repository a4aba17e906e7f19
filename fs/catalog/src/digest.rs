//! Digests as OCI writes them: `sha256:…` and `sha512:…`, in lower-case hex.
//!
//! A [`Digest`] is always well formed; that some bytes have it is shown by [`crate::Hasher`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The algorithms that are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, what nearly everybody uses.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// As in a digest, before the colon.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Length of a digest in bytes.
    #[must_use]
    pub fn digest_bytes(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }

    /// By its name; `None` for one that is not known here.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Algorithm::Sha256),
            "sha512" => Some(Algorithm::Sha512),
            _ => None,
        }
    }
}

/// The longest digest.
const BYTES_MAX: usize = 64;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// A digest. Ordered by algorithm, then by its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    /// Zeros behind the algorithm's length.
    bytes: [u8; BYTES_MAX],
}

/// Why a text is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// It is not `algorithm:hex` at all.
    #[error("not a digest")]
    Malformed,
    /// It follows the grammar, but nobody here can verify it.
    #[error("an algorithm that is not supported")]
    Unsupported,
}

impl Digest {
    /// From the algorithm's own number of bytes; `None` for any other number.
    #[must_use]
    pub fn new(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != algorithm.digest_bytes() {
            return None;
        }
        let mut all = [0; BYTES_MAX];
        all[..bytes.len()].copy_from_slice(bytes);
        Some(Digest { algorithm, bytes: all })
    }

    /// Which algorithm it is of.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.digest_bytes()]
    }

    /// Its bytes in hex, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        let mut hex = String::with_capacity(BYTES_MAX * 2);
        for byte in self.bytes() {
            hex.push(char::from(HEX[usize::from(byte >> 4)]));
            hex.push(char::from(HEX[usize::from(byte & 15)]));
        }
        hex
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or(DigestError::Malformed)?;
        let Some(algorithm) = Algorithm::from_name(name) else {
            let known = is_algorithm(name) && is_encoded(hex);
            return Err(if known { DigestError::Unsupported } else { DigestError::Malformed });
        };
        if hex.len() != algorithm.digest_bytes() * 2 {
            return Err(DigestError::Malformed);
        }
        let mut bytes = [0; BYTES_MAX];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Ok(Digest { algorithm, bytes })
    }
}

fn nibble(hex: u8) -> Result<u8, DigestError> {
    match hex {
        b'0'..=b'9' => Ok(hex - b'0'),
        b'a'..=b'f' => Ok(hex - b'a' + 10),
        _ => Err(DigestError::Malformed),
    }
}

/// `[a-z0-9]+` in components parted by one of `+._-`.
fn is_algorithm(name: &str) -> bool {
    let is_plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    name.split(['+', '.', '_', '-']).all(is_plain)
}

fn is_encoded(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(is_plain)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_as_it_was_written() {
        for text in [format!("sha256:{}", "0f".repeat(32)), format!("sha512:{}", "a9".repeat(64))] {
            let digest: Digest = text.parse().expect("a digest");
            assert_eq!(digest.to_string(), text);
            assert_eq!(Digest::new(digest.algorithm(), digest.bytes()), Some(digest));
        }
    }

    #[test]
    fn what_is_no_digest_is_told_from_what_is_unsupported() {
        let hex = "0f".repeat(32);
        for text in [
            "",
            ":",
            "sha256",
            "sha256:",
            "sha256:00",
            "SHA256:00",
            "sha256:zz",
            "../x:y",
            &format!("sha256:{}", hex.to_uppercase()),
            &format!("sha256:{hex}0"),
            &format!("sha256:{hex}\n"),
            &format!("sha512:{hex}"),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(DigestError::Malformed), "{text:?}");
        }
        for text in ["md5:abcd", "blake3:00", "sha256+b64u:LCa0a2j_xo"] {
            assert_eq!(text.parse::<Digest>(), Err(DigestError::Unsupported), "{text}");
        }
    }
}
