//! Quotas, the change counter, collection, checks.

use std::time::Duration;

use object_store::ObjectStoreExt;
use yadokari_catalog::{
    CatalogError, CollectOptions, ManifestLinks, NewUpload, Options, Quota, Reference,
};

use super::*;

#[tokio::test]
async fn parallel_pushes_through_two_instances_never_exceed_the_quota() {
    let world = world_with(Options { default_quota: Some(400_000), ..Default::default() });
    let (one, two) = two(&world);
    let mut pushes = tokio::task::JoinSet::new();
    for n in 0..12u8 {
        let instance = if n % 2 == 0 { one.clone() } else { two.clone() };
        let to = repo(&format!("alice/r{n}"));
        pushes.spawn(async move { instance.push(&to, &bytes(100_000, n), 100_000).await });
    }
    let mut done = 0;
    for pushed in pushes.join_all().await {
        match pushed {
            Ok(_) => done += 1,
            Err(CatalogError::OverQuota { limit, .. }) => assert_eq!(limit, 400_000),
            Err(error) => panic!("{error}"),
        }
        let usage = one.catalog.usage(&owner("alice")).await.expect("usage");
        assert!(usage.used + usage.reserved <= 400_000, "{usage:?}");
    }
    assert!(done <= 4);
    world.clock.advance(2 * DAY);
    one.collect().await.expect("collected");
    let usage = one.catalog.usage(&owner("alice")).await.expect("usage");
    assert_eq!((usage.used, usage.reserved), (done * 100_000, 0));
    assert_sound(&world).await;
}

#[tokio::test]
async fn what_cannot_fit_is_refused_before_it_is_sent_and_a_quota_can_be_filled_to_the_byte() {
    let world = world();
    let one = world.instance(1);
    let (alice, app) = (owner("alice"), repo("alice/app"));
    one.catalog.set_quota(&alice, Quota::Bytes(150_000)).await.expect("set");
    let new = |size| NewUpload { size: Some(size), ..NewUpload::default() };
    let refused = one.catalog.begin_upload(&app, new(150_001)).await.expect_err("too long");
    match refused {
        CatalogError::OverQuota { used, limit, requested, .. } => {
            assert_eq!((used, limit, requested), (0, 150_000, 150_001));
        }
        other => panic!("{other}"),
    }
    let held = one.catalog.begin_upload(&app, new(100_000)).await.expect("begun");
    one.catalog.begin_upload(&app, new(50_001)).await.expect_err("the rest is less");
    held.cancel().await.expect("cancelled");
    one.push(&app, &bytes(150_000, 1), 70_000).await.expect("exactly fits");
    one.push(&app, &bytes(1, 2), 1).await.expect_err("full");
    one.push(&repo("alice/other"), &bytes(150_000, 1), 70_000).await.expect_err("needs room first");
    one.catalog.mount(&repo("alice/other"), &app, &sha256(&bytes(150_000, 1))).await.expect("free");
    one.catalog.set_quota(&alice, Quota::Unlimited).await.expect("set");
    one.push(&app, &bytes(1, 2), 1).await.expect("no limit");
    assert_sound(&world).await;
}

#[tokio::test]
async fn the_counter_grows_after_changes_and_says_when_some_are_under_way() {
    let world = world();
    let (one, two) = two(&world);
    let (alice, app) = (owner("alice"), repo("alice/app"));
    let look = || async { two.catalog.changes(&alice).await.expect("changes") };
    assert_eq!((look().await.counter, look().await.open), (0, false));
    one.catalog.put_manifest(&app, manifest("1", Default::default(), &["t"])).await.expect("put");
    assert!(look().await.open);
    one.catalog.flush().await.expect("flushed");
    let first = look().await;
    assert!(first.counter > 0 && !first.open);
    one.catalog.delete_tag(&app, &tag("t")).await.expect("deleted");
    assert!(look().await.open);
    one.catalog.flush().await.expect("flushed");
    assert!(look().await.counter > first.counter && !look().await.open);
}

#[tokio::test]
async fn a_note_of_a_dead_instance_is_taken_away_and_counted() {
    let world = world();
    let (one, two) = two(&world);
    let app = repo("alice/app");
    one.catalog.put_manifest(&app, manifest("1", Default::default(), &["t"])).await.expect("put");
    drop(one);
    world.clock.advance(Duration::from_secs(3600));
    let report = two.collect().await.expect("collected");
    assert_eq!(report.intents, 1);
    let changes = two.catalog.changes(&owner("alice")).await.expect("changes");
    assert!(changes.counter > 0 && !changes.open);
    assert_sound(&world).await;
}

#[tokio::test]
async fn what_was_deleted_goes_in_two_rounds_a_grace_apart() {
    let world = world();
    let one = world.instance(1);
    let app = repo("alice/app");
    let digest = one.push(&app, &bytes(200_000, 1), 100_000).await.expect("pushed");
    one.catalog.delete_blob(&app, &digest).await.expect("deleted");
    let dry = CollectOptions { dry_run: true, pace: Duration::ZERO, sweep: true };
    assert_eq!(one.catalog.collect(&dry).await.expect("looked").condemned, 1);
    assert_eq!(one.collect().await.expect("collected").condemned, 1);
    world.clock.advance(DAY);
    let early = one.collect().await.expect("collected");
    assert_eq!((early.condemned, early.removed), (0, 0));
    world.clock.advance(DAY);
    assert_eq!(one.catalog.collect(&dry).await.expect("looked").removed, 1);
    assert!(parts(&world).await > 0);
    let late = one.collect().await.expect("collected");
    assert_eq!((late.removed, late.removed_bytes), (1, 200_000));
    assert_eq!(parts(&world).await, 0);
    let again = one.push(&app, &bytes(200_000, 1), 100_000).await.expect("pushed again");
    assert_eq!(one.pull(&app, &again).await.expect("pulled"), bytes(200_000, 1));
    assert_sound(&world).await;
}

