//! Reading a home that was just opened: what lies together comes together, whoever asks first,
//! and damage hurts nobody but who reads what is damaged.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{caller, file, name, noise, read_all};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use yadokari_fs::home::*;

/// A store that counts what is read of segments.
#[derive(Debug, Default)]
struct Counting {
    inner: InMemory,
    gets: AtomicUsize,
}

impl std::fmt::Display for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Counting({})", self.inner)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Counting {
    async fn put_opts(
        &self,
        at: &Path,
        data: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
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
        if at.as_ref().contains("/segments/") {
            self.gets.fetch_add(1, Ordering::Relaxed);
        }
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

async fn open(store: &Arc<Counting>) -> Home {
    let store: Arc<dyn ObjectStore> = store.clone();
    common::open(&store, &store, &Shared::new(Config::default())).await
}

/// Files of these lengths, made in this order, with contents that do not compress.
async fn make_files(store: &Arc<Counting>, lengths: impl Iterator<Item = usize>) -> Vec<Ino> {
    let home = open(store).await;
    let caller = caller(&home);
    let mut inos = Vec::new();
    for (n, len) in lengths.enumerate() {
        let made = home.make(caller.clone(), Ino::ROOT, name(&format!("f{n}")), file(0o644));
        let ino = made.await.expect("makes").ino;
        for (at, part) in (0..).step_by(1 << 20).zip(noise(n as u64, len).chunks(1 << 20)) {
            let part = Bytes::copy_from_slice(part);
            let mode = WriteMode::default();
            home.write(caller.clone(), ino, at, part, mode).await.expect("writes");
        }
        inos.push(ino);
    }
    home.close().await.expect("closes");
    inos
}

#[tokio::test]
async fn small_files_that_were_written_together_are_read_in_few_requests() {
    let store = Arc::new(Counting::default());
    let inos = make_files(&store, (0..1000).map(|n| 3000 + n % 5000)).await;
    let home = open(&store).await;
    let before = store.gets.load(Ordering::Relaxed);
    for (n, ino) in inos.iter().enumerate() {
        assert_eq!(read_all(&home, *ino).await, noise(n as u64, 3000 + n % 5000), "file {n}");
    }
    let gets = store.gets.load(Ordering::Relaxed) - before;
    // 3.5 MB are fourteen windows.
    assert!(gets <= 12, "{gets} requests");
    home.close().await.expect("closes");
}

#[tokio::test]
async fn single_looks_far_apart_bring_little_along() {
    let store = Arc::new(Counting::default());
    let inos = make_files(&store, std::iter::repeat_n(6000, 1000)).await;
    let home = open(&store).await;
    let before = store.gets.load(Ordering::Relaxed);
    for n in [100, 900, 300, 700, 500] {
        assert_eq!(read_all(&home, inos[n]).await, noise(n as u64, 6000));
    }
    let gets = store.gets.load(Ordering::Relaxed) - before;
    assert!(gets <= 5, "{gets} requests");
    home.close().await.expect("closes");
}

#[tokio::test]
async fn a_large_file_reads_the_same_whatever_a_read_asks_for() {
    let store = Arc::new(Counting::default());
    let len = 9_300_000;
    let ino = make_files(&store, std::iter::once(len)).await[0];
    let all = noise(0, len);
    for step in [1 << 20, 128 << 10, 300_001, 4096 * 33] {
        let home = open(&store).await;
        let before = store.gets.load(Ordering::Relaxed);
        for at in (0..len).step_by(step) {
            let pieces = home.read(ino, at as u64, step as u32).await.expect("reads");
            let end = len.min(at + step);
            assert!(pieces.concat() == all[at..end], "{at} of {step}");
            let in_one = at % (1 << 20) == 0 && step == 1 << 20 && at % (8 << 20) == 0;
            assert!(!in_one || pieces.len() == 1, "{} pieces at {at}", pieces.len());
        }
        let gets = store.gets.load(Ordering::Relaxed) - before;
        assert!(step != 128 << 10 || gets <= 20, "{gets} requests for short reads in order");
        home.close().await.expect("closes");
    }
}

#[tokio::test]
async fn a_large_file_that_is_read_in_order_is_fetched_ahead_and_once() {
    let store = Arc::new(Counting::default());
    let (len, step) = (12 << 20, 1 << 20);
    let ino = make_files(&store, std::iter::once(len)).await[0];
    let all = noise(0, len);
    let home = open(&store).await;
    let before = store.gets.load(Ordering::Relaxed);
    let gets = || store.gets.load(Ordering::Relaxed) - before;
    for at in (0..len).step_by(step) {
        let pieces = home.read(ino, at as u64, step as u32).await.expect("reads");
        assert!(pieces.concat() == all[at..at + step], "{at}");
        if at == step {
            let deadline = Instant::now() + Duration::from_secs(60);
            while gets() < 10 {
                assert!(Instant::now() < deadline, "{} requests after two reads", gets());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    // Twelve, and one more for each read that lies in two segments.
    assert!(gets() <= 14, "{} requests", gets());
    home.close().await.expect("closes");
}

#[tokio::test]
async fn a_large_file_that_compresses_is_not_fetched_twice_when_it_is_read_in_order() {
    let store = Arc::new(Counting::default());
    let (len, step) = (12 << 20, 1 << 20);
    let content: Bytes = noise(5, len / 4).iter().flat_map(|byte| [*byte; 4]).collect();
    let home = open(&store).await;
    let made = home.make(caller(&home), Ino::ROOT, name("f"), file(0o644)).await.expect("makes");
    for at in (0..len).step_by(step) {
        let (part, mode) = (content.slice(at..at + step), WriteMode::default());
        home.write(caller(&home), made.ino, at as u64, part, mode).await.expect("writes");
    }
    home.close().await.expect("closes");
    let home = open(&store).await;
    let before = store.gets.load(Ordering::Relaxed);
    for at in (0..len).step_by(step) {
        let pieces = home.read(made.ino, at as u64, step as u32).await.expect("reads");
        assert!(pieces.concat() == content[at..at + step], "{at}");
    }
    let gets = store.gets.load(Ordering::Relaxed) - before;
    assert!(gets <= 14, "{gets} requests");
    home.close().await.expect("closes");
}

#[tokio::test]
async fn places_in_a_large_file_that_are_written_over_read_back_and_leave_nothing_behind() {
    let store = Arc::new(Counting::default());
    let len = 4 << 20;
    let inos = make_files(&store, [len, len].into_iter()).await;
    let mut all = [noise(0, len).to_vec(), noise(1, len).to_vec()];
    for round in 0..3 {
        let home = open(&store).await;
        let caller = caller(&home);
        for n in 0..200 {
            // The same content in both files, at the same and at other places.
            let part = noise(n % 7, 4096);
            let places = [(n * 37 + round) % 1023, (n * 37 + round * n) % 1023];
            for ((ino, all), place) in inos.iter().zip(&mut all).zip(places) {
                let at = place * 4096;
                let mode = WriteMode::default();
                let data = part.clone();
                home.write(caller.clone(), *ino, at, data, mode).await.expect("writes");
                all[at as usize..][..4096].copy_from_slice(&part);
            }
            if n % 50 == 0 {
                home.sync().await.expect("syncs");
            }
        }
        for (ino, all) in inos.iter().zip(&all) {
            assert!(read_all(&home, *ino).await == *all, "in memory, round {round}");
        }
        home.close().await.expect("closes");
        let home = open(&store).await;
        for (ino, all) in inos.iter().zip(&all) {
            assert!(read_all(&home, *ino).await == *all, "from the store, round {round}");
        }
        let options = fsck::Options { verify_data: true, in_use: true };
        let report = home.check(options, &mut |_| {}).await.expect("checks");
        assert!(report.findings.is_empty(), "round {round}: {:?}", report.findings);
        home.close().await.expect("closes");
    }
}

#[tokio::test]
async fn what_is_damaged_hurts_only_who_reads_it() {
    let store = Arc::new(Counting::default());
    let inos = make_files(&store, std::iter::repeat_n(9_000, 300)).await;
    let hurt = 137;
    let prefix = Path::from(format!("{}/segments", common::PREFIX));
    let listed: Vec<_> = store.list(Some(&prefix)).try_collect().await.expect("lists");
    let content = noise(hurt as u64, 9_000);
    let mut found = 0;
    for meta in listed {
        let object = store.get(&meta.location).await.expect("gets").bytes().await.expect("reads");
        if let Some(at) = object.windows(64).position(|part| part == &content[..64]) {
            let mut bytes = object.to_vec();
            bytes[at + 5000] ^= 1;
            store.put(&meta.location, bytes.into()).await.expect("puts");
            found += 1;
        }
    }
    assert_eq!(found, 1, "the file's content lies in one segment as it is");
    let home = open(&store).await;
    for (n, ino) in inos.iter().enumerate() {
        if n == hurt {
            let error = home.read(*ino, 0, 9_000).await.expect_err("is damaged");
            assert!(matches!(error.kind(), ErrorKind::Corrupt(_)), "{error}");
        } else {
            assert_eq!(read_all(&home, *ino).await, noise(n as u64, 9_000), "file {n}");
        }
    }
    home.close().await.expect("closes");
}

#[tokio::test]
async fn a_large_directory_is_listed_whole_however_little_memory_there_is() {
    const FILES: u64 = 6000;
    let store = Arc::new(Counting::default());
    {
        let home = open(&store).await;
        let caller = caller(&home);
        let dir = home.make(caller.clone(), Ino::ROOT, name("large"), common::dir());
        let dir = dir.await.expect("makes").ino;
        for n in 0..FILES {
            let made = home.make(caller.clone(), dir, name(&format!("f{n}")), file(0o644));
            let ino = made.await.expect("makes").ino;
            let size = SetAttr { size: Some(n), ..SetAttr::default() };
            home.setattr(caller.clone(), ino, size).await.expect("sets");
            if n % 7 == 0 {
                let other = name(&format!("also{n}"));
                home.link(caller.clone(), ino, dir, other).await.expect("links");
            }
            if n % 5 == 0 {
                home.unlink(caller.clone(), dir, name(&format!("f{n}"))).await.expect("unlinks");
            }
        }
        home.close().await.expect("closes");
    }
    for cached_inodes_max in [100, 1000, 100_000] {
        let config = Config { cached_inodes_max, ..Config::default() };
        let dynamic: Arc<dyn ObjectStore> = store.clone();
        let home = common::open(&dynamic, &dynamic, &Shared::new(config)).await;
        let dir = home.lookup(home.attach(), Ino::ROOT, name("large")).await.expect("finds").ino;
        let mut shown = std::collections::BTreeMap::new();
        let mut cookie = 2;
        loop {
            let page = home.readdir(dir, cookie, true, 192).await.expect("lists");
            let Some(last) = page.last() else { break };
            cookie = last.next;
            for entry in page {
                let size = entry.attr.expect("attributes").size;
                shown.insert(String::from_utf8_lossy(&entry.name).into_owned(), size);
            }
        }
        let made = (0..FILES).filter(|n| n % 5 != 0).map(|n| (format!("f{n}"), n));
        let linked = (0..FILES).step_by(7).map(|n| (format!("also{n}"), n));
        assert_eq!(shown, made.chain(linked).collect(), "{cached_inodes_max} inodes in memory");
        home.close().await.expect("closes");
    }
}
