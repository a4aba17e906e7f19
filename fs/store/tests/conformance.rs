//! `object_store`'s own conformance functions on the backends that need nothing but this machine.

use object_store::integration::*;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;
use yadokari_store::fault::{FaultPlan, FaultStore};
use yadokari_store::retry::{RetryPolicy, RetryStore};
use yadokari_store::trace::{StoreMetrics, TraceStore};
use yadokari_store::{Store, StoreOptions, StoreUrl};

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
    for left in ["test_dir/a", "RACE"] {
        // Whether an earlier function left it is no matter.
        let _gone = store.delete(&left.into()).await.is_ok();
    }
    multipart_race_condition(store, true).await;
    multipart_out_of_order(store).await;
    let missing = get_nonexistent_object(store, None).await.expect_err("nothing is there");
    assert!(matches!(missing, object_store::Error::NotFound { .. }), "{missing}");
}

async fn empty(store: &dyn ObjectStore) {
    use futures::TryStreamExt;
    let all: Vec<_> = store.list(None).try_collect().await.expect("a listing");
    for object in all {
        store.delete(&object.location).await.expect("deleted");
    }
}

async fn all(store: &dyn ObjectStore) {
    conformance(store).await;
    empty(store).await;
    stream_get(store).await;
}

async fn file() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let url: StoreUrl = format!("file://{}", dir.path().display()).parse().expect("a URL");
    let store = Store::open(&url, &StoreOptions::default()).await.expect("a store");
    (dir, store)
}

#[tokio::test]
async fn memory_conforms() {
    all(&Store::memory().data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_conforms() {
    let (_dir, store) = file().await;
    all(&store.data).await;
    empty(&store.data).await;
    all(&store.meta).await;
}

#[tokio::test]
async fn the_wrappers_conform() {
    let (_dir, store) = file().await;
    let metrics = Arc::new(StoreMetrics::default());
    let traced = TraceStore::new(store.data, Arc::clone(&metrics));
    let faulty = FaultStore::new(Arc::new(traced), FaultPlan::none());
    let retried = RetryStore::new(Arc::new(faulty.clone()), RetryPolicy::default());
    // RetryStore adds its nonce to conditional puts only, so attributes of others stay as given.
    all(&retried).await;
    assert!(metrics.requests_total() > 100);
    assert_eq!(faulty.counters().faulted, 0);
}
