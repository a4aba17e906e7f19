//! What `file://` promises beyond the trait: crashes, other processes, full disks, names.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};
use std::path::Path as FsPath;
use std::time::Instant;
use yadokari_store::{Kind, Store, StoreError, StoreOptions, StoreUrl, kind};

async fn open(dir: &FsPath) -> Result<Store, StoreError> {
    let url: StoreUrl = format!("file://{}", dir.display()).parse().expect("a URL");
    Store::open(&url, &StoreOptions::default()).await
}

async fn names(store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    let prefix = Path::from(prefix);
    let found: Vec<_> = store.list(Some(&prefix)).try_collect().await.expect("a listing");
    let mut names: Vec<String> = found.into_iter().map(|o| o.location.to_string()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_object_and_a_directory_of_one_name_live_side_by_side() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path()).await.expect("a store").data;
    for path in ["a", "a/b", "a/b/c", "a=", "a=/b", "a=+/b"] {
        store.put(&Path::parse(path).expect("a path"), path.to_owned().into()).await.expect(path);
    }
    for path in ["a", "a/b", "a/b/c", "a=", "a=/b", "a=+/b"] {
        let read = store.get(&Path::parse(path).expect("a path")).await.expect(path);
        assert_eq!(read.bytes().await.expect("bytes"), path);
    }
    assert_eq!(names(&store, "a").await, ["a/b", "a/b/c"]);
    assert_eq!(names(&store, "").await.len(), 6);
}

#[tokio::test]
async fn what_a_killed_process_left_is_swept_and_a_living_ones_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let alive = open(dir.path()).await.expect("a store");
    let mut upload = alive.data.put_multipart(&"living".into()).await.expect("an upload");
    upload.put_part("part".into()).await.expect("a part");
    // A dead process: its lock file is there and nobody holds it.
    let tmp = dir.path().join(".yadokari/tmp");
    std::fs::create_dir(tmp.join("dead")).expect("made");
    std::fs::write(tmp.join("dead/1"), "half an object").expect("written");
    std::fs::write(tmp.join("dead.lock"), "").expect("written");
    let second = open(dir.path()).await.expect("a store");
    assert!(!tmp.join("dead").exists() && !tmp.join("dead.lock").exists());
    upload.complete().await.expect("completed");
    assert_eq!(names(&second.data, "").await, ["living"]);
    drop((alive, upload));
    drop(second);
    assert_eq!(std::fs::read_dir(&tmp).expect("read").count(), 0);
}

#[tokio::test]
async fn a_damaged_file_is_a_named_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path()).await.expect("a store").data;
    store.put(&"x/y".into(), "content".into()).await.expect("put");
    let file = dir.path().join("x/y=");
    let bytes = std::fs::read(&file).expect("read");
    for cut in [0, 7, 30, bytes.len() - 1] {
        std::fs::write(&file, &bytes[..cut]).expect("written");
        let error = store.get(&"x/y".into()).await.expect_err("it is damaged");
        assert_eq!(kind(&error), Kind::Corrupt, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_settled_keeps_no_journal_and_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path()).await.expect("a store");
    let journals = || {
        let entries = std::fs::read_dir(dir.path().join(".yadokari/tmp")).expect("listed");
        let names = entries.map(|entry| entry.expect("an entry").path());
        names.filter(|path| path.extension().is_some_and(|end| end == "journal")).count()
    };
    let put = |range: std::ops::Range<u32>| {
        let data = store.data.clone();
        async move {
            for number in range {
                let path = Path::from(format!("log/{number}"));
                data.put_opts(&path, "x".into(), PutMode::Create.into()).await.expect("put");
            }
        }
    };
    for round in 0..3 {
        put(round * 100..round * 100 + 100).await;
        assert!(journals() > 0, "small objects go through the journal");
        store.settle().await.expect("settled");
        assert_eq!(journals(), 0);
    }
    // While others put, none of whose objects may be in a file that is removed.
    let others = tokio::spawn(put(300..800));
    while !others.is_finished() {
        let _under_way = store.settle().await;
    }
    others.await.expect("no panic");
    store.settle().await.expect("settled");
    assert_eq!(journals(), 0);
    let again = open(dir.path()).await.expect("opened again");
    for number in 0..800 {
        again.data.get(&Path::from(format!("log/{number}"))).await.expect("is there");
    }
}

#[tokio::test]
async fn a_foreign_directory_and_another_version_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("thesis.tex"), "").expect("written");
    let error = open(dir.path()).await.expect_err("it is not empty");
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()).await.expect("a store"));
    let format = dir.path().join(".yadokari/format");
    std::fs::write(format, "yadokari file store 9\n").expect("written");
    let error = open(dir.path()).await.expect_err("it is of another version");
    assert!(error.to_string().contains("store 9"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_one_wins_a_create_and_an_update() {
    let dir = tempfile::tempdir().expect("a directory");
    // Two openings of one directory share no memory, as two processes share none.
    let stores = [open(dir.path()).await.expect("one"), open(dir.path()).await.expect("two")];
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
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_survive_deletes_that_empty_their_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path()).await.expect("a store").data;
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    let path = Path::from(format!("deep/er/{worker}"));
                    store.put(&path, "x".into()).await.expect("put");
                    store.head(&path).await.expect("it is there");
                    store.delete(&path).await.expect("deleted");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no panic");
    }
    assert!(!dir.path().join("deep").exists());
    assert!(names(&store, "").await.is_empty());
}

#[tokio::test]
async fn a_long_object_is_read_whole_in_pieces_and_in_ranges() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path()).await.expect("a store").data;
    let data: Bytes = (0..20_000_000u32).map(|i| (i / 251) as u8).collect();
    store.put(&"long".into(), data.clone().into()).await.expect("put");
    let whole = store.get(&"long".into()).await.expect("got").bytes().await.expect("bytes");
    assert!(whole == data);
    let ranges = [0..10, 9_000_000..17_500_001, 19_999_999..20_000_000];
    let pieces = store.get_ranges(&"long".into(), &ranges).await.expect("got");
    for (range, piece) in ranges.iter().zip(pieces) {
        assert!(piece == data[range.start as usize..range.end as usize]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_objects_are_listed_in_under_a_second() {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let store = open(dir.path()).await.expect("a store").data;
    use futures::StreamExt;
    futures::stream::iter(0..10_000)
        .map(|i| {
            let store = store.clone();
            async move {
                let path = Path::from(format!("many/{}/{i:06}", i % 7));
                store.put(&path, "x".into()).await.expect("put");
            }
        })
        .buffer_unordered(16)
        .count()
        .await;
    let start = Instant::now();
    assert_eq!(names(&store, "many").await.len(), 10_000);
    let took = start.elapsed();
    eprintln!("10,000 objects listed in {took:?}");
    assert!(took.as_millis() < 1000, "{took:?}");
}

#[tokio::test]
async fn usage_is_that_of_the_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path()).await.expect("a store");
    let usage = store.usage().await.expect("an answer").expect("known");
    assert!(usage.capacity_bytes > usage.free_bytes && usage.free_bytes > 0);
    assert_eq!(Store::memory().usage().await.expect("an answer"), None);
}
