//! Ownership over a store, in time that the tests make pass.

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::record::{beat_path, owner_path};
use super::*;

/// A process of a node, each on a machine of its own.
pub(crate) fn identity(node: &str, life: u128) -> NodeIdentity {
    NodeIdentity {
        node: node.into(),
        machine: format!("m-{node}"),
        boot_id: format!("b-{node}"),
        pid_namespace: 1,
        pid: u32::try_from(life).unwrap(),
        process_start: 1000,
        incarnation: Incarnation(Uuid::from_u128(life)),
    }
}

/// Tokio's clock, which the tests stop and move.
#[derive(Debug)]
pub(crate) struct TestClock(Instant);

impl Default for TestClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Monotonic for TestClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// All processes of this machine are gone.
#[derive(Debug)]
pub(crate) struct AllGone;

impl ProcessProbe for AllGone {
    fn state(&self, _pid: u32, _start: u64) -> ProcessState {
        ProcessState::Gone
    }
}

/// All processes of this machine run.
#[derive(Debug)]
pub(crate) struct AllRun;

impl ProcessProbe for AllRun {
    fn state(&self, _pid: u32, _start: u64) -> ProcessState {
        ProcessState::Runs
    }
}

pub(crate) fn options() -> HeartbeatOptions {
    HeartbeatOptions {
        monotonic: Arc::new(TestClock::default()),
        processes: Arc::new(AllRun),
        ..HeartbeatOptions::default()
    }
}

type Store = Arc<dyn ObjectStore>;

fn store() -> Store {
    Arc::new(InMemory::new())
}

async fn beat(store: &Store, identity: NodeIdentity) -> Heartbeat {
    Heartbeat::start(Arc::clone(store), identity, options()).await.unwrap()
}

const TTL: Duration = Duration::from_secs(20);