#[tokio::test]
async fn an_untagged_image_goes_with_its_blobs_and_its_signature() {
    let world = world();
    let one = world.instance(1);
    let app = repo("alice/app");
    let layer = one.push(&app, &bytes(100, 1), 100).await.expect("pushed");
    let image = |text: &str, layers: Vec<Digest>, subject| {
        let links = ManifestLinks { layers, subject, ..Default::default() };
        manifest(text, links, if subject.is_none() { &["t"] } else { &[] })
    };
    let first = image("1", vec![layer], None);
    one.catalog.put_manifest(&app, first.clone()).await.expect("put");
    let signature = image("signature", vec![], Some(first.digest));
    one.catalog.put_manifest(&app, signature).await.expect("put");
    one.catalog.put_manifest(&app, image("2", vec![], None)).await.expect("put");
    world.clock.advance(13 * DAY);
    assert_eq!(one.collect().await.expect("collected").manifests, 0);
    let found = one.catalog.repository(&app).await.expect("a summary");
    assert_eq!((found.manifests, found.untagged, found.tags, found.blobs), (3, 1, 1, 1));
    world.clock.advance(DAY);
    assert_eq!(one.collect().await.expect("collected").manifests, 2);
    one.catalog.manifest(&app, &Reference::Digest(first.digest)).await.expect_err("gone");
    world.clock.advance(3 * DAY);
    let next = one.collect().await.expect("collected");
    assert_eq!(next.unlinked, 1);
    assert_eq!(one.catalog.usage(&owner("alice")).await.expect("usage").used, 1);
    assert_sound(&world).await;
}

#[tokio::test]
async fn asking_for_an_untagged_manifest_that_is_nearly_due_keeps_it() {
    let world = world();
    let one = world.instance(1);
    let app = repo("alice/app");
    let new = manifest("1", Default::default(), &[]);
    one.catalog.put_manifest(&app, new.clone()).await.expect("put");
    world.clock.advance(13 * DAY);
    let reference = Reference::Digest(new.digest);
    one.catalog.manifest_info(&app, &reference).await.expect("there");
    world.clock.advance(2 * DAY);
    assert_eq!(one.collect().await.expect("collected").manifests, 0);
    world.clock.advance(20 * DAY);
    assert_eq!(one.collect().await.expect("collected").manifests, 1);
}

#[tokio::test]
async fn collection_is_done_by_one_instance_at_a_time_and_not_too_often() {
    let world = world();
    let (one, two) = two(&world);
    let options = CollectOptions::default();
    let hour = Duration::from_secs(3600);
    assert!(!one.catalog.collect_if_due(&options, hour).await.expect("collected").elsewhere);
    assert!(two.catalog.collect_if_due(&options, hour).await.expect("not due").elsewhere);
    world.clock.advance(hour);
    assert!(!two.catalog.collect_if_due(&options, hour).await.expect("collected").elsewhere);
}

#[tokio::test]
async fn a_check_finds_what_is_missing_and_puts_a_ledger_right() {
    let world = world();
    let one = world.instance(1);
    let app = repo("alice/app");
    let digest = one.push(&app, &bytes(200_000, 1), 100_000).await.expect("pushed");
    one.push(&app, &bytes(10, 2), 10).await.expect("pushed");
    one.catalog.flush().await.expect("flushed");
    world.store().meta.delete(&"owners/alice/ledger".into()).await.expect("deleted");
    let fresh = world.instance(2);
    let found = fresh.catalog.fsck(false, false).await.expect("checked");
    assert_eq!(found.findings.len(), 2, "{found:#?}");
    let repaired = fresh.catalog.fsck(true, false).await.expect("repaired");
    assert!(repaired.findings.iter().all(|finding| finding.repaired));
    let usage = fresh.catalog.usage(&owner("alice")).await.expect("usage");
    assert_eq!((usage.used, usage.blobs), (200_010, 2));
    assert_sound(&world).await;
    let hex = digest.hex();
    let record = format!("blobs/sha256/{}/{hex}", &hex[..2]);
    world.store().meta.delete(&record.as_str().into()).await.expect("deleted");
    let found = fresh.catalog.fsck(true, false).await.expect("checked");
    assert_eq!(found.findings.len(), 1);
    assert!(found.findings[0].serious && !found.findings[0].repaired);
}

#[tokio::test]
async fn strays_are_swept_after_the_grace() {
    let world = world();
    let one = world.instance(1);
    let app = repo("alice/app");
    one.push(&app, &bytes(200_000, 1), 100_000).await.expect("pushed");
    let kept = parts(&world).await;
    let stray = format!("parts/{}/00000000-00000000", "ab".repeat(16));
    world.store().data.put(&stray.as_str().into(), "x".into()).await.expect("put");
    assert_eq!(one.collect().await.expect("collected").strays, 0);
    world.clock.advance(3 * DAY);
    assert_eq!(one.collect().await.expect("collected").strays, 1);
    assert_eq!(parts(&world).await, kept);
    assert_sound(&world).await;
}
