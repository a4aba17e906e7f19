//! A collection that stops at each of its operations in turn while others push, mount and ask
//! for what it condemned; and those, stopped at each of theirs, while it collects.

use std::time::Duration;

use bytes::Bytes;
use yadokari_store::Store;
use yadokari_store::fault::{Action, Fault};

use super::world::{Instance, World};
use crate::{Algorithm, CatalogError, Digest, Hasher, Options, RepoName};

/// A day more than the grace.
const LATER: Duration = Duration::from_secs(3 * 24 * 3600);

/// What others do with what was condemned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Push it again, in parts.
    Push,
    /// Push it again, small.
    PushSmall,
    /// Mount it from a repository that is losing it.
    Mount,
    /// Ask for it where it is linked and not used.
    Ask,
    /// Push a manifest again that is being removed.
    Manifest,
}

const DEEDS: [Deed; 5] = [Deed::Push, Deed::PushSmall, Deed::Mount, Deed::Ask, Deed::Manifest];

/// How far the life of the blob is when collection and deed meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its record was condemned and may go now.
    RecordIsDue,
    /// It is linked, unused, condemned there, and may be unlinked now.
    LinkIsDue,
    /// Nothing links it any more, and its record is live yet.
    RecordIsLive,
}

const FATES: [Fate; 3] = [Fate::RecordIsDue, Fate::LinkIsDue, Fate::RecordIsLive];

struct Scene {
    world: World,
    collector: Instance,
    other: Instance,
    blob: Bytes,
    digest: Digest,
    deed: Deed,
}

fn repo(name: &str) -> RepoName {
    name.parse().expect("a name")
}

/// Every deed at every fate, with the collection stopped at each operation while the deed is
/// done whole, and the deed stopped at each of its operations while collection runs whole.
/// `make` gives an empty store for each run. Gives the number of runs.
///
/// # Panics
/// When something that was promised is not there, or anything is not as it must be.
pub async fn stall_everywhere<F: Future<Output = Store>>(mut make: impl FnMut() -> F) -> u64 {
    let mut runs = 0;
    for deed in DEEDS {
        for fate in FATES {
            for stop_collector in [true, false] {
                for at in 0.. {
                    let scene = Scene::new(&make().await, deed, fate).await;
                    let what = format!("{deed:?} {fate:?} collector {stop_collector} at {at}");
                    runs += 1;
                    if !scene.play(stop_collector, at, &what).await {
                        break;
                    }
                }
            }
        }
    }
    runs
}

impl Scene {
    async fn new(store: &Store, deed: Deed, fate: Fate) -> Self {
        let options = Options { head_age_max: Duration::ZERO, ..Options::default() };
        let world = World::new(store, 1, options);
        let (collector, other) = (world.instance(1), world.instance(2));
        let length = if deed == Deed::Push { 150_000 } else { 500 };
        let blob = Bytes::from(vec![7; length]);
        let digest = Hasher::digest(Algorithm::Sha256, &blob);
        let scene = Scene { world, collector, other, blob, digest, deed };
        scene.set(fate).await;
        scene
    }

    /// Brings blob and manifest to where they shall be.
    async fn set(&self, fate: Fate) {
        let (one, two) = (repo("alice/one"), repo("bob/two"));
        let instance = &self.other;
        let kept = Bytes::from_static(b"kept");
        for repo in [&one, &two] {
            let pushed = instance.push(repo, &kept, 100).await.expect("pushed");
            let tag = "kept".parse().expect("a tag");
            instance.put(repo, "kept", &[pushed], &[tag]).await.expect("put");
        }
        if self.deed == Deed::Manifest {
            let tag = "gone".parse().expect("a tag");
            let tags = std::slice::from_ref(&tag);
            instance.put(&one, "manifest", &[], tags).await.expect("put");
            let digest = Hasher::digest(Algorithm::Sha256, b"manifest");
            match fate {
                Fate::LinkIsDue => instance.catalog.delete_tag(&one, &tag).await.expect("deleted"),
                _ => {
                    instance.catalog.delete_manifest(&one, &digest).await.expect("deleted");
                }
            }
            if fate == Fate::LinkIsDue {
                self.world.clock.advance(Duration::from_secs(15 * 24 * 3600));
            }
        } else {
            instance.push(&one, &self.blob, 40_000).await.expect("pushed");
            if fate == Fate::LinkIsDue {
                self.world.clock.advance(LATER);
            } else if self.deed != Deed::Ask {
                instance.catalog.delete_blob(&one, &self.digest).await.expect("deleted");
            }
        }
        instance.catalog.flush().await.expect("settled");
        if fate != Fate::RecordIsLive {
            self.collector.collect().await.expect("collected");
            self.world.clock.advance(LATER);
        }
    }

