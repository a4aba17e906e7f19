//! Upload sessions, mounts, reading.

use std::time::Duration;

use yadokari_catalog::{Algorithm, CatalogError, Hasher, NewUpload, Quota, ReadOptions, What};

use super::*;

#[tokio::test]
async fn an_upload_goes_on_at_its_offset_on_another_instance() {
    let world = world();
    let (one, two) = two(&world);
    let app = repo("alice/app");
    let blob = bytes(500_000, 3);
    let begun = one.catalog.begin_upload(&app, NewUpload::default()).await.expect("begun");
    let id = begun.id().clone();
    let mut writer = begun.write_at(0, None, 2).await.expect("a writer");
    writer.write(blob.slice(..200_000)).await.expect("written");
    writer.write(blob.slice(200_000..200_010)).await.expect("written");
    let after = writer.end().await.expect("ended");
    assert_eq!(after.offset(), 200_010);
    let session = two.catalog.upload(&app, &id).await.expect("a session");
    let wrong = session.write_at(200_000, None, 1).await.expect_err("another offset");
    assert!(matches!(wrong, CatalogError::WrongOffset { offset: 200_010, .. }));
    let session = two.catalog.upload(&app, &id).await.expect("a session");
    let mut writer = session.write_at(200_010, Some(299_990), 3).await.expect("a writer");
    for at in (200_010..500_000).step_by(90_000) {
        writer.write(blob.slice(at..500_000.min(at + 90_000))).await.expect("written");
    }
    writer.finish(&sha256(&blob)).await.expect("finished");
    assert_eq!(one.pull(&app, &sha256(&blob)).await.expect("pulled"), blob);
    let gone = one.catalog.upload(&app, &id).await.expect_err("ended");
    assert!(matches!(gone, CatalogError::NotFound { what: What::Upload, .. }));
    assert_sound(&world).await;
}

#[tokio::test]
async fn of_two_writers_of_one_session_the_loser_hears_of_it_and_loses_nothing_else() {
    let world = world();
    let (one, two) = two(&world);
    let app = repo("alice/app");
    let blob = bytes(300_000, 3);
    let begun = one.catalog.begin_upload(&app, NewUpload::default()).await.expect("begun");
    let id = begun.id().clone();
    let other = two.catalog.upload(&app, &id).await.expect("a session");
    let mut first = begun.write_at(0, None, 1).await.expect("a writer");
    let mut second = other.write_at(0, None, 1).await.expect("a writer");
    first.write(blob.slice(..100_000)).await.expect("written");
    second.write(blob.slice(..150_000)).await.expect("written");
    let won = first.end().await.expect("the winner");
    assert_eq!(won.offset(), 100_000);
    let lost = second.end().await.expect_err("the loser");
    assert!(matches!(lost, CatalogError::WrongOffset { offset: 100_000, .. }));
    let mut writer = won.write_at(100_000, None, 1).await.expect("a writer");
    writer.write(blob.slice(100_000..)).await.expect("written");
    writer.finish(&sha256(&blob)).await.expect("finished");
    assert_eq!(one.pull(&app, &sha256(&blob)).await.expect("pulled"), blob);
    assert_sound(&world).await;
}

#[tokio::test]
async fn a_digest_of_an_algorithm_that_was_not_announced_is_verified_all_the_same() {
    let world = world();
    let one = world.instance(1);
    let app = repo("alice/app");
    for (length, announced) in [(200_000, None), (200_000, Some(Algorithm::Sha512)), (10, None)] {
        let blob = bytes(length, 9);
        let new = || NewUpload { algorithm: announced, ..NewUpload::default() };
        let right = Hasher::digest(Algorithm::Sha512, &blob);
        let wrong = Hasher::digest(Algorithm::Sha512, b"other");
        let begun = one.catalog.begin_upload(&app, new()).await.expect("begun");
        let id = begun.id().clone();
        let mut writer = begun.write_at(0, None, 1).await.expect("a writer");
        writer.write(blob.clone()).await.expect("written");
        writer.end().await.expect("ended");
        let session = one.catalog.upload(&app, &id).await.expect("a session");
        let refused = session.finish(&wrong).await.expect_err("another digest");
        assert!(matches!(refused, CatalogError::DigestMismatch { .. }));
        let session = one.catalog.upload(&app, &id).await.expect("still there");
        session.finish(&right).await.expect("finished");
        assert_eq!(one.pull(&app, &right).await.expect("pulled"), blob);
    }
}

#[tokio::test]
async fn a_blob_that_is_pushed_by_many_at_once_is_stored_once() {
    let world = world();
    let (one, two) = two(&world);
    let blob = bytes(150_000, 5);
    let mut pushes = tokio::task::JoinSet::new();
    for n in 0..8 {
        let instance = if n % 2 == 0 { one.clone() } else { two.clone() };
        let (to, blob) = (repo(&format!("owner{}/r{n}", n % 3)), blob.clone());
        pushes.spawn(async move { instance.push(&to, &blob, 50_000).await });
    }
    pushes
        .join_all()
        .await
        .into_iter()
        .for_each(|pushed| assert_eq!(pushed.expect("pushed"), sha256(&bytes(150_000, 5))));
    // One for each half.
    assert_eq!(parts(&world).await, 2);
    for n in 0..3 {
        let usage = one.catalog.usage(&owner(&format!("owner{n}"))).await.expect("usage");
        assert_eq!((usage.used, usage.reserved, usage.blobs), (150_000, 0, 1));
    }
    assert_sound(&world).await;
}

