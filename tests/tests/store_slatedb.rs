//! SlateDB on the stores of ours: what homes rest on works on each of them, fencing included.

use slatedb::Db;
use slatedb::config::{GarbageCollectorDirectoryOptions, GarbageCollectorOptions, Settings};
use std::time::{Duration, Instant};
use yadokari_store::{Store, StoreOptions, StoreUrl};
use yadokari_tests::ceph::shared_url;

async fn open(url: &str) -> Store {
    let url: StoreUrl = url.parse().expect("a URL");
    let opened = Store::open(&url, &StoreOptions::default()).await;
    opened.unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

fn settings() -> Settings {
    let collect = Some(GarbageCollectorDirectoryOptions {
        interval: Some(Duration::from_millis(300)),
        min_age: Duration::from_millis(300),
        ..GarbageCollectorDirectoryOptions::default()
    });
    let garbage = GarbageCollectorOptions {
        manifest_options: collect,
        wal_options: collect,
        compacted_options: collect,
        ..GarbageCollectorOptions::default()
    };
    Settings { garbage_collector_options: Some(garbage), ..Settings::default() }
}

async fn database(store: &Store) -> Db {
    let builder = Db::builder("homes/alice/db", store.meta.clone());
    builder.with_settings(settings()).build().await.expect("a database")
}

async fn a_database_lives_here(url: &str) {
    let store = open(url).await;
    let db = database(&store).await;
    let start = Instant::now();
    for i in 0..50u32 {
        db.put(&i.to_be_bytes(), vec![7u8; 200]).await.expect("put");
        db.flush().await.expect("flushed");
    }
    eprintln!("a put and its flush: {:?}", start.elapsed() / 50);
    // Long enough for the collector to have been at work on manifests and log.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let other = open(url).await;
    let second = database(&other).await;
    for i in 0..50u32 {
        let value = second.get(&i.to_be_bytes()).await.expect("read").expect("there");
        assert_eq!(value, vec![7u8; 200]);
    }
    second.put(b"mine", b"now").await.expect("put");
    second.flush().await.expect("flushed");
    let fenced = async {
        db.put(b"late", b"writer").await?;
        db.flush().await
    };
    let error = fenced.await.expect_err("the first writer is fenced");
    eprintln!("{error}");
    second.close().await.expect("closed");
    let third = database(&other).await;
    assert!(third.get(b"late").await.expect("read").is_none());
    assert_eq!(third.get(b"mine").await.expect("read").expect("there"), b"now".as_slice());
    third.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn slatedb_lives_in_a_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    a_database_lives_here(&format!("file://{}", dir.path().display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slatedb_lives_in_ceph() {
    let run: u32 = rand::random();
    a_database_lives_here(&shared_url(&format!("slate-{run:x}"))).await;
}
