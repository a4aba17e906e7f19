//! A clone whose daemon dies at any write to the store: afterwards there is no clone, or a whole
//! one; its origin is as it was, and what was left over goes.

mod common;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::{caller, dir, file, name, noise};
use futures::StreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::runtime::Runtime;
use uuid::Uuid;
use yadokari_fs::home::homes::{HomeState, HomesError};
use yadokari_fs::home::owner::{Incarnation, NodeIdentity};
use yadokari_fs::home::*;
use yadokari_fs::node::{NewHome, Records, StoreRecords, transfer};
use yadokari_store::Store;
use yadokari_store::fault::{Crash, FaultControl, FaultPlan, FaultStore};

/// Daemons that die at the same time: they wait more than they work.
const AT_ONCE: usize = 8;
/// More than a clone takes, on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(120);

/// One life of a daemon, on a runtime of its own.
struct Life {
    runtime: Runtime,
    records: Arc<StoreRecords>,
    control: FaultControl,
}

impl Life {
    fn begin(objects: &Arc<dyn ObjectStore>, number: u128) -> Life {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
        let store = FaultStore::new(Arc::clone(objects), FaultPlan::none());
        let control = store.control().clone();
        let identity = NodeIdentity::of_this_process(Some("n".into())).expect("is known");
        // A process that certainly is gone, for whoever looks later.
        let incarnation = Incarnation(Uuid::from_u128(number));
        let identity =
            NodeIdentity { pid: i32::MAX as u32, process_start: 1, incarnation, ..identity };
        let config = Config {
            commit_interval: Duration::from_millis(50),
            flush_interval: Duration::from_millis(50),
            store_timeout: Duration::from_secs(2),
            ..Config::default()
        };
        let start = StoreRecords::start(
            Store::from_one(Arc::new(store)),
            identity,
            Shared::new(config),
            false,
        );
        let records = Arc::new(runtime.block_on(start));
        Life { runtime, records, control }
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let work = async { tokio::time::timeout(LIMIT, work).await.expect("ends") };
        self.runtime.block_on(work)
    }

    fn open(&self, name: &str) -> Home {
        self.run(async {
            let head = self.records.show(name).await.expect("shows").expect("is there");
            self.records.open(&head).await.expect("opens")
        })
    }

    fn clone_of(&self, home: &Home) -> bool {
        let new = NewHome { name: "bob".into(), owner: (1000, 1000), quota: Quota::NONE };
        self.run(async {
            tokio::select! {
                cloned = transfer::clone(home, None, &*self.records, new) => cloned.is_ok(),
                // Its daemon is gone with it.
                () = self.crashed() => false,
            }
        })
    }

    async fn crashed(&self) {
        while !self.control.crashed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All that a home shows, by path.
    fn contents(&self, home: &Home) -> BTreeMap<Vec<u8>, (u32, u64, Vec<u8>)> {
        let (from, to) = std::io::pipe().expect("a pipe");
        let archive = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            { from }.read_to_end(&mut bytes).expect("reads");
            bytes
        });
        self.run(transfer::export(home, None, to)).expect("exports");
        let archive = archive.join().expect("reads");
        let mut all = BTreeMap::new();
        for entry in tar::Archive::new(&archive[..]).entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let (path, header) = (entry.path_bytes().into_owned(), entry.header().clone());
            let mut bytes = entry.link_name_bytes().map(|l| l.into_owned()).unwrap_or_default();
            entry.read_to_end(&mut bytes).expect("reads");
            let (mode, mtime) = (header.mode().expect("is said"), header.mtime().expect("is said"));
            all.insert(path, (mode, mtime, bytes));
        }
        all
    }

    /// The end without a word.
    fn die(self) {
        self.control.crash();
        drop(self.records);
        self.runtime.shutdown_background();
    }

    fn end(self) {
        self.run(self.records.shutdown()).expect("ends");
    }
}

/// A home with a bit of everything, `ada`.
fn origin() -> Arc<InMemory> {
    let objects = Arc::new(InMemory::new());
    let life = Life::begin(&(Arc::clone(&objects) as Arc<dyn ObjectStore>), 1);
    life.run(async {
        let new = NewHome { name: "ada".into(), owner: (1000, 1000), quota: Quota::NONE };
        let head = life.records.create(new).await.expect("makes");
        let home = life.records.open(&head).await.expect("opens");
        let me = caller(&home);
        let make = async |parent, called: &str, node| {
            home.make(me.clone(), parent, name(called), node).await.expect("makes").ino
        };
        let docs = make(Ino::ROOT, "docs", dir()).await;
        let mode = WriteMode::default();
        for (number, len) in [10, 5_000, 200_000].into_iter().enumerate() {
            let ino = make(docs, &number.to_string(), file(0o640)).await;
            let data = noise(number as u64, len);
            home.write(me.clone(), ino, 0, data, mode).await.expect("writes");
            home.link(me.clone(), ino, Ino::ROOT, name(&format!("link{number}")))
                .await
                .expect("links");
        }
        let sparse = make(Ino::ROOT, "sparse", file(0o600)).await;
        home.write(me.clone(), sparse, 10 << 20, noise(9, 700), mode).await.expect("writes");
        let (key, value) = (Bytes::from_static(b"user.k"), Bytes::from_static(b"v"));
        home.setxattr(me.clone(), docs, key, value, XattrMode::default()).await.expect("sets");
    });
    life.end();
    objects
}