#[tokio::test(start_paused = true)]
async fn a_living_owner_is_named_and_keeps_its_home() {
    let store = store();
    let (one, two) = (beat(&store, identity("n1", 1)).await, beat(&store, identity("n2", 2)).await);
    let held = claim(&one, "ada", false).await.unwrap();
    let began = Instant::now();
    let refused = claim(&two, "ada", false).await.unwrap_err();
    assert!(matches!(&refused, ClaimError::Owned { .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("ada") && text.contains("n1") && text.contains("--take-over"), "{text}");
    assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(held.still_valid());
    // Asked again at once, the answer needs no watching.
    let began = Instant::now();
    claim(&two, "ada", false).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_dead_owner_is_followed_after_the_ttl_and_never_valid_then() {
    let store = store();
    let (one, two) = (beat(&store, identity("n1", 1)).await, beat(&store, identity("n2", 2)).await);
    let held = claim(&one, "ada", false).await.unwrap();
    let other = claim(&one, "bob", false).await.unwrap();
    drop(one);
    assert!(!held.still_valid());
    let began = Instant::now();
    let next = claim(&two, "ada", false).await.unwrap();
    assert!(began.elapsed() >= TTL && began.elapsed() < TTL * 2, "{:?}", began.elapsed());
    assert_eq!(next.epoch(), held.epoch() + 1);
    // What was seen of the dead process counts for its other homes.
    let began = Instant::now();
    assert_eq!(claim(&two, "bob", false).await.unwrap().epoch(), other.epoch() + 1);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_released_home_is_there_at_once_and_its_epoch_grows() {
    let store = store();
    let (one, two) = (beat(&store, identity("n1", 1)).await, beat(&store, identity("n2", 2)).await);
    for round in 0..3 {
        let held = claim(&one, "ada", false).await.unwrap();
        assert_eq!(held.epoch(), 2 * round + 1);
        held.release().await.unwrap();
        assert!(!held.still_valid() && !held.is_lost());
        let held = claim(&two, "ada", false).await.unwrap();
        assert_eq!(held.epoch(), 2 * round + 2);
        held.release().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_claimers_one_wins() {
    let store = store();
    let beats = futures::future::join_all((1..=8).map(|life| {
        let store = &store;
        async move { beat(store, identity(&format!("n{life}"), life)).await }
    }))
    .await;
    let claims = beats.iter().map(|beat| claim(beat, "ada", false));
    let won = futures::future::join_all(claims).await;
    assert_eq!(won.iter().filter(|claim| claim.is_ok()).count(), 1);
    assert!(won.iter().flatten().all(Claim::still_valid));
}

#[tokio::test(start_paused = true)]
async fn a_process_of_this_node_that_is_gone_is_followed_at_once() {
    let store = store();
    let one = beat(&store, identity("n1", 1)).await;
    let held = claim(&one, "ada", false).await.unwrap();
    // Forgotten, not dropped: nothing is cleaned up when a process is killed.
    let seam = HeartbeatOptions { processes: Arc::new(AllGone), ..options() };
    let two = Heartbeat::start(Arc::clone(&store), identity("n1", 2), seam).await.unwrap();
    let began = Instant::now();
    assert_eq!(claim(&two, "ada", false).await.unwrap().epoch(), held.epoch() + 1);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn after_a_reboot_the_homes_of_a_node_are_there_at_once() {
    let store = store();
    let one = beat(&store, identity("n1", 1)).await;
    let held = claim(&one, "ada", false).await.unwrap();
    let rebooted = NodeIdentity { boot_id: "b2".into(), ..identity("n1", 2) };
    let two = beat(&store, rebooted).await;
    let began = Instant::now();
    assert_eq!(claim(&two, "ada", false).await.unwrap().epoch(), held.epoch() + 1);
    assert_eq!(began.elapsed(), Duration::ZERO);
    // And the heartbeat that was left behind goes.
    sleep(Duration::from_secs(1)).await;
    drop(one);
    assert!(store.head(&beat_path(&identity("n1", 1))).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_same_process_claims_again_what_it_did_not_release() {
    let store = store();
    let one = beat(&store, identity("n1", 1)).await;
    let first = claim(&one, "ada", false).await.unwrap();
    let second = claim(&one, "ada", false).await.unwrap();
    assert_eq!(second.epoch(), first.epoch() + 1);
    first.release().await.unwrap();
    assert!(second.still_valid());
    second.release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_takeover_is_noticed_by_the_owner_that_lives() {
    let store = store();
    let (one, two) = (beat(&store, identity("n1", 1)).await, beat(&store, identity("n2", 2)).await);
    let held = claim(&one, "ada", false).await.unwrap();
    let taken = claim(&two, "ada", true).await.unwrap();
    assert_eq!(taken.epoch(), held.epoch() + 1);
    tokio::time::timeout(TTL * 2, held.ended()).await.unwrap();
    assert!(held.is_lost() && !held.still_valid());
    assert_eq!(held.admit().await, Err(Lost));
    assert!(taken.still_valid());
    // The release of what was lost leaves the new owner alone.
    held.release().await.unwrap();
    assert!(held.is_lost());
    claim(&one, "ada", false).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn an_owner_without_a_store_stops_and_goes_on_when_it_is_back() {
    let cut = Arc::new(Cut::default());
    let store: Store = Arc::clone(&cut) as Store;
    let one = beat(&store, identity("n1", 1)).await;
    let held = claim(&one, "ada", false).await.unwrap();
    cut.cut(true);
    sleep(Duration::from_secs(11)).await;
    assert!(held.still_valid(), "less than ttl - margin passed");
    sleep(Duration::from_secs(6)).await;
    assert!(!held.still_valid());
    assert!(tokio::time::timeout(TTL, held.admit()).await.is_err());
    cut.cut(false);
    held.admit().await.unwrap();
    assert!(held.still_valid() && !held.is_lost());
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_was_stopped_while_others_took_over_never_acknowledges_again() {
    let cut = Arc::new(Cut::default());
    let store: Store = Arc::clone(&cut) as Store;
    let one = beat(&store, identity("n1", 1)).await;
    let held = claim(&one, "ada", false).await.unwrap();
    cut.cut(true);
    sleep(TTL).await;
    assert!(!held.still_valid());
    let two = beat(&cut.inner(), identity("n2", 2)).await;
    let next = claim(&two, "ada", false).await.unwrap();
    cut.cut(false);
    assert_eq!(held.admit().await, Err(Lost));
    assert!(held.is_lost() && next.still_valid());
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_came_back_in_time_spoils_a_takeover_that_is_under_way() {
    let cut = Arc::new(Cut::default());
    let store: Store = Arc::clone(&cut) as Store;
    let one = beat(&store, identity("n1", 1)).await;
    let held = claim(&one, "ada", false).await.unwrap();
    cut.cut(true);
    let two = beat(&cut.inner(), identity("n2", 2)).await;
    let taking = tokio::spawn(async move { claim(&two, "ada", false).await.map(|_| ()) });
    // The lease lapsed, but the watcher has not seen all of the ttl.
    sleep(Duration::from_secs(17)).await;
    assert!(!held.still_valid());
    cut.cut(false);
    held.admit().await.unwrap();
    assert!(matches!(taking.await.unwrap(), Err(ClaimError::Owned { .. })));
    assert!(held.still_valid());
}

/// A clock that jumps when it is told to: a machine that slept, or a kernel that errs.
#[derive(Debug, Default)]
struct JumpingClock {
    clock: TestClock,
    forward: Mutex<Duration>,
    back: Mutex<Duration>,
}

impl Monotonic for JumpingClock {
    fn now(&self) -> Duration {
        let hours = Duration::from_secs(100 * 3600);
        hours + self.clock.now() + *self.forward.lock() - *self.back.lock()
    }
}

/// A wall clock that somebody sets.
#[derive(Debug, Default)]
struct SetClock(Mutex<i64>);

impl crate::home::Clock for SetClock {
    fn now(&self) -> crate::home::Time {
        crate::home::Time { sec: *self.0.lock(), nsec: 0 }
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn an_owner_whose_clock_jumps_acknowledges_nothing_before_it_has_made_sure() {
    for (jump_back, taken) in [(false, false), (true, false), (false, true), (true, true)] {
        let store = store();
        let clock = Arc::new(JumpingClock::default());
        let seam = HeartbeatOptions { monotonic: Arc::clone(&clock) as _, ..options() };
        let one = Heartbeat::start(Arc::clone(&store), identity("n1", 1), seam).await.unwrap();
        let held = claim(&one, "ada", false).await.unwrap();
        sleep(Duration::from_secs(5)).await;
        assert!(held.still_valid());
        let two = beat(&store, identity("n2", 2)).await;
        let next = if taken { Some(claim(&two, "ada", true).await.unwrap()) } else { None };
        *(if jump_back { &clock.back } else { &clock.forward }).lock() += HOUR;
        assert!(!held.still_valid(), "back: {jump_back}");
        assert_eq!(held.admit().await.is_err(), taken, "back: {jump_back}");
        assert_eq!((held.still_valid(), held.is_lost()), (!taken, taken));
        assert!(next.is_none_or(|next| next.still_valid()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_claimer_whose_clock_jumps_takes_nothing_from_a_living_owner() {
    for jump_back in [false, true] {
        let store = store();
        let one = beat(&store, identity("n1", 1)).await;
        let held = claim(&one, "ada", false).await.unwrap();
        let clock = Arc::new(JumpingClock::default());
        let seam = HeartbeatOptions { monotonic: Arc::clone(&clock) as _, ..options() };
        let two = Heartbeat::start(Arc::clone(&store), identity("n2", 2), seam).await.unwrap();
        let jumps = async {
            for _ in 0..20 {
                sleep(Duration::from_millis(700)).await;
                *(if jump_back { &clock.back } else { &clock.forward }).lock() += HOUR;
            }
        };
        let claims = async {
            for _ in 0..3 {
                claim(&two, "ada", false).await.unwrap_err();
                sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::join!(jumps, claims);
        assert!(held.still_valid(), "back: {jump_back}");
    }
}

#[tokio::test(start_paused = true)]
async fn wall_clocks_decide_nothing() {
    let store = store();
    let wall = Arc::new(SetClock::default());
    let seam = HeartbeatOptions { clock: Arc::clone(&wall) as _, ..options() };
    let one = Heartbeat::start(Arc::clone(&store), identity("n1", 1), seam).await.unwrap();
    let held = claim(&one, "ada", false).await.unwrap();
    let two = beat(&store, identity("n2", 2)).await;
    for at in [i64::MAX, i64::MIN, 0, 4_102_444_800] {
        *wall.0.lock() = at;
        sleep(TTL).await;
        assert!(held.still_valid(), "at {at}");
        let refused = claim(&two, "ada", false).await.unwrap_err();
        assert!(refused.to_string().contains("since 1970-01-01 00:00:00Z"), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_said_to_be_damaged() {
    let store = store();
    let one = beat(&store, identity("n1", 1)).await;
    store.put(&owner_path("ada"), "rubbish".into()).await.unwrap();
    let refused = claim(&one, "ada", false).await.unwrap_err();
    assert!(matches!(refused, ClaimError::Corrupt { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_stopped_leaves_nothing_and_ends_its_claims() {
    let store = store();
    let one = beat(&store, identity("n1", 1)).await;
    let held = claim(&one, "ada", false).await.unwrap();
    one.stop().await;
    assert!(!held.still_valid());
    assert!(store.head(&beat_path(&identity("n1", 1))).await.is_err());
}

mod cut {
    //! A store whose connection can be cut: everything then waits, as with a lost network.

    use std::fmt;

    use async_trait::async_trait;
    use futures::stream::BoxStream;
    use object_store::path::Path;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
        PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    };
    use tokio::sync::watch;

    use super::*;

    #[derive(Debug)]
    pub struct Cut {
        inner: Arc<InMemory>,
        cut: watch::Sender<bool>,
    }

    impl Default for Cut {
        fn default() -> Self {
            Self { inner: Arc::default(), cut: watch::Sender::new(false) }
        }
    }

    impl Cut {
        pub fn cut(&self, cut: bool) {
            self.cut.send_replace(cut);
        }

        pub fn inner(&self) -> Store {
            Arc::clone(&self.inner) as Store
        }

        async fn connected(&self) {
            self.cut.subscribe().wait_for(|cut| !cut).await.map(drop).unwrap();
        }
    }

    impl fmt::Display for Cut {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("cut")
        }
    }

    #[async_trait]
    impl ObjectStore for Cut {
        async fn put_opts(&self, at: &Path, data: PutPayload, o: PutOptions) -> Result<PutResult> {
            self.connected().await;
            self.inner.put_opts(at, data, o).await
        }

        async fn put_multipart_opts(
            &self,
            at: &Path,
            o: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(at, o).await
        }

        async fn get_opts(&self, at: &Path, o: GetOptions) -> Result<GetResult> {
            self.connected().await;
            self.inner.get_opts(at, o).await
        }

        fn delete_stream(
            &self,
            paths: BoxStream<'static, Result<Path>>,
        ) -> BoxStream<'static, Result<Path>> {
            self.inner.delete_stream(paths)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, o: CopyOptions) -> Result<()> {
            self.inner.copy_opts(from, to, o).await
        }
    }
}

use cut::Cut;
