//! The homes of a store, as one and as several processes see them.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};

use super::*;
use crate::home::owner::tests::{TestClock, identity, options};
use crate::home::{
    Caller, Clock, Config, ErrorKind, Ino, Kind, Name, NewNode, SetAttr, Time, WriteMode,
};

/// A wall clock that stands still until it is moved.
#[derive(Debug, Default)]
struct WallClock(Mutex<i64>);

impl Clock for WallClock {
    fn now(&self) -> Time {
        Time { sec: *self.0.lock(), nsec: 0 }
    }
}

struct World {
    store: Arc<dyn ObjectStore>,
    wall: Arc<WallClock>,
}

impl World {
    fn new() -> Self {
        Self { store: Arc::new(InMemory::new()), wall: Arc::default() }
    }

    fn homes(&self, node: &str, life: u128) -> Arc<Homes> {
        let clock = Arc::clone(&self.wall) as Arc<dyn Clock>;
        let config = Config { compute_inline: true, ..Config::default() };
        let heartbeat = HeartbeatOptions { monotonic: Arc::new(TestClock::default()), ..options() };
        Arc::new(Homes::with_options(
            Arc::clone(&self.store),
            Arc::clone(&self.store),
            identity(node, life),
            Shared::with_clock(config, clock),
            HomesOptions { heartbeat, seed: Some(1) },
        ))
    }

    async fn objects(&self) -> usize {
        self.store.list(Some(&"homes".into())).count().await
    }
}

fn new(name: &str) -> NewHome {
    let quota = Quota { bytes: 1 << 30, inodes: u64::MAX };
    NewHome { name: name.into(), owner_uid: 1000, owner_gid: 100, perm: 0o700, quota }
}

async fn write(open: &OwnedHome, name: &str, data: &'static [u8]) {
    let home = open.home();
    let caller = Caller { uid: 1000, gid: 100, client: home.attach() };
    let name = Name::new(name.as_bytes()).unwrap();
    let node = NewNode { kind: Kind::File, perm: 0o644, umask: 0, rdev: 0, target: Bytes::new() };
    let attr = home.make(caller.clone(), Ino::ROOT, name, node).await.unwrap();
    let data = Bytes::from_static(data);
    home.write(caller, attr.ino, 0, data, WriteMode::default()).await.unwrap();
}

async fn has(open: &OwnedHome, name: &str) -> bool {
    let home = open.home();
    let name = Name::new(name.as_bytes()).unwrap();
    home.lookup(home.attach(), Ino::ROOT, name).await.is_ok()
}

#[tokio::test]
async fn a_home_that_was_made_is_listed_and_shown() {
    let homes = World::new().homes("n1", 1);
    assert!(matches!(homes.show("ada").await, Err(HomesError::NotFound { .. })));
    let made = homes.create(new("ada")).await.unwrap();
    assert_eq!((made.volume, made.owner_uid, made.root.perm), (1, 1000, 0o700));
    assert_eq!((made.quota_bytes, made.quota_inodes), (Some(1 << 30), None));
    homes.create(new("Bob.2")).await.unwrap();
    let listing = homes.list().await.unwrap();
    assert!(listing.damaged.is_empty());
    let names: Vec<_> = listing.homes.iter().map(|home| home.name.as_str()).collect();
    assert_eq!(names, ["Bob.2", "ada"]);
    let shown = homes.show("ada").await.unwrap();
    assert_eq!((shown.info, shown.served_by), (made, None));
    assert!(matches!(homes.create(new("ada")).await, Err(HomesError::Exists { .. })));
    assert!(matches!(homes.create(new("../x")).await, Err(HomesError::Invalid { .. })));
}

#[tokio::test]
async fn of_racing_creators_one_wins_and_all_volumes_differ() {
    let world = World::new();
    let (one, two) = (world.homes("n1", 1), world.homes("n2", 2));
    let made = futures::join!(one.create(new("ada")), two.create(new("ada")));
    let refused = match made {
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => error,
        both => panic!("{both:?}"),
    };
    assert!(matches!(refused, HomesError::Exists { .. }), "{refused}");
    let names: Vec<_> = (0..40).map(|n| format!("u{n}")).collect();
    let made = names.iter().enumerate().map(|(n, name)| {
        let homes = if n % 2 == 0 { &one } else { &two };
        homes.create(new(name))
    });
    let made = futures::future::try_join_all(made).await.unwrap();
    let volumes: HashSet<_> = made.iter().map(|home| home.volume).collect();
    assert_eq!(volumes.len(), names.len());
}