    /// False when there was no operation of that number to stop at.
    async fn play(self, stop_collector: bool, at: u64, what: &str) -> bool {
        let (stopped, runs) = match stop_collector {
            true => (&self.collector, &self.other),
            false => (&self.other, &self.collector),
        };
        stopped.faults.arm(Fault::new(Action::Hang).after(at).into());
        let first = tokio::spawn(self.part(stopped.clone(), stop_collector));
        while !first.is_finished() && stopped.faults.hanging() == 0 {
            tokio::task::yield_now().await;
        }
        let did_stop = stopped.faults.hanging() > 0;
        let second = self.part(runs.clone(), !stop_collector).await;
        if !stop_collector {
            // A whole life of the blob passes while the deed stands still.
            for _ in 0..2 {
                self.world.clock.advance(Duration::from_secs(3600));
                self.collector.collect().await.expect("collected");
            }
        }
        stopped.faults.disarm();
        let first = first.await.expect("no panic");
        let did = if stop_collector { second } else { first };
        self.check(did, what).await;
        did_stop
    }

    /// The collection, or the deed: whether it said that the blob is there.
    fn part(
        &self,
        instance: Instance,
        collect: bool,
    ) -> impl Future<Output = bool> + Send + 'static {
        let (deed, blob, digest) = (self.deed, self.blob.clone(), self.digest);
        async move {
            if collect {
                instance.collect().await.expect("collected");
                return false;
            }
            let (one, two) = (repo("alice/one"), repo("bob/two"));
            let done: Result<(), CatalogError> = match deed {
                Deed::Push => instance.push(&two, &blob, 40_000).await.map(drop),
                Deed::PushSmall => instance.catalog.put_blob(&two, &digest, blob).await.map(drop),
                Deed::Mount => instance.catalog.mount(&two, &one, &digest).await.map(drop),
                Deed::Ask => instance.catalog.blob(&one, &digest).await.map(drop),
                Deed::Manifest => instance.put(&one, "manifest", &[], &[]).await.map(drop),
            };
            match done {
                Ok(()) => true,
                Err(CatalogError::NotFound { .. }) => false,
                Err(error) => panic!("{deed:?}: {error:?}"),
            }
        }
    }

    /// What was said to be there is, for as long as was promised, and all else is in order.
    async fn check(&self, promised: bool, what: &str) {
        let place = match self.deed {
            Deed::Ask | Deed::Manifest => repo("alice/one"),
            Deed::Push | Deed::PushSmall | Deed::Mount => repo("bob/two"),
        };
        self.world.clock.advance(Duration::from_secs(24 * 3600));
        self.collector.collect().await.expect("collected");
        let fresh = self.world.instance(3);
        if promised && self.deed == Deed::Manifest {
            let digest = Hasher::digest(Algorithm::Sha256, b"manifest");
            let reference = crate::Reference::Digest(digest);
            let found = fresh.catalog.manifest(&place, &reference).await;
            assert_eq!(found.expect(what).bytes, "manifest", "{what}");
        } else if promised {
            assert_eq!(fresh.pull(&place, &self.digest).await.expect(what), self.blob, "{what}");
            let tag = "image".parse().expect("a tag");
            fresh.put(&place, "image", &[self.digest], &[tag]).await.expect(what);
        } else {
            assert!(matches!(self.deed, Deed::Mount | Deed::Ask), "{what}: it cannot be missing");
        }
        for _ in 0..3 {
            self.world.clock.advance(LATER);
            self.collector.collect().await.expect("collected");
        }
        if promised && self.deed != Deed::Manifest {
            assert_eq!(fresh.pull(&place, &self.digest).await.expect(what), self.blob, "{what}");
        }
        let problems = self.world.problems().await;
        assert!(problems.is_empty(), "{what}: {problems:#?}");
    }
}
