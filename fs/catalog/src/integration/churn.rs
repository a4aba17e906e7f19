//! Everything at once, under faults, and a recount behind it.
//!
//! Several actors share a few repositories and blobs, and go through several instances. Each
//! keeps tags and manifests of its own, so that what it did decides what must be there: a tag
//! whose last operation was acknowledged points where that said; one whose last operation got no
//! answer points to the old or the new manifest, or nowhere if one of the two was that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use yadokari_store::fault::{Action, Fault, FaultPlan, OpKind};
use yadokari_store::{Kind, Store};

use super::seams::SeededRandomness;
use super::world::{Instance, World};
use crate::{
    Algorithm, CatalogError, Digest, Hasher, Options, OwnerName, Quota, Reference, RepoName, Tag,
};

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// Decides everything.
    pub seed: u64,
    /// Instances of the catalogue.
    pub instances: u64,
    /// Actors at work at the same time.
    pub actors: u64,
    /// Operations of each.
    pub steps: u64,
    /// Chance that an operation of the store fails, or that its answer is lost: each.
    pub fault: f64,
}

const OWNERS: [&str; 2] = ["alice", "staff"];
const REPOS: [&str; 4] = ["alice/app", "alice/other", "staff/base", "staff/base/deep"];
const TAGS: [&str; 3] = ["latest", "v1", "v2"];
/// Less than all blobs together.
const QUOTA: u64 = 400_000;

/// Instances that are alive, and the number of the next one.
type Instances = Arc<Mutex<(Vec<Instance>, u64)>>;

/// Where a tag may point.
type Tags = BTreeMap<(RepoName, Tag), BTreeSet<Option<Digest>>>;

struct Actor {
    number: u64,
    random: SeededRandomness,
    world: Arc<World>,
    instances: Instances,
    fault: f64,
    tags: Tags,
    made: Vec<(RepoName, Digest)>,
    log: Vec<String>,
}

/// Runs it, and panics with the seed when something is wrong.
///
/// # Panics
/// When something is wrong.
pub async fn churn(store: &Store, how: Churn) {
    let options = Options {
        head_age_max: Duration::from_millis(200),
        retry_time: Duration::from_secs(4),
        reserve_step_bytes: 100_000,
        ..Options::default()
    };
    let world = Arc::new(World::new(store, how.seed, options));
    let first: Vec<Instance> = (0..how.instances).map(|n| world.instance(n)).collect();
    for owner in OWNERS {
        let quota = Quota::Bytes(QUOTA);
        first[0].catalog.set_quota(&name(owner), quota).await.expect("a quota");
    }
    for (number, instance) in first.iter().enumerate() {
        let seed = how.seed.wrapping_add(number as u64);
        instance.faults.arm(faults(seed, how.fault));
    }
    let instances: Instances = Arc::new(Mutex::new((first, how.instances)));
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn(watch(world.instance(1000), Arc::clone(&stop)));
    let mut actors = tokio::task::JoinSet::new();
    for number in 0..how.actors {
        let actor = Actor {
            number,
            random: SeededRandomness::new(how.seed ^ (number + 1).wrapping_mul(0xABCD_EF01)),
            world: Arc::clone(&world),
            instances: Arc::clone(&instances),
            fault: how.fault,
            tags: Tags::new(),
            made: Vec::new(),
            log: Vec::new(),
        };
        actors.spawn(actor.run(how.steps));
    }
    let done = actors.join_all().await;
    stop.store(true, Ordering::SeqCst);
    let most = watcher.await.expect("the watcher watched");
    assert!(most <= QUOTA, "seed {}: {most} bytes of {QUOTA}", how.seed);
    let left = instances.lock().0.clone();
    for instance in left {
        instance.faults.disarm();
        instance.catalog.flush().await.expect("settled");
    }
    let problems = world.problems().await;
    let log = || done.iter().map(|actor| actor.log.join("\n")).collect::<Vec<_>>().join("\n\n");
    assert!(problems.is_empty(), "seed {}: {problems:#?}\n{}", how.seed, log());
    let fresh = world.instance(1001);
    for actor in &done {
        actor.check(&fresh, how.seed).await;
    }
    clear(&world, &fresh, how.seed).await;
}

fn name(owner: &str) -> OwnerName {
    owner.parse().expect("a name")
}

fn faults(seed: u64, chance: f64) -> FaultPlan {
    let delay = Action::Delay(Duration::from_millis(3));
    let rules = [
        Fault::new(Action::Fail(Kind::Unavailable)).always().probability(chance),
        Fault::new(Action::LoseAnswer(Kind::Unavailable))
            .on(OpKind::WRITES)
            .always()
            .probability(chance),
        Fault::new(delay).always().probability(chance * 2.0),
    ];
    FaultPlan::new(seed, rules)
}

