//! Failures that were found once, over a home alone.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{caller, dir, file, name, noise, open, read_all};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use yadokari_fs::home::*;
use yadokari_store::error::Detail;
use yadokari_store::fault::{Action, Fault, FaultControl, FaultPlan, FaultStore, OpKind};
use yadokari_store::{Kind as Trouble, UseReserve};

/// A small synced write behind a large one that is still on its way was lost when a commit came
/// in between: its value was not in the batch that the transaction wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_small_synced_write_behind_a_slow_large_one_is_kept_over_commits() {
    let meta: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let slow =
        ThrottleConfig { wait_put_per_call: Duration::from_millis(400), ..Default::default() };
    let data: Arc<dyn ObjectStore> = Arc::new(ThrottledStore::new(InMemory::new(), slow));
    let config = Config {
        commit_interval: Duration::from_millis(20),
        flush_interval: Duration::from_millis(20),
        ..Config::default()
    };
    let shared = Shared::new(config);
    let home = open(&meta, &data, &shared).await;
    let me = caller(&home);
    let f = home.make(me.clone(), Ino::ROOT, name("f"), file(0o644)).await.expect("makes").ino;
    let mode = WriteMode::default();
    let large = Bytes::from(vec![7_u8; 300_000]);
    home.write(me.clone(), f, 0, large.clone(), mode).await.expect("writes");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let tail = Bytes::from_static(b"the last line");
    home.write(me.clone(), f, 1 << 20, tail.clone(), mode).await.expect("writes");
    home.fsync(f).await.expect("syncs");
    home.close().await.expect("closes");

    let home = open(&meta, &data, &shared).await;
    let all = read_all(&home, f).await;
    assert_eq!(all[..300_000], large[..]);
    assert_eq!(all[1 << 20..], tail[..]);
    home.close().await.expect("closes");
}

/// More open files without names than inodes may be kept counted as a backlog that no commit
/// takes away, and everything waited for ever.
#[tokio::test]
async fn regression_many_open_files_without_names_hold_nobody_up() {
    const FILES: usize = 6_000;
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let config = Config { cached_inodes_max: 100, ..Config::default() };
    let home = open(&store, &store, &Shared::new(config)).await;
    let me = caller(&home);
    for n in 0..FILES {
        let f = name(&format!("f{n}"));
        home.make(me.clone(), Ino::ROOT, f.clone(), file(0o644)).await.expect("makes");
        home.unlink(me.clone(), Ino::ROOT, f).await.expect("unlinks");
    }
    home.sync().await.expect("syncs");
    let made = home.make(me.clone(), Ino::ROOT, name("last"), file(0o644));
    tokio::time::timeout(Duration::from_secs(60), made).await.expect("in time").expect("makes");
    assert_eq!(home.usage().inodes, FILES as u64 + 2);
    home.detach(me.client);
    home.sync().await.expect("syncs");
    assert_eq!(home.usage().inodes, 2);
    home.close().await.expect("closes");
}

/// The kernel takes a short answer to the write-back of a mapping for a whole one: what did not
/// fit into the quota was gone without a word.
#[tokio::test]
async fn regression_a_write_back_that_fits_in_part_is_an_error() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let home = open(&store, &store, &Shared::new(Config::default())).await;
    let me = caller(&home);
    let f = home.make(me.clone(), Ino::ROOT, name("f"), file(0o644)).await.expect("makes").ino;
    home.set_quota(Quota { bytes: home.usage().bytes + 10_000, inodes: u64::MAX });
    let data = Bytes::from(vec![7_u8; 12_000]);
    let whole = WriteMode { whole: true, ..WriteMode::default() };
    let error = home.write(me.clone(), f, 0, data.clone(), whole).await.expect_err("is over");
    assert!(matches!(error.kind(), ErrorKind::OverQuota), "{error}");
    assert_eq!(home.usage().bytes, home.usage().bytes_limit);
    // What fitted, and what is written over it, is stored.
    let fits = home.write(me, f, 0, data.slice(..10_000), whole).await.expect("fits");
    assert_eq!(fits, 10_000);
    home.close().await.expect("closes");
}

