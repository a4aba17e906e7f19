//! Hashing that can be put down and taken up again, by another process too.

use serde::{Deserialize, Serialize};
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256, Sha512};

use crate::digest::{Algorithm, Digest};

/// A digest under way.
#[derive(Clone, Debug)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
}

/// The state of a [`Hasher`], in hex, as it lies in an upload session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashState {
    algorithm: String,
    state: String,
}

impl Hasher {
    /// Nothing hashed yet.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    /// Digest of some bytes.
    #[must_use]
    pub fn digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Which algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Hasher::Sha256(_) => Algorithm::Sha256,
            Hasher::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes more bytes. About 1 ms per 2 MiB where the processor has instructions for it.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all bytes so far.
    #[must_use]
    pub fn finish(self) -> Digest {
        let digest = match self {
            Hasher::Sha256(hasher) => Digest::new(Algorithm::Sha256, &hasher.finalize()),
            Hasher::Sha512(hasher) => Digest::new(Algorithm::Sha512, &hasher.finalize()),
        };
        digest.expect("an algorithm gives digests of its own length")
    }

    /// To be written down.
    #[must_use]
    pub fn state(&self) -> HashState {
        let state = match self {
            Hasher::Sha256(hasher) => to_hex(&hasher.serialize()),
            Hasher::Sha512(hasher) => to_hex(&hasher.serialize()),
        };
        HashState { algorithm: self.algorithm().name().to_owned(), state }
    }

    /// From what was written down; None if that is damaged.
    #[must_use]
    pub fn resume(state: &HashState) -> Option<Self> {
        let bytes = from_hex(&state.state)?;
        match Algorithm::from_name(&state.algorithm)? {
            Algorithm::Sha256 => {
                let state = SerializedState::<Sha256>::try_from(bytes.as_slice()).ok()?;
                Some(Hasher::Sha256(Sha256::deserialize(&state).ok()?))
            }
            Algorithm::Sha512 => {
                let state = SerializedState::<Sha512>::try_from(bytes.as_slice()).ok()?;
                Some(Hasher::Sha512(Sha512::deserialize(&state).ok()?))
            }
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(hex, "{byte:02x}").expect("a string takes everything");
    }
    hex
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        return None;
    }
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).ok();
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_goes_on_from_its_written_state_at_any_byte() {
        let bytes: Vec<u8> = (0..1000u32).map(|n| (n % 251) as u8).collect();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let whole = Hasher::digest(algorithm, &bytes);
            for cut in (0..bytes.len()).step_by(7) {
                let mut first = Hasher::new(algorithm);
                first.update(&bytes[..cut]);
                let json = serde_json::to_string(&first.state()).expect("JSON");
                let state = serde_json::from_str(&json).expect("JSON");
                let mut second = Hasher::resume(&state).expect("a state");
                second.update(&bytes[cut..]);
                assert_eq!(second.finish(), whole, "{cut}");
            }
        }
    }

    #[test]
    fn digests_are_those_that_everybody_knows() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Hasher::digest(Algorithm::Sha256, b"").to_string(), empty);
    }

    #[test]
    fn a_damaged_state_is_refused() {
        for state in ["", "0", "zz", "00ff"] {
            let state = HashState { algorithm: "sha256".to_owned(), state: state.to_owned() };
            assert!(Hasher::resume(&state).is_none());
        }
    }
}
