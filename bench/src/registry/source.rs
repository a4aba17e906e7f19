//! What is pushed: blobs of random bytes that nobody has to keep in memory, and manifests.

use std::sync::OnceLock;

use rand::{RngExt, SeedableRng};
use serde_json::json;
use yadokari_catalog::{Algorithm, Hasher};

/// The media type of manifests.
pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Random bytes that all blobs consist of, again and again: registries do not compress.
const BLOCK_BYTES: usize = 32 << 20;
const PIECE_BYTES: usize = 1 << 20;
/// Beginning of a blob: what makes it another than all others.
const SEED_BYTES: usize = 16;

/// A blob: its first bytes are its own, then comes the common block, as often as it takes.
#[derive(Clone, Debug)]
pub struct Source {
    first: [u8; SEED_BYTES],
    len: u64,
    digest: String,
}

fn block() -> &'static [u8] {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let mut bytes = vec![0; BLOCK_BYTES];
        rand::rngs::StdRng::seed_from_u64(1).fill(&mut bytes[..]);
        bytes
    })
}

impl Source {
    /// A blob that no other run, round or contender has.
    pub fn fresh(len: u64) -> Self {
        let len = len.max(SEED_BYTES as u64);
        let mut source = Self { first: rand::random(), len, digest: String::new() };
        let mut hasher = Hasher::new(Algorithm::Sha256);
        source.pieces().for_each(|piece| hasher.update(piece));
        source.digest = hasher.finish().to_string();
        source
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// `sha256:…`.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Its bytes in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let rest = self.len - SEED_BYTES as u64;
        let whole = block();
        let starts = (0..rest).step_by(PIECE_BYTES);
        let pieces = starts.map(move |at| {
            let from = usize::try_from(at % BLOCK_BYTES as u64).unwrap_or(0);
            let len = usize::try_from(rest - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
            &whole[from..from + len]
        });
        std::iter::once(&self.first[..]).chain(pieces)
    }

    fn descriptor(&self, kind: &str) -> serde_json::Value {
        json!({"mediaType": kind, "digest": self.digest, "size": self.len})
    }
}

/// The manifest of an image.
pub fn manifest(config: &Source, layers: &[Source]) -> String {
    let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
    let layers: Vec<_> = layers.iter().map(|source| source.descriptor(layer)).collect();
    json!({
        "schemaVersion": 2, "mediaType": IMAGE,
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": layers,
    })
    .to_string()
}

/// The digest of a manifest.
pub fn digest(text: &str) -> String {
    Hasher::digest(Algorithm::Sha256, text.as_bytes()).to_string()
}
