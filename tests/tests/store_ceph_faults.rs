//! `rados://` on clusters that refuse, fill up, freeze, limit or are not there at all.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutPayload};
use std::time::{Duration, Instant};
use yadokari_store::{Kind, Store, StoreError, StoreOptions, StoreUrl, kind};
use yadokari_tests::ceph::{Ceph, Options};

async fn try_open(url: &str) -> Result<Store, StoreError> {
    let url: StoreUrl = url.parse().expect("a URL");
    let options = StoreOptions {
        retry: None,
        request_timeout: Duration::from_secs(3),
        ..StoreOptions::default()
    };
    Store::open(&url, &options).await
}

async fn open(url: &str) -> Store {
    try_open(url).await.unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

/// The error of an open that must fail within some seconds, with its text.
async fn refused(url: &str, seconds: u64) -> (StoreError, String) {
    let start = Instant::now();
    let error = try_open(url).await.expect_err(url);
    let took = start.elapsed();
    eprintln!("{took:?}: {error}");
    assert!(took < Duration::from_secs(seconds), "{took:?}: {error}");
    let text = error.to_string();
    (error, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_opened_says_why_within_a_bounded_time() {
    let ceph = Ceph::start().expect("a cluster");
    let conf = ceph.conf();
    let conf = conf.display();

    let (error, text) = refused(&format!("rados://nosuch?conf={conf}"), 10).await;
    assert!(matches!(error, StoreError::NotFound { .. }) && text.contains("pool `nosuch`"));

    let (error, text) = refused(&format!("rados://data?conf={conf}&meta_pool=nope"), 10).await;
    assert!(matches!(error, StoreError::NotFound { .. }) && text.contains("pool `nope`"));

    let (error, text) = refused("rados://data?conf=/nonexistent/ceph.conf", 10).await;
    assert!(matches!(error, StoreError::NotFound { .. }) && text.contains("/nonexistent"));

    let (error, text) = refused(&format!("rados://data?conf={conf}&keyring=/none"), 10).await;
    assert!(matches!(error, StoreError::NotFound { .. }) && text.contains("keyring /none"));

    let (error, text) = refused(&format!("rados://stranger@data?conf={conf}"), 10).await;
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert!(text.contains("client.stranger"), "{text}");

    // A key of the right form that the cluster does not know.
    let dir = tempfile::tempdir().expect("a directory");
    let wrong = dir.path().join("wrong.keyring");
    let key = "[client.admin]\n\tkey = AQBXm0FmAAAAABAAnxPfjNBVNdCPxHjl4x1nPA==\n";
    std::fs::write(&wrong, key).expect("written");
    let url = format!("rados://data?conf={conf}&keyring={}", wrong.display());
    let (error, text) = refused(&url, 15).await;
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert!(text.contains("key of client.admin"), "{text}");

    // A user who may not write to the pool.
    let reader = ceph.add_client("reader", &["mon", "allow r", "osd", "allow r"]).expect("added");
    let url = format!("rados://reader@data?conf={conf}&keyring={}", reader.display());
    let (error, text) = refused(&url, 15).await;
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert!(text.contains("allow rw"), "{text}");

    // Nobody listens there, and nobody answers there.
    for host in ["127.0.0.1:1", "v2:240.0.0.1:3300"] {
        let url = format!("rados://data?conf={conf}&mon_host={host}&timeout=3s");
        let (error, text) = refused(&url, 12).await;
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
        assert!(text.contains("any monitor"), "{text}");
    }

    ceph.stop_mon().expect("stopped");
    let (error, _) = refused(&format!("rados://data?conf={conf}&timeout=3s"), 12).await;
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_cluster_refuses_data_at_once_and_takes_metadata_and_deletes() {
    let ceph = Ceph::start().expect("a cluster");
    let store = open(&ceph.url("full")).await;
    store.data.put(&"a/b/1".into(), "x".into()).await.expect("put");
    ceph.set_full(true).expect("set");
    let start = Instant::now();
    // The flag takes some seconds. A put that needs no more room than there was passes even then.
    let mut n = 0;
    let error = loop {
        n += 1;
        match store.data.put(&Path::from(format!("a/new/{n}")), "x".into()).await {
            Ok(_) if start.elapsed() < Duration::from_secs(30) => {}
            other => break other.expect_err("the cluster is full"),
        }
    };
    assert_eq!(kind(&error), Kind::NoSpace, "{error}");
    let start = Instant::now();
    store.data.put(&"a/b/3".into(), "x".into()).await.expect_err("the cluster is full");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    store.meta.put(&"log/1".into(), "x".into()).await.expect("metadata passes");
    store.data.delete(&"a/b/1".into()).await.expect("deleting passes");
    assert_eq!(
        store.data.get(&"a/b/1".into()).await.map_err(|e| kind(&e)).err(),
        Some(Kind::NotFound)
    );
    ceph.set_full(false).expect("unset");
    let start = Instant::now();
    while store.data.put(&"a/new/again".into(), "x".into()).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_osd_makes_requests_fail_in_time_and_go_on_when_it_is_back() {
    let ceph = Ceph::start_with(&Options::to_be_paused()).expect("a cluster");
    let store = open(&ceph.url("frozen")).await;
    let path = Path::from("a/b/c");
    store.data.put(&path, "1".into()).await.expect("put");
    ceph.pause_osd(0).expect("paused");
    let start = Instant::now();
    let error = store.data.get(&path).await.expect_err("nobody answers");
    assert_eq!(kind(&error), Kind::Unavailable, "{error}");
    let error = store.data.put(&path, "2".into()).await.expect_err("nobody answers");
    assert_eq!(kind(&error), Kind::Unavailable, "{error}");
    let took = start.elapsed();
    eprintln!("get and put failed after {took:?}");
    assert!(took < Duration::from_secs(12), "{took:?}");
    ceph.resume_osd(0).expect("resumed");
    let start = Instant::now();
    while store.data.get(&path).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(60));
    }
    // Stopped in order and started again: the memory of the OSD is kept, the client finds it.
    ceph.stop_osd(0).expect("stopped");
    ceph.start_osd(0).expect("started");
    let start = Instant::now();
    while store.data.get(&path).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(60));
    }
    ceph.stop_mon().expect("stopped");
    store.data.put(&"a/b/d".into(), "x".into()).await.expect("no monitor is needed for that");
    ceph.start_mon().expect("started");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_above_the_clusters_own_limit_are_stored_in_parts() {
    let settings = vec!["osd max object size = 1048576".to_owned()];
    let ceph = Ceph::start_with(&Options { settings, ..Options::default() }).expect("a cluster");
    let store = open(&ceph.url("limit")).await.data;
    let data: Bytes = (0..9_000_000u32).map(|i| (i / 251) as u8).collect();
    store.put(&"a/b/c".into(), data.clone().into()).await.expect("put");
    let read = store.get(&"a/b/c".into()).await.expect("got").bytes().await.expect("bytes");
    assert!(read == data);
    let create = store.put_opts(&"a/b/c".into(), data.clone().into(), PutMode::Create.into()).await;
    assert_eq!(kind(&create.expect_err("it is there")), Kind::Exists);
    let listed: Vec<_> = store.list(None).try_collect().await.expect("a listing");
    assert_eq!((listed.len(), listed[0].size), (1, 9_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_lies_in_an_erasure_coded_pool_and_indexes_do_not() {
    let ceph = Ceph::start_with(&Options { osds: 3, ..Options::default() }).expect("a cluster");
    ceph.create_erasure_pool("coded").expect("a pool");
    let conf = ceph.conf();
    let conf = conf.display();
    let error =
        try_open(&format!("rados://coded?conf={conf}")).await.expect_err("no indexes there");
    assert!(error.to_string().contains("meta_pool"), "{error}");
    let store = open(&format!("rados://coded?conf={conf}&meta_pool=meta")).await;
    let data: Bytes = (0..20_000_000u32).map(|i| (i / 251) as u8).collect();
    let path = Path::from("a/b/c");
    let made = store.data.put_opts(&path, data.clone().into(), PutMode::Create.into()).await;
    let version = made.expect("created");
    assert!(store.data.get(&path).await.expect("got").bytes().await.expect("bytes") == data);
    let piece = store.data.get_range(&path, 16_777_000..16_778_000).await.expect("got");
    assert!(piece == data[16_777_000..16_778_000]);
    let update = PutMode::Update(version.into());
    store.data.put_opts(&path, "odd length".into(), update.into()).await.expect("updated");
    // Chunks that a replicated pool would take as they are.
    let chunks: PutPayload =
        [data.slice(..99_999), data.slice(99_999..300_001)].into_iter().collect();
    store.data.put(&path, chunks).await.expect("put in chunks");
    let read = store.data.get(&path).await.expect("got").bytes().await.expect("bytes");
    assert!(read == data[..300_001]);
    store.data.put(&path, "over".into()).await.expect("overwritten");
    let listed: Vec<_> = store.data.list(Some(&"a".into())).try_collect().await.expect("listed");
    assert_eq!(listed.len(), 1);
    store.data.delete(&path).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_on_the_blocklist_comes_back_as_a_new_one() {
    let ceph = Ceph::start().expect("a cluster");
    let keyring = ceph.add_client("node1", &["mon", "allow r", "osd", "allow rw"]).expect("added");
    let url = format!(
        "rados://node1@data/fenced?conf={}&meta_pool=meta&keyring={}",
        ceph.conf().display(),
        keyring.display()
    );
    let store = open(&url).await;
    store.data.put(&"a/b/1".into(), "x".into()).await.expect("put");
    assert_eq!(ceph.blocklist("node1").expect("blocklisted"), 1);
    let start = Instant::now();
    let error = loop {
        match store.data.put(&"a/b/2".into(), "x".into()).await {
            Ok(_) if start.elapsed() < Duration::from_secs(10) => {}
            other => break other.expect_err("it is fenced"),
        }
    };
    assert_eq!(kind(&error), Kind::Unavailable, "{error}");
    assert!(error.to_string().contains("blocklist"), "{error}");
    let start = Instant::now();
    while store.data.put(&"a/b/3".into(), "x".into()).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "no new client");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Both pools are reached by the new client, which may be told to go as well.
    store.meta.put(&"a/b/4".into(), "x".into()).await.expect("put");
    assert_eq!(ceph.blocklist("node1").expect("blocklisted"), 1);
    let start = Instant::now();
    while store.meta.get(&"a/b/4".into()).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "no third client");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
