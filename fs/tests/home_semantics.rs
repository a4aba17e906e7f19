//! The promises of `SEMANTICS.md` that a home keeps by itself, without a mount.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{caller, dir, file, name, noise, open, read_all};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::time::Instant;
use yadokari_fs::home::*;
use yadokari_store::fault::{Action, Fault, FaultPlan, FaultStore, OpKind};

/// A home on memory and who works in it.
struct Bed {
    store: Arc<InMemory>,
    home: Home,
    me: Caller,
}

impl Bed {
    async fn new() -> Self {
        let store = Arc::new(InMemory::new());
        let home = Self::open_on(&store).await;
        let me = caller(&home);
        Self { store, home, me }
    }

    async fn open_on(store: &Arc<InMemory>) -> Home {
        let store: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(store);
        open(&store, &store, &Shared::new(Config::default())).await
    }

    /// The home as another node finds it when this one is lost at this moment.
    async fn after_loss(&self) -> (Home, Caller) {
        let store = Arc::new(self.store.fork());
        let home = Self::open_on(&store).await;
        let me = caller(&home);
        (home, me)
    }

    async fn make(&self, parent: Ino, called: &str, node: NewNode) -> Attr {
        self.home.make(self.me.clone(), parent, name(called), node).await.expect("makes")
    }

    async fn file(&self, called: &str) -> Ino {
        self.make(Ino::ROOT, called, file(0o644)).await.ino
    }

    async fn write(&self, ino: Ino, at: u64, data: Bytes) -> Result<u32> {
        self.home.write(self.me.clone(), ino, at, data, WriteMode::default()).await
    }

    async fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<()> {
        let (from, to) = ((Ino::ROOT, name(from)), (Ino::ROOT, name(to)));
        self.home.rename(self.me.clone(), from, to, mode).await
    }

    async fn lookup(&self, called: &str) -> Result<Attr> {
        self.home.lookup(self.me.client, Ino::ROOT, name(called)).await
    }

    async fn unlink(&self, called: &str) -> Result<()> {
        self.home.unlink(self.me.clone(), Ino::ROOT, name(called)).await
    }

    async fn set(&self, ino: Ino, set: SetAttr) -> Result<Attr> {
        self.home.setattr(self.me.clone(), ino, set).await
    }

    async fn setxattr(&self, ino: Ino, key: &str, len: usize, mode: XattrMode) -> Result<()> {
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), noise(1, len));
        self.home.setxattr(self.me.clone(), ino, key, value, mode).await
    }
}

macro_rules! refused {
    ($result:expr, $kind:pat) => {
        match $result {
            Err(error) => assert!(matches!(error.kind(), $kind), "{error}"),
            Ok(_) => panic!("taken: {}", stringify!($result)),
        }
    };
}

fn quota(bytes: u64, inodes: u64) -> Quota {
    Quota { bytes, inodes }
}

#[tokio::test]
async fn a_write_over_the_quota_stops_at_the_byte_and_deleting_always_works() {
    let bed = Bed::new().await;
    bed.home.set_quota(quota(1000, 10));
    let f = bed.file("f").await;
    assert_eq!(bed.write(f, 0, noise(1, 999)).await.expect("writes"), 999);
    assert_eq!(bed.write(f, 999, noise(1, 50)).await.expect("writes the byte that fits"), 1);
    refused!(bed.write(f, 1000, noise(1, 1)).await, ErrorKind::OverQuota);
    assert_eq!(bed.write(f, 0, noise(2, 1000)).await.expect("overwriting takes nothing"), 1000);
    let reserve = Falloc::Allocate { keep_size: true };
    let fallocated = bed.home.fallocate(bed.me.clone(), f, reserve, 5000, 1).await;
    refused!(fallocated, ErrorKind::OverQuota);
    refused!(bed.setxattr(f, "user.a", 1, XattrMode::default()).await, ErrorKind::OverQuota);
    assert_eq!(bed.home.usage().bytes, 1000);
    bed.unlink("f").await.expect("removes");
    bed.home.forget(bed.me.client, f, 1);
    assert_eq!(bed.home.usage().bytes, 0);
    bed.home.close().await.expect("closes");
}