/// The most that any owner ever used and reserved.
async fn watch(instance: Instance, stop: Arc<AtomicBool>) -> u64 {
    let mut most = 0;
    while !stop.load(Ordering::SeqCst) {
        for owner in OWNERS {
            if let Ok(usage) = instance.catalog.usage(&name(owner)).await {
                most = most.max(usage.used + usage.reserved);
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    most
}

/// Deletes everything and lets collection take it: nothing may be left.
async fn clear(world: &World, instance: &Instance, seed: u64) {
    for repo in REPOS {
        let repo: RepoName = repo.parse().expect("a name");
        match instance.catalog.delete_repository(&repo).await {
            Ok(()) | Err(CatalogError::NotFound { .. }) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    for _ in 0..6 {
        world.clock.advance(Duration::from_secs(60 * 3600));
        instance.collect().await.expect("collected");
    }
    for owner in OWNERS {
        let usage = instance.catalog.usage(&name(owner)).await.expect("usage");
        assert_eq!((usage.used, usage.reserved, usage.blobs), (0, 0, 0), "seed {seed}: {owner}");
    }
    let parts = instance.catalog.objects(&*world.store().data, &"parts".into()).await;
    assert_eq!(parts.expect("a list"), [], "seed {seed}");
    let sessions = instance.catalog.objects(&*world.store().meta, &"uploads".into()).await;
    assert_eq!(sessions.expect("a list"), [], "seed {seed}");
}

impl Actor {
    fn instance(&self) -> Instance {
        let alive = &self.instances.lock().0;
        alive[self.random.below(alive.len() as u64) as usize].clone()
    }

    /// Kills an instance at whatever it is doing, and starts another in its place.
    fn kill(&mut self) {
        let mut instances = self.instances.lock();
        let (alive, next) = &mut *instances;
        let which = self.random.below(alive.len() as u64) as usize;
        alive[which].faults.crash();
        alive[which] = self.world.instance(*next);
        alive[which].faults.arm(faults(*next, self.fault));
        *next += 1;
        self.log.push(format!("{} kills an instance", self.number));
    }

    fn repo(&self) -> RepoName {
        REPOS[self.random.below(REPOS.len() as u64) as usize].parse().expect("a name")
    }

    /// One of a few blobs that everybody pushes, small ones and ones of several parts.
    fn blob(&self) -> Bytes {
        let which = self.random.below(6);
        let bytes = [10, 3_000, 70_000, 150_000, 200_000, 90_000][which as usize];
        Bytes::from(vec![which as u8; bytes])
    }

    /// Whether an operation that failed may have done so, and may have happened.
    fn judge<T>(&mut self, what: &str, done: Result<T, CatalogError>) -> Option<Result<T, bool>> {
        self.log.push(match &done {
            Ok(_) => format!("{} {what}: done", self.number),
            Err(error) => format!("{} {what}: {error}", self.number),
        });
        match done {
            Ok(done) => Some(Ok(done)),
            Err(CatalogError::Unavailable { .. }) => Some(Err(true)),
            Err(
                CatalogError::NotFound { .. }
                | CatalogError::BlobsMissing { .. }
                | CatalogError::OverQuota { .. }
                | CatalogError::InUse { .. }
                | CatalogError::WrongOffset { .. },
            ) => Some(Err(false)),
            Err(error) => panic!("{what}: {error:?}\n{}", self.log.join("\n")),
        }
    }

    async fn run(mut self, steps: u64) -> Self {
        for _ in 0..steps {
            match self.random.below(21) {
                20 => self.kill(),
                0..=6 => self.push_image().await,
                7 => self.push_and_leave().await,
                8..=9 => self.mount().await,
                10..=11 => self.delete_tag().await,
                12..=13 => self.delete_manifest().await,
                14 => self.delete_blob().await,
                15..=16 => self.look().await,
                17..=18 => {
                    let collected = self.instance().collect().await;
                    self.judge("collect", collected);
                }
                _ => {
                    let hours = self.random.below(30);
                    self.world.clock.advance(Duration::from_secs(hours * 3600));
                    self.log.push(format!("{} {hours} hours later", self.number));
                }
            }
            self.world.clock.advance(Duration::from_millis(self.random.below(150)));
        }
        self
    }

    async fn push_image(&mut self) {
        let (repo, instance) = (self.repo(), self.instance());
        let mut layers = Vec::new();
        for _ in 0..1 + self.random.below(2) {
            let blob = self.blob();
            let piece = 1 + self.random.below(100_000) as usize;
            let pushed = instance.push(&repo, &blob, piece).await;
            match self.judge(&format!("push {} to {repo}", blob.len()), pushed) {
                Some(Ok(digest)) => layers.push(digest),
                _ => return,
            }
        }
        let other = self.instance();
        let text = format!("{} {} {layers:?}", self.number, self.random.below(5));
        let digest = Hasher::digest(Algorithm::Sha256, text.as_bytes());
        let tag = self.tag();
        let stored = other.put(&repo, &text, &layers, std::slice::from_ref(&tag)).await;
        let judged = self.judge(&format!("put {digest} as {tag} to {repo}"), stored);
        self.made.push((repo.clone(), digest));
        self.set(repo, tag, Some(digest), &judged.map(|done| done.map(drop)));
    }

    fn tag(&self) -> Tag {
        let which = TAGS[self.random.below(TAGS.len() as u64) as usize];
        format!("{which}-{}", self.number).parse().expect("a tag")
    }

    fn set(
        &mut self,
        repo: RepoName,
        tag: Tag,
        to: Option<Digest>,
        done: &Option<Result<(), bool>>,
    ) {
        let states = self.tags.entry((repo, tag)).or_insert_with(|| [None].into());
        match done {
            Some(Ok(())) => *states = [to].into(),
            Some(Err(true)) => {
                states.insert(to);
            }
            _ => {}
        }
    }

    /// A push that its client gives up in the middle.
    async fn push_and_leave(&mut self) {
        let (repo, blob, instance) = (self.repo(), self.blob(), self.instance());
        let patience = Duration::from_millis(self.random.below(8));
        let push = instance.push(&repo, &blob, 40_000);
        let left = tokio::time::timeout(patience, push).await.is_err();
        self.log.push(format!("{} push to {repo}, left: {left}", self.number));
    }

    async fn mount(&mut self) {
        let (to, from, instance) = (self.repo(), self.repo(), self.instance());
        let digest = Hasher::digest(Algorithm::Sha256, &self.blob());
        let mounted = instance.catalog.mount(&to, &from, &digest).await;
        self.judge(&format!("mount {digest} from {from} to {to}"), mounted);
    }

    async fn delete_tag(&mut self) {
        let (repo, tag, instance) = (self.repo(), self.tag(), self.instance());
        let deleted = instance.catalog.delete_tag(&repo, &tag).await;
        let judged = self.judge(&format!("delete {repo}:{tag}"), deleted);
        self.set(repo, tag, None, &judged);
    }

    async fn delete_manifest(&mut self) {
        if self.made.is_empty() {
            return;
        }
        let which = self.random.below(self.made.len() as u64) as usize;
        let (repo, digest) = self.made[which].clone();
        let deleted = self.instance().catalog.delete_manifest(&repo, &digest).await;
        let judged = self.judge(&format!("delete {digest} from {repo}"), deleted);
        for ((of, _), states) in &mut self.tags {
            if *of == repo && states.contains(&Some(digest)) {
                match judged {
                    Some(Ok(_)) => {
                        states.remove(&Some(digest));
                        states.insert(None);
                    }
                    Some(Err(true)) => {
                        states.insert(None);
                    }
                    _ => {}
                }
            }
        }
    }

    async fn delete_blob(&mut self) {
        let (repo, instance) = (self.repo(), self.instance());
        let digest = Hasher::digest(Algorithm::Sha256, &self.blob());
        let deleted = instance.catalog.delete_blob(&repo, &digest).await;
        self.judge(&format!("delete {digest} from {repo}"), deleted);
    }

    /// What is there can be read, whatever else happens.
    async fn look(&mut self) {
        let (repo, blob, instance) = (self.repo(), self.blob(), self.instance());
        let digest = Hasher::digest(Algorithm::Sha256, &blob);
        if self.judge("ask", instance.catalog.blob(&repo, &digest).await).is_some_and(|r| r.is_ok())
            && let Some(Ok(bytes)) = self.judge("pull", instance.pull(&repo, &digest).await)
        {
            assert_eq!(bytes, blob);
        }
    }

    async fn check(&self, instance: &Instance, seed: u64) {
        for ((repo, tag), states) in &self.tags {
            let reference = Reference::Tag(tag.clone());
            let found = match instance.catalog.manifest(repo, &reference).await {
                Ok(manifest) => Some(manifest.info.digest),
                Err(CatalogError::NotFound { .. }) => None,
                Err(error) => panic!("seed {seed}: {repo}:{tag}: {error}"),
            };
            assert!(
                states.contains(&found),
                "seed {seed}: {repo}:{tag} is {found:?}, not one of {states:?}\n{}",
                self.log.join("\n")
            );
        }
    }
}
