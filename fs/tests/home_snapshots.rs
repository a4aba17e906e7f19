//! What `SEMANTICS.md` promises of snapshots, on a home without a mount.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{PREFIX, caller, dir, file, name, noise, open, read_all};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use yadokari_fs::home::fsck::{Options, check_closed};
use yadokari_fs::home::*;

struct Bed {
    store: Arc<InMemory>,
    home: Home,
    me: Caller,
}

impl Bed {
    async fn new() -> Self {
        Self::on(Arc::new(InMemory::new())).await
    }

    async fn on(store: Arc<InMemory>) -> Self {
        let dynamic: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&store);
        let home = open(&dynamic, &dynamic, &Shared::new(Config::default())).await;
        let me = caller(&home);
        Self { store, home, me }
    }

    /// The home as another node finds it when this one is lost at this moment.
    async fn after_loss(&self) -> Self {
        Self::on(Arc::new(self.store.fork())).await
    }

    async fn reopen(self) -> Self {
        self.home.close().await.expect("closes");
        Self::on(self.store).await
    }

    async fn make(&self, parent: Ino, called: &str, node: NewNode) -> Ino {
        let made = self.home.make(self.me.clone(), parent, name(called), node).await;
        made.expect("makes").ino
    }

    async fn write(&self, ino: Ino, at: u64, data: Bytes) {
        let written = self.home.write(self.me.clone(), ino, at, data, WriteMode::default()).await;
        written.expect("writes");
    }

    async fn unlink(&self, parent: Ino, called: &str) {
        let removed = self.home.unlink(self.me.clone(), parent, name(called)).await;
        removed.expect("removes");
        self.home.detach(self.me.client);
    }

    async fn snapshot(&self, called: &str) -> SnapshotInfo {
        self.home.make_snapshot(called, Origin::Command).await.expect("makes a snapshot")
    }

    async fn is_clean(&self) {
        let options = Options { verify_data: true, in_use: true };
        let report = self.home.check(options, &mut |_| {}).await.expect("checks");
        assert!(report.clean, "{report}");
    }

    async fn close_and_check(self) -> fsck::Report {
        self.home.close().await.expect("closes");
        let store: Arc<dyn ObjectStore> = self.store;
        let options = Options { verify_data: true, in_use: false };
        let prefix = Path::from(PREFIX);
        let report = check_closed(&store, &store, &prefix, options, &mut |_| {}).await;
        let report = report.expect("checks");
        assert!(report.clean, "{report}");
        report
    }

    async fn segment_bytes(&self) -> u64 {
        use futures::TryStreamExt;
        let prefix = Path::from(format!("{PREFIX}/segments"));
        let all: Vec<_> = self.store.list(Some(&prefix)).try_collect().await.expect("lists");
        all.iter().map(|meta| meta.size).sum()
    }
}

/// Everything of a snapshot, by path.
async fn contents(snapshot: &Snapshot) -> BTreeMap<String, (Attr, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![(String::new(), Ino::ROOT)];
    while let Some((path, dir)) = todo.pop() {
        let mut cookie = 0;
        loop {
            // A few at a time, so that listings go on where they were.
            let page = snapshot.readdir(dir, cookie, true, 3).await.expect("lists");
            let Some(last) = page.last() else { break };
            cookie = last.next;
            for entry in page.iter().filter(|e| e.next > 2) {
                let called = String::from_utf8_lossy(&entry.name);
                let path = format!("{path}/{called}");
                let attr = snapshot.lookup(dir, &name(&called)).await.expect("is there");
                assert_eq!(entry.attr, Some(attr), "{path}");
                let data = match attr.kind {
                    Kind::Dir => {
                        todo.push((path.clone(), entry.ino));
                        Vec::new()
                    }
                    Kind::Symlink => snapshot.readlink(entry.ino).await.expect("reads").to_vec(),
                    _ => read_kept(snapshot, entry.ino).await,
                };
                found.insert(path, (attr, data));
            }
        }
    }
    found
}

async fn read_kept(snapshot: &Snapshot, ino: Ino) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        // Of an odd length, so that reads begin within extents.
        let pieces = snapshot.read(ino, all.len() as u64, 77_777).await.expect("reads");
        if pieces.is_empty() {
            return all;
        }
        pieces.iter().for_each(|piece| all.extend_from_slice(piece));
    }
}