#[tokio::test]
async fn the_quota_charges_extents_clones_reservations_and_attributes_but_no_holes() {
    let bed = Bed::new().await;
    let (f, g) = (bed.file("f").await, bed.file("g").await);
    bed.write(f, 1 << 30, noise(1, 1000)).await.expect("writes behind a hole");
    assert_eq!(bed.home.usage().bytes, 1000);
    bed.home.copy_range(bed.me.clone(), (f, 1 << 30), (g, 0), 1000).await.expect("clones");
    assert_eq!(bed.home.usage().bytes, 2000, "clones in full");
    bed.write(bed.file("twin").await, 0, noise(1, 1000)).await.expect("writes");
    assert_eq!(bed.home.usage().bytes, 3000, "before deduplication");
    let reserve = Falloc::Allocate { keep_size: true };
    bed.home.fallocate(bed.me.clone(), g, reserve, 0, 1500).await.expect("reserves");
    assert_eq!(bed.home.usage().bytes, 3500);
    bed.setxattr(g, "user.a", 100, XattrMode::default()).await.expect("sets");
    assert_eq!(bed.home.usage().bytes, 3600, "values, not names");
    bed.home.fallocate(bed.me.clone(), g, Falloc::PunchHole, 0, 1500).await.expect("punches");
    let truncated = bed.set(f, SetAttr { size: Some(0), ..SetAttr::default() }).await;
    assert_eq!(truncated.expect("truncates").charged, 0);
    assert_eq!(bed.home.usage().bytes, 1100);
    bed.home.sync().await.expect("syncs");
    let report = bed.home.check(fsck::Options::default(), &mut |_| {}).await.expect("checks");
    assert!(report.clean, "{report}");
    assert_eq!(report.totals.charged_bytes, 1100);
    bed.home.close().await.expect("closes");
}

#[tokio::test]
async fn the_quota_of_inodes_counts_every_inode_once() {
    let bed = Bed::new().await;
    bed.home.set_quota(quota(u64::MAX, 3));
    let f = bed.file("f").await;
    bed.home.link(bed.me.clone(), f, Ino::ROOT, name("again")).await.expect("links are free");
    bed.make(Ino::ROOT, "d", dir()).await;
    let third = bed.home.make(bed.me.clone(), Ino::ROOT, name("x"), file(0o644)).await;
    refused!(third, ErrorKind::OverQuota);
    let whiteout = RenameMode { whiteout: true, ..RenameMode::default() };
    refused!(bed.rename("f", "g", whiteout).await, ErrorKind::OverQuota);
    assert_eq!(bed.home.usage().inodes, 3);
    bed.home.close().await.expect("closes");
}

#[tokio::test]
async fn reading_leaves_atime_alone_and_a_time_that_was_set_stays() {
    let bed = Bed::new().await;
    let f = bed.file("f").await;
    bed.write(f, 0, noise(1, 10)).await.expect("writes");
    let before = bed.home.getattr(f).await.expect("there").atime;
    bed.home.read(f, 0, 10).await.expect("reads");
    bed.home.readdir(Ino::ROOT, 0, true, 10).await.expect("lists");
    assert_eq!(bed.home.getattr(f).await.expect("there").atime, before);
    let old = Time { sec: -5, nsec: 999_999_999 };
    let at = Some(SetTime::At(old));
    bed.set(f, SetAttr { atime: at, mtime: at, ..SetAttr::default() }).await.expect("sets");
    bed.home.fsync(f).await.expect("syncs");
    let (home, _) = bed.after_loss().await;
    let attr = home.getattr(f).await.expect("there");
    assert_eq!((attr.atime, attr.mtime), (old, old));
}