/// How many writes a clone makes until it is there, more or less: the timing decides.
fn writes() -> u64 {
    let objects: Arc<dyn ObjectStore> = origin();
    let life = Life::begin(&objects, 2);
    let home = life.open("ada");
    life.control.arm(FaultPlan::none());
    let before = life.control.counters();
    assert!(life.clone_of(&home));
    let after = life.control.counters();
    let count = |c: &yadokari_store::fault::Counters| {
        yadokari_store::fault::OpKind::WRITES.iter().map(|kind| c.of(*kind)).sum::<u64>()
    };
    let count = count(&after) - count(&before);
    life.end();
    count
}

/// Dies at a write of a clone, and looks at what is left; true where the clone was there.
fn die_at(origin: &InMemory, nth: u64, crash: Crash) -> bool {
    let objects: Arc<dyn ObjectStore> = Arc::new(origin.fork());
    let life = Life::begin(&objects, 2);
    let home = life.open("ada");
    let before = life.contents(&home);
    life.control.arm(FaultPlan::crash_at_write(nth, crash));
    let cloned = life.clone_of(&home);
    drop(home);
    life.die();

    let life = Life::begin(&objects, 3);
    let home = life.open("ada");
    assert_eq!(life.contents(&home), before, "the origin");
    let listed = life.run(life.records.list()).expect("lists");
    let there = listed.iter().any(|head| &*head.name == "bob");
    assert!(there || !cloned, "a clone that was acknowledged is there");
    if !there {
        tidy(&life, &objects, nth);
        assert!(life.clone_of(&home), "a clone after one that died");
    }
    let bob = life.open("bob");
    let copied = life.contents(&bob);
    let root = b"./".to_vec();
    for (path, what) in &before {
        assert!(*path == root || copied.get(path) == Some(what), "{path:?} of the clone");
    }
    assert_eq!(copied.len(), before.len(), "the clone");
    let options = fsck::Options { verify_data: true, in_use: true };
    for home in [&home, &bob] {
        let report = life.run(home.check(options, &mut |_| {})).expect("checks");
        assert!(report.clean, "{report}");
    }
    wait_until("exports leave no snapshot", || home.snapshots().expect("lists").is_empty());
    drop((home, bob));
    life.end();
    there
}

/// What was not filled whole is not seen, and goes.
fn tidy(life: &Life, objects: &Arc<dyn ObjectStore>, nth: u64) {
    let homes = life.records.homes();
    match life.run(homes.head("bob")) {
        Ok(info) => assert_eq!(info.state, HomeState::Filling),
        Err(error) => assert!(matches!(error, HomesError::NotFound { .. }), "{error}"),
    }
    // Every other time whoever needs the name finds it so.
    if nth % 2 == 0 {
        let purged = life.run(homes.purge_expired()).expect("lists");
        assert!(purged.failed.is_empty(), "{:?}", purged.failed);
        let left = life.run(objects.list(Some(&"homes/bob".into())).count());
        assert_eq!(left, 0, "objects of what was not filled whole");
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}");
}

#[test]
fn a_clone_whose_daemon_dies_at_any_write_is_whole_or_not_there() {
    let origin = origin();
    let points = writes() + 2;
    let (next, there, failed) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let point = next.fetch_add(1, Ordering::Relaxed);
                    if point >= 2 * points {
                        return;
                    }
                    let crash = if point % 2 == 0 { Crash::Before } else { Crash::After };
                    let run = || die_at(&origin, point / 2, crash);
                    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                        Ok(is) => drop(there.fetch_add(u64::from(is), Ordering::Relaxed)),
                        Err(_shown) => failed.lock().expect("whole").push((point / 2, crash)),
                    }
                }
            });
        }
    });
    let (there, failed) = (there.into_inner(), failed.into_inner().expect("whole"));
    println!("clone: {} crash points, {there} left a clone, {} failed", 2 * points, failed.len());
    assert!(failed.is_empty(), "points {failed:?}");
    assert!(there < points, "most of them end before the clone is there");
}