/// A tree of everything: big, small, sparse, fragmented, linked, in directories.
async fn fill(bed: &Bed) -> Ino {
    let docs = bed.make(Ino::ROOT, "docs", dir()).await;
    let big = bed.make(docs, "big", file(0o644)).await;
    bed.write(big, 0, noise(1, 900_000)).await;
    let sparse = bed.make(docs, "sparse", file(0o600)).await;
    for part in 0..9 {
        bed.write(sparse, part * 1_000_000, noise(part, 3000)).await;
    }
    for number in 0..10 {
        let small = bed.make(docs, &format!("small{number}"), file(0o644)).await;
        bed.write(small, 0, noise(100 + number, 50)).await;
    }
    bed.home.link(bed.me.clone(), big, Ino::ROOT, name("hard")).await.expect("links");
    let link = NewNode { kind: Kind::Symlink, target: Bytes::from_static(b"docs/big"), ..dir() };
    bed.make(Ino::ROOT, "link", link).await;
    let (key, value) = (Bytes::from_static(b"user.k"), Bytes::from_static(b"v"));
    let set = bed.home.setxattr(bed.me.clone(), big, key, value, XattrMode::default());
    set.await.expect("sets");
    // A synced small write travels in the tables.
    let log = bed.make(Ino::ROOT, "log", file(0o644)).await;
    bed.write(log, 0, noise(7, 300)).await;
    bed.home.fsync(log).await.expect("syncs");
    docs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_shows_the_home_as_it_was_whatever_happens_to_it_later() {
    let bed = Bed::new().await;
    let docs = fill(&bed).await;
    let made = bed.snapshot("before").await;
    assert_eq!((made.bytes, made.inodes), (bed.home.usage().bytes, bed.home.usage().inodes));
    let before = contents(&bed.home.snapshot("before").expect("is there")).await;
    assert_eq!(before.len(), 16);
    assert_eq!(before["/docs/big"].1, noise(1, 900_000));
    // Everything changes or goes.
    let big = before["/docs/big"].0.ino;
    bed.write(big, 100_000, noise(50, 300_000)).await;
    for gone in ["sparse", "small1", "small2"] {
        bed.unlink(docs, gone).await;
    }
    bed.unlink(Ino::ROOT, "log").await;
    let gone = bed.home.removexattr(bed.me.clone(), big, Bytes::from_static(b"user.k"));
    gone.await.expect("removes");
    bed.home.sync().await.expect("syncs");
    bed.is_clean().await;
    let again = contents(&bed.home.snapshot("before").expect("is there")).await;
    assert!(again == before, "the snapshot changed");
    let value = bed.home.snapshot("before").expect("is there").getxattr(big, b"user.k").await;
    assert_eq!(value.expect("is there"), "v");
    // Restarts and losses change nothing either.
    let bed = bed.reopen().await;
    let lost = bed.after_loss().await;
    for bed in [&bed, &lost] {
        let again = contents(&bed.home.snapshot("before").expect("is there")).await;
        assert!(again == before, "the snapshot changed by opening the home again");
        bed.is_clean().await;
    }
    lost.close_and_check().await;
    bed.close_and_check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holes_and_data_of_a_snapshot_are_found_by_seek() {
    let bed = Bed::new().await;
    fill(&bed).await;
    bed.snapshot("s").await;
    let kept = bed.home.snapshot("s").expect("is there");
    let docs = kept.lookup(Ino::ROOT, &name("docs")).await.expect("is there").ino;
    let sparse = kept.lookup(docs, &name("sparse")).await.expect("is there").ino;
    for at in [0, 10, 2999, 3000, 5000, 999_999, 1_000_000, 8_002_999] {
        for whence in [Seek::Data, Seek::Hole] {
            let live = bed.home.seek(sparse, at, whence).await.ok();
            assert_eq!(kept.seek(sparse, at, whence).await.ok(), live, "{whence:?} from {at}");
        }
    }
    assert!(kept.seek(sparse, 8_003_000, Seek::Hole).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_snapshots_hold_is_counted_apart_and_free_when_they_are_removed() {
    let bed = Bed::new().await;
    let one = bed.make(Ino::ROOT, "one", file(0o644)).await;
    bed.write(one, 0, noise(1, 600_000)).await;
    bed.snapshot("first").await;
    assert_eq!(bed.home.snapshot_use(), SnapshotUse { count: 1, bytes: 0 });
    bed.snapshot("second").await;
    bed.unlink(Ino::ROOT, "one").await;
    let two = bed.make(Ino::ROOT, "two", file(0o644)).await;
    bed.write(two, 0, noise(2, 400_000)).await;
    bed.snapshot("third").await;
    bed.unlink(Ino::ROOT, "two").await;
    bed.home.sync().await.expect("syncs");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    bed.home.sync().await.expect("syncs");
    assert_eq!((bed.home.usage().bytes, bed.home.usage().inodes), (0, 1));
    let held = bed.home.snapshot_use().bytes;
    assert!((1_000_000..1_010_000).contains(&held), "{held}");
    bed.is_clean().await;
    // The first one's data is in the second one too.
    bed.home.remove_snapshot("first").await.expect("removes");
    assert_eq!(bed.home.snapshot_use().bytes, held);
    let kept = bed.home.snapshot("second").expect("is there");
    assert_eq!(read_kept(&kept, one).await, noise(1, 600_000));
    bed.home.remove_snapshot("second").await.expect("removes");
    let held = bed.home.snapshot_use().bytes;
    assert!((400_000..405_000).contains(&held), "{held}");
    let bed = bed.reopen().await;
    assert_eq!(bed.home.snapshot_use().bytes, held);
    bed.home.remove_snapshot("third").await.expect("removes");
    assert_eq!(bed.home.snapshot_use(), SnapshotUse::default());
    bed.is_clean().await;
    let mut waited = 0;
    while bed.segment_bytes().await > 0 {
        assert!(waited < 120, "the store still holds {} bytes", bed.segment_bytes().await);
        tokio::time::sleep(Duration::from_millis(500)).await;
        waited += 1;
    }
    let report = bed.close_and_check().await;
    assert_eq!((report.totals.chunks, report.totals.snapshots), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restoring_from_a_snapshot_stores_nothing_again() {
    let bed = Bed::new().await;
    let one = bed.make(Ino::ROOT, "one", file(0o644)).await;
    bed.write(one, 0, noise(1, 600_000)).await;
    bed.snapshot("s").await;
    bed.unlink(Ino::ROOT, "one").await;
    bed.home.sync().await.expect("syncs");
    let bytes = bed.segment_bytes().await;
    let data = read_kept(&bed.home.snapshot("s").expect("is there"), one).await;
    let back = bed.make(Ino::ROOT, "one", file(0o644)).await;
    bed.write(back, 0, data.into()).await;
    bed.home.sync().await.expect("syncs");
    assert_eq!(bed.segment_bytes().await, bytes);
    assert_eq!(bed.home.snapshot_use().bytes, 0);
    bed.is_clean().await;
    bed.home.remove_snapshot("s").await.expect("removes");
    assert_eq!(read_all(&bed.home, back).await, noise(1, 600_000));
    bed.close_and_check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_snapshots_are_taken_once_and_come_free_again() {
    let bed = Bed::new().await;
    bed.snapshot("a").await;
    let twice = bed.home.make_snapshot("a", Origin::Command).await.expect_err("is taken");
    assert!(matches!(twice.kind(), ErrorKind::Exists));
    let odd = bed.home.make_snapshot("a/b", Origin::Command).await.expect_err("is no name");
    assert!(matches!(odd.kind(), ErrorKind::Invalid));
    let none = bed.home.remove_snapshot("b").await.expect_err("is not there");
    assert!(matches!(none.kind(), ErrorKind::NotFound));
    let first = bed.home.snapshot("a").expect("is there");
    bed.home.remove_snapshot("a").await.expect("removes");
    assert!(bed.home.snapshots().expect("lists").is_empty());
    let gone = first.lookup(Ino::ROOT, &name("x")).await.expect_err("is gone");
    assert!(matches!(gone.kind(), ErrorKind::Stale));
    bed.snapshot("a").await;
    bed.close_and_check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cleaner_moves_what_snapshots_hold_and_they_find_it() {
    let bed = Bed::new().await;
    let mut inos = Vec::new();
    for number in 0..12 {
        let ino = bed.make(Ino::ROOT, &format!("f{number}"), file(0o644)).await;
        bed.write(ino, 0, noise(number, 100_000)).await;
        // Each in a small segment of its own: the cleaner merges them.
        bed.home.sync().await.expect("syncs");
        inos.push(ino);
    }
    bed.snapshot("s").await;
    for number in 0..6 {
        bed.unlink(Ino::ROOT, &format!("f{number}")).await;
    }
    bed.home.sync().await.expect("syncs");
    let before = bed.objects().await;
    bed.home.clean_now().await.expect("cleans");
    let mut waited = 0;
    while bed.objects().await.iter().any(|object| before.contains(object)) {
        assert!(waited < 120, "the old segments are still there");
        tokio::time::sleep(Duration::from_millis(500)).await;
        waited += 1;
    }
    let bed = bed.reopen().await;
    let kept = bed.home.snapshot("s").expect("is there");
    for (number, ino) in inos.iter().enumerate() {
        assert_eq!(read_kept(&kept, *ino).await, noise(number as u64, 100_000), "f{number}");
    }
    bed.close_and_check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_snapshots_are_whole_and_their_removal_frees_what_each_held() {
    let bed = Bed::new().await;
    let ino = bed.make(Ino::ROOT, "f", file(0o644)).await;
    for number in 0..100 {
        bed.write(ino, 0, noise(number, 20_000)).await;
        bed.snapshot(&format!("s{number}")).await;
    }
    let held = bed.home.snapshot_use();
    assert_eq!(held.count, 100);
    assert!((99 * 20_000..99 * 20_200).contains(&held.bytes), "{held:?}");
    let bed = bed.reopen().await;
    for number in (0..100).step_by(7) {
        let kept = bed.home.snapshot(&format!("s{number}")).expect("is there");
        assert_eq!(read_kept(&kept, ino).await, noise(number, 20_000));
    }
    for number in (0..100).filter(|n| n % 10 != 0) {
        bed.home.remove_snapshot(&format!("s{number}")).await.expect("removes");
    }
    let held = bed.home.snapshot_use();
    assert_eq!(held.count, 10);
    assert!((10 * 20_000..10 * 20_200).contains(&held.bytes), "{held:?}");
    for number in (0..100).step_by(10) {
        let kept = bed.home.snapshot(&format!("s{number}")).expect("is there");
        assert_eq!(read_kept(&kept, ino).await, noise(number, 20_000));
    }
    bed.close_and_check().await;
}

impl Bed {
    async fn objects(&self) -> Vec<Path> {
        use futures::TryStreamExt;
        let prefix = Path::from(format!("{PREFIX}/segments"));
        let all: Vec<_> = self.store.list(Some(&prefix)).try_collect().await.expect("lists");
        all.into_iter().map(|meta| meta.location).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_names_the_files_of_snapshots_that_it_hurts() {
    let bed = Bed::new().await;
    let docs = bed.make(Ino::ROOT, "docs", dir()).await;
    let ino = bed.make(docs, "f", file(0o644)).await;
    bed.write(ino, 0, noise(1, 100_000)).await;
    bed.snapshot("s").await;
    bed.unlink(docs, "f").await;
    bed.home.close().await.expect("closes");
    let object = bed.objects().await[0].clone();
    let mut bytes = bed.store.get(&object).await.expect("gets").bytes().await.expect("reads");
    bytes = bytes.iter().enumerate().map(|(at, b)| if at == 5000 { b ^ 1 } else { *b }).collect();
    bed.store.put(&object, bytes.into()).await.expect("puts");
    let store: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&bed.store);
    let options = Options { verify_data: true, in_use: false };
    let prefix = Path::from(PREFIX);
    let report = check_closed(&store, &store, &prefix, options, &mut |_| {}).await;
    let report = report.expect("checks");
    let paths: Vec<_> = report.findings.iter().flat_map(|f| f.paths.clone()).collect();
    assert_eq!(paths, ["/.snapshots/s/docs/f"], "{report}");
    let bed = Bed::on(bed.store).await;
    let kept = bed.home.snapshot("s").expect("is there");
    let error = kept.read(ino, 0, 100).await.expect_err("is damaged");
    assert!(matches!(error.kind(), ErrorKind::Corrupt(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_a_snapshot_is_made_or_removed_leaves_it_whole_or_gone() {
    let bed = Bed::new().await;
    let ino = bed.make(Ino::ROOT, "f", file(0o644)).await;
    bed.write(ino, 0, noise(0, 100_000)).await;
    bed.snapshot("old").await;
    bed.write(ino, 0, noise(1, 100_000)).await;
    let store = Arc::clone(&bed.store);
    // The store as it is at many moments of the work, each of them the last before a loss.
    let taking = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut taken = Vec::new();
            for _ in 0..60 {
                taken.push(store.fork());
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            taken
        })
    };
    bed.snapshot("new").await;
    bed.write(ino, 0, noise(2, 100_000)).await;
    bed.home.remove_snapshot("old").await.expect("removes");
    let taken = taking.await.expect("takes");
    let mut seen = std::collections::BTreeSet::new();
    for fork in taken {
        let lost = Bed::on(Arc::new(fork)).await;
        // Waits for what is finished in the background.
        lost.is_clean().await;
        let mut names = Vec::new();
        for snapshot in lost.home.snapshots().expect("lists") {
            let kept = lost.home.snapshot(&snapshot.name).expect("is there");
            let wanted = if snapshot.name == "old" { 0 } else { 1 };
            assert_eq!(read_kept(&kept, ino).await, noise(wanted, 100_000), "{}", snapshot.name);
            names.push(snapshot.name);
        }
        seen.insert(names.join(" "));
        lost.close_and_check().await;
    }
    assert!(seen.contains("old"), "{seen:?}");
}