#[tokio::test]
async fn names_targets_and_sizes_end_where_they_are_said_to() {
    let bed = Bed::new().await;
    assert!(Name::new(&[b'n'; 255]).is_ok());
    refused!(Name::new(&[b'n'; 256]), ErrorKind::NameTooLong);
    for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
        refused!(Name::new(bad), ErrorKind::Invalid);
    }
    assert!(Name::new(b"\xff\xfe any bytes").is_ok());
    let link = |len| NewNode { kind: Kind::Symlink, target: noise(1, len), ..file(0o777) };
    bed.make(Ino::ROOT, "l", link(4095)).await;
    let long = bed.home.make(bed.me.clone(), Ino::ROOT, name("m"), link(4096)).await;
    refused!(long, ErrorKind::NameTooLong);
    let f = bed.file("f").await;
    let size = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    bed.set(f, size(FILE_BYTES_MAX)).await.expect("the largest file");
    refused!(bed.set(f, size(FILE_BYTES_MAX + 1)).await, ErrorKind::FileTooLarge);
    refused!(bed.write(f, FILE_BYTES_MAX, noise(1, 1)).await, ErrorKind::FileTooLarge);
    let last = bed.write(f, FILE_BYTES_MAX - 1, noise(1, 5)).await.expect("writes");
    assert_eq!(last, 1);
    bed.home.close().await.expect("closes");
}

#[tokio::test]
async fn an_inode_has_at_most_65000_links() {
    let bed = Bed::new().await;
    let f = bed.file("f").await;
    for n in 1..65_000 {
        let linked = bed.home.link(bed.me.clone(), f, Ino::ROOT, name(&format!("l{n}"))).await;
        linked.expect("links");
    }
    let more = bed.home.link(bed.me.clone(), f, Ino::ROOT, name("more")).await;
    refused!(more, ErrorKind::TooManyLinks);
    refused!(
        bed.home.link(bed.me.clone(), Ino::ROOT, Ino::ROOT, name("dir")).await,
        ErrorKind::NotPermitted
    );
    bed.home.close().await.expect("closes");
}

#[tokio::test]
async fn attributes_are_bounded_as_by_the_kernel_and_of_four_namespaces() {
    let bed = Bed::new().await;
    let f = bed.file("f").await;
    let any = XattrMode::default();
    for key in ["user.a", "trusted.overlay.opaque", "security.selinux"] {
        bed.setxattr(f, key, 10, any).await.expect("sets");
    }
    for key in ["system.other", "user.", "nonsense"] {
        refused!(bed.setxattr(f, key, 10, any).await, ErrorKind::NotSupported);
    }
    bed.setxattr(f, "user.large", 64 << 10, any).await.expect("sets");
    refused!(bed.setxattr(f, "user.l", (64 << 10) + 1, any).await, ErrorKind::AttributeTooBig);
    let long = format!("user.{}", "n".repeat(251));
    refused!(bed.setxattr(f, &long, 1, any).await, ErrorKind::NameTooLong);
    let create = XattrMode { create: true, ..any };
    let replace = XattrMode { replace: true, ..any };
    refused!(bed.setxattr(f, "user.a", 1, create).await, ErrorKind::Exists);
    refused!(bed.setxattr(f, "user.b", 1, replace).await, ErrorKind::NoAttribute);
    let mut taken = 0;
    let full = loop {
        let key = format!("user.{taken:0250}");
        match bed.setxattr(f, &key, 0, any).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full.kind(), ErrorKind::NoSpace), "{full}");
    assert!(bed.home.listxattr(f).await.expect("lists").len() <= 64 << 10);
    bed.home.close().await.expect("closes");
}

#[tokio::test]
async fn rename_replaces_swaps_refuses_and_leaves_whiteouts() {
    let bed = Bed::new().await;
    let (a, b) = (bed.file("a").await, bed.file("b").await);
    let plain = RenameMode::default();
    let no_replace = RenameMode { no_replace: true, ..plain };
    let exchange = RenameMode { exchange: true, ..plain };
    let whiteout = RenameMode { whiteout: true, ..plain };
    refused!(bed.rename("a", "b", no_replace).await, ErrorKind::Exists);
    refused!(bed.rename("a", "c", exchange).await, ErrorKind::NotFound);
    bed.rename("a", "b", exchange).await.expect("swaps");
    assert_eq!(bed.lookup("a").await.expect("there").ino, b);
    bed.rename("b", "a", whiteout).await.expect("renames");
    assert_eq!(bed.lookup("a").await.expect("there").ino, a);
    let white = bed.lookup("b").await.expect("there");
    assert_eq!((white.kind, white.rdev), (Kind::CharDevice, 0));
    bed.rename("b", "a", no_replace).await.expect_err("taken");
    let top = bed.make(Ino::ROOT, "top", dir()).await.ino;
    bed.make(top, "inner", dir()).await;
    let into = bed.home.rename(bed.me.clone(), (Ino::ROOT, name("top")), (top, name("x")), plain);
    refused!(into.await, ErrorKind::Invalid);
    bed.make(Ino::ROOT, "empty", dir()).await;
    refused!(bed.rename("empty", "top", plain).await, ErrorKind::NotEmpty);
    refused!(bed.rename("a", "top", plain).await, ErrorKind::IsDir);
    refused!(bed.rename("top", "a", plain).await, ErrorKind::NotDir);
    bed.rename("top", "empty", plain).await.expect("over an empty directory");
    bed.home.close().await.expect("closes");
}