/// A store without room for data: SlateDB and the flusher tried for ever, and fsync said EIO after
/// a minute.
#[tokio::test(start_paused = true)]
async fn regression_a_full_store_gives_enospc_takes_deletes_and_works_on_when_there_is_room() {
    let control = FaultControl::new(FaultPlan::none());
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store: Arc<dyn ObjectStore> =
        Arc::new(FaultStore::with_control(Arc::clone(&memory), control.clone()));
    let config = Config { compute_inline: true, ..Config::default() };
    let home = open(&store, &store, &Shared::new(config)).await;
    let me = caller(&home);
    let mode = WriteMode::default();
    let made = |at: &'static str| home.make(me.clone(), Ino::ROOT, name(at), file(0o644));
    let (old, new) = (made("old").await.expect("makes").ino, made("new").await.expect("makes").ino);
    home.write(me.clone(), old, 0, noise(1, 200_000), mode).await.expect("writes");
    home.sync().await.expect("syncs");

    let full = Fault::new(Action::Fail(Trouble::NoSpace)).on([OpKind::Put, OpKind::Create]);
    control.arm(full.under("homes/alice/segments").always().into());
    home.write(me.clone(), new, 0, noise(2, 200_000), mode).await.expect("is acknowledged");
    let began = tokio::time::Instant::now();
    let error = home.fsync(new).await.expect_err("there is no room");
    assert!(matches!(error.kind(), ErrorKind::NoSpace), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for error in [
        home.write(me.clone(), old, 0, noise(3, 10), mode).await.expect_err("no room"),
        made("more").await.expect_err("no room"),
    ] {
        assert!(matches!(error.kind(), ErrorKind::NoSpace), "{error}");
    }
    // Names that are there, and what was written but not stored, are still shown.
    assert_eq!(read_all(&home, new).await, noise(2, 200_000));

    home.unlink(me.clone(), Ino::ROOT, name("old")).await.expect("deletes");
    home.forget(me.client, old, 1);
    home.fsync(Ino::ROOT).await.expect("what frees space is committed");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let left: Vec<_> =
        memory.list(Some(&"homes/alice/segments".into())).try_collect().await.expect("lists");
    assert!(left.is_empty(), "the space of what was deleted: {left:?}");

    control.disarm();
    tokio::time::sleep(Duration::from_secs(5)).await;
    home.fsync(new).await.expect("there is room again");
    let third = made("third").await.expect("makes").ino;
    home.write(me.clone(), third, 0, noise(4, 50_000), mode).await.expect("writes again");
    home.close().await.expect("closes");
    let home = open(&store, &store, &Shared::new(Config::default())).await;
    assert_eq!(read_all(&home, new).await, noise(2, 200_000));
    assert_eq!(read_all(&home, third).await, noise(4, 50_000));
}

/// A rename over a file whose data finds no room held every later commit up, deletes among them.
#[tokio::test(start_paused = true)]
async fn regression_a_rename_that_waits_for_room_holds_no_delete_up() {
    let reserve = Arc::new(Reserve { inner: InMemory::new(), full: AtomicBool::new(false) });
    let store: Arc<dyn ObjectStore> = reserve.clone();
    let config = Config { compute_inline: true, ..Config::default() };
    let home = open(&store, &store, &Shared::new(config)).await;
    let me = caller(&home);
    let mode = WriteMode::default();
    let made = |at: &'static str| home.make(me.clone(), Ino::ROOT, name(at), file(0o644));
    for (at, seed) in [("f", 1), ("big", 2)] {
        let ino = made(at).await.expect("makes").ino;
        home.write(me.clone(), ino, 0, noise(seed, 100_000), mode).await.expect("writes");
    }
    home.sync().await.expect("syncs");
    let tmp = made("tmp").await.expect("makes").ino;
    reserve.full.store(true, Ordering::Relaxed);
    home.write(me.clone(), tmp, 0, noise(3, 100_000), mode).await.expect("is acknowledged");
    let (from, to) = ((Ino::ROOT, name("tmp")), (Ino::ROOT, name("f")));
    home.rename(me.clone(), from, to, RenameMode::default()).await.expect("renames");
    home.unlink(me.clone(), Ino::ROOT, name("big")).await.expect("deletes");
    home.fsync(Ino::ROOT).await.expect("the delete is committed, and the rename with its data");
    assert_eq!(read_all(&home, tmp).await, noise(3, 100_000));
}

/// A store whose data pool is full, but for what may use its reserve.
#[derive(Debug)]
struct Reserve {
    inner: InMemory,
    full: AtomicBool,
}

impl std::fmt::Display for Reserve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reserve({})", self.inner)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Reserve {
    async fn put_opts(
        &self,
        at: &Path,
        data: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let data_put = at.as_ref().contains("/segments/") && !UseReserve::is_in(&options);
        if data_put && self.full.load(Ordering::Relaxed) {
            let detail = Detail::NoSpace { medium: "the test".into(), object: at.to_string() };
            return Err(detail.at("reserve"));
        }
        self.inner.put_opts(at, data, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Not even the log finds room: fsync said EIO after a minute.
#[tokio::test(start_paused = true)]
async fn regression_a_log_without_room_gives_enospc_until_there_is_some() {
    let control = FaultControl::new(FaultPlan::none());
    let store: Arc<dyn ObjectStore> =
        Arc::new(FaultStore::with_control(Arc::new(InMemory::new()), control.clone()));
    let home = open(&store, &store, &Shared::new(Config::default())).await;
    let me = caller(&home);
    control.arm(Fault::new(Action::Fail(Trouble::NoSpace)).always().into());
    home.make(me.clone(), Ino::ROOT, name("a"), dir()).await.expect("is in memory");
    let began = tokio::time::Instant::now();
    let error = home.fsync(Ino::ROOT).await.expect_err("there is no room");
    assert!(matches!(error.kind(), ErrorKind::NoSpace), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    control.disarm();
    tokio::time::sleep(Duration::from_secs(30)).await;
    home.fsync(Ino::ROOT).await.expect("there is room again");
    home.close().await.expect("closes");
    let home = open(&store, &store, &Shared::new(Config::default())).await;
    home.lookup(home.attach(), Ino::ROOT, name("a")).await.expect("is there");
}

/// A write of nothing behind the largest size was a subtraction below zero.
#[tokio::test]
async fn regression_nothing_is_written_anywhere_without_harm() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let home = open(&store, &store, &Shared::new(Config::default())).await;
    let me = caller(&home);
    let f = home.make(me.clone(), Ino::ROOT, name("f"), file(0o644)).await.expect("makes").ino;
    for offset in [0, FILE_BYTES_MAX, FILE_BYTES_MAX + 1, u64::MAX] {
        let wrote = home.write(me.clone(), f, offset, Bytes::new(), WriteMode::default()).await;
        assert_eq!(wrote.expect("writes nothing"), 0);
    }
    assert_eq!(home.getattr(f).await.expect("looks").size, 0);
    home.close().await.expect("closes");
}