#[tokio::test]
async fn a_cancelled_session_leaves_nothing_and_an_idle_one_expires() {
    let world = world();
    let one = world.instance(1);
    let app = repo("alice/app");
    // Only where there is a limit is anything held for a session.
    one.catalog.set_quota(&owner("alice"), Quota::Bytes(1 << 30)).await.expect("set");
    for cancel in [true, false] {
        let begun = one.catalog.begin_upload(&app, NewUpload::default()).await.expect("begun");
        let id = begun.id().clone();
        let mut writer = begun.write_at(0, None, 1).await.expect("a writer");
        writer.write(bytes(200_000, 1)).await.expect("written");
        let session = writer.end().await.expect("ended");
        assert!(one.catalog.usage(&owner("alice")).await.expect("usage").reserved >= 200_000);
        if cancel {
            session.cancel().await.expect("cancelled");
        } else {
            world.clock.advance(DAY + Duration::from_secs(1));
            one.catalog.upload(&app, &id).await.expect_err("expired");
            assert_eq!(one.collect().await.expect("collected").uploads, 1);
        }
        assert_eq!(one.catalog.usage(&owner("alice")).await.expect("usage").reserved, 0);
        assert_eq!(parts(&world).await, 0);
        one.catalog.upload(&app, &id).await.expect_err("gone");
    }
}

#[tokio::test]
async fn a_session_belongs_to_its_repository() {
    let world = world();
    let one = world.instance(1);
    let begun = one.catalog.begin_upload(&repo("a/b"), NewUpload::default()).await.expect("begun");
    let other = one.catalog.upload(&repo("a/c"), begun.id()).await.expect_err("another's");
    assert!(matches!(other, CatalogError::NotFound { what: What::Upload, .. }));
}

#[tokio::test]
async fn a_mount_charges_its_owner_and_fails_where_nothing_is() {
    let world = world();
    let one = world.instance(1);
    let (from, to) = (repo("alice/app"), repo("bob/app"));
    let blob = bytes(100_000, 1);
    let digest = one.push(&from, &blob, 100_000).await.expect("pushed");
    assert_eq!(one.catalog.mount(&to, &from, &digest).await.expect("mounted").size, 100_000);
    assert_eq!(one.catalog.usage(&owner("bob")).await.expect("usage").used, 100_000);
    one.catalog.delete_blob(&from, &digest).await.expect("deleted");
    assert_eq!(one.pull(&to, &digest).await.expect("pulled"), blob);
    let missing = one.catalog.mount(&to, &from, &digest).await.expect_err("not there any more");
    assert!(matches!(missing, CatalogError::NotFound { what: What::Blob, .. }));
    assert_sound(&world).await;
}

#[tokio::test]
async fn a_range_is_read_exactly_and_one_beyond_the_end_is_refused() {
    use futures::TryStreamExt;
    let world = world();
    let one = world.instance(1);
    let app = repo("alice/app");
    for length in [1000, 250_000] {
        let blob = bytes(length, 4);
        let digest = one.push(&app, &blob, 60_000).await.expect("pushed");
        for range in [0..1, 500..999, 0..length as u64, 77..77, length as u64 - 1..length as u64] {
            let options = ReadOptions { piece_bytes: 7_000, ahead: 3 };
            let read = one.catalog.read_blob(&app, &digest, Some(range.clone()), options).await;
            let pieces: Vec<Bytes> = read.expect("a reader").try_collect().await.expect("read");
            assert_eq!(pieces.concat(), blob[range.start as usize..range.end as usize]);
        }
        let beyond = Some(0..length as u64 + 1);
        let refused = one.catalog.read_blob(&app, &digest, beyond, ReadOptions::default()).await;
        assert!(matches!(refused, Err(CatalogError::Invalid(_))));
    }
}

#[tokio::test]
async fn sessions_of_one_owner_are_bounded() {
    let world = world_with(yadokari_catalog::Options { uploads_max: 2, ..Default::default() });
    let one = world.instance(1);
    let app = repo("alice/app");
    let first = one.catalog.begin_upload(&app, NewUpload::default()).await.expect("begun");
    one.catalog.begin_upload(&app, NewUpload::default()).await.expect("begun");
    let refused = one.catalog.begin_upload(&app, NewUpload::default()).await.expect_err("enough");
    assert!(matches!(refused, CatalogError::Limit { limit: 2, .. }));
    first.cancel().await.expect("cancelled");
    one.catalog.begin_upload(&app, NewUpload::default()).await.expect("begun");
}