#[tokio::test]
async fn what_fsync_acknowledged_is_there_after_the_loss_of_the_node() {
    let bed = Bed::new().await;
    let sub = bed.make(Ino::ROOT, "sub", dir()).await.ino;
    let f = bed.make(sub, "f", file(0o600)).await.ino;
    for (n, len) in [10, 9000, 1_000_000].into_iter().enumerate() {
        let data = noise(n as u64, len);
        bed.write(f, 0, data.clone()).await.expect("writes");
        bed.home.fsync(f).await.expect("syncs");
        let (home, me) = bed.after_loss().await;
        let sub = home.lookup(me.client, Ino::ROOT, name("sub")).await.expect("its names too");
        let found = home.lookup(me.client, sub.ino, name("f")).await.expect("its names too");
        assert_eq!(read_all(&home, found.ino).await, data);
    }
}

/// Bytes in the segments of a store, and how many they are.
async fn segments(store: &Arc<InMemory>) -> (u64, usize) {
    let objects: Vec<_> = store.list(None).try_collect().await.expect("lists");
    (objects.iter().map(|object| object.size).sum(), objects.len())
}

#[tokio::test]
async fn a_synced_file_of_some_kilobytes_needs_no_segment_until_there_are_many() {
    const SMALL: usize = 48 << 10;
    let (meta, data) = (Arc::new(InMemory::new()), Arc::new(InMemory::new()));
    let on = |meta: Arc<InMemory>, data: Arc<InMemory>| async move {
        let (meta, data): (Arc<dyn ObjectStore>, Arc<dyn ObjectStore>) = (meta, data);
        let home = open(&meta, &data, &Shared::new(Config::default())).await;
        let me = caller(&home);
        (home, me)
    };
    let (home, me) = on(Arc::clone(&meta), Arc::clone(&data)).await;
    let mode = WriteMode::default();
    for (n, len) in [0, 1, 8 << 10, 20_000, SMALL].into_iter().enumerate() {
        let f = home.make(me.clone(), Ino::ROOT, name(&format!("f{n}")), file(0o600)).await;
        let (f, content) = (f.expect("makes").ino, noise(n as u64, len));
        home.write(me.clone(), f, 0, content.clone(), mode).await.expect("writes");
        home.fsync(f).await.expect("syncs");
        assert_eq!(segments(&data).await.1, 0, "{len} bytes are in the transaction");
        let (found, _) = on(Arc::new(meta.fork()), Arc::new(data.fork())).await;
        assert_eq!(read_all(&found, f).await, content, "{len} bytes after a loss");
    }
    // What is larger, and what is a part of it, is written beside.
    let large = home.make(me.clone(), Ino::ROOT, name("large"), file(0o600)).await;
    let large = large.expect("makes").ino;
    for (n, at, len) in [(1, 0, SMALL + 1), (2, 10_000, 20_000)] {
        home.write(me.clone(), large, at, noise(n, len), mode).await.expect("writes");
        home.fsync(large).await.expect("syncs");
        assert_eq!(segments(&data).await.1, n as usize);
    }
    // Beyond half of what small values may take they are packed at once.
    let mut many = Vec::new();
    for n in 0..800 {
        let f = home.make(me.clone(), Ino::ROOT, name(&format!("many{n}")), file(0o600)).await;
        let f = f.expect("makes").ino;
        home.write(me.clone(), f, 0, noise(n, SMALL), mode).await.expect("writes");
        home.fsync(f).await.expect("syncs");
        many.push(f);
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while segments(&data).await.0 < 30 << 20 {
        assert!(Instant::now() < deadline, "{:?}", segments(&data).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(segments(&data).await.1 < 40, "many files share a segment");
    home.sync().await.expect("syncs");
    let (found, _) = on(Arc::new(meta.fork()), Arc::new(data.fork())).await;
    for (n, f) in many.into_iter().enumerate() {
        assert_eq!(read_all(&found, f).await, noise(n as u64, SMALL));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_survive_a_loss_as_a_prefix_of_their_order() {
    let bed = Bed::new().await;
    for n in 0..3000 {
        bed.file(&format!("f{n}")).await;
        if n % 500 == 499 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let (home, me) = bed.after_loss().await;
            let mut there = Vec::new();
            for k in 0..=n {
                let found = home.lookup(me.client, Ino::ROOT, name(&format!("f{k}"))).await;
                there.push(found.is_ok());
            }
            assert!(there.is_sorted_by(|a, b| a >= b), "a later name without an earlier one");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_replaced_by_rename_is_old_or_new_after_any_loss() {
    let bed = Bed::new().await;
    let whole = |n: u64| noise(n, 200_000);
    let f = bed.file("f").await;
    bed.write(f, 0, whole(0)).await.expect("writes");
    bed.home.fsync(f).await.expect("syncs");
    let mut seen = 0;
    for n in 1..12 {
        let tmp = bed.file("tmp").await;
        bed.write(tmp, 0, whole(n)).await.expect("writes");
        bed.rename("tmp", "f", RenameMode::default()).await.expect("renames");
        tokio::time::sleep(Duration::from_millis(250)).await;
        let (home, me) = bed.after_loss().await;
        let found = home.lookup(me.client, Ino::ROOT, name("f")).await.expect("there");
        let content = read_all(&home, found.ino).await;
        let version = (seen..=n).find(|n| content == whole(*n));
        seen = version.expect("one version, whole, and never one before that of an earlier look");
    }
}

#[tokio::test]
async fn an_open_file_without_a_name_is_read_and_written_until_its_last_user_goes() {
    let bed = Bed::new().await;
    let f = bed.file("f").await;
    bed.write(f, 0, noise(1, 5000)).await.expect("writes");
    bed.unlink("f").await.expect("removes");
    bed.write(f, 5000, noise(2, 10)).await.expect("writes on");
    assert_eq!(read_all(&bed.home, f).await.len(), 5010);
    assert_eq!(bed.home.getattr(f).await.expect("there").nlink, 0);
    bed.home.forget(bed.me.client, f, 1);
    assert_eq!(bed.home.usage().inodes, 1);
    let next = bed.file("next").await;
    assert!(next > f, "numbers are never used again");
    bed.home.close().await.expect("closes");
}

#[tokio::test]
async fn directories_show_4096_bytes_no_blocks_and_two_links_and_one_per_directory() {
    let bed = Bed::new().await;
    let top = bed.make(Ino::ROOT, "top", dir()).await;
    assert_eq!((top.size, top.charged, top.nlink), (4096, 0, 2));
    bed.make(top.ino, "a", dir()).await;
    bed.make(top.ino, "f", file(0o644)).await;
    assert_eq!(bed.home.getattr(top.ino).await.expect("there").nlink, 3);
    refused!(bed.home.rmdir(bed.me.clone(), Ino::ROOT, name("top")).await, ErrorKind::NotEmpty);
    bed.home.close().await.expect("closes");
}

#[tokio::test]
async fn a_listing_goes_on_where_it_was_whatever_is_removed_meanwhile() {
    let bed = Bed::new().await;
    for n in 0..500 {
        bed.file(&format!("f{n}")).await;
    }
    let (mut cookie, mut seen) = (0, Vec::new());
    loop {
        let page = bed.home.readdir(Ino::ROOT, cookie, false, 7).await.expect("lists");
        let Some(last) = page.last() else { break };
        cookie = last.next;
        for entry in page.iter().filter(|e| e.next > 2) {
            let called = String::from_utf8_lossy(&entry.name).into_owned();
            bed.unlink(&called).await.expect("removes");
            seen.push(called);
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 500);
    bed.home.close().await.expect("closes");
}

#[tokio::test]
async fn holes_data_and_clones_are_found_by_seek() {
    let bed = Bed::new().await;
    let f = bed.file("f").await;
    bed.write(f, 100_000, noise(1, 50_000)).await.expect("writes");
    let at = |from, whence| bed.home.seek(f, from, whence);
    assert_eq!(at(0, Seek::Data).await.expect("data"), 100_000);
    assert_eq!(at(0, Seek::Hole).await.expect("a hole"), 0);
    assert_eq!(at(100_000, Seek::Hole).await.expect("the end"), 150_000);
    refused!(at(150_000, Seek::Data).await, ErrorKind::NoData);
    let me = || bed.me.clone();
    refused!(bed.home.copy_range(me(), (f, 0), (f, 10), 50).await, ErrorKind::Invalid);
    let copied = bed.home.copy_range(me(), (f, 90_000), (f, 200_000), 60_000).await;
    assert_eq!(copied.expect("clones"), 60_000);
    assert_eq!(at(150_000, Seek::Data).await.expect("data"), 210_000);
    let all = read_all(&bed.home, f).await;
    assert_eq!(all[100_000..150_000], all[210_000..260_000]);
    bed.home.close().await.expect("closes");
}

#[tokio::test]
async fn set_uid_falls_where_asked_and_set_gid_directories_hand_on_their_group() {
    let bed = Bed::new().await;
    let f = bed.make(Ino::ROOT, "f", file(0o755)).await.ino;
    let perm = |perm| SetAttr { perm: Some(perm), ..SetAttr::default() };
    bed.set(f, perm(0o6755)).await.expect("sets");
    let mode = WriteMode { kill: Kill::ByMember, ..WriteMode::default() };
    bed.home.write(bed.me.clone(), f, 0, noise(1, 1), mode).await.expect("writes");
    assert_eq!(bed.home.getattr(f).await.expect("there").perm, 0o755);
    bed.set(f, perm(0o2744)).await.expect("sets");
    bed.home.write(bed.me.clone(), f, 0, noise(1, 1), mode).await.expect("writes");
    assert_eq!(bed.home.getattr(f).await.expect("there").perm, 0o2744);
    let kill = SetAttr { kill: Kill::ByOutsider, ..SetAttr::default() };
    assert_eq!(bed.set(f, kill).await.expect("sets").perm, 0o744);
    let top = bed.make(Ino::ROOT, "top", dir()).await.ino;
    bed.set(top, SetAttr { gid: Some(77), perm: Some(0o2775), ..SetAttr::default() })
        .await
        .expect("sets");
    assert_eq!(bed.make(top, "f", file(0o644)).await.gid, 77);
    let inner = bed.make(top, "d", dir()).await;
    assert_eq!((inner.gid, inner.perm & 0o2000), (77, 0o2000));
    bed.home.close().await.expect("closes");
}

#[tokio::test]
async fn a_default_acl_replaces_the_umask_and_is_handed_on() {
    let bed = Bed::new().await;
    let top = bed.make(Ino::ROOT, "top", dir()).await.ino;
    let acl = |entries: &[(u16, u16, u32)]| {
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(perm.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        Bytes::from(bytes)
    };
    let none = u32::MAX;
    let default = acl(&[(1, 7, none), (2, 6, 1234), (4, 5, none), (16, 7, none), (32, 0, none)]);
    let key = Bytes::from_static(b"system.posix_acl_default");
    let any = XattrMode::default();
    bed.home.setxattr(bed.me.clone(), top, key.clone(), default.clone(), any).await.expect("sets");
    let f = bed.make(top, "f", NewNode { umask: 0o077, ..file(0o666) }).await;
    assert_eq!(f.perm, 0o660, "the mask shows as the group's bits; the umask does not count");
    let access = Bytes::from_static(b"system.posix_acl_access");
    assert!(bed.home.getxattr(f.ino, access.clone()).await.is_ok());
    let inner = bed.make(top, "d", dir()).await;
    assert_eq!(bed.home.getxattr(inner.ino, key.clone()).await.expect("handed on"), default);
    let set = bed.home.setxattr(bed.me.clone(), f.ino, key, default, any).await;
    refused!(set, ErrorKind::NotPermitted);
    bed.home.close().await.expect("closes");
}

#[tokio::test]
async fn a_home_that_was_taken_over_acknowledges_nothing_more() {
    let bed = Bed::new().await;
    let f = bed.file("f").await;
    bed.home.sync().await.expect("syncs");
    let other = Bed::open_on(&bed.store).await;
    let _may_be_taken = bed.write(f, 0, noise(1, 10)).await;
    refused!(bed.home.fsync(f).await, ErrorKind::Fenced);
    refused!(bed.write(f, 0, noise(1, 10)).await, ErrorKind::Fenced);
    assert_eq!(other.getattr(f).await.expect("there").size, 0);
    other.close().await.expect("closes");
}

/// A home on a store that `plan` troubles, on one thread with a clock that jumps over waiting.
async fn home_on(objects: &Arc<InMemory>, plan: FaultPlan) -> (Home, Caller) {
    let inner: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(objects);
    let store: Arc<dyn ObjectStore> = Arc::new(FaultStore::new(inner, plan));
    let config = Config { compute_inline: true, ..Config::default() };
    let home = open(&store, &store, &Shared::new(config)).await;
    let me = caller(&home);
    (home, me)
}

#[tokio::test(start_paused = true)]
async fn a_loss_takes_nothing_that_is_older_than_five_seconds() {
    let objects = Arc::new(InMemory::new());
    // A store that is slow, but works.
    let slow = Fault::new(Action::Delay(Duration::from_millis(300))).on(OpKind::WRITES).always();
    let (home, me) = home_on(&objects, FaultPlan::new(1, [slow])).await;
    let mut written = Vec::new();
    let mode = WriteMode::default();
    for n in 0_u64..150 {
        let called = name(&format!("f{n}"));
        let f = home.make(me.clone(), Ino::ROOT, called, file(0o644)).await.expect("makes").ino;
        let data = noise(n, if n % 7 == 0 { 700_000 } else { 3_000 });
        home.write(me.clone(), f, 0, data.clone(), mode).await.expect("writes");
        written.push((Instant::now(), f, data));
        tokio::time::sleep(Duration::from_millis(200)).await;
        if n % 10 == 9 {
            let lost = Bed::open_on(&Arc::new(objects.fork())).await;
            for (when, f, data) in &written {
                if when.elapsed() > Duration::from_secs(5) {
                    assert_eq!(read_all(&lost, *f).await, data[..], "{:?} old", when.elapsed());
                }
            }
        }
    }
    home.close().await.expect("closes");
}

#[tokio::test(start_paused = true)]
async fn fsync_of_a_file_does_not_wait_for_the_data_of_others() {
    let objects = Arc::new(InMemory::new());
    // The first segment never arrives.
    let stuck = Fault::new(Action::Hang).on([OpKind::Put, OpKind::Create, OpKind::Multipart]);
    let plan = FaultPlan::new(1, [stuck.under("homes/alice/segments").times(1)]);
    let (home, me) = home_on(&objects, plan).await;
    let mode = WriteMode::default();
    let mut inos = Vec::new();
    for called in ["other", "f"] {
        let made = home.make(me.clone(), Ino::ROOT, name(called), file(0o644)).await;
        inos.push(made.expect("makes").ino);
    }
    home.write(me.clone(), inos[0], 0, noise(1, 1 << 20), mode).await.expect("writes");
    // Long enough for the other file to be on its way, where it stays.
    tokio::time::sleep(Duration::from_secs(4)).await;
    for (round, len) in [(1, 100), (2, 100_000), (3, 3 << 20)] {
        home.write(me.clone(), inos[1], 0, noise(round, len), mode).await.expect("writes");
        let synced = tokio::time::timeout(Duration::from_secs(10), home.fsync(inos[1])).await;
        synced.expect("waits for nobody").expect("syncs");
        let lost = Bed::open_on(&Arc::new(objects.fork())).await;
        assert_eq!(read_all(&lost, inos[1]).await[..len], noise(round, len)[..]);
        assert_eq!(lost.getattr(inos[0]).await.expect("is there").size, 0, "not durable yet");
    }
}