#[tokio::test]
async fn a_thousand_homes_are_listed_and_a_damaged_one_hides_none() {
    let world = World::new();
    let homes = world.homes("n1", 1);
    for n in 0..1000 {
        let root = RootAttrs::new(1000, 100, 0o700, Time::default());
        let name = format!("u{n:04}");
        let record = Record::new(&name, n + 1, root, Quota::NONE, 0);
        create_head(&*world.store, &head_path(&name), &record.encode()).await.unwrap();
    }
    world.store.put(&head_path("bad"), PutPayload::from_static(b"rubbish")).await.unwrap();
    let listing = homes.list().await.unwrap();
    assert_eq!(listing.homes.len(), 1000);
    assert!(matches!(&listing.damaged[..], [HomesError::Corrupt { home, .. }] if home == "bad"));
}

#[tokio::test]
async fn limits_that_are_changed_together_are_both_there() {
    let world = World::new();
    let (one, two) = (world.homes("n1", 1), world.homes("n2", 2));
    one.create(new("ada")).await.unwrap();
    let root = RootAttrs::new(7, 8, 0o755, Time { sec: 9, nsec: 10 });
    let quota = Quota { bytes: u64::MAX, inodes: 5 };
    let both = futures::join!(one.set_quota("ada", quota), two.set_root_attrs("ada", root));
    both.0.unwrap();
    both.1.unwrap();
    let info = one.head("ada").await.unwrap();
    assert_eq!((info.quota_bytes, info.quota_inodes, info.root), (None, Some(5), root));
    assert_eq!((info.owner_uid, info.owner_gid), (1000, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_moves_to_another_node_with_the_home() {
    let world = World::new();
    let (one, two) = (world.homes("n1", 1), world.homes("n2", 2));
    one.create(new("ada")).await.unwrap();
    let open = one.open("ada", false).await.unwrap();
    assert!(Arc::ptr_eq(&open, &one.open("ada", false).await.unwrap()));
    write(&open, "hello", b"world").await;
    assert_eq!(one.show("ada").await.unwrap().served_by.unwrap().identity.node, "n1");
    one.close("ada").await.unwrap();
    let info = one.head("ada").await.unwrap();
    assert_eq!((info.used_bytes, info.used_inodes), (5, 2));
    let open = two.open("ada", false).await.unwrap();
    assert!(has(&open, "hello").await);
    assert_eq!(open.claim().epoch(), 2);
    two.shutdown().await.unwrap();
    one.shutdown().await.unwrap();
    assert_eq!(world.store.list(Some(&"nodes".into())).count().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_was_closed_behind_our_back_opens_again() {
    let world = World::new();
    let homes = world.homes("n1", 1);
    homes.create(new("ada")).await.unwrap();
    let open = homes.open("ada", false).await.unwrap();
    write(&open, "hello", b"world").await;
    open.home().close().await.unwrap();
    let open = homes.open("ada", false).await.unwrap();
    assert!(has(&open, "hello").await);
    homes.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_reach_a_home_that_is_open() {
    let world = World::new();
    let homes = world.homes("n1", 1);
    homes.create(new("ada")).await.unwrap();
    let open = homes.open("ada", false).await.unwrap();
    homes.set_quota("ada", Quota { bytes: 77, inodes: 88 }).await.unwrap();
    let usage = open.home().usage();
    assert_eq!((usage.bytes_limit, usage.inodes_limit), (77, 88));
    homes.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_directory_that_was_closed_to_others_is_so_in_the_head_at_once() {
    let world = World::new();
    let homes = world.homes("n1", 1);
    homes.create(new("ada")).await.unwrap();
    let open = homes.open("ada", false).await.unwrap();
    let caller = Caller { uid: 1000, gid: 100, client: open.home().attach() };
    let set = SetAttr { perm: Some(0o710), ..SetAttr::default() };
    open.home().setattr(caller, Ino::ROOT, set).await.unwrap();
    let noted = async {
        while homes.head("ada").await.unwrap().root.perm != 0o710 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), noted).await.expect("is noted");
    homes.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_home_is_not_opened_and_comes_back_whole() {
    let world = World::new();
    let homes = world.homes("n1", 1);
    homes.create(new("ada")).await.unwrap();
    write(&homes.open("ada", false).await.unwrap(), "hello", b"world").await;
    let removed = homes.remove("ada").await.unwrap();
    assert_eq!((removed.state, removed.removed_at), (HomeState::Removed, Some(0)));
    assert_eq!(removed.restorable_until, Some(7 * 24 * 3600));
    let refusals = [
        homes.open("ada", false).await.err(),
        homes.create(new("ada")).await.err(),
        homes.remove("ada").await.err(),
        homes.set_quota("ada", Quota::NONE).await.err(),
    ];
    for refusal in refusals {
        let refusal = refusal.unwrap();
        assert!(matches!(refusal, HomesError::Removed { .. }), "{refusal}");
        assert!(refusal.to_string().contains("restore ada"), "{refusal}");
    }
    homes.restore("ada").await.unwrap();
    assert!(matches!(homes.restore("ada").await, Err(HomesError::Exists { .. })));
    assert!(has(&homes.open("ada", false).await.unwrap(), "hello").await);
    homes.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_tombstone_leaves_nothing_and_its_number_is_not_used_again() {
    let world = World::new();
    let homes = world.homes("n1", 1);
    let first = homes.create(new("ada")).await.unwrap();
    homes.create(new("bob")).await.unwrap();
    write(&homes.open("ada", false).await.unwrap(), "hello", b"world").await;
    homes.remove("ada").await.unwrap();
    *world.wall.0.lock() = 7 * 24 * 3600 - 1;
    assert!(homes.purge_expired().await.unwrap().homes.is_empty());
    *world.wall.0.lock() += 1;
    let purged = homes.purge_expired().await.unwrap();
    assert!(purged.failed.is_empty(), "{:?}", purged.failed);
    assert_eq!(purged.homes, ["ada"]);
    assert_eq!(world.objects().await, 1, "the head of bob");
    let second = homes.create(new("ada")).await.unwrap();
    assert!(second.volume > first.volume);
    assert!(!has(&homes.open("ada", false).await.unwrap(), "hello").await);
    homes.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_that_was_interrupted_goes_on_and_nobody_restores_it_meanwhile() {
    let world = World::new();
    let homes = world.homes("n1", 1);
    homes.create(new("ada")).await.unwrap();
    write(&homes.open("ada", false).await.unwrap(), "hello", b"world").await;
    homes.remove("ada").await.unwrap();
    let half = |record: &mut Record| {
        record.state = State::Purging;
        Ok(())
    };
    homes.update("ada", half).await.unwrap();
    for refusal in [homes.restore("ada").await.err(), homes.open("ada", false).await.err()] {
        assert!(matches!(refusal, Some(HomesError::Purging { .. })), "{refusal:?}");
    }
    assert_eq!(homes.purge_expired().await.unwrap().homes, ["ada"]);
    assert_eq!(world.objects().await, 0);
    homes.shutdown().await.unwrap();
}

/// A lease that tests in real time need not wait long for. Its margin is what a busy machine
/// may stop a test for.
fn hasty(world: &World, node: &str, life: u128) -> Arc<Homes> {
    let mut homes = Arc::into_inner(world.homes(node, life)).unwrap();
    homes.options.heartbeat.timing.ttl = Duration::from_secs(4);
    homes.options.heartbeat.timing.margin = Duration::from_secs(1);
    homes.options.heartbeat.timing.interval = Duration::from_millis(200);
    Arc::new(homes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_a_living_node_serves_is_neither_opened_nor_removed() {
    let world = World::new();
    let (one, two) = (hasty(&world, "n1", 1), hasty(&world, "n2", 2));
    one.create(new("ada")).await.unwrap();
    one.open("ada", false).await.unwrap();
    for refusal in [two.open("ada", false).await.err(), two.remove("ada").await.err()] {
        let refusal = refusal.unwrap();
        assert!(matches!(refusal, HomesError::OwnedElsewhere { .. }), "{refusal}");
        assert!(refusal.to_string().contains("node n1"), "{refusal}");
    }
    one.shutdown().await.unwrap();
    two.remove("ada").await.unwrap();
    two.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_was_taken_over_acknowledges_nothing_more() {
    let world = World::new();
    let (one, two) = (hasty(&world, "n1", 1), hasty(&world, "n2", 2));
    one.create(new("ada")).await.unwrap();
    let lost = one.open("ada", false).await.unwrap();
    write(&lost, "hello", b"world").await;
    lost.home().sync().await.unwrap();
    let open = two.open("ada", true).await.unwrap();
    assert!(has(&open, "hello").await);
    tokio::time::timeout(Duration::from_secs(30), lost.claim().ended()).await.unwrap();
    let refused = lost.home().getattr(Ino::ROOT).await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Fenced), "{refused}");
    write(&open, "later", b"on").await;
    two.shutdown().await.unwrap();
}
