//! What the tests of a home share: a home over any store, and short words for its operations.
#![allow(dead_code)] // Every test uses a part of it.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStore, path::Path};
use yadokari_fs::home::*;

/// Where the home of the tests lies.
pub const PREFIX: &str = "homes/alice";

/// Opens the home of the tests, without limits.
pub async fn open(
    meta: &Arc<dyn ObjectStore>,
    data: &Arc<dyn ObjectStore>,
    shared: &Arc<Shared>,
) -> Home {
    let open = OpenHome {
        name: "alice".into(),
        data: Arc::clone(data),
        meta: Arc::clone(meta),
        prefix: Path::from(PREFIX),
        quota: Quota::NONE,
        root_uid: 1000,
        root_gid: 1000,
        root_perm: 0o700,
        shared: Arc::clone(shared),
        tenure: Arc::new(Undisputed),
        seed: Some(1),
    };
    Home::open(open).await.expect("opens")
}

/// A new client of `home`.
pub fn caller(home: &Home) -> Caller {
    Caller { uid: 1000, gid: 1000, client: home.attach() }
}

/// A new regular file.
pub fn file(perm: u16) -> NewNode {
    NewNode { kind: Kind::File, perm, umask: 0, rdev: 0, target: Bytes::new() }
}

/// A new directory.
pub fn dir() -> NewNode {
    NewNode { kind: Kind::Dir, ..file(0o755) }
}

/// A name.
pub fn name(s: &str) -> Name {
    Name::new(s.as_bytes()).expect("a name")
}

/// Bytes that do not compress and that `seed` tells apart.
pub fn noise(seed: u64, len: usize) -> Bytes {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out.into()
}

/// The contents of a file.
pub async fn read_all(home: &Home, ino: Ino) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let pieces = home.read(ino, all.len() as u64, 1 << 20).await.expect("reads");
        if pieces.is_empty() {
            return all;
        }
        for piece in pieces {
            all.extend_from_slice(&piece);
        }
    }
}
