//! Several instances of a catalogue over one store, each behind faults of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use yadokari_store::Store;
use yadokari_store::fault::{FaultControl, FaultPlan, FaultStore};

use super::seams::{ManualClock, SeededRandomness};
use crate::{
    Algorithm, Catalog, CatalogError, CollectOptions, CollectReport, Digest, Hasher, ManifestLinks,
    NewManifest, NewUpload, Options, ReadOptions, RepoName, Seams, StoredManifest, Tag,
};

/// One instance and the switch of its faults.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The catalogue as this instance sees it.
    pub catalog: Catalog,
    /// Its faults.
    pub faults: FaultControl,
}

/// A store, a clock and the instances over it.
#[derive(Debug)]
pub struct World {
    store: Store,
    /// Everybody's clock.
    pub clock: Arc<ManualClock>,
    seed: u64,
    options: Options,
}

impl World {
    /// Over a store that nobody else uses. `options` are those of every instance, except for
    /// the seams.
    #[must_use]
    pub fn new(store: &Store, seed: u64, options: Options) -> Self {
        World { store: store.clone(), clock: Arc::default(), seed, options }
    }

    /// Another instance. `number` makes its randomness its own.
    #[must_use]
    pub fn instance(&self, number: u64) -> Instance {
        let faults = FaultControl::new(FaultPlan::none());
        let store = self
            .store
            .clone()
            .wrap(|_, inner| Arc::new(FaultStore::with_control(inner, faults.clone())));
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(number);
        let seams = Seams {
            clock: Arc::clone(&self.clock) as _,
            random: Arc::new(SeededRandomness::new(seed)),
        };
        let options = Options { seams, ..self.options.clone() };
        Instance { catalog: Catalog::new(&store, options), faults }
    }

    /// The store without faults.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Lets everything end that is under way, then says everything that is not as it must be.
    pub async fn problems(&self) -> Vec<String> {
        let instance = self.instance(u64::MAX / 2);
        self.clock.advance(Duration::from_secs(20 * 60));
        let mut problems = Vec::new();
        if let Err(error) = instance.collect().await {
            problems.push(format!("collection: {error}"));
        }
        match instance.catalog.fsck(false, true).await {
            Ok(report) => problems.extend(report.findings.iter().map(|f| format!("{f:?}"))),
            Err(error) => problems.push(format!("fsck: {error}")),
        }
        problems
    }
}

impl Instance {
    /// A round of collection without pauses.
    ///
    /// # Errors
    /// As [`Catalog::collect`].
    pub async fn collect(&self) -> Result<CollectReport, CatalogError> {
        let options = CollectOptions { pace: Duration::ZERO, ..CollectOptions::default() };
        self.catalog.collect(&options).await
    }

    /// Pushes a blob through a session, in pieces of `piece` bytes.
    ///
    /// # Errors
    /// What the catalogue says.
    pub async fn push(
        &self,
        repo: &RepoName,
        bytes: &Bytes,
        piece: usize,
    ) -> Result<Digest, CatalogError> {
        let digest = Hasher::digest(Algorithm::Sha256, bytes);
        let upload = self.catalog.begin_upload(repo, NewUpload::default()).await?;
        let id = upload.id().clone();
        let mut writer = upload.write_at(0, None, 2).await?;
        let half = bytes.len() / 2;
        for at in (0..half).step_by(piece.max(1)) {
            writer.write(bytes.slice(at..half.min(at + piece))).await?;
        }
        writer.end().await?;
        let upload = self.catalog.upload(repo, &id).await?;
        let offset = upload.offset();
        assert_eq!(offset, half as u64);
        let mut writer = upload.write_at(offset, None, 2).await?;
        for at in (half..bytes.len()).step_by(piece.max(1)) {
            writer.write(bytes.slice(at..bytes.len().min(at + piece))).await?;
        }
        writer.finish(&digest).await?;
        Ok(digest)
    }

    /// Pushes a manifest that has these layers.
    ///
    /// # Errors
    /// What the catalogue says.
    pub async fn put(
        &self,
        repo: &RepoName,
        text: &str,
        layers: &[Digest],
        tags: &[Tag],
    ) -> Result<StoredManifest, CatalogError> {
        let bytes = Bytes::from(text.to_owned());
        let manifest = NewManifest {
            digest: Hasher::digest(Algorithm::Sha256, &bytes),
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            bytes,
            links: ManifestLinks { layers: layers.to_vec(), ..ManifestLinks::default() },
            tags: tags.to_vec(),
            sparse: false,
        };
        self.catalog.put_manifest(repo, manifest).await
    }

    /// All bytes of a blob.
    ///
    /// # Errors
    /// What the catalogue says.
    pub async fn pull(&self, repo: &RepoName, digest: &Digest) -> Result<Bytes, CatalogError> {
        let options = ReadOptions { piece_bytes: 10_000, ahead: 2 };
        let reader = self.catalog.read_blob(repo, digest, None, options).await?;
        let pieces: Vec<Bytes> = reader.try_collect().await?;
        Ok(pieces.concat().into())
    }
}
