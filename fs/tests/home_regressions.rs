//! Failures that were found once, over a home alone.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{caller, file, name, open, read_all};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use yadokari_fs::home::*;

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
