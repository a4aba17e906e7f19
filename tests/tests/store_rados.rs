//! `rados://` on a real cluster: conformance, races, listings, large objects, index crashes.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::integration::*;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use yadokari_store::fault::{Action, Fault, FaultStore, OpKind};
use yadokari_store::retry::{RetryPolicy, RetryStore};
use yadokari_store::{Kind, Store, StoreOptions, StoreUrl, kind};
use yadokari_tests::ceph::{CONF_ENV, shared_conf, shared_url};

/// How often a listing is timed before it counts as slow.
const LISTINGS_MAX: usize = 10;

async fn open(url: &str) -> Store {
    let url: StoreUrl = url.parse().expect("a URL");
    let options = StoreOptions { retry: None, ..StoreOptions::default() };
    Store::open(&url, &options).await.unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

/// A store of this test's own.
async fn own(test: &str) -> Store {
    let run: u32 = rand::random();
    open(&shared_url(&format!("{test}-{run:08x}"))).await
}

async fn names(store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    let prefix = Path::from(prefix);
    let found: Vec<_> = store.list(Some(&prefix)).try_collect().await.expect("a listing");
    let mut names: Vec<String> = found.into_iter().map(|o| o.location.to_string()).collect();
    names.sort();
    names
}

async fn rados(args: &[&str]) -> String {
    let conf = shared_conf().expect(CONF_ENV);
    let mut command = std::process::Command::new("rados");
    let output = command.arg("-c").arg(conf).args(args).output().expect("rados runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn empty(store: &dyn ObjectStore) {
    let all: Vec<_> = store.list(None).try_collect().await.expect("a listing");
    for object in all {
        store.delete(&object.location).await.expect("deleted");
    }
}

async fn conformance(store: &dyn ObjectStore) {
    put_get_delete_list(store).await;
    put_get_attributes(store).await;
    store.delete(&"attributes".into()).await.expect("deleted");
    get_opts(store).await;
    put_opts(store, true).await;
    list_uses_directories_correctly(store).await;
    list_with_delimiter(store).await;
    list_with_offset_exclusivity(store).await;
    rename_and_copy(store).await;
    copy_if_not_exists(store).await;
    copy_rename_nonexistent_object(store).await;
    multipart_race_condition(store, true).await;
    multipart_out_of_order(store).await;
    let missing = get_nonexistent_object(store, None).await.expect_err("nothing is there");
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    empty(store).await;
    stream_get(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_in_chunks_of_any_length_reads_as_one_and_replaces_what_was_there() {
    let store = own("chunks").await;
    let path = Path::from("a/b/c");
    let chunk = |byte: u8, len: usize| Bytes::from(vec![byte; len]);
    let longer = [(1, 10), (2, 200_000), (3, 65_536), (4, 65_535), (5, 7), (6, 300_000)];
    let shorter = [(7, 100), (8, 70_000), (9, 0), (10, 1)];
    for lengths in [&longer[..], &shorter[..], &[]] {
        let chunks: Vec<Bytes> = lengths.iter().map(|(byte, len)| chunk(*byte, *len)).collect();
        let whole = Bytes::from(chunks.concat());
        let payload: PutPayload = chunks.into_iter().collect();
        store.data.put(&path, payload).await.expect("put");
        let read = store.data.get(&path).await.expect("got").bytes().await.expect("bytes");
        assert!(read == whole, "{lengths:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_pools_conform() {
    let store = own("conform").await;
    conformance(&store.data).await;
    conformance(&store.meta).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pool_for_both_conforms() {
    let conf = shared_conf().expect("a cluster");
    let run: u32 = rand::random();
    let store = open(&format!("rados://meta/one-{run:x}?conf={}", conf.display())).await;
    conformance(&store.data).await;
    store.data.put(&"both/see".into(), "x".into()).await.expect("put");
    assert!(names(&store.meta, "both").await.contains(&"both/see".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_one_wins_a_create_and_an_update() {
    let run: u32 = rand::random();
    let url = shared_url(&format!("race-{run:x}"));
    let stores = [open(&url).await, open(&url).await];
    for round in 0..100 {
        let path = Path::from(format!("race/{round}"));
        let put = |store: &Store, mode: PutMode| {
            let (store, path) = (store.data.clone(), path.clone());
            tokio::spawn(async move { store.put_opts(&path, "x".into(), mode.into()).await })
        };
        let tries = stores.each_ref().map(|store| put(store, PutMode::Create));
        let mut won = Vec::new();
        for answer in tries {
            match answer.await.expect("no panic") {
                Ok(done) => won.push(done),
                Err(Error::AlreadyExists { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(won.len(), 1);
        let version = won.remove(0);
        let tries = stores.each_ref().map(|s| put(s, PutMode::Update(version.clone().into())));
        let mut wins = 0;
        for answer in tries {
            match answer.await.expect("no panic") {
                Ok(_) => wins += 1,
                Err(Error::Precondition { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(wins, 1);
    }
    assert_eq!(names(&stores[0].data, "race").await.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_objects_are_listed_in_under_a_second() {
    let store = own("many").await.data;
    let start = Instant::now();
    futures::stream::iter(0..10_000)
        .map(|i| {
            let store = store.clone();
            async move {
                let path = Path::from(format!("homes/alice/wal/{i:08}.sst"));
                store.put(&path, "x".into()).await.expect("put");
            }
        })
        .buffer_unordered(128)
        .count()
        .await;
    eprintln!("10,000 objects written in {:?}", start.elapsed());
    // The machine may be busy with other things: once in a while it is quick.
    let mut best = Duration::MAX;
    for _ in 0..LISTINGS_MAX {
        let start = Instant::now();
        assert_eq!(names(&store, "homes/alice").await.len(), 10_000);
        best = best.min(start.elapsed());
        if best < Duration::from_secs(1) {
            break;
        }
    }
    eprintln!("10,000 objects listed in {best:?}");
    assert!(best < Duration::from_secs(1), "{best:?}");
    let start = Instant::now();
    let level = store.list_with_delimiter(Some(&"homes".into())).await.expect("a level");
    eprintln!("one level over them in {:?}", start.elapsed());
    assert_eq!(level.common_prefixes, [Path::from("homes/alice")]);
    let after = Path::from("homes/alice/wal/00009990.sst");
    let prefix = Path::from("homes/alice");
    let tail = store.list_with_offset(Some(&prefix), &after).count().await;
    assert_eq!(tail, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_forty_megabytes_lies_in_parts_and_reads_as_one() {
    let run: u32 = rand::random();
    let namespace = format!("large-{run:x}");
    let store = open(&shared_url(&namespace)).await.data;
    let data: Bytes = (0..40_000_000u32).map(|i| (i / 251) as u8).collect();
    let path = Path::from("large");
    store.put(&path, data.clone().into()).await.expect("put");
    let read = store.get(&path).await.expect("got");
    assert_eq!(read.meta.size, 40_000_000);
    assert!(read.bytes().await.expect("bytes") == data);
    for range in [0..1, 16_777_215..16_777_217, 1_000_000..39_999_999, 39_999_999..40_000_000] {
        let piece = store.get_range(&path, range.clone()).await.expect("got");
        assert!(piece == data[range.start as usize..range.end as usize], "{range:?}");
    }
    let copied = Path::from("copied");
    store.copy(&path, &copied).await.expect("copied");
    assert!(store.get(&copied).await.expect("got").bytes().await.expect("bytes") == data);
    // Replaced by a small one and removed: no part is left behind.
    let version = store.head(&path).await.expect("there").e_tag;
    let update = PutMode::Update(object_store::UpdateVersion { e_tag: version, version: None });
    store.put_opts(&path, "small".into(), update.into()).await.expect("replaced");
    store.delete(&copied).await.expect("deleted");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = rados(&["-p", "data", "-N", &namespace, "ls"]).await;
        if left.trim() == "o/large" {
            break;
        }
        assert!(Instant::now() < deadline, "{left}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_unlisted_is_listed_when_its_name_is_created_again_or_scanned() {
    let run: u32 = rand::random();
    let namespace = format!("stray-{run:x}");
    let store = open(&shared_url(&namespace)).await;
    for path in ["a/b/1", "a/b/2", "a/b/3"] {
        store.data.put(&path.into(), "x".into()).await.expect("put");
    }
    // The crash between the two writes of a put: the object is there, the entry is not.
    let index = rados(&["-p", "meta", "-N", &namespace, "ls"]).await;
    for shard in index.lines().filter(|name| name.starts_with("i/")) {
        for path in ["a/b/1", "a/b/2"] {
            rados(&["-p", "meta", "-N", &namespace, "rmomapkey", shard, path]).await;
        }
    }
    assert_eq!(names(&store.data, "a").await, ["a/b/3"]);
    let create = store.data.put_opts(&"a/b/1".into(), "y".into(), PutMode::Create.into()).await;
    assert_eq!(kind(&create.expect_err("it is there")), Kind::Exists);
    assert_eq!(names(&store.data, "a").await, ["a/b/1", "a/b/3"]);
    let report = store.scan(false).await.expect("scanned").expect("has an index");
    assert_eq!((report.strays, report.stale_entries), (1, 0), "{report:?}");
    let report = store.scan(true).await.expect("scanned").expect("has an index");
    assert_eq!(report.strays, 1, "{report:?}");
    assert_eq!(names(&store.data, "a").await, ["a/b/1", "a/b/2", "a/b/3"]);
    let report = store.scan(false).await.expect("scanned").expect("has an index");
    assert_eq!(report.strays, 0, "{report:?}");
    // The other crash: the entry is there, the object is not. It is not listed, and is repaired.
    rados(&["-p", "data", "-N", &namespace, "rm", "o/a/b/2"]).await;
    let report = store.scan(true).await.expect("scanned").expect("has an index");
    assert_eq!(report.stale_entries, 1, "{report:?}");
    assert_eq!(names(&store.data, "a").await, ["a/b/1", "a/b/3"]);
}

/// The first bytes of all entries of an index: what their states are.
async fn states(namespace: &str) -> String {
    let mut states = String::new();
    let index = rados(&["-p", "meta", "-N", namespace, "ls"]).await;
    for shard in index.lines().filter(|name| name.starts_with("i/")) {
        let values = rados(&["-p", "meta", "-N", namespace, "listomapvals", shard]).await;
        let first = values.lines().filter_map(|line| line.strip_prefix("00000000  "));
        let byte = first.map(|hex| u8::from_str_radix(&hex[..2], 16).expect("a byte"));
        states.extend(byte.map(char::from));
    }
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_confirmed_or_gone_soon_after_whatever_happens_to_others_of_their_shard() {
    let run: u32 = rand::random();
    let namespace = format!("confirm-{run:x}");
    let store = open(&shared_url(&namespace)).await.data;
    let paths: Vec<_> = (0..300).map(|n| Path::from(format!("a/b/{n}"))).collect();
    // All of it within what is gathered: every third is replaced by another client, every fifth
    // is deleted.
    let other = open(&shared_url(&namespace)).await.data;
    let work = futures::stream::iter(paths.iter().enumerate()).map(|(n, path)| {
        let (store, other) = (store.clone(), other.clone());
        async move {
            store.put(path, "x".into()).await.expect("put");
            if n.is_multiple_of(3) {
                other.put(path, "y".into()).await.expect("replaced");
            }
            if n.is_multiple_of(5) {
                store.delete(path).await.expect("deleted");
            }
        }
    });
    work.buffer_unordered(64).collect::<()>().await;
    let expected = "C".repeat(240);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let states = states(&namespace).await;
        if states == expected {
            break;
        }
        assert!(Instant::now() < deadline, "{states}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(names(&store, "a/b").await.len(), 240);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stray_can_be_deleted() {
    let run: u32 = rand::random();
    let namespace = format!("straydel-{run:x}");
    let store = open(&shared_url(&namespace)).await;
    store.data.put(&"a/b/1".into(), "x".into()).await.expect("put");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let index = rados(&["-p", "meta", "-N", &namespace, "ls"]).await;
    for shard in index.lines().filter(|name| name.starts_with("i/")) {
        rados(&["-p", "meta", "-N", &namespace, "rmomapkey", shard, "a/b/1"]).await;
    }
    store.data.delete(&"a/b/1".into()).await.expect("deleted");
    assert!(names(&store.data, "").await.is_empty());
    let error = store.data.get(&"a/b/1".into()).await.expect_err("it is gone");
    assert_eq!(kind(&error), Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_object_is_ever_missing_from_a_listing() {
    let run: u32 = rand::random();
    let url = shared_url(&format!("churn-{run:x}"));
    let (one, two) = (open(&url).await, open(&url).await);
    let end = Instant::now() + Duration::from_secs(5);
    // Two clients create and delete the same few names; whoever just created one and holds it
    // alone must find it listed.
    let workers: Vec<_> = (0..8)
        .map(|worker: u32| {
            let store = if worker.is_multiple_of(2) { one.data.clone() } else { two.data.clone() };
            tokio::spawn(async move {
                let mut rounds = 0;
                while Instant::now() < end {
                    let path = Path::from(format!("churn/x/{}", worker / 2));
                    match store.put_opts(&path, "x".into(), PutMode::Create.into()).await {
                        Ok(_) => {
                            let listed = names(&store, "churn/x").await;
                            assert!(listed.contains(&path.to_string()), "{path} of {listed:?}");
                            store.delete(&path).await.expect("only the creator deletes");
                            rounds += 1;
                        }
                        Err(Error::AlreadyExists { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                rounds
            })
        })
        .collect();
    let mut rounds = 0;
    for worker in workers {
        rounds += worker.await.expect("no panic");
    }
    eprintln!("{rounds} rounds of create, list and delete");
    assert!(rounds > 20);
    assert!(names(&one.data, "churn").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_answer_was_lost_is_recognised_when_it_is_repeated() {
    let store = own("lost").await.data;
    let fault = Fault::new(Action::LoseAnswer(Kind::Unavailable))
        .on([OpKind::Create, OpKind::Update])
        .times(2);
    let faulty = FaultStore::new(store.clone(), fault.into());
    let retry = RetryStore::new(Arc::new(faulty), RetryPolicy::default());
    let path = Path::from("a/b/c");
    let created = retry.put_opts(&path, "1".into(), PutMode::Create.into()).await;
    let update = PutMode::Update(created.expect("its own").into());
    retry.put_opts(&path, "2".into(), update.into()).await.expect("its own");
    let theirs = retry.put_opts(&path, "3".into(), PutMode::Create.into()).await;
    assert_eq!(kind(&theirs.expect_err("another create")), Kind::Exists);
    assert_eq!(store.get(&path).await.expect("got").bytes().await.expect("bytes"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn futures_that_are_dropped_in_flight_harm_nothing() {
    let store = own("drop").await.data;
    let data = PutPayload::from(vec![7u8; 1 << 20]);
    for i in 0..200 {
        let path = Path::from(format!("drop/x/{i}"));
        let wait = Duration::from_micros(i * 20);
        let _given_up = tokio::time::timeout(wait, store.put(&path, data.clone())).await;
        let _given_up = tokio::time::timeout(wait, store.get(&path)).await;
    }
    drop(store);
}

/// Bytes that tell when nobody holds them any more.
struct Watched {
    bytes: Vec<u8>,
    held: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Whoever still read them would find something else.
        self.bytes.fill(0xff);
        self.held.fetch_sub(1, Ordering::AcqRel);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_held_while_it_is_put_and_let_go_soon_after_also_when_nobody_waits() {
    let store = own("held").await.data;
    let held = Arc::new(AtomicUsize::new(0));
    for n in 0..300_u64 {
        let pieces = [20_000, 1 << 20, 5000, 16 << 10].map(|len| {
            held.fetch_add(1, Ordering::AcqRel);
            let bytes = vec![n as u8; len];
            Bytes::from_owner(Watched { bytes, held: Arc::clone(&held) })
        });
        let payload: PutPayload = pieces.into_iter().collect();
        let path = Path::from(format!("held/{n}"));
        if n % 3 == 0 {
            let wait = Duration::from_micros(n * 20);
            let _given_up = tokio::time::timeout(wait, store.put(&path, payload)).await;
        } else {
            store.put(&path, payload).await.expect("put");
        }
    }
    for n in (0..300_u64).filter(|n| n % 3 != 0) {
        let path = Path::from(format!("held/{n}"));
        let read = store.get(&path).await.expect("got").bytes().await.expect("bytes");
        assert!(read.iter().all(|byte| *byte == n as u8), "object {n}");
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while held.load(Ordering::Acquire) > 0 {
        assert!(Instant::now() < deadline, "{held:?} pieces are held");
        // What one request leaves behind the next one finds.
        store.put(&Path::from("held/next"), vec![0; 32 << 10].into()).await.expect("put");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_stays_as_it_is_when_the_object_and_the_store_are_gone() {
    let lens = [0, 1, 4096, (16 << 10) - 1, 16 << 10, 100_000, 1 << 20, 5 << 20];
    let bytes = |len: usize| (0..len).map(|at| (at / 7) as u8).collect::<Vec<_>>();
    let mut kept = Vec::new();
    {
        let store = own("read").await.data;
        for len in lens {
            let path = Path::from(format!("read/{len}"));
            store.put(&path, bytes(len).into()).await.expect("put");
            let read = store.get(&path).await.expect("got").bytes().await.expect("bytes");
            let part = store.get_range(&path, len as u64 / 3..len as u64).await;
            store.put(&path, vec![0xff; len].into()).await.expect("put");
            store.delete(&path).await.expect("deleted");
            kept.push((len, read, part));
        }
    }
    for (len, read, part) in kept {
        assert_eq!(read, bytes(len), "{len} bytes");
        match part {
            Ok(part) => assert_eq!(part, bytes(len)[len / 3..], "{len} bytes"),
            Err(error) => assert_eq!(len, 0, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_that_of_the_pool() {
    let store = own("usage").await;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let usage = store.usage().await.expect("an answer").expect("known");
        if usage.free_bytes > 0 && usage.capacity_bytes >= usage.free_bytes {
            break;
        }
        // The manager reckons it, and it starts last.
        assert!(Instant::now() < deadline, "{usage:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_are_in_flight_at_once_and_their_cost_is_known() {
    let store = own("speed").await.data;
    for (size, count, at_once) in [(1 << 10, 4000usize, 1), (1 << 10, 4000, 64), (8 << 20, 32, 4)] {
        let count = if at_once == 1 { 500 } else { count };
        let data = Bytes::from(vec![1u8; size]);
        let start = Instant::now();
        futures::stream::iter(0..count)
            .map(|i| {
                let (store, data) = (store.clone(), data.clone());
                async move {
                    let path = Path::from(format!("speed/{size}/{at_once}/{i}"));
                    store.put(&path, data.into()).await.expect("put");
                }
            })
            .buffer_unordered(at_once)
            .count()
            .await;
        let each = start.elapsed() / count as u32;
        eprintln!("put of {size} bytes, {at_once} at once: {each:?} each");
        let start = Instant::now();
        futures::stream::iter(0..count)
            .map(|i| {
                let store = store.clone();
                async move {
                    let path = Path::from(format!("speed/{size}/{at_once}/{i}"));
                    let got = store.get_range(&path, 0..size as u64).await.expect("got");
                    assert_eq!(got.len(), size);
                }
            })
            .buffer_unordered(at_once)
            .count()
            .await;
        eprintln!("get of {size} bytes, {at_once} at once: {:?}", start.elapsed() / count as u32);
    }
}
