//! What the catalogue promises, case by case, over memory.

mod images;
mod owners;
mod races;
mod space;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use yadokari_catalog::integration::{Instance, World};
use yadokari_catalog::{
    Algorithm, Digest, Hasher, ManifestLinks, NewManifest, Options, OwnerName, RepoName, Tag,
};
use yadokari_store::Store;

pub const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn world() -> World {
    world_with(Options::default())
}

pub fn world_with(options: Options) -> World {
    let options = Options { head_age_max: Duration::ZERO, ..options };
    World::new(&Store::memory(), 1, options)
}

pub fn repo(name: &str) -> RepoName {
    name.parse().expect("a repository name")
}

pub fn owner(name: &str) -> OwnerName {
    name.parse().expect("an owner name")
}

pub fn tag(name: &str) -> Tag {
    name.parse().expect("a tag")
}

pub fn sha256(bytes: &[u8]) -> Digest {
    Hasher::digest(Algorithm::Sha256, bytes)
}

pub fn bytes(length: usize, seed: u8) -> Bytes {
    (0..length).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<_>>().into()
}

pub fn manifest(text: &str, links: ManifestLinks, tags: &[&str]) -> NewManifest {
    let bytes = Bytes::from(text.to_owned());
    NewManifest {
        digest: sha256(&bytes),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        bytes,
        links,
        tags: tags.iter().map(|name| tag(name)).collect(),
        sparse: false,
    }
}

/// Nothing is wrong with what is stored.
pub async fn assert_sound(world: &World) {
    let problems = world.problems().await;
    assert!(problems.is_empty(), "{problems:#?}");
}

pub async fn parts(world: &World) -> usize {
    use futures::TryStreamExt;
    let below = "parts".into();
    let found: Vec<_> = world.store().data.list(Some(&below)).try_collect().await.expect("a list");
    found.len()
}

/// An instance and another one over the same store.
pub fn two(world: &World) -> (Arc<Instance>, Arc<Instance>) {
    (Arc::new(world.instance(1)), Arc::new(world.instance(2)))
}
